"""
Tests for L{moxtls.reporting.handover}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import DAY
from moxtls.interfaces import IReportObserver, IReportSubmitter
from moxtls.ledger.memory import MemoryLedger
from moxtls.queue.memory import MemoryQueue
from moxtls.queue.types import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.handover import (
    QueueSubmitter,
    ReportDeliveryTracker,
    reportEnvelope,
)
from moxtls.reporting.suppression import BOUNCE_WINDOW
from moxtls.reporting.types import (
    OutgoingReport,
    ReportPeriod,
    ReportState,
    Suppression,
)
from tests.reporting.support import DAY as WHEN
from tests.reporting.support import ids, report
from tests.reporting.test_bounces import DSN

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
        A report goes out whatever becomes of TLS (RFC 8460 3), is tried as
        long as other mail, and is known by its key.
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
        The recipient of what is posted is the URI.
        """
        envelope = reportEnvelope(report("https://a.example/x", ""))
        self.assertEqual(envelope.recipients, ("https://a.example/x",))

    def test_dmarc(self) -> None:
        """
        A DMARC report asks for no exception from TLS, and is tried five times.
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


class AftermathTests(SynchronousTestCase):
    """
    Tests for L{ReportDeliveryTracker}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger()
        self.aftermath = ReportDeliveryTracker(
            self.clock, self.ledger.archive, self.ledger.suppressions
        )
        verifyObject(IReportObserver, self.aftermath)
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
        self.ledger.archive.file([composed])
        return composed

    def ends(
        self, composed: OutgoingReport, ending: DeliveryStatus, text: str = ""
    ) -> OutgoingReport:
        envelope = reportEnvelope(composed)
        self.successResultOf(self.aftermath.reportEnded(envelope, result(ending, text)))
        return self.found(composed)

    def bounce(self, recipient: str, message: bytes = FAILED) -> ReportKind | None:
        return self.successResultOf(self.aftermath.bounced(recipient, message))

    def found(self, composed: OutgoingReport) -> OutgoingReport:
        found = self.successResultOf(self.ledger.archive.find(str(composed.key)))
        assert found is not None
        return found

    def entry(self, destination: str = URI) -> Suppression | None:
        entries = self.ledger.suppressions
        return self.successResultOf(entries.get(destination, ReportKind.TLS))

    def test_delivered(self) -> None:
        """
        A delivery is noted, and suppresses nobody.
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
        ended = self.aftermath.reportEnded(
            reportEnvelope(report()), result(DeliveryStatus.PERMANENT)
        )
        self.successResultOf(ended)
        self.assertIsNone(self.entry())

    def test_bounced(self) -> None:
        """
        A DSN to a report's envelope sender, whatever its case, suppresses
        where the report went, once.
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
        A DSN about a delay needs nobody's attention, and changes nothing.
        """
        composed = self.sent()
        delayed = DSN % (b"delayed", b"4.4.1")
        self.assertIs(self.bounce(composed.sender, delayed), ReportKind.TLS)
        self.assertIs(self.found(composed).state, ReportState.COMPOSED)
        self.assertIsNone(self.entry())

    def test_notADSN(self) -> None:
        """
        Other mail, and mail to other addresses, is for people.
        """
        composed = self.sent()
        self.assertIsNone(self.bounce(composed.sender, b"Subject: hello\r\n\r\n"))
        self.assertIsNone(self.bounce("postmaster@sender.example"))
        self.assertIsNone(self.bounce(""))
        self.assertIsNone(self.entry())

    def test_kind(self) -> None:
        """
        Who files a DSN is told what it is about; it suppresses reports of
        that kind only.
        """
        composed = report(sender="P+d@sender.example")
        composed = replace(composed, key=replace(composed.key, kind=ReportKind.DMARC))
        subject = ReportPeriod(0, WHEN, composed.key.domain)
        settled = self.ledger.outcomes.settle(subject, (), (composed,))
        self.successResultOf(settled)
        self.assertIs(self.bounce(composed.sender), ReportKind.DMARC)
        self.assertIsNone(self.entry())
        entries = self.successResultOf(self.ledger.suppressions.entries())
        self.assertEqual([each.kind for each in entries], [ReportKind.DMARC])

    def test_growth(self) -> None:
        """
        A destination that takes each report and then bounces it is left alone
        for longer and longer.
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
        Once deliveries succeed, the count starts anew: at once where nothing
        can follow, else when no DSN has come.
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
