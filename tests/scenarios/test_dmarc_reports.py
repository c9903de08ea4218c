"""
DMARC reports over several days, from the evaluation to the queue.
"""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import HOUR, MINUTE
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.parse import ReceivedAggregateReport, parseAggregateReport
from moxtls.dmarc.types import DMARCPolicy as Asked
from moxtls.dmarc.types import PublishedPolicy
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Domain
from moxtls.queue.types import DeliveryStatus, ReportKind, Result
from moxtls.reporting.destinations import bounceMailbox
from moxtls.reporting.handover import ReportDeliveryTracker
from moxtls.reporting.types import OutgoingReport, ReportState, Suppression
from tests.dmarc.reports import SPAN, DMARCWorld, evaluation, unpacked
from tests.reporting.support import ED25519, SUBMITTER, A, signatures
from tests.reporting.test_destinations import DSN

URI = "mailto:dmarc@a.example"


class DMARCReportTests(SynchronousTestCase):
    """
    Reports over hours and days.
    """

    def setUp(self) -> None:
        self.world = DMARCWorld()
        ledger = self.world.ledger
        self.deliveryTracker = ReportDeliveryTracker(
            self.world.clock, ledger.archive, ledger.suppressions
        )

    def start(self, nodes: int = 1) -> None:
        self.services = [self.world.service(f"node{each}") for each in range(nodes)]
        for service in self.services:
            service.startService()
            self.addCleanup(service.stopService)

    def pass_(self, hours: float) -> None:
        self.world.clock.pump([MINUTE] * round(hours * 60))

    def receive(self, domain: Domain = A, hours: int = 1, times: int = 1) -> None:
        """
        Receive mail now.
        """
        hour = int(self.world.clock.seconds() - SPAN.end) // HOUR
        self.world.record(evaluation(domain, hours=hours), hour=hour, times=times)

    def left(self) -> int:
        """
        The number of unreported messages.
        """
        found = self.successResultOf(self.world.ledger.evaluations.evaluations())
        return sum(each.count for each in found)

    def reports(self) -> list[ReceivedAggregateReport]:
        return [parseAggregateReport(unpacked(each)) for each in self.world.documents()]

    def archived(self, domain: Domain = A) -> list[OutgoingReport]:
        """
        Archived reports to a domain, the oldest first.
        """
        archive = self.world.ledger.archive
        found = self.successResultOf(archive.reports(domain=domain))
        return list(reversed(found))

    def fails(self, domain: Domain = A) -> None:
        """
        Make lookups of the record of C{domain} fail.
        """
        self.world.resolver = MemoryResolver(
            {(str(SUBMITTER), RRType.A): ["192.0.2.25"]},
            failing={(f"_dmarc.{domain}", RRType.TXT): ExtendedError(22)},
        )

    def restart(self) -> None:
        for service in self.services:
            self.successResultOf(service.stopService())
        self.start(len(self.services))

    # --- when

    def test_intervals(self) -> None:
        """
        Three domains request reports every hour, four hours and day, from two nodes:
        each gets them at these times, each message is in one report, and spans
        neither overlap nor leave gaps (RFC 9990 3.1.1.4).
        """
        wanted = {1: 24, 4: 6, 24: 1}
        for hours in wanted:
            self.world.publishRecord(Domain(f"h{hours}.example"))
        self.start(nodes=2)
        for hour in range(24):
            for hours in wanted:
                self.receive(Domain(f"h{hours}.example"), hours, times=hour + 1)
            self.pass_(1)
        self.pass_(1)
        for hours, count in wanted.items():
            found = [
                each for each in self.reports() if each.domain == f"h{hours}.example"
            ]
            starts = [SPAN.end + number * hours * HOUR for number in range(count)]
            self.assertEqual([each.start for each in found], starts)
            ends = [start + hours * HOUR - 1 for start in starts]
            self.assertEqual([each.end for each in found], ends)
            self.assertEqual(sum(each.messages for each in found), 24 * 25 // 2)
            ids = {each.reportID for each in found}
            self.assertEqual(len(ids), count)
        self.assertEqual(self.left(), 0)

    def test_spread(self) -> None:
        """
        Ten reports of one hour are spread over 45 minutes.
        """
        for number in range(10):
            domain = Domain(f"d{number}.example")
            self.world.publishRecord(domain)
            self.world.record(evaluation(domain, hours=1), hour=-1)
        self.start()
        counts = []
        for _ in range(9):
            self.pass_(0.1)
            counts.append(len(self.world.queue.bodies))
        self.assertEqual(counts, [2, 3, 4, 6, 7, 8, 10, 10, 10])

    def test_policyChanges(self) -> None:
        """
        A policy that changes within a day causes two reports, each with the messages
        under its policy (RFC 9990 3.3).
        """
        self.world.publishRecord(A)
        for p, times in [(Asked.NONE, 2), (Asked.REJECT, 3)]:
            changed = replace(evaluation(), published=PublishedPolicy(A, p))
            self.world.record(changed, times=times)
        self.start()
        self.pass_(0.5)
        found = {dict(each.published)["p"]: each.messages for each in self.reports()}
        self.assertEqual(found, {"none": 2, "reject": 3})
        self.assertEqual(len(self.archived()), 2)

    def test_temporary(self) -> None:
        """
        Data is kept while lookups of a domain fail temporarily, and then reported
        completely.
        """
        self.fails()
        self.start()
        for _ in range(3):
            self.receive()
            self.pass_(1)
        self.pass_(0.5)
        self.assertEqual(self.world.queued(), [])
        self.assertEqual(self.left(), 3)
        self.world.resolver = DMARCWorld().resolver
        self.world.publishRecord(A)
        self.restart()
        self.pass_(0.1)
        (report,) = self.reports()
        self.assertEqual(
            (report.messages, report.end - report.start + 1), (3, 3 * HOUR)
        )
        self.assertEqual(self.left(), 0)

    def test_stale(self) -> None:
        """
        Data that couldn't be reported for two days is dropped.
        """
        self.fails()
        self.start()
        self.receive(hours=24)
        self.pass_(47)
        self.assertEqual(self.left(), 1)
        self.pass_(3)
        self.assertEqual(self.left(), 0)
        self.assertEqual(self.world.queued(), [])

    def test_optional(self) -> None:
        """
        Mail to report addresses causes no reports, so that two hosts don't report to
        each other about reports for ever.
        """
        self.world.publishRecord(A)
        self.start()
        self.world.record(evaluation(optional=True, hours=1), hour=0)
        self.pass_(2)
        self.assertEqual((self.world.queued(), self.left()), ([], 0))

    def test_early(self) -> None:
        """
        Reports can be sent early on request, also about an unfinished interval: they
        end now, never later, and later messages go into the next ones, so that each
        message is in one.
        """
        self.world.publishRecord(A)
        self.start()
        (service,) = self.services
        ends = []
        for minutes, times in ((10, 1), (20, 2), (90, 4)):
            self.pass_(minutes / 60)
            self.receive(hours=24, times=times)
            self.assertEqual(self.successResultOf(service.runNow()), 0)
            self.assertEqual(self.successResultOf(service.runNow(early=True)), 1)
            self.assertEqual(self.successResultOf(service.runNow(early=True)), 0)
            ends.append(int(self.world.clock.seconds()))
        self.receive(hours=24, times=8)
        self.pass_(24)
        starts = [SPAN.end, *ends]
        ends.append(SPAN.end + 24 * HOUR)
        self.assertEqual([each.start for each in self.reports()], starts)
        self.assertEqual([each.end + 1 for each in self.reports()], ends)
        self.assertEqual([each.messages for each in self.reports()], [1, 2, 4, 8])
        self.assertEqual(len({each.reportID for each in self.archived()}), 4)
        self.assertEqual(self.left(), 0)

    # --- to whom

    def test_message(self) -> None:
        """
        Queued reports pass DMARC with strict alignment: From, C{d=} and the envelope
        sender are of one domain (RFC 9990 3.5.2). They require the same TLS as other
        mail, and expire.
        """
        self.world.publishRecord(A)
        self.world.record()
        self.start()
        self.pass_(0.1)
        (body,) = self.world.queue.bodies.values()
        self.assertEqual(signatures(body, ED25519), [True])
        header = message_from_bytes(body)
        self.assertEqual(header["From"], "postmaster@sender.example")
        self.assertIn("d=sender.example;", header["DKIM-Signature"])
        (envelope,) = self.world.queue.envelopes
        self.assertRegex(envelope.sender, r"^postmaster\+\w+@sender\.example$")
        self.assertIs(envelope.report, ReportKind.DMARC)
        self.assertEqual((envelope.requireTLS, envelope.maxAttempts), (None, 5))

    def test_severalDestinations(self) -> None:
        """
        Each destination gets one message.
        """
        self.world.publishRecord(
            A, URI, "mailto:two@a.example", "mailto:DMARC@A.example"
        )
        self.world.record()
        self.start()
        self.pass_(3)
        expected = ["dmarc@a.example", "two@a.example", "DMARC@a.example"]
        self.assertEqual(sorted(self.world.queued()), sorted(expected))

    def test_tooLarge(self) -> None:
        """
        A destination with a tiny size limit gets only an error report (RFC 7489
        7.2.2).
        """
        self.world.publishRecord(A, URI + "!1")
        self.world.record()
        self.start()
        self.pass_(0.1)
        (body,) = self.world.queue.bodies.values()
        self.assertIn(b"\r\nReport-Domain: a.example\r\n", body)
        self.assertEqual(self.left(), 0)

    def test_notTo(self) -> None:
        """
        An excluded domain gets no reports, and its data doesn't accumulate.
        """
        self.world.settings = DMARCReporting(SUBMITTER, notTo=frozenset({A}))
        self.world.publishRecord(A)
        self.world.record()
        self.start()
        self.pass_(0.1)
        self.assertEqual((self.world.queued(), self.left()), ([], 0))

    def test_suppressedByHand(self) -> None:
        """
        A manually suppressed destination gets no reports until the suppression ends;
        its data isn't kept for that.
        """
        until = SPAN.end + 90 * MINUTE
        entry = Suppression(URI, ReportKind.DMARC, until, 0, "asked for it")
        self.world.ledger.suppressions.put(entry)
        self.world.publishRecord(A)
        self.start()
        for _ in range(3):
            self.receive()
            self.pass_(1)
        self.pass_(0.5)
        states = [each.state for each in self.archived()]
        suppressed, queued = ReportState.SUPPRESSED, ReportState.QUEUED
        self.assertEqual(states, [suppressed, queued, queued])
        self.assertEqual(self.archived()[0].detail, "asked for it")
        self.assertEqual(self.left(), 0)

    def test_suppressedByFailure(self) -> None:
        """
        A destination that refuses a report is suppressed for two days; TLS reports to
        it aren't affected.
        """
        self.world.publishRecord(A)
        self.world.record()
        self.start()
        self.pass_(0.1)
        (envelope,) = self.world.queue.envelopes
        result = Result("id", "dmarc@a.example", DeliveryStatus.PERMANENT, "5.1.1")
        self.successResultOf(self.deliveryTracker.reportEnded(envelope, result))
        for _ in range(50):
            self.receive()
            self.pass_(1)
        states = [each.state for each in self.archived()]
        self.assertEqual(states[:2], [ReportState.FAILED, ReportState.SUPPRESSED])
        self.assertIs(states[-1], ReportState.QUEUED)
        self.assertEqual(states.count(ReportState.SUPPRESSED), 48)
        self.assertEqual(len(self.world.queue.bodies), len(states) - 48)
        suppressions = self.world.ledger.suppressions
        tls = suppressions.active(URI, ReportKind.TLS, SPAN.end + HOUR)
        self.assertIsNone(self.successResultOf(tls))

    def test_bounced(self) -> None:
        """
        A DSN about a report is stored in a quiet mailbox, and has the same effect as
        a refusal.
        """
        self.world.publishRecord(A)
        self.world.record()
        self.start()
        self.pass_(0.1)
        (envelope,) = self.world.queue.envelopes
        dsn = DSN % (b"failed", b"5.1.1")
        kind = self.successResultOf(self.deliveryTracker.bounced(envelope.sender, dsn))
        assert kind is not None
        self.assertEqual(bounceMailbox(kind, "Postmaster"), "Postmaster/dmarc")
        (report,) = self.archived()
        self.assertIs(report.state, ReportState.FAILED)
        (entry,) = self.successResultOf(self.world.ledger.suppressions.entries())
        self.assertEqual((entry.destination, entry.kind), (URI, ReportKind.DMARC))
