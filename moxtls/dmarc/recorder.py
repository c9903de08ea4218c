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
from moxtls.dmarc.values import Evaluation, VerdictEvent
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, IVerdictObserver
from moxtls.outages import Backlog

_HOUR = 3600
#: The hour, and what was evaluated in it.
_Entry = tuple[int, Evaluation]

#: Seconds from one write to the next: who sends a lot sends what is evaluated
#: alike, and each write would compete with his mail for the disk.
PAUSE = 0.05


@implementer(IVerdictObserver)
class EvaluationRecorder:
    """
    Records each evaluation under the hour in which it was made.

    One that comes alone is written at once.  What comes soon after another is
    gathered, and then written together, equal ones as one.  Where the store is
    unavailable, they wait for it, as many as there is room for.
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
        self._gathered: dict[_Entry, list[Deferred[None]]] = {}
        self._backlog = Backlog(clock, "evaluations", self._record)

    def verdictGiven(self, judgement: VerdictEvent) -> Deferred[None]:
        evaluation = evaluationOf(judgement) if self._enabled else None
        if evaluation is None or evaluation.row.envelopeTo in self._silent:
            return succeed(None)
        hour = int(self._clock.seconds()) // _HOUR * _HOUR
        if self._alarm is None:
            self._alarm = self._clock.callLater(PAUSE, self._paused)
            return self._backlog.record((hour, evaluation))
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

    def stop(self) -> Deferred[None]:
        """
        Fires once all that waited for the store is written, or can't be.
        """
        self.flush()
        return Deferred.fromCoroutine(self._backlog.stop())

    def _paused(self) -> None:
        self._alarm = None
        if self._gathered:
            self._alarm = self._clock.callLater(PAUSE, self._paused)
            self._write()

    def _write(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for entry, waiting in gathered.items():
            self._backlog.record(entry, len(waiting)).addBoth(_tell, waiting)

    def _record(self, entry: _Entry, count: int) -> Deferred[None]:
        return self._store.record(*entry, count)


def _tell(result: Any, waiting: Iterable[Deferred[None]]) -> None:
    """
    @param result: C{None} or a failure.
    """
    for each in waiting:
        each.callback(result)
