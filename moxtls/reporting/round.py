# -*- test-case-name: tests.reporting.test_round -*-
"""
One pass over all reports that are owed.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from moxtls.calendar import MINUTE, Elapsed
from moxtls.domain import Domain
from moxtls.interfaces import ILeases, IReportSource
from moxtls.outages import logUnlessOutage
from moxtls.reporting.crew import TaskGroup, ignoreCancelled
from moxtls.reporting.letters import ReportComposer
from moxtls.reporting.outbox import Outbox
from moxtls.reporting.schedule import gap
from moxtls.reporting.values import Draft, NoReport, ReportPeriod, Retention

#: Subjects in memory at a time.
PAGE = 200
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
    Reports on every subject of a source, phase by phase.

    Whatever fails for one subject, the others are done; its data stays where
    it is for the next round.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        source: IReportSource,
        writer: ReportComposer,
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
        self._writer = writer
        self._outbox = outbox
        self._lease = lease
        self._plan = plan
        self._elapsed = Elapsed()
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
            self._gap = gap(await self._count(), self._plan.window)
        for phase in range(self._source.phases):
            await self._phase(phase)
            await self._outbox.empty()
        return self._composed

    async def _count(self) -> int:
        phases = range(self._source.phases)
        return sum([await self._source.count(each, self._plan.asOf) for each in phases])

    async def _phase(self, phase: int) -> None:
        crew = TaskGroup(MAX_AT_ONCE)
        try:
            await self._pages(phase, crew)
            await crew.finished()
        finally:
            await crew.abandon()

    async def _pages(self, phase: int, crew: TaskGroup) -> None:
        after: ReportPeriod | None = None
        while True:
            page = await self._source.subjects(phase, self._plan.asOf, after, PAGE)
            for subject in page:
                if self._plan.domain in (None, subject.domain):
                    await self._turn(subject, crew)
            if not page:
                return
            after = page[-1]

    async def _turn(self, subject: ReportPeriod, crew: TaskGroup) -> None:
        if subject.sendable:
            due = self._started + self._begun * self._gap
            self._begun += 1
            wait = due - self._elapsed.at(self._clock.seconds())
            if wait > 0:
                await deferLater(self._clock, wait)
        await self._lease.prolong()
        await crew.room()
        crew.begin(ignoreCancelled(self._attempt(subject)))

    async def _attempt(self, subject: ReportPeriod) -> None:
        kind, domain = str(self._source.kind), str(subject.domain)
        try:
            await self._report(subject)
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

    async def _report(self, subject: ReportPeriod) -> None:
        if not subject.sendable:
            await self._source.settle(subject, (), ())
            return
        drafting = self._source.draft(subject)
        draft = await drafting.addTimeout(MAX_DRAFT_TIME, self._reactor)
        if isinstance(draft, NoReport):
            await self._noReport(draft)
            return
        await self._file(draft)
        # Without a gap, several at a time: that takes less of the disk.
        if self._gap or self._composed >= self._handedOver + MAX_AT_ONCE:
            self._handedOver = self._composed
            await self._outbox.empty()

    async def _file(self, draft: Draft) -> None:
        subject = draft.subject
        reports = await self._writer.write(draft)
        # In two steps: others add to it while this one waits.
        new = await self._source.settle(subject, draft.destinations, reports)
        self._composed += new
        if not new:
            self.log.warn(
                "{kind} report to {domain} about {day} was made before; what came in"
                " since isn't reported. Do the nodes' clocks agree?",
                kind=str(self._source.kind),
                domain=str(subject.domain),
                day=subject.day,
            )

    async def _noReport(self, found: NoReport) -> None:
        self.log.info(
            "No {kind} report to {domain}: {reason!r}",
            kind=str(self._source.kind),
            domain=str(found.subject.domain),
            reason=found.reason,
        )
        if found.leave is Retention.CLEAR:
            await self._source.settle(found.subject, (), ())


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
        self._elapsed = Elapsed()
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
