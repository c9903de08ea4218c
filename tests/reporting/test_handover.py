"""
Tests for L{moxtls.reporting.handover}.

Tests for L{moxtls.reporting.handover}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.dates import DAY
from moxtls.domain import Domain
from moxtls.interfaces import IReportObserver, IReportSubmitter
from moxtls.ledger.ledger import MemoryLedger
from moxtls.queue.memory import MemoryQueue
from moxtls.queue.types import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.destinations import BOUNCE_WINDOW
from moxtls.reporting.handover import (
    FAILURE_PAUSE,
    MAX_FAILURES,
    Outbox,
    QueueSubmitter,
    ReportDeliveryTracker,
    reportEnvelope,
)
from moxtls.reporting.schedule import MAX_AGE
from moxtls.reporting.types import (
    OutgoingReport,
    ReportPeriod,
    ReportState,
    Suppression,
)
from tests.ledger.values import file
from tests.reporting.support import DAY as WHEN
from tests.reporting.support import ids, report
from tests.reporting.test_destinations import DSN

URI = "mailto:tls@a.example"
FAILED = DSN % (b"failed", b"5.1.1")


def result(ending: DeliveryStatus, text: str = "") -> Result:
    return Result("id", "tls@a.example", ending, "5.1.1", 550, text, "mx.a.example")


class QueueSubmitterTests(SynchronousTestCase):
    """
    Tests for L{QueueSubmitter} and L{reportEnvelope}.
    """

    def test_mail(self) -> None:
        """
        A report is sent regardless of TLS failures (RFC 8460 3), retried like other
        mail, and identified by its key.
        """
        composed = report()
        self.assertEqual(
            reportEnvelope(composed),
            Envelope(
                sender="postmaster+id1@sender.example",
                recipients=("tls@a.example",),
                requireTLS=False,
                report=ReportKind.TLS,
                key=str(composed.key),
                contentType="message/rfc822",
            ),
        )

    def test_post(self) -> None:
        """
        The recipient of an HTTPS report is the URI.
        """
        envelope = reportEnvelope(report("https://a.example/x", ""))
        self.assertEqual(envelope.recipients, ("https://a.example/x",))

    def test_dmarc(self) -> None:
        """
        A DMARC report has no exception from TLS requirements, and is tried five
        times.
        """
        composed = report()
        composed = replace(composed, key=replace(composed.key, kind=ReportKind.DMARC))
        envelope = reportEnvelope(composed)
        self.assertIsNone(envelope.requireTLS)
        self.assertEqual(envelope.maxAttempts, 5)

    def test_quoted(self) -> None:
        """
        An address is in the form that RCPT has.
        """
        envelope = reportEnvelope(report("mailto:%22a%20b%22@a.example"))
        self.assertEqual(envelope.recipients, ('"a b"@a.example',))

    def test_twice(self) -> None:
        """
        Submitting again changes nothing.
        """
        queue = MemoryQueue(Clock(), ids())
        submitter = QueueSubmitter(queue)
        verifyObject(IReportSubmitter, submitter)
        for _ in range(2):
            self.successResultOf(submitter.submit(report()))
        self.assertEqual(list(queue.bodies.values()), [report().message])


class ReportDeliveryTrackerTests(SynchronousTestCase):
    """
    Tests for L{ReportDeliveryTracker}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger()
        self.deliveryTracker = ReportDeliveryTracker(
            self.clock, self.ledger.archive, self.ledger.suppressions
        )
        verifyObject(IReportObserver, self.deliveryTracker)
        self.number = 0

    def sent(self, destination: str = URI) -> OutgoingReport:
        """
        File another report.
        """
        self.number += 1
        sender = "" if destination != URI else f"P+{self.number}@sender.example"
        composed = report(destination, sender)
        key = composed.key
        composed = OutgoingReport(
            type(key)(key.kind, key.domain, self.number, key.end, destination),
            composed.reportID,
            sender,
            composed.message,
            composed.contentType,
            composed.composed,
        )
        file(self.ledger, composed)
        return composed

    def ends(
        self, composed: OutgoingReport, ending: DeliveryStatus, text: str = ""
    ) -> OutgoingReport:
        envelope = reportEnvelope(composed)
        self.successResultOf(
            self.deliveryTracker.reportEnded(envelope, result(ending, text))
        )
        return self.found(composed)

    def bounce(self, recipient: str, message: bytes = FAILED) -> ReportKind | None:
        return self.successResultOf(self.deliveryTracker.bounced(recipient, message))

    def found(self, composed: OutgoingReport) -> OutgoingReport:
        found = self.successResultOf(self.ledger.archive.find(str(composed.key)))
        assert found is not None
        return found

    def entry(self, destination: str = URI) -> Suppression | None:
        entries = self.ledger.suppressions
        return self.successResultOf(entries.get(destination, ReportKind.TLS))

    def test_delivered(self) -> None:
        """
        A delivery is recorded, without a suppression.
        """
        found = self.ends(self.sent(), DeliveryStatus.DELIVERED)
        self.assertIs(found.state, ReportState.DELIVERED)
        self.assertIsNone(self.entry())

    def test_permanent(self) -> None:
        """
        A permanent failure suppresses the destination, with the reason.
        """
        found = self.ends(self.sent(), DeliveryStatus.PERMANENT, "no such user")
        self.assertIs(found.state, ReportState.FAILED)
        self.assertEqual(found.detail, "mx.a.example 550 5.1.1 no such user")
        entry = self.entry()
        assert entry is not None
        self.assertEqual((entry.failures, entry.until), (1, 2 * DAY))
        self.assertEqual(entry.comment, found.detail)

    def test_givenUp(self) -> None:
        """
        A report that was given up after temporary failures failed, but its
        destination may get another one.
        """
        found = self.ends(self.sent(), DeliveryStatus.TEMPORARY)
        self.assertIs(found.state, ReportState.FAILED)
        self.assertIsNone(self.entry())

    def test_unknown(self) -> None:
        """
        A report that isn't in the archive any more is passed over.
        """
        ended = self.deliveryTracker.reportEnded(
            reportEnvelope(report()), result(DeliveryStatus.PERMANENT)
        )
        self.successResultOf(ended)
        self.assertIsNone(self.entry())

    def test_bounced(self) -> None:
        """
        A DSN to a report's envelope sender, in any case, suppresses the report's
        destination, once.
        """
        composed = self.sent()
        self.ends(composed, DeliveryStatus.DELIVERED)
        for recipient in ("P+1@sender.example", "p+1@SENDER.example"):
            self.assertIs(self.bounce(recipient), ReportKind.TLS)
        found = self.found(composed)
        self.assertIs(found.state, ReportState.FAILED)
        self.assertEqual(found.detail, "5.1.1 550 5.1.1 no such user")
        entry = self.entry()
        assert entry is not None
        self.assertEqual(entry.failures, 1)

    def test_delayed(self) -> None:
        """
        A DSN about a delay is discarded, and changes nothing.
        """
        composed = self.sent()
        delayed = DSN % (b"delayed", b"4.4.1")
        self.assertIs(self.bounce(composed.sender, delayed), ReportKind.TLS)
        self.assertIs(self.found(composed).state, ReportState.COMPOSED)
        self.assertIsNone(self.entry())

    def test_notADSN(self) -> None:
        """
        Other mail, and mail to other addresses, is kept for its recipients.
        """
        composed = self.sent()
        self.assertIsNone(self.bounce(composed.sender, b"Subject: hello\r\n\r\n"))
        self.assertIsNone(self.bounce("postmaster@sender.example"))
        self.assertIsNone(self.bounce(""))
        self.assertIsNone(self.entry())

    def test_kind(self) -> None:
        """
        A DSN yields the kind of the report it is about, and suppresses reports of
        that kind only.
        """
        composed = report(sender="P+d@sender.example")
        composed = replace(composed, key=replace(composed.key, kind=ReportKind.DMARC))
        period = ReportPeriod(0, WHEN, composed.key.domain)
        settled = self.ledger.outcomes.settle(period, (), (composed,))
        self.successResultOf(settled)
        self.assertIs(self.bounce(composed.sender), ReportKind.DMARC)
        self.assertIsNone(self.entry())
        entries = self.successResultOf(self.ledger.suppressions.entries())
        self.assertEqual([each.kind for each in entries], [ReportKind.DMARC])

    def test_growth(self) -> None:
        """
        Suppression grows for a destination that accepts each report and then bounces
        it.
        """
        for failures in (1, 2, 3):
            composed = self.sent()
            self.ends(composed, DeliveryStatus.DELIVERED)
            self.bounce(composed.sender)
            entry = self.entry()
            assert entry is not None
            self.assertEqual(entry.failures, failures)
            self.clock.advance(entry.until - self.clock.seconds())

    def test_anew(self) -> None:
        """
        Successful deliveries reset the count: at once if no DSN can follow, else when
        none has come.
        """
        posted = "https://a.example/"
        self.ends(self.sent(posted), DeliveryStatus.PERMANENT)
        self.ends(self.sent(), DeliveryStatus.PERMANENT)
        self.clock.advance(2 * DAY)
        self.ends(self.sent(posted), DeliveryStatus.DELIVERED)
        self.ends(self.sent(), DeliveryStatus.DELIVERED)
        self.assertIsNone(self.entry(posted))
        self.assertIsNotNone(self.entry())
        self.clock.advance(BOUNCE_WINDOW)
        self.ends(self.sent(), DeliveryStatus.DELIVERED)
        self.assertIsNone(self.entry())


