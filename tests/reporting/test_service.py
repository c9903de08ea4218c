"""
Tests for L{moxtls.reporting.service}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from moxtls.dates import DAY as ONE_DAY
from moxtls.dates import HOUR, MINUTE, Span, midnight
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IReportBacklog, IReportSource
from moxtls.queue.types import ReportKind
from moxtls.reporting.service import (
    LEASE,
    MAX_AT_ONCE,
    MAX_DRAFT_TIME,
    MIN_RETENTION,
    PAGE_SIZE,
    ReportsBusy,
)
from moxtls.reporting.types import (
    NoReport,
    OutgoingReport,
    ReportDraft,
    ReportPeriod,
    ReportState,
    Retention,
    Suppression,
)
from tests.reporting.support import DAY, A, World, outcome
from tests.reports import readTLSReport

B = Domain("b.example")
LEASE_NAME = "tls reports"


def _forever(
    stuck: Deferred[object], *what: object, **more: object
) -> Deferred[object]:
    return stuck


@implementer(IReportSource, IReportBacklog)
class FakeSource:
    """
    A source with a report due for each domain; at most a page of them is in memory.
    """

    kind = ReportKind.TLS
    phases = 1

    def __init__(self, count: int, sendable: bool = True) -> None:
        self.total = count
        self.counted = 0
        self.sendable = sendable
        self.backlog = self
        self.settled = 0
        self.inFlight = 0
        self.maxInFlight = 0
        self.largestPage = 0
        self.drafting: list[Deferred[ReportDraft | NoReport]] | None = None

    def count(self, phase: int, now: float) -> Deferred[int]:
        self.counted += 1
        return succeed(self.total)

    def refusal(self, period: ReportPeriod) -> Deferred[str]:
        return succeed("")

    def close(self, domain: Domain | None, end: int) -> Deferred[int]:
        return succeed(0)

    def periods(
        self,
        phase: int,
        now: float,
        after: ReportPeriod | None,
        limit: int,
        early: bool = False,
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        self.largestPage = max(self.largestPage, limit)
        start = int(after.domain.ascii[1:7]) + 1 if after else 0
        numbers = range(start, min(start + limit, self.total))
        return succeed(
            tuple(
                ReportPeriod(0, DAY, Domain(f"d{number:06}.example"), self.sendable)
                for number in numbers
            )
        )

    def draft(self, period: ReportPeriod) -> Deferred[ReportDraft | NoReport]:
        self.inFlight += 1
        self.maxInFlight = max(self.maxInFlight, self.inFlight)
        if self.drafting is not None:
            waiting: Deferred[ReportDraft | NoReport] = Deferred()
            self.drafting.append(waiting)
            return waiting
        return succeed(NoReport(period, "none", Retention.CLEAR))

    def settle(
        self,
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        self.inFlight -= 1
        self.settled += 1
        return succeed(len(reports))

    def prune(self, now: float) -> Deferred[None]:
        return succeed(None)


@implementer(ILogObserver)
class Warnings:
    """
    @ivar domains: About which there was one.
    """

    def __init__(self) -> None:
        self.domains: list[object] = []

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn:
            self.domains.append(event["domain"])


class ReportServiceTests(SynchronousTestCase):
    """
    Tests for L{ReportService<moxtls.reporting.service.ReportService>}.
    """

    def setUp(self) -> None:
        self.world = World()
        self.clock = self.world.clock

    def start(
        self,
        node: str = "node",
        source: IReportSource | None = None,
        kept: float = 30 * ONE_DAY,
    ) -> None:
        self.service = self.world.service(node, source, kept=kept)
        self.service.startService()
        self.addCleanup(self.stop)
        self.clock.advance(0)

    def stop(self) -> None:
        if self.service.running:
            self.successResultOf(self.service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def owe(self, *domains: Domain) -> None:
        for domain in domains:
            self.world.publishRecord(domain)
            self.world.record(outcome(domain, f"mx.{domain}"))

    def tick(self, hours: float = 1) -> None:
        self.clock.pump([MINUTE] * round(60 * hours))

    def test_leftOver(self) -> None:
        """
        Reports left by the previous process are handed over at the start.
        """
        self.owe(A)
        self.start()
        self.assertEqual(self.world.queued(), ["tls@a.example"])
        self.tick(0.5)
        self.assertEqual(self.world.results(), ())
        (report,) = self.successResultOf(self.world.ledger.archive.reports())
        self.assertIs(report.state, ReportState.QUEUED)
        self.assertEqual(report.node, "node")

    def test_once(self) -> None:
        """
        The next runs, and the next start, send nothing more.
        """
        self.owe(A)
        self.start()
        self.tick(3)
        self.stop()
        self.start()
        self.tick(3)
        self.assertEqual(len(self.world.queue.bodies), 1)

    def test_tooLate(self) -> None:
        """
        Results recorded about a day after its report was made are removed without a
        second report, which is logged.
        """
        self.owe(A)
        self.start()
        self.tick(0.5)
        warnings = Warnings()
        globalLogPublisher.addObserver(warnings)
        self.addCleanup(globalLogPublisher.removeObserver, warnings)
        self.world.record(outcome())
        self.tick(1)
        self.assertEqual(len(self.world.queue.bodies), 1)
        self.assertEqual(self.world.results(), ())
        self.assertEqual(warnings.domains, ["a.example"])

    def test_midnight(self) -> None:
        """
        A day is reported within minutes of its end, each day anew.
        """
        self.start()
        self.world.publishRecord(A)
        for number in range(3):
            day = DAY + timedelta(days=1 + number)
            self.world.record(outcome(), day=day)
            self.tick(23)
            self.assertEqual(len(self.world.queue.bodies), number)
            self.tick(1.1)
            self.assertEqual(len(self.world.queue.bodies), number + 1)
        keys = [each.key for each in self.world.queue.envelopes]
        self.assertEqual(len(set(keys)), 3)

    def test_jitter(self) -> None:
        """
        A run begins up to two minutes behind its tick.
        """
        self.start()
        self.owe(A)
        self.clock.advance(HOUR - 60)
        self.clock.advance(59)
        self.assertEqual(self.world.queued(), [])
        self.clock.advance(1)
        self.assertEqual(self.world.queued(), ["tls@a.example"])

    def test_spread(self) -> None:
        """
        Reports are at most five minutes apart, those of one phase after those of the
        other; periods to be removed without a report take no time.
        """
        self.owe(A, B)
        quiet = Domain("0.example")
        self.world.record(replace(outcome(quiet, "mx.b.example"), sendReport=False))
        self.world.publishRecord(Domain("mx.b.example"), "mailto:x@host.example")
        self.start()
        self.assertEqual(self.world.queued(), ["tls@a.example"])
        self.clock.advance(299)
        self.assertEqual(len(self.world.queued()), 1)
        self.clock.advance(1)
        self.assertEqual(self.world.queued()[1:], ["tls@b.example"])
        self.clock.advance(599)
        self.assertEqual(len(self.world.queued()), 2)
        self.clock.advance(1)
        self.assertEqual(self.world.queued()[2:], ["x@host.example"])

    def test_window(self) -> None:
        """
        Many reports share four hours.
        """
        source = FakeSource(1000)
        self.start(source=source)
        self.clock.pump([14.4] * 499)
        self.assertEqual(source.settled, 500)
        self.clock.pump([14.4] * 500)
        self.assertEqual(source.settled, 1000)

    def test_failure(self) -> None:
        """
        A failure in one report doesn't affect others, and the next run tries again.
        """
        self.owe(A, B)
        settled = self.world.ledger.outcomes.settle
        broken = True

        def settle(
            period: ReportPeriod,
            destinations: Sequence[str],
            reports: Sequence[OutgoingReport],
        ) -> Deferred[int]:
            if broken and period.domain == A:
                return fail(OSError("disk full"))
            return settled(period, destinations, reports)

        self.patch(self.world.ledger.outcomes, "settle", settle)
        self.start()
        self.tick(0.5)
        self.assertEqual(self.world.queued(), ["tls@b.example"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        broken = False
        self.tick()
        self.assertEqual(self.world.queued(), ["tls@b.example", "tls@a.example"])

    def test_everythingBroken(self) -> None:
        """
        The schedule goes on after any failure.
        """
        self.owe(A)
        real = self.world.ledger.outcomes.count
        self.patch(
            self.world.ledger.outcomes, "count", lambda phase, before: fail(OSError())
        )
        self.start()
        self.tick(2)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 3)
        self.patch(self.world.ledger.outcomes, "count", real)
        self.tick()
        self.assertEqual(self.world.queued(), ["tls@a.example"])

    def test_temporary(self) -> None:
        """
        While a record can't be looked up the data stays, until it is stale.
        """
        self.owe(A)
        self.world.resolver.fail("_smtp._tls.a.example", RRType.TXT)
        self.start()
        self.tick(12)
        self.assertTrue(self.world.results())
        self.tick(48)
        self.assertEqual(self.world.results(), ())

    def test_late(self) -> None:
        """
        A report that had to wait for the next day is still about its own.
        """
        self.owe(A)
        self.world.resolver.fail("_smtp._tls.a.example", RRType.TXT)
        self.start()
        self.tick(25)
        self.owe(A)
        self.tick()
        (report,) = self.successResultOf(self.world.ledger.archive.reports())
        self.assertEqual(report.key.start, midnight(DAY))
        self.assertEqual(report.key.end - report.key.start, ONE_DAY)

    def test_slowDNS(self) -> None:
        """
        Domains whose name servers don't answer delay no others, and time out; the
        second phase waits for them.
        """
        host = Domain("mx.b.example")
        self.owe(A, B)
        self.world.publishRecord(host, "mailto:x@host.example")
        self.world.resolver.hang("_smtp._tls.a.example", RRType.TXT)
        self.start()
        self.clock.advance(300 - MAX_DRAFT_TIME + 10)
        self.assertEqual(self.world.queued(), [])
        self.clock.pump([10] * 12)
        self.assertEqual(self.world.queued(), ["tls@b.example"])
        self.tick(0.5)
        self.assertEqual(len(self.world.queued()), 2)
        self.assertEqual({each.recipientDomain for each in self.world.results()}, {A})

    def test_slowOnFastClock(self) -> None:
        """
        Timeouts of lookups use the reactor's clock: setting the date forward doesn't
        shorten them.
        """
        reactor = Clock()
        self.owe(A)
        self.world.resolver.hang("_smtp._tls.a.example", RRType.TXT)
        self.service = self.world.service(reactor=reactor)
        running = self.service.runNow()
        self.clock.pump([MAX_DRAFT_TIME] * 10)
        self.assertNoResult(running)
        self.world.resolver.release("_smtp._tls.a.example", RRType.TXT)
        self.assertEqual(self.successResultOf(running), 1)
        self.owe(B)
        self.world.resolver.hang("_smtp._tls.b.example", RRType.TXT)
        running = self.service.runNow()
        reactor.advance(MAX_DRAFT_TIME)
        self.assertEqual(self.successResultOf(running), 0)

    def test_phases(self) -> None:
        """
        No report of the second phase is made before the last one of the first
        has ended.
        """
        host = Domain("mx.a.example")
        self.owe(A)
        self.world.publishRecord(host, "mailto:x@host.example")
        self.world.resolver.hang("_smtp._tls.a.example", RRType.TXT)
        self.start()
        running = self.service.runNow()
        self.clock.advance(MAX_DRAFT_TIME - 1)
        self.assertEqual(self.world.queued(), [])
        self.world.resolver.release("_smtp._tls.a.example", RRType.TXT)
        self.assertEqual(self.world.queued(), ["tls@a.example", "x@host.example"])
        self.assertEqual(self.successResultOf(running), 2)

    def test_bothPhases(self) -> None:
        """
        A domain that has mail of its own and is also a host of others gets a report
        about each.
        """
        self.owe(A)
        self.world.record(outcome(B, str(A)))
        self.start()
        self.tick(0.5)
        self.assertEqual(self.world.queued(), ["tls@a.example"] * 2)
        reports = self.successResultOf(self.world.ledger.archive.reports())
        self.assertEqual(len({each.reportID for each in reports}), 2)
        self.assertEqual(self.world.results(), ())

    def test_suppressed(self) -> None:
        """
        Reports to a suppressed destination are filed but not sent.
        """
        entry = Suppression(
            "mailto:tls@a.example", None, self.clock.seconds() + 9999, 0
        )
        self.successResultOf(self.world.ledger.suppressions.put(entry))
        self.owe(A, B)
        self.start()
        self.tick(0.5)
        self.assertEqual(self.world.queued(), ["tls@b.example"])
        reports = self.world.ledger.archive.reports(domain=A)
        (report,) = self.successResultOf(reports)
        self.assertIs(report.state, ReportState.SUPPRESSED)
        self.assertEqual(self.world.results(), ())

    def test_suppressionUnknown(self) -> None:
        """
        If suppressions can't be read, nothing is sent, and nothing is lost.
        """
        self.owe(A)
        self.patch(
            self.world.ledger.suppressions, "active", lambda *what: fail(OSError())
        )
        self.start()
        self.assertEqual(self.world.queued(), [])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertTrue(self.world.results())

    def test_everyDestination(self) -> None:
        """
        Each destination gets the report, by mail or HTTPS.
        """
        uris = ("mailto:a@a.example", "https://a.example/", "mailto:b@b.example")
        self.owe(A)
        self.world.publishRecord(A, *uris)
        self.start()
        recipients = {"a@a.example", "https://a.example/", "b@b.example"}
        self.assertEqual(set(self.world.queued()), recipients)
        senders = {each.sender for each in self.world.queue.envelopes}
        self.assertEqual(len(senders), 3)

    def test_lease(self) -> None:
        """
        While another node sends reports this one doesn't; it does when that
        one is done, or dead.
        """
        self.owe(A)
        leases = self.world.ledger.leases
        now = self.clock.seconds()
        self.successResultOf(leases.acquire(LEASE_NAME, "other", now + 2 * HOUR, now))
        self.start()
        self.tick(1.5)
        self.assertEqual(self.world.queued(), [])
        self.tick(1)
        self.assertEqual(self.world.queued(), ["tls@a.example"])
        now = self.clock.seconds()
        taken = leases.acquire(LEASE_NAME, "other", now + 1, now)
        self.assertTrue(self.successResultOf(taken))

    def test_leaseKept(self) -> None:
        """
        A round that takes hours keeps the lease.
        """
        source = FakeSource(48)
        self.start(source=source)
        leases = self.world.ledger.leases
        for _ in range(200):
            self.clock.advance(MINUTE)
            now = self.clock.seconds()
            taken = leases.acquire(LEASE_NAME, "other", now + 1, now)
            self.assertFalse(self.successResultOf(taken))

    def test_leaseLost(self) -> None:
        """
        A node that has lost its lease, as its clock or its disk stood still,
        stops.
        """
        source = FakeSource(48)
        self.start(source=source)
        self.successResultOf(self.world.ledger.leases.release(LEASE_NAME, "node"))
        now = self.clock.seconds()
        until = now + 24 * HOUR
        taken = self.world.ledger.leases.acquire(LEASE_NAME, "other", until, now)
        self.assertTrue(self.successResultOf(taken))
        self.tick(4)
        self.assertLessEqual(source.settled, 1 + LEASE // (5 * MINUTE))

    def test_twoNodes(self) -> None:
        """
        Two nodes send each report once, each from its own queue.
        """
        self.owe(*(Domain(f"d{number}.example") for number in range(20)))
        others = [self.world.service(f"node{number}") for number in range(2)]
        for service in others:
            service.startService()
        self.tick(4)
        for service in others:
            self.successResultOf(service.stopService())
        self.assertEqual(len(self.world.queued()), 20)
        self.assertEqual(len(set(self.world.queued())), 20)

    def test_now(self) -> None:
        """
        On request all due reports are sent at once, also during a round, whose
        reports aren't repeated.
        """
        domains = [Domain(f"d{number}.example") for number in range(5)]
        self.owe(*domains)
        self.start()
        self.clock.advance(301)
        self.assertEqual(len(self.world.queued()), 2)
        self.assertEqual(self.successResultOf(self.service.runNow()), 3)
        expected = {f"tls@{domain}" for domain in domains}
        self.assertEqual(set(self.world.queued()), expected)
        self.assertEqual(len(self.world.queued()), 5)

    def test_nowOne(self) -> None:
        """
        On request only one domain gets its report; the others follow the schedule.
        """
        self.start()
        self.owe(A, B)
        self.assertEqual(self.successResultOf(self.service.runNow(B)), 1)
        self.assertEqual(self.world.queued(), ["tls@b.example"])
        self.tick(1)
        self.assertEqual(self.world.queued(), ["tls@b.example", "tls@a.example"])

    def test_nowTogether(self) -> None:
        """
        Reports that are filed at the same time are counted, each of them.
        """
        self.start()
        self.owe(A, B)
        settled = self.world.ledger.outcomes.settle

        def settle(
            period: ReportPeriod,
            destinations: Sequence[str],
            reports: Sequence[OutgoingReport],
        ) -> Deferred[int]:
            waited: Deferred[None] = deferLater(self.clock, 1)
            return waited.addCallback(lambda _: settled(period, destinations, reports))

        self.patch(self.world.ledger.outcomes, "settle", settle)
        running = self.service.runNow()
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.successResultOf(running), 2)
        self.assertEqual(len(self.world.queued()), 2)

    def test_early(self) -> None:
        """
        On request an unfinished day is reported up to now, as C{owed} and C{preview}
        announce; later results go into a report about the rest of the day, with an
        identifier of its own.
        """
        self.start()
        self.world.publishRecord(A)
        today = DAY + timedelta(days=1)
        now, tonight = int(self.clock.seconds()), midnight(today) + ONE_DAY
        self.world.record(outcome(), day=today)
        self.assertEqual(self.successResultOf(self.service.runNow()), 0)
        self.assertEqual(self.successResultOf(self.service.owed()), {})
        (reason, *_) = self.successResultOf(self.service.owed(early=True)).values()
        self.assertEqual(reason, "")
        ((_, draft),) = self.successResultOf(self.service.preview(A, early=True))
        assert isinstance(draft, ReportDraft)
        self.assertEqual(draft.span, Span(midnight(today), now))
        self.assertEqual(self.successResultOf(self.service.runNow(early=True)), 1)
        self.assertEqual(self.successResultOf(self.service.owed(early=True)), {})
        self.assertEqual(self.successResultOf(self.service.runNow(early=True)), 0)
        self.clock.advance(HOUR)
        self.world.record(outcome(), outcome(), day=today)
        ((_, draft),) = self.successResultOf(self.service.preview(A, early=True))
        assert isinstance(draft, ReportDraft)
        self.assertEqual(draft.span, Span(now, now + HOUR))
        self.tick(24)
        reports = self.successResultOf(self.world.ledger.archive.reports(domain=A))
        spans = sorted((each.key.start, each.key.end) for each in reports)
        self.assertEqual(spans, [(midnight(today), now), (now, tonight)])
        self.assertEqual(len({each.reportID for each in reports}), 2)
        bodies = [readTLSReport(each) for each in self.world.queue.bodies.values()]
        counted = sorted(
            policy.succeeded
            for each in bodies
            for policy in each.policies
            if policy.domain == str(A)
        )
        self.assertEqual(counted, [1, 2])
        self.assertEqual(self.world.results(), ())

    def test_earlyTemporary(self) -> None:
        """
        An early report that failed temporarily is sent as soon as possible,
        separately from later results.
        """
        self.start()
        self.world.publishRecord(A)
        today = DAY + timedelta(days=1)
        self.world.record(outcome(), day=today)
        self.world.resolver.fail("_smtp._tls.a.example", RRType.TXT)
        self.assertEqual(self.successResultOf(self.service.runNow(early=True)), 0)
        self.world.record(outcome(), day=today)
        self.world.publishRecord(A)
        self.tick()
        (body,) = self.world.queue.bodies.values()
        self.assertEqual({p.succeeded for p in readTLSReport(body).policies}, {1})
        self.assertTrue(self.world.results())

    def test_busy(self) -> None:
        """
        A request while another node holds the lease fails, with that reason.
        """
        self.start()
        now = self.clock.seconds()
        leases = self.world.ledger.leases
        self.successResultOf(leases.acquire(LEASE_NAME, "other", now + 9, now))
        self.failureResultOf(self.service.runNow(), ReportsBusy)

    def test_preview(self) -> None:
        """
        Previews of due reports have no effects.
        """
        self.owe(A, B)
        service = self.world.service()
        pending = self.successResultOf(service.pending())
        self.assertEqual([each.phase for each in pending], [0, 0, 1, 1])
        ((period, found),) = self.successResultOf(service.preview(A))
        self.assertEqual(period, ReportPeriod(0, DAY, A))
        assert isinstance(found, ReportDraft)
        self.assertEqual(found.destinations, ("mailto:tls@a.example",))
        ((_, nothing),) = self.successResultOf(service.preview(Domain("mx.a.example")))
        assert isinstance(nothing, NoReport)
        self.assertEqual(self.successResultOf(service.pending()), pending)
        self.assertEqual(self.world.queued(), [])

    def test_manySubjects(self) -> None:
        """
        Periods are read in pages of limited size.
        """
        source = FakeSource(100_000, sendable=False)
        self.start(source=source)
        self.assertEqual(source.settled, 100_000)
        self.assertEqual(source.largestPage, PAGE_SIZE)

    def test_atOnce(self) -> None:
        """
        The number of concurrently composed reports is limited.
        """
        source = FakeSource(1000)
        source.drafting = []
        self.start(source=source)
        self.clock.pump([14.4] * 7)
        running = self.service.runNow()
        self.assertEqual(source.maxInFlight, 8 + MAX_AT_ONCE)
        self.assertEqual(len(source.drafting), 8 + MAX_AT_ONCE)
        self.stop()
        self.failureResultOf(running, CancelledError)

    def test_archive(self) -> None:
        """
        Reports that have ended are forgotten after a month.
        """
        self.owe(A)
        self.start()
        archive = self.world.ledger.archive
        self.clock.advance(29 * ONE_DAY)
        self.tick(2)
        self.assertEqual(len(self.successResultOf(archive.reports())), 1)
        self.clock.advance(ONE_DAY)
        self.tick(2)
        self.assertEqual(self.successResultOf(archive.reports()), ())

    def test_archiveKeptLongEnough(self) -> None:
        """
        Archived reports are kept, whatever the setting, while they could be made
        again or a DSN could come.
        """
        self.owe(A)
        self.start(kept=0)
        archive = self.world.ledger.archive
        for seconds, left in [(MIN_RETENTION - 3 * HOUR, 1), (2 * HOUR, 0)]:
            self.clock.advance(seconds)
            self.tick(1)
            self.assertEqual(len(self.successResultOf(archive.reports())), left)

    def test_lateStart(self) -> None:
        """
        A start right behind midnight reports on the day that has just ended,
        but not before all that happened in it is recorded.
        """
        self.clock.advance(ONE_DAY - 3 * MINUTE)
        self.world.publishRecord(A)
        self.world.record(outcome(), day=DAY + timedelta(days=1))
        self.start()
        self.clock.advance(MINUTE)
        self.assertEqual(self.world.queued(), [])
        self.clock.advance(2 * MINUTE)
        self.assertEqual(self.world.queued(), [])
        self.clock.advance(MINUTE)
        self.assertEqual(self.world.queued(), ["tls@a.example"])

    def test_hugeRound(self) -> None:
        """
        A round of very many reports takes its four hours, evenly; the hourly ticks
        don't begin another one, and its lease doesn't expire.
        """
        source = FakeSource(10_000)
        self.start(source=source)
        for hour in range(1, 5):
            self.clock.pump([MINUTE] * 60)
            now = self.clock.seconds()
            leases = self.world.ledger.leases
            taken = leases.acquire(LEASE_NAME, "other", now + 1, now)
            self.assertEqual(self.successResultOf(taken), hour == 4)
            share = source.settled / source.total
            self.assertLess(abs(share - hour / 4), 0.01)
        self.assertEqual((source.settled, source.counted), (10_000, 1))

    def test_hangs(self) -> None:
        """
        If a node hangs, another one takes over once the lease has expired; each due
        report is sent once.
        """
        self.owe(A, B)
        stuck: Deferred[object] = Deferred()
        patch = self.patch(
            self.world.ledger.outcomes, "settle", partial(_forever, stuck)
        )
        self.start()
        patch.restore()
        self.tick(0.25)
        other = self.world.service("other")
        other.startService()
        self.tick(0.25)
        self.assertEqual(self.world.queued(), ["tls@b.example"])
        self.tick(1)
        self.assertEqual(self.world.queued(), ["tls@b.example", "tls@a.example"])
        stuck.callback(0)
        self.tick(1)
        self.assertEqual(len(self.world.queued()), 2)
        self.assertEqual(self.world.results(), ())
        self.successResultOf(other.stopService())

    def test_stopWhileWaiting(self) -> None:
        """
        Stopping between two reports leaves no delayed calls, and the next start sends
        the rest.
        """
        self.owe(A, B)
        self.start()
        self.clock.advance(10)
        self.stop()
        self.assertEqual(self.world.queued(), ["tls@a.example"])
        self.start()
        self.assertEqual(self.world.queued(), ["tls@a.example", "tls@b.example"])

    def test_stopWhileLooking(self) -> None:
        """
        Stopping cancels a lookup at once, and loses nothing.
        """
        self.owe(A)
        self.world.resolver.hang("_smtp._tls.a.example", RRType.TXT)
        self.start()
        self.stop()
        self.world.resolver.release("_smtp._tls.a.example", RRType.TXT)
        self.assertEqual(self.world.queued(), [])
        self.start()
        self.assertEqual(self.world.queued(), ["tls@a.example"])

    def test_stopAnywhere(self) -> None:
        """
        Stopping ends any wait, and the next start sends the unsent reports, once.
        """
        ledger, queue = self.world.ledger, self.world.queue
        for place, name in [
            (ledger.leases, "acquire"),
            (ledger.outcomes, "prune"),
            (ledger.archive, "prune"),
            (ledger.outcomes, "count"),
            (ledger.outcomes, "periods"),
            (ledger.outcomes, "results"),
            (ledger.suppressions, "active"),
            (ledger.outcomes, "settle"),
            (ledger.archive, "take"),
            (queue, "submit"),
            (ledger.archive, "mark"),
        ]:
            with self.subTest(name):
                self.setUp()
                world = self.world
                self.owe(A)
                owner = {
                    ledger.leases: world.ledger.leases,
                    ledger.outcomes: world.ledger.outcomes,
                    ledger.archive: world.ledger.archive,
                    ledger.suppressions: world.ledger.suppressions,
                    queue: world.queue,
                }[place]
                cancelled: list[object] = []
                stuck: Deferred[object] = Deferred(cancelled.append)
                patch = self.patch(owner, name, partial(_forever, stuck))
                self.start()
                self.stop()
                self.assertEqual(cancelled, [stuck], name)
                patch.restore()
                self.start()
                self.assertEqual(world.queued(), ["tls@a.example"], name)
                self.stop()

    def test_stopNow(self) -> None:
        """
        Stopping cancels requests for early reports.
        """
        self.owe(A)
        self.world.resolver.hang("_smtp._tls.a.example", RRType.TXT)
        self.start()
        running = self.service.runNow()
        self.stop()
        self.failureResultOf(running, CancelledError)
