# -*- test-case-name: tests.dmarc.test_recorder -*-
"""
Puts what DMARC made of mail where reports will find it.
"""

from __future__ import annotations

from collections.abc import Set

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.dmarc.evaluations import evaluationOf
from moxtls.dmarc.values import Judgement
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, IVerdictObserver

_HOUR = 3600


@implementer(IVerdictObserver)
class EvaluationRecorder:
    """
    Records each evaluation under the hour in which it was made.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: IEvaluationStore,
        enabled: bool = True,
        silent: Set[Domain] = frozenset(),
    ) -> None:
        """
        @param enabled: If not, nothing is recorded.
        @param silent: Domains of ours; about mail to them, nothing is.
        """
        self._clock = clock
        self._store = store
        self._enabled = enabled
        self._silent = frozenset(domain.ascii for domain in silent)

    def verdictGiven(self, judgement: Judgement) -> Deferred[None]:
        evaluation = evaluationOf(judgement) if self._enabled else None
        if evaluation is None or evaluation.row.envelopeTo in self._silent:
            return succeed(None)
        hour = int(self._clock.seconds()) // _HOUR * _HOUR
        return self._store.record(hour, evaluation)
