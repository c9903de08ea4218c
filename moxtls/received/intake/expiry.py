# -*- test-case-name: tests.received.intake.test_expiry -*-
"""
Removes received reports once they have been kept for as long as configured, each hour,
on one node at a time, in small steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from moxtls.config import ReceivedReports
from moxtls.dates import DAY, HOUR
from moxtls.outages import logUnlessOutage
from moxtls.received.interfaces import IListenerHistory, IReceivedReportStore
from moxtls.received.types import ReceivedKind, dayOf
from moxtls.reporting.service import Lease, LeaseLost
from moxtls.tasks import TaskGroup, ignoreCancelled

#: Reports and rows that are removed in one step, a fraction of a second, and the
#: seconds between two steps, in which others use the database.
STEP = 2000
PAUSE = 0.5
#: The name of the lease of the node that does it.
NAME = "expiry of received reports"


@dataclass(frozen=True, slots=True)
class Retention:
    """
    The days for which reports are kept; those that are kept for ever are missing.

    @ivar days: By kind; C{None} stands for refused reports.
    @ivar history: Of the events of listeners; C{None} for ever.
    """

    days: Mapping[ReceivedKind | None, int]
    history: int | None = None


def retention(config: ReceivedReports) -> Retention:
    """
    The retention that is configured.
    """
    days = {
        ReceivedKind.TLS: config.keepTLSDays,
        ReceivedKind.DMARC: config.keepDMARCDays,
        ReceivedKind.FAILURE: config.keepFailureDays,
        None: config.keepRefusedDays,
    }
    kept = {kind: count for kind, count in days.items() if count}
    return Retention(kept, kept.get(ReceivedKind.TLS))


class ExpiryService(Service):
    """
    Removes what has expired at the start, and each hour.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: IReceivedReportStore,
        history: IListenerHistory,
        lease: Lease,
        retention: Retention,
    ) -> None:
        """
        @param lease: With the name L{NAME}.
        """
        self._clock = clock
        self._store = store
        self._history = history
        self._lease = lease
        self._retention = retention
        self._tasks = TaskGroup(1)
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def startService(self) -> None:
        super().startService()
        self._loop.start(HOUR)

    def stopService(self) -> Deferred[None]:
        """
        @return: Fires once no step is in progress.
        """
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return self._tasks.cancel()

    def _tick(self) -> None:
        # Not returned: LoopingCall would end after a failure.
        if not len(self._tasks):
            self._tasks.begin(ignoreCancelled(self._run()))

    async def _run(self) -> None:
        try:
            if await self._lease.acquire():
                try:
                    await self._expire()
                finally:
                    await self._lease.release()
        except LeaseLost:
            self.log.info("received reports are expired by another node")
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "expiry of received reports failed")

    async def _expire(self) -> None:
        now = self._clock.seconds()
        for kind, days in self._retention.days.items():
            while await self._store.expire(kind, dayOf(now) - days, STEP):
                await self._lease.prolong()
                await deferLater(self._clock, PAUSE)
        if self._retention.history is not None:
            await self._history.expireHistory(now - self._retention.history * DAY)
