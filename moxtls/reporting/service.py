# -*- test-case-name: tests.reporting.test_service -*-
"""
After each day or hour, reports to whom it concerns.

One pass over all reports that are owed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from moxtls.dates import DAY, HOUR, MINUTE, MonotonicTime
from moxtls.domain import Domain
from moxtls.interfaces import ILeases, IReportArchive, IReportSource, IReportSubmitter
from moxtls.outages import logUnlessOutage
from moxtls.reporting.compose import ReportComposer
from moxtls.reporting.handover import Outbox
from moxtls.reporting.owed import pendingPeriods, refusals
from moxtls.reporting.schedule import MAX_AGE, MAX_JITTER, WINDOWS, spacing, untilTick
from moxtls.reporting.suppression import BOUNCE_WINDOW
from moxtls.reporting.types import NoReport, ReportDraft, ReportPeriod, Retention
from moxtls.tasks import TaskGroup, ignoreCancelled

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
        composer: ReportComposer,
        submitter: IReportSubmitter,
        jitter: Callable[[], float],
        options: ReportOptions,
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
        self._composer = composer
        self._jitter = jitter
        self._options = options
        window = options.window
        self._window = WINDOWS[source.kind] if window is None else window
        self._outbox = Outbox(clock, archive, submitter, source.kind, options.node)
        name = f"{source.kind} reports"
        self._lease = Lease(clock, leases, name, options.node)
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
        return self._inFlight.cancel()

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
        Fires with what may be owed, as L{pendingPeriods} has it.

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
    ) -> Deferred[tuple[tuple[ReportPeriod, ReportDraft | NoReport], ...]]:
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
                return await self._run(plan)
            finally:
                await self._lease.release()
        finally:
            self._turn.release()

    async def _run(self, plan: RunOptions) -> int:
        now = self._clock.seconds()
        await self._source.prune(now)
        await self._archive.prune(now - max(self._options.kept, MIN_RETENTION))
        if plan.early:
            await self._source.close(plan.domain, now)
        run = ReportRun(
            self._clock,
            self._source,
            self._composer,
            self._outbox,
            self._lease,
            plan,
            self._reactor,
        )
        return await run.run()

    async def _owed(
        self, domain: Domain | None, early: bool
    ) -> dict[ReportPeriod, str]:
        return await refusals(self._source, await self._pending(domain, early))

    async def _pending(
        self, domain: Domain | None, early: bool
    ) -> tuple[ReportPeriod, ...]:
        now = self._clock.seconds()
        return await pendingPeriods(self._source, now, domain, early)

    async def _preview(
        self, domain: Domain, early: bool
    ) -> tuple[tuple[ReportPeriod, ReportDraft | NoReport], ...]:
        periods = await self._pending(domain, early)
        return tuple([(each, await self._source.draft(each)) for each in periods])


#: Periods in memory at a time.
PAGE_SIZE = 200
#: Reports being composed at a time: slow name servers of some domains must
#: not hold up the others.
MAX_AT_ONCE = 16
#: For looking up where a report goes, and composing it.
MAX_DRAFT_TIME = 2 * MINUTE
#: Longer than a round can be without a report, which is when it is prolonged.
LEASE = 20 * MINUTE
_PROLONG = LEASE / 4


class LeaseLost(Exception):
    """
    Another node thinks that this one is gone, and does its work.
    """


@dataclass(frozen=True, slots=True)
class RunOptions:
    """
    @ivar asOf: The time, as far as it decides what is owed.
    @ivar window: Over how many seconds to spread; 0 for not at all.
    @ivar domain: To report to this one only.
    @ivar early: Whether to close first what isn't over yet.
    """

    asOf: float
    window: float
    domain: Domain | None = None
    early: bool = False


class ReportRun:
    """
    Reports on every period of a source, phase by phase.

    Whatever fails for one period, the others are done; its data stays where
    it is for the next round.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        source: IReportSource,
        composer: ReportComposer,
        outbox: Outbox,
        lease: Lease,
        plan: RunOptions,
        reactor: IReactorTime,
    ) -> None:
        """
        @param reactor: Measures how long it takes to make a report.
        """
        self._clock = clock
        self._reactor = reactor
        self._source = source
        self._composer = composer
        self._outbox = outbox
        self._lease = lease
        self._plan = plan
        self._elapsed = MonotonicTime()
        self._started = self._elapsed.at(clock.seconds())
        self._gap = 0.0
        self._begun = 0
        self._composed = 0
        self._handedOver = 0

    async def run(self) -> int:
        """
        @return: How many reports were composed.

        @raise LeaseLost: It was broken off.
        """
        if self._plan.window:
            self._gap = spacing(await self._count(), self._plan.window)
        for phase in range(self._source.phases):
            await self._phase(phase)
            await self._outbox.empty()
        return self._composed

    async def _count(self) -> int:
        phases = range(self._source.phases)
        return sum([await self._source.count(each, self._plan.asOf) for each in phases])

    async def _phase(self, phase: int) -> None:
        tasks = TaskGroup(MAX_AT_ONCE)
        try:
            await self._pages(phase, tasks)
            await tasks.finished()
        finally:
            await tasks.cancel()

    async def _pages(self, phase: int, tasks: TaskGroup) -> None:
        after: ReportPeriod | None = None
        while True:
            page = await self._source.periods(phase, self._plan.asOf, after, PAGE_SIZE)
            for period in page:
                if self._plan.domain in (None, period.domain):
                    await self._turn(period, tasks)
            if not page:
                return
            after = page[-1]

    async def _turn(self, period: ReportPeriod, tasks: TaskGroup) -> None:
        if period.sendable:
            due = self._started + self._begun * self._gap
            self._begun += 1
            wait = due - self._elapsed.at(self._clock.seconds())
            if wait > 0:
                await deferLater(self._clock, wait)
        await self._lease.prolong()
        await tasks.room()
        tasks.begin(ignoreCancelled(self._attempt(period)))

    async def _attempt(self, period: ReportPeriod) -> None:
        kind, domain = str(self._source.kind), str(period.domain)
        try:
            await self._report(period)
        except CancelledError:
            raise
        except TimeoutError:
            self.log.warn(
                "{kind} report to {domain}: took too long", kind=kind, domain=domain
            )
        except Exception:
            logUnlessOutage(
                self.log, "{kind} report to {domain}", kind=kind, domain=domain
            )

    async def _report(self, period: ReportPeriod) -> None:
        if not period.sendable:
            await self._source.settle(period, (), ())
            return
        drafting = self._source.draft(period)
        draft = await drafting.addTimeout(MAX_DRAFT_TIME, self._reactor)
        if isinstance(draft, NoReport):
            await self._noReport(draft)
            return
        await self._file(draft)
        # Without a gap, several at a time: that takes less of the disk.
        if self._gap or self._composed >= self._handedOver + MAX_AT_ONCE:
            self._handedOver = self._composed
            await self._outbox.empty()

    async def _file(self, draft: ReportDraft) -> None:
        period = draft.period
        reports = await self._composer.compose(draft)
        # In two steps: others add to it while this one waits.
        new = await self._source.settle(period, draft.destinations, reports)
        self._composed += new
        if not new:
            self.log.warn(
                "{kind} report to {domain} about {day} was made before; what came in"
                " since isn't reported. Do the nodes' clocks agree?",
                kind=str(self._source.kind),
                domain=str(period.domain),
                day=period.day,
            )

    async def _noReport(self, found: NoReport) -> None:
        self.log.info(
            "No {kind} report to {domain}: {reason!r}",
            kind=str(self._source.kind),
            domain=str(found.period.domain),
            reason=found.reason,
        )
        if found.retention is Retention.CLEAR:
            await self._source.settle(found.period, (), ())


class Lease:
    """
    The right of one node to make the reports of a kind.
    """

    def __init__(
        self, clock: IReactorTime, leases: ILeases, name: str, node: str
    ) -> None:
        self._clock = clock
        self._leases = leases
        self._name = name
        self._node = node
        self._elapsed = MonotonicTime()
        self._prolongFrom = 0.0

    async def acquire(self) -> bool:
        now = self._clock.seconds()
        self._prolongFrom = self._elapsed.at(now) + _PROLONG
        return await self._leases.acquire(self._name, self._node, now + LEASE, now)

    async def prolong(self) -> None:
        """
        @raise LeaseLost: Somebody else has it.
        """
        due = self._elapsed.at(self._clock.seconds()) >= self._prolongFrom
        if due and not await self.acquire():
            raise LeaseLost(self._name)

    async def release(self) -> None:
        await self._leases.release(self._name, self._node)
