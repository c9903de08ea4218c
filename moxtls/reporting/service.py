# -*- test-case-name: tests.reporting.test_service -*-
"""
Runs the report schedule each hour, on one node at a time, and lists the periods that
may be due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from moxtls.reporting.destinations import BOUNCE_WINDOW
from moxtls.reporting.handover import Outbox
from moxtls.reporting.schedule import MAX_AGE, MAX_JITTER, WINDOWS, spacing, untilTick
from moxtls.reporting.types import NoReport, ReportDraft, ReportPeriod, Retention
from moxtls.tasks import TaskGroup, gather, ignoreCancelled

#: An archived report prevents a second one while there may be data about its day,
#: and identifies DSNs about it.
MIN_RETENTION = max(MAX_AGE.values()) + BOUNCE_WINDOW

#: Periods in memory at a time.
PAGE_SIZE = 200
#: Reports being composed at a time: slow name servers of some domains must not
#: delay the others.
MAX_AT_ONCE = 16
#: Timeout for looking up the destinations of a report and generating it.
MAX_DRAFT_TIME = 2 * MINUTE
#: Seconds; longer than a run can take from one report to the next, where the lease
#: is prolonged.
LEASE = 20 * MINUTE
_PROLONG = LEASE / 4


class ReportsBusy(Exception):
    """
    Another node is sending reports.
    """


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """
    Settings of a L{ReportService}.

    @ivar node: The name of this node, or of this worker if a node has several: each
        has a queue of its own.
    @ivar window: The seconds over which reports are spread; C{None} for the default
        of their kind in L{WINDOWS}.
    @ivar kept: The seconds for which sent reports are archived; at least
        L{MIN_RETENTION}.
    """

    node: str
    window: float | None = None
    kept: float = 30 * DAY


@dataclass(frozen=True, slots=True)
class ReportPipeline:
    """
    The components that take part in sending the reports of one kind.

    @ivar source: Due periods and the documents of reports.
    @ivar archive: Stores composed reports.
    @ivar leases: Make sure that one node at a time sends reports.
    @ivar composer: Composes and signs messages.
    @ivar submitter: Takes composed reports for delivery.
    """

    source: IReportSource
    archive: IReportArchive
    leases: ILeases
    composer: ReportComposer
    submitter: IReportSubmitter


class ReportService(Service):
    """
    Sends the reports of one source: those left over once at the start, then each
    hour those that have become due or failed before.

    A lease makes sure that only one of the nodes that share the stores does it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        pipeline: ReportPipeline,
        jitter: Callable[[], float],
        options: ReportOptions,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        @param jitter: Returns a random number, at least 0 and less than 1.
        @param reactor: Measures timeouts; C{clock} if not given.
        """
        self._clock = clock
        self._reactor = reactor or clock
        self._source = source = pipeline.source
        self._archive = pipeline.archive
        self._composer = pipeline.composer
        self._jitter = jitter
        self._options = options
        window = options.window
        self._window = WINDOWS[source.kind] if window is None else window
        self._outbox = Outbox(
            clock, pipeline.archive, pipeline.submitter, source.kind, options.node
        )
        name = f"{source.kind} reports"
        self._lease = Lease(clock, pipeline.leases, name, options.node)
        self._lock = DeferredLock()
        self._tasks = TaskGroup(1)
        self._scheduled: Deferred[None] | None = None
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._firstTick: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        wait = untilTick(self._clock.seconds())
        self._firstTick = self._clock.callLater(wait, self._startLoop)
        self._schedule(0)

    def stopService(self) -> Deferred[None]:
        """
        Cancel the current run; its reports are made later.

        @return: Fires once no task is running.
        """
        super().stopService()
        if self._firstTick is not None:
            self._firstTick.cancel()
            self._firstTick = None
        if self._loop.running:
            self._loop.stop()
        return self._tasks.cancel()

    def runNow(
        self, domain: Domain | None = None, early: bool = False
    ) -> Deferred[int]:
        """
        Send all due reports at once, without spreading.  A scheduled run that is in
        progress is cancelled: this one does the same faster.

        @param domain: Report to this domain only.
        @param early: Also report on current periods, up to now; later data goes
            into another report.

        @return: Fires with the number of composed reports.  Fails with
            L{ReportsBusy} if another node has the lease.
        """
        if self._scheduled is not None:
            self._scheduled.cancel()
        plan = RunOptions(self._clock.seconds(), 0, domain, early)
        return self._tasks.begin(self._runNow(plan))

    def pending(self, early: bool = False) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        Fires with the periods that may be due (L{pendingPeriods}).

        @param early: Include current periods.
        """
        return Deferred.fromCoroutine(self._pending(None, early))

    def owed(
        self, domain: Domain | None = None, early: bool = False
    ) -> Deferred[dict[ReportPeriod, str]]:
        """
        Fires with the periods of C{pending}, each with the reason why no report will
        be sent; empty if one will be sent.
        """
        return Deferred.fromCoroutine(self._owed(domain, early))

    def preview(
        self, domain: Domain, early: bool = False
    ) -> Deferred[tuple[tuple[ReportPeriod, ReportDraft | NoReport], ...]]:
        """
        Fires with the drafts that C{runNow} would send to C{domain}; nothing is
        sent or changed.

        @param early: As in C{runNow}.
        """
        return Deferred.fromCoroutine(self._preview(domain, early))

    def _startLoop(self) -> None:
        self._firstTick = None
        self._loop.start(HOUR)

    def _tick(self) -> None:
        # Not returned: LoopingCall would miss ticks while it waits for a run, and
        # end after a failure.
        self._schedule(self._jitter() * MAX_JITTER)

    def _schedule(self, wait: float) -> None:
        if self._scheduled is not None:
            return
        scheduled = self._tasks.begin(ignoreCancelled(self._runScheduled(wait)))
        if not scheduled.called:
            self._scheduled = scheduled
            scheduled.addBoth(self._ended)

    def _ended(self, result: object) -> None:
        self._scheduled = None

    async def _runScheduled(self, wait: float) -> None:
        try:
            await deferLater(self._clock, wait)
            now = self._clock.seconds()
            await self._runExclusively(RunOptions(now, self._window))
        except (ReportsBusy, LeaseLost):
            self.log.info(
                "{kind} reports are sent by another node", kind=self._source.kind
            )
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "Sending {kind} reports", kind=self._source.kind)

    async def _runNow(self, plan: RunOptions) -> int:
        try:
            return await self._runExclusively(plan)
        except LeaseLost:
            raise ReportsBusy from None

    async def _runExclusively(self, plan: RunOptions) -> int:
        """
        Make a run, the only one on this node and on all nodes.
        """
        await self._lock.acquire()
        try:
            await self._outbox.empty()
            if not await self._lease.acquire():
                raise ReportsBusy
            try:
                return await self._run(plan)
            finally:
                await self._lease.release()
        finally:
            self._lock.release()

    async def _run(self, plan: RunOptions) -> int:
        now = self._clock.seconds()
        await self._source.prune(now)
        await self._archive.prune(now - max(self._options.kept, MIN_RETENTION))
        if plan.early:
            await self._source.backlog.close(plan.domain, int(now))
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


