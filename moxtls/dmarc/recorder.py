# -*- test-case-name: tests.dmarc.test_recorder -*-
"""
Puts what DMARC made of mail where reports will find it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from moxtls.dmarc.evaluations import evaluationOf
from moxtls.dmarc.values import Evaluation, Judgement
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, IVerdictObserver

_HOUR = 3600
#: Seconds from one write to the next: who sends a lot sends what is evaluated
#: alike, and each write would compete with his mail for the disk.
PAUSE = 0.05


@implementer(IVerdictObserver)
class EvaluationRecorder:
    """
    Records each evaluation under the hour in which it was made.

    One that comes alone is written at once.  What comes soon after another is
    gathered, and then written together, equal ones as one.
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
        self._alarm: IDelayedCall | None = None
        self._gathered: dict[tuple[int, Evaluation], list[Deferred[None]]] = {}

    def verdictGiven(self, judgement: Judgement) -> Deferred[None]:
        evaluation = evaluationOf(judgement) if self._enabled else None
        if evaluation is None or evaluation.row.envelopeTo in self._silent:
            return succeed(None)
        hour = int(self._clock.seconds()) // _HOUR * _HOUR
        if self._alarm is None:
            self._alarm = self._clock.callLater(PAUSE, self._paused)
            return self._store.record(hour, evaluation)
        recorded: Deferred[None] = Deferred()
        self._gathered.setdefault((hour, evaluation), []).append(recorded)
        return recorded

    def flush(self) -> None:
        """
        Write what was gathered: there won't be more.
        """
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        self._write()

    def _paused(self) -> None:
        self._alarm = None
        if self._gathered:
            self._alarm = self._clock.callLater(PAUSE, self._paused)
            self._write()

    def _write(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for (hour, evaluation), waiting in gathered.items():
            recorded = self._store.record(hour, evaluation, len(waiting))
            recorded.addBoth(_tell, waiting)


def _tell(result: Any, waiting: Iterable[Deferred[None]]) -> None:
    """
    @param result: C{None} or a failure.
    """
    for each in waiting:
        each.callback(result)