@implementer(IReportSubmitter)
class FakeSubmitter:
    """
    Records reports; can fail, or never answer.
    """

    def __init__(self) -> None:
        self.given: list[str] = []
        self.broken = False
        self.poison = ""
        self.stuck = False

    def submit(self, report: OutgoingReport) -> Deferred[None]:
        if self.broken:
            return fail(OSError("disk full"))
        if report.key.destination == self.poison:
            raise ValueError("poison")
        self.given.append(report.key.destination)
        return Deferred() if self.stuck else succeed(None)


class OutboxTests(SynchronousTestCase):
    """
    Tests for L{Outbox}.
    """

    def setUp(self) -> None:
        self.ledger = MemoryLedger()
        self.archive = self.ledger.archive
        self.submitter = FakeSubmitter()
        self.clock = Clock()
        verifyObject(IReportSubmitter, self.submitter)

    def file(self, *names: str) -> None:
        for name in names:
            sender = f"p+{name}@sender.example"
            file(self.ledger, report(f"mailto:{name}@a.example", sender))

    def outbox(self, node: str = "node") -> Outbox:
        return Outbox(self.clock, self.archive, self.submitter, ReportKind.TLS, node)

    def states(self) -> set[ReportState]:
        return {each.state for each in self.successResultOf(self.archive.reports())}

    def test_all(self) -> None:
        """
        All are handed over and marked, but for those that are suppressed.
        """
        self.file("x", "y")
        quiet = report("https://a.example/", "", ReportState.SUPPRESSED, Domain("q"))
        file(self.ledger, quiet)
        self.successResultOf(self.outbox().empty())
        self.assertEqual(
            self.submitter.given, ["mailto:x@a.example", "mailto:y@a.example"]
        )
        self.assertEqual(self.states(), {ReportState.QUEUED, ReportState.SUPPRESSED})

    def test_broken(self) -> None:
        """
        A report that can't be handed over is handed over the next time.
        """
        self.file("x")
        self.submitter.broken = True
        outbox = self.outbox()
        self.successResultOf(outbox.empty())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.submitter.broken = False
        self.successResultOf(outbox.empty())
        self.assertEqual(self.submitter.given, ["mailto:x@a.example"])

    def test_taken(self) -> None:
        """
        A report claimed by another node is left to it.
        """
        self.file("x")
        self.successResultOf(self.archive.take(ReportKind.TLS, "other", 1))
        self.successResultOf(self.outbox().empty())
        self.assertEqual(self.submitter.given, [])
        self.successResultOf(self.outbox("other").empty())
        self.assertEqual(self.submitter.given, ["mailto:x@a.example"])

    def test_poison(self) -> None:
        """
        A report that can't be handed over doesn't delay others, not even later ones;
        the log has the reason.
        """
        self.file("poison", "x")
        self.submitter.poison = "mailto:poison@a.example"
        outbox = self.outbox()
        for name in "xyz":
            self.file(name)
            self.successResultOf(outbox.empty())
            self.assertEqual(self.submitter.given[-1], f"mailto:{name}@a.example")
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
            self.clock.advance(300)
        waiting = self.archive.reports(state=ReportState.HANDING)
        (poison,) = self.successResultOf(waiting)
        self.assertEqual(
            (poison.key.destination, poison.detail),
            ("mailto:poison@a.example", "poison"),
        )

    def test_stale(self) -> None:
        """
        A stale report is given up, with the reason.
        """
        self.file("x")
        self.submitter.broken = True
        outbox = self.outbox()
        (composed,) = self.successResultOf(self.archive.reports())
        for age, state in (
            (MAX_AGE[ReportKind.TLS] - 1, ReportState.HANDING),
            (MAX_AGE[ReportKind.TLS], ReportState.FAILED),
        ):
            self.clock.rightNow = composed.composed + age
            self.successResultOf(outbox.empty())
            (found,) = self.successResultOf(self.archive.reports())
            self.assertEqual((found.state, found.detail), (state, "disk full"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_rest(self) -> None:
        """
        A node whose queue fails leaves the reports to others, and tries again after a
        while.
        """
        self.file(*"abcdefgh")
        self.submitter.broken = True
        outbox = self.outbox()
        for name in "ijkl":
            self.file(name)
            self.successResultOf(outbox.empty())
        failed = len(self.flushLoggedErrors(OSError))
        self.assertEqual(failed, 9 + MAX_FAILURES - 1)
        self.submitter.broken = False
        self.successResultOf(outbox.empty())
        self.assertEqual(self.submitter.given, [])
        self.successResultOf(self.outbox("other").empty())
        left = ["mailto:k@a.example", "mailto:l@a.example"]
        self.assertEqual(self.submitter.given, left)
        self.clock.advance(FAILURE_PAUSE)
        self.successResultOf(outbox.empty())
        self.assertEqual(len(self.submitter.given), 12)
        self.assertEqual(self.states(), {ReportState.QUEUED})

    def test_together(self) -> None:
        """
        Concurrent runs don't hand over the same report.
        """
        self.file("x", "y")
        self.submitter.stuck = True
        outbox = self.outbox()
        running = [outbox.empty(), outbox.empty()]
        self.assertEqual(len(self.submitter.given), 2)
        for each in reversed(running):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(len(self.submitter.given), 2)
        self.submitter.stuck = False
        self.successResultOf(outbox.empty())
        self.assertEqual(self.states(), {ReportState.QUEUED})