class LeaseLost(Exception):
    """
    Another node has taken the lease, since this one didn't prolong it in time.
    """


@dataclass(frozen=True, slots=True)
class RunOptions:
    """
    Settings of one L{ReportRun}.

    @ivar asOf: The time at which reports are due.
    @ivar window: The seconds over which reports are spread; 0 to send them at once.
    @ivar domain: Report to this domain only; C{None} for all.
    @ivar early: True to close current periods first.
    """

    asOf: float
    window: float
    domain: Domain | None = None
    early: bool = False


class ReportRun:
    """
    One pass over all periods of a source that may be due, phase by phase.

    A failure for one period doesn't affect the others; its data stays in the store
    for the next run.
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
        @param reactor: Measures timeouts.
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
        self._spacing = 0.0
        self._taskCount = 0
        self._composed = 0
        self._submitted = 0

    async def run(self) -> int:
        """
        @return: The number of composed reports.

        @raise LeaseLost: The run was aborted.
        """
        if self._plan.window:
            self._spacing = spacing(await self._count(), self._plan.window)
        for phase in range(self._source.phases):
            await self._runPhase(phase)
            await self._outbox.empty()
        return self._composed

    async def _count(self) -> int:
        phases = range(self._source.phases)
        return sum([await self._source.count(each, self._plan.asOf) for each in phases])

    async def _runPhase(self, phase: int) -> None:
        tasks = TaskGroup(MAX_AT_ONCE)
        try:
            await self._runPages(phase, tasks)
            await tasks.finished()
        finally:
            await tasks.cancel()

    async def _runPages(self, phase: int, tasks: TaskGroup) -> None:
        after: ReportPeriod | None = None
        while True:
            page = await self._source.periods(phase, self._plan.asOf, after, PAGE_SIZE)
            for period in page:
                if self._plan.domain in (None, period.domain):
                    await self._startReport(period, tasks)
            if not page:
                return
            after = page[-1]

    async def _startReport(self, period: ReportPeriod, tasks: TaskGroup) -> None:
        if period.sendable:
            due = self._started + self._taskCount * self._spacing
            self._taskCount += 1
            wait = due - self._elapsed.at(self._clock.seconds())
            if wait > 0:
                await deferLater(self._clock, wait)
        await self._lease.prolong()
        await tasks.room()
        tasks.begin(ignoreCancelled(self._tryReport(period)))

    async def _tryReport(self, period: ReportPeriod) -> None:
        kind, domain = str(self._source.kind), str(period.domain)
        try:
            await self._report(period)
        except CancelledError:
            raise
        except TimeoutError:
            self.log.warn(
                "{kind} report to {domain}: lookups timed out",
                kind=kind,
                domain=domain,
            )
        except Exception:
            logUnlessOutage(
                self.log, "{kind} report to {domain}", kind=kind, domain=domain
            )

    async def _report(self, period: ReportPeriod) -> None:
        if not period.sendable:
            await self._source.backlog.settle(period, (), ())
            return
        drafting = self._source.draft(period)
        draft = await drafting.addTimeout(MAX_DRAFT_TIME, self._reactor)
        if isinstance(draft, NoReport):
            await self._noReport(draft)
            return
        await self._file(draft)
        # Several at a time if they aren't spread: fewer disk writes.
        if self._spacing or self._composed >= self._submitted + MAX_AT_ONCE:
            self._submitted = self._composed
            await self._outbox.empty()

    async def _file(self, draft: ReportDraft) -> None:
        period = draft.period
        reports = await self._composer.compose(draft)
        # In two statements: other tasks add to it during the await.
        new = await self._source.backlog.settle(period, draft.destinations, reports)
        self._composed += new
        if not new:
            self.log.warn(
                "{kind} report to {domain} about {day} was made before; results"
                " recorded since are not reported. Are the nodes' clocks synchronized?",
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
            await self._source.backlog.settle(found.period, (), ())


class Lease:
    """
    The lease of a node to send the reports of one kind.
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
        @raise LeaseLost: Another node has it.
        """
        due = self._elapsed.at(self._clock.seconds()) >= self._prolongFrom
        if due and not await self.acquire():
            raise LeaseLost(self._name)

    async def release(self) -> None:
        await self._leases.release(self._name, self._node)


#: Periods that are shown to people.
MAX_SHOWN = 1000
#: Periods whose destinations are looked up at a time.
MAX_LOOKUPS = 16


async def pendingPeriods(
    source: IReportSource, now: float, domain: Domain | None = None, early: bool = False
) -> tuple[ReportPeriod, ...]:
    """
    The periods that may be due, ordered by phase, day and domain; at most
    L{MAX_SHOWN}.

    @param early: Include current periods.
    """
    found: list[ReportPeriod] = []
    for phase in range(source.phases):
        after: ReportPeriod | None = None
        while len(found) < MAX_SHOWN:
            page = await source.periods(phase, now, after, PAGE_SIZE, early)
            found.extend(each for each in page if domain in (None, each.domain))
            if not page:
                break
            after = page[-1]
    return tuple(found[:MAX_SHOWN])


async def refusals(
    source: IReportSource, periods: Sequence[ReportPeriod]
) -> dict[ReportPeriod, str]:
    """
    For each of C{periods} the reason why there is no report; empty if there is one.
    """
    reasons: list[str] = []
    for start in range(0, len(periods), MAX_LOOKUPS):
        some = periods[start : start + MAX_LOOKUPS]
        reasons += await gather([source.refusal(each) for each in some])
    return dict(zip(periods, reasons, strict=True))
