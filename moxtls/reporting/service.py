# -*- test-case-name: tests.reporting.test_service -*-
"""
After each day or hour, reports to whom it concerns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from moxtls.calendar import DAY, HOUR
from moxtls.domain import Domain
from moxtls.interfaces import ILeases, IReportArchive, IReportSource, IReportSubmitter
from moxtls.outages import logUnlessOutage
from moxtls.reporting.crew import TaskGroup, ignoreCancelled
from moxtls.reporting.letters import ReportComposer
from moxtls.reporting.outbox import Outbox
from moxtls.reporting.owed import pendingIn, refusals
from moxtls.reporting.round import Lease, LeaseLost, ReportRun, RunOptions
from moxtls.reporting.schedule import MAX_AGE, MAX_JITTER, WINDOWS, untilTick
from moxtls.reporting.suppression import BOUNCE_WINDOW
from moxtls.reporting.values import Draft, NoReport, ReportPeriod

#: What is known of a report keeps it from being made again while there may be
#: data about its day, and tells where a DSN belongs.
MIN_RETENTION = max(MAX_AGE.values()) + BOUNCE_WINDOW


class ReportsBusy(Exception):
    """
    Another node is sending reports just now.
    """


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """
    @ivar node: The name of this node, and of this worker if there are
        several: each has a queue of its own.
    @ivar window: Over how many seconds reports are spread; C{None} for what
        their kind has in L{WINDOWS}.
    @ivar kept: For how many seconds sent reports are kept; at least
        L{MIN_RETENTION}.
    """

    node: str
    window: float | None = None
    kept: float = 30 * DAY


class ReportService(Service):
    """
    Sends what one source owes: once at the start what is left over, then each
    hour what has become due or couldn't be done before.

    Of all nodes that share the stores, one at a time does it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        source: IReportSource,
        archive: IReportArchive,
        leases: ILeases,
        writer: ReportComposer,
        submitter: IReportSubmitter,
        jitter: Callable[[], float],
        routine: ReportOptions,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        @param jitter: Chance, at least 0 and less than 1.
        @param reactor: Measures how long others take to answer; C{clock} if not
            given.
        """
        self._clock = clock
        self._reactor = reactor or clock
        self._source = source
        self._archive = archive
        self._writer = writer
        self._jitter = jitter
        self._routine = routine
        window = routine.window
        self._window = WINDOWS[source.kind] if window is None else window
        self._outbox = Outbox(clock, archive, submitter, source.kind, routine.node)
        name = f"{source.kind} reports"
        self._lease = Lease(clock, leases, name, routine.node)
        self._turn = DeferredLock()
        self._inFlight = TaskGroup(1)
        self._scheduled: Deferred[None] | None = None
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._firstTick: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        wait = untilTick(self._clock.seconds())
        self._firstTick = self._clock.callLater(wait, self._startLoop)
        self._begin(0)

    def stopService(self) -> Deferred[None]:
        """
        Break off whatever is going on; nothing is lost by it.

        @return: Fires once nothing is in flight.
        """
        super().stopService()
        if self._firstTick is not None:
            self._firstTick.cancel()
            self._firstTick = None
        if self._loop.running:
            self._loop.stop()
        return self._inFlight.abandon()

    def runNow(
        self, domain: Domain | None = None, early: bool = False
    ) -> Deferred[int]:
        """
        Send what is owed at once, without spreading.  A round that is going
        on is broken off: this one does the same faster.

        @param domain: Report to this one only.
        @param early: Report also on what isn't over yet, up to now; what
            happens later goes into another report.

        @return: Fires with how many reports were composed.  Fails with
            L{ReportsBusy} if it is another node's turn.
        """
        if self._scheduled is not None:
            self._scheduled.cancel()
        plan = RunOptions(self._clock.seconds(), 0, domain, early)
        return self._inFlight.begin(self._urgent(plan))

    def pending(self, early: bool = False) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        Fires with what may be owed, as L{pendingIn} has it.

        @param early: Also of what isn't over yet.
        """
        return Deferred.fromCoroutine(self._pending(None, early))

    def owed(
        self, domain: Domain | None = None, early: bool = False
    ) -> Deferred[dict[ReportPeriod, str]]:
        """
        Fires with what C{pending} has, with the reason why it won't be sent;
        with an empty one if it will.
        """
        return Deferred.fromCoroutine(self._owed(domain, early))

    def preview(
        self, domain: Domain, early: bool = False
    ) -> Deferred[tuple[tuple[ReportPeriod, Draft | NoReport], ...]]:
        """
        Fires with what would be reported to C{domain} if it were sent now;
        nothing is sent, and nothing changes.

        @param early: As in C{runNow}.
        """
        return Deferred.fromCoroutine(self._preview(domain, early))

    def _startLoop(self) -> None:
        self._firstTick = None
        self._loop.start(HOUR)

    def _tick(self) -> None:
        # Not returned: a loop that waits for a round would miss ticks, and
        # one that is told of a failure would end.
        self._begin(self._jitter() * MAX_JITTER)

    def _begin(self, wait: float) -> None:
        if self._scheduled is not None:
            return
        scheduled = self._inFlight.begin(ignoreCancelled(self._regular(wait)))
        if not scheduled.called:
            self._scheduled = scheduled
            scheduled.addBoth(self._ended)

    def _ended(self, result: object) -> None:
        self._scheduled = None

    async def _regular(self, wait: float) -> None:
        try:
            await deferLater(self._clock, wait)
            now = self._clock.seconds()
            await self._exclusively(RunOptions(now, self._window))
        except (ReportsBusy, LeaseLost):
            self.log.info("Another node sends {kind} reports", kind=self._source.kind)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "Sending {kind} reports", kind=self._source.kind)

    async def _urgent(self, plan: RunOptions) -> int:
        try:
            return await self._exclusively(plan)
        except LeaseLost:
            raise ReportsBusy from None

    async def _exclusively(self, plan: RunOptions) -> int:
        """
        Run a round, the only one of this node and of all.
        """
        await self._turn.acquire()
        try:
            await self._outbox.empty()
            if not await self._lease.acquire():
                raise ReportsBusy
            try:
                return await self._round(plan)
            finally:
                await self._lease.release()
        finally:
            self._turn.release()

    async def _round(self, plan: RunOptions) -> int:
        now = self._clock.seconds()
        await self._source.prune(now)
        await self._archive.prune(now - max(self._routine.kept, MIN_RETENTION))
        if plan.early:
            await self._source.close(plan.domain, now)
        round = ReportRun(
            self._clock,
            self._source,
            self._writer,
            self._outbox,
            self._lease,
            plan,
            self._reactor,
        )
        return await round.run()

    async def _owed(
        self, domain: Domain | None, early: bool
    ) -> dict[ReportPeriod, str]:
        return await refusals(self._source, await self._pending(domain, early))

    async def _pending(
        self, domain: Domain | None, early: bool
    ) -> tuple[ReportPeriod, ...]:
        now = self._clock.seconds()
        return await pendingIn(self._source, now, domain, early)

    async def _preview(
        self, domain: Domain, early: bool
    ) -> tuple[tuple[ReportPeriod, Draft | NoReport], ...]:
        subjects = await self._pending(domain, early)
        return tuple([(each, await self._source.draft(each)) for each in subjects])
