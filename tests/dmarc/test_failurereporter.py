"""
Tests for L{moxtls.dmarc.failurereporter}.

Tests for L{moxtls.dmarc.failurereporter}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.authentication.dkim.sign import Signer
from moxtls.dates import DAY, HOUR
from moxtls.dmarc.failure import FailureReporting
from moxtls.dmarc.failurereporter import (
    DEDUPLICATION_PERIOD,
    MAX_CONCURRENT,
    MAX_DOMAINS,
    MAX_PENDING,
    MAX_REMEMBERED,
    Deduplicator,
    FailureReporter,
    FailureReportLimiter,
    FailureReportTracker,
)
from moxtls.dmarc.parse import FeedbackReport, readFeedbackReport
from moxtls.dmarc.redaction import Redaction
from moxtls.dmarc.types import FinalDisposition, ReportURI, VerdictEvent
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IReportObserver, IVerdictObserver
from moxtls.queue.memory import MemoryQueue
from moxtls.queue.types import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.compose import ReportIdentity
from moxtls.reporting.destinations import BOUNCE_WINDOW, MIN_PERIOD
from moxtls.reporting.types import Suppression
from tests.dmarc.failures import DISCOVERY, HEADER, RECORD, SIGNATURE, failed
from tests.dmarc.reports import DMARCWorld
from tests.reporting.support import (
    ED25519,
    HOSTNAME,
    RSA,
    SUBMITTER,
    TLSRPT,
    A,
    signatures,
)

RUF = "mailto:ruf@example.com"
DMARC = ReportKind.DMARC
SETTINGS = FailureReporting(enabled=True, submitter=SUBMITTER, secret=b"k" * 32)


class BrokenQueue(MemoryQueue):
    """
    A queue that fails.
    """

    def submit(self, envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        return fail(OSError("disk full"))


def message(number: int = 0, *ruf: str) -> VerdictEvent:
    """
    Different messages that fail, signed by a domain that requests reports.
    """
    header = HEADER + f"List-Id: <{number}>\r\n".encode()
    uris = tuple(ReportURI(*_limited(each)) for each in ruf) or RECORD.ruf
    discovery = replace(DISCOVERY, record=replace(RECORD, ruf=uris))
    return failed(SIGNATURE, header=header, discovery=discovery)


def _limited(uri: str) -> tuple[str, int]:
    text, _, limit = uri.partition("!")
    return text, int(limit or 0)


class FailureReporterTests(SynchronousTestCase):
    """
    Tests for L{FailureReporter}.
    """

    def setUp(self) -> None:
        self.world = DMARCWorld()
        self.queue: MemoryQueue = self.world.queue
        self.resolver = self.world.resolver
        self.resolver.put("_dmarc.example.com", RRType.TXT, "v=DMARC1; p=reject")
        self.resolver.put("bounce.example.com", RRType.TXT, "v=spf1 -all")

    def reporter(
        self,
        settings: FailureReporting = SETTINGS,
        signers: Sequence[Signer] = (ED25519,),
    ) -> FailureReporter:
        world = self.world
        return FailureReporter(
            world.clock,
            self.resolver,
            world.ledger.suppressions,
            self.queue,
            ReportIdentity(HOSTNAME, tuple(signers)),
            settings,
            world.newID,
        )

    def notify(self, reporter: FailureReporter, *events: VerdictEvent) -> None:
        for each in events or (message(),):
            self.successResultOf(reporter.verdictGiven(each))

    def reports(self) -> list[FeedbackReport]:
        found = [readFeedbackReport(each) for each in self.queue.bodies.values()]
        return [each for each in found if each is not None]

    def test_report(self) -> None:
        """
        A message that fails is reported at once: signed, by the null sender,
        for the queue to send as it sends DMARC reports.
        """
        reporter = self.reporter(signers=(RSA, ED25519, TLSRPT))
        verifyObject(IVerdictObserver, reporter)
        self.notify(reporter)
        (envelope,) = self.queue.envelopes
        self.assertTrue(envelope.key.startswith("failure/"))
        expected = Envelope(
            "",
            ("ruf@example.com",),
            report=DMARC,
            key=envelope.key,
            maxAttempts=5,
        )
        self.assertEqual(envelope, expected)
        (body,) = self.queue.bodies.values()
        self.assertEqual(signatures(body, RSA, ED25519), [True, True])
        (report,) = self.reports()
        self.assertEqual(report.get("Reported-Domain"), "news.example.com")
        self.assertEqual(
            report.get("SPF-DNS"), 'txt : bounce.example.com : "v=spf1 -all"'
        )
        token = Redaction(SETTINGS.secret).token("john.doe")
        self.assertEqual(
            report.get("Original-Mail-From"), f"<{token}@bounce.example.com>"
        )
        self.assertEqual(report.get("Arrival-Date"), "Wed, 25 Nov 2026 00:05:00 +0000")

    def test_off(self) -> None:
        """
        Nothing is sent or looked up unless failure reports are on, a domain can sign,
        and the destination is allowed.
        """
        for reporter in [
            self.reporter(FailureReporting()),
            self.reporter(replace(SETTINGS, enabled=False)),
            self.reporter(replace(SETTINGS, submitter=None)),
            self.reporter(signers=()),
            self.reporter(signers=(TLSRPT,)),
            self.reporter(replace(SETTINGS, submitter=Domain("b.example"))),
            self.reporter(replace(SETTINGS, allow=frozenset({Domain("b.example")}))),
        ]:
            self.notify(reporter)
        self.assertEqual(self.queue.envelopes, [])
        self.assertEqual(self.resolver.asked, [])

    def test_recipients(self) -> None:
        """
        A message for several of our recipients is one failure.
        """
        one = message()
        other = replace(
            one,
            recipient="bert@our.example",
            finalDisposition=FinalDisposition.ACCEPTED,
        )
        self.notify(self.reporter(), one, other, one)
        self.assertEqual(len(self.reports()), 1)

    def test_limits(self) -> None:
        """
        Beyond the hourly limit, messages are counted in the next report (RFC 9991
        8.1).
        """
        reporter = self.reporter(replace(SETTINGS, perHour=2))
        self.notify(reporter, *map(message, range(5)))
        self.world.clock.advance(HOUR)
        self.notify(reporter, message(6))
        incidents = [each.get("Incidents") for each in self.reports()]
        self.assertEqual(incidents, ["", "", "4"])

    def test_day(self) -> None:
        """
        Only sent reports count towards the limit for all domains.
        """
        reporter = self.reporter(replace(SETTINGS, perDay=2))
        unconfirmed = [message(n, "mailto:ruf@other.example") for n in range(3)]
        self.notify(reporter, *unconfirmed, *map(message, range(3, 8)))
        self.assertEqual(len(self.reports()), 2)

    def test_external(self) -> None:
        """
        External destinations have to confirm failure reports at C{ruf}; all that do
        get the same (RFC 9991 2, 5).
        """
        self.world.publishConfirmation(Domain("example.com"), "b.example")
        self.world.publishConfirmation(
            Domain("example.com"), "c.example", "v=DMARC1; ruf=mailto:new@c.example"
        )
        self.world.publishConfirmation(
            Domain("example.com"), "d.example", "v=DMARC1; rua=mailto:new@d.example"
        )
        uris = [f"mailto:x@{each}.example" for each in "abcd"]
        self.notify(self.reporter(), message(0, *uris, "https://example.com/"))
        (envelope,) = self.queue.envelopes
        expected = ("x@b.example", "new@c.example", "x@d.example")
        self.assertEqual(envelope.recipients, expected)
        (body,) = self.queue.bodies.values()
        for each in expected:
            self.assertIn(each.encode(), body.partition(b"\r\n\r\n")[0])

    def test_size(self) -> None:
        """
        A destination whose size limit is exceeded gets no report (RFC 7489 6.2), and
        isn't named to others.
        """
        other = "mailto:b@example.com"
        self.notify(self.reporter(), message(0, f"{RUF}!100", f"{other}!100000"))
        (envelope,) = self.queue.envelopes
        self.assertEqual(envelope.recipients, ("b@example.com",))
        (body,) = self.queue.bodies.values()
        self.assertNotIn(b"ruf@example.com", body)
        self.notify(self.reporter(), message(1, f"{RUF}!100"))
        self.assertEqual(len(self.reports()), 1)

    def test_suppressed(self) -> None:
        """
        Destinations that get no DMARC reports don't get these either.
        """
        until = self.world.clock.seconds() + 60
        entry = Suppression(RUF, DMARC, until, 0)
        self.world.ledger.suppressions.put(entry)
        reporter = self.reporter()
        self.notify(reporter, message(0))
        self.assertEqual(self.queue.envelopes, [])
        self.world.clock.advance(60)
        self.notify(reporter, message(1))
        self.assertEqual([each.get("Incidents") for each in self.reports()], ["2"])

    def test_noMail(self) -> None:
        """
        Nothing is sent in the name of a domain that can't receive mail.
        """
        self.resolver.put(str(SUBMITTER), RRType.MX, "0 .")
        self.notify(self.reporter())
        self.assertEqual(self.queue.envelopes, [])

    def test_queueFails(self) -> None:
        """
        A report that can't be queued is logged and lost; mail and other reports
        aren't affected.
        """
        reporter = self.reporter()
        reporter._queue = BrokenQueue(self.world.clock, self.world.newID)
        self.notify(reporter, message(0))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        reporter._queue = self.queue
        self.notify(reporter, message(1))
        self.assertEqual([each.get("Incidents") for each in self.reports()], ["2"])

    def test_background(self) -> None:
        """
        Mail doesn't wait for lookups, whose number is limited; events beyond it are
        only counted.
        """
        self.resolver.hang(str(SUBMITTER), RRType.MX)
        reporter = self.reporter(replace(SETTINGS, perHour=100, perDay=100))
        self.notify(reporter, *map(message, range(MAX_PENDING + 5)))
        self.assertEqual(len(self.resolver.asked), MAX_CONCURRENT)
        self.resolver.release(str(SUBMITTER), RRType.MX)
        self.assertEqual(len(self.reports()), MAX_PENDING)
        self.notify(reporter, message(100))
        self.assertEqual(self.reports()[-1].get("Incidents"), "6")

    def test_stop(self) -> None:
        """
        Stopping drops all unqueued reports, also waiting ones, and no new ones are
        begun.
        """
        self.resolver.hang(str(SUBMITTER), RRType.MX)
        reporter = self.reporter()
        self.notify(reporter, *map(message, range(MAX_CONCURRENT + 2)))
        self.successResultOf(reporter.stop())
        self.resolver.release(str(SUBMITTER), RRType.MX)
        self.notify(reporter, message(100))
        self.assertEqual(self.queue.envelopes, [])
        self.successResultOf(reporter.stop())


class FailureReportTrackerTests(SynchronousTestCase):
    """
    Tests for L{FailureReportTracker}.
    """

    def setUp(self) -> None:
        self.world = DMARCWorld()
        self.store = self.world.ledger.suppressions
        self.deliveryTracker = FailureReportTracker(self.world.clock, self.store)

    def end(self, ending: DeliveryStatus, key: str = "failure/1") -> None:
        to = '"o o"@b.example'
        envelope = Envelope("", (to,), report=DMARC, key=key)
        result = Result("m", to, ending, "5.1.1", 550, "no such user", "mx.b.example")
        self.successResultOf(self.deliveryTracker.reportEnded(envelope, result))

    def entry(self) -> Suppression | None:
        return self.successResultOf(
            self.store.get("mailto:%22o%20o%22@b.example", DMARC)
        )

    def test_refused(self) -> None:
        """
        A destination that refuses a report is suppressed for a while; refusals of
        reports sent before count as one.
        """
        verifyObject(IReportObserver, self.deliveryTracker)
        self.end(DeliveryStatus.PERMANENT)
        self.end(DeliveryStatus.PERMANENT)
        entry = self.entry()
        assert entry is not None
        now = self.world.clock.seconds()
        self.assertEqual((entry.failures, entry.until), (1, now + MIN_PERIOD))
        self.assertEqual(entry.comment, "mx.b.example 5.1.1 no such user")
        self.world.clock.advance(MIN_PERIOD)
        self.end(DeliveryStatus.PERMANENT)
        entry = self.entry()
        assert entry is not None
        self.assertEqual(entry.failures, 2)

    def test_forgiven(self) -> None:
        """
        A report that arrives makes the count start anew.
        """
        self.end(DeliveryStatus.PERMANENT)
        self.end(DeliveryStatus.DELIVERED)
        self.assertIsNotNone(self.entry())
        self.world.clock.advance(MIN_PERIOD + BOUNCE_WINDOW)
        self.end(DeliveryStatus.DELIVERED)
        self.assertIsNone(self.entry())

    def test_others(self) -> None:
        """
        Results of other reports, and temporary ones, are ignored.
        """
        self.end(DeliveryStatus.PERMANENT, key="dmarc/0/1/a.example")
        self.end(DeliveryStatus.TEMPORARY)
        self.assertIsNone(self.entry())


B = Domain("b.example")


class FailureReportLimiterTests(SynchronousTestCase):
    """
    Tests for L{FailureReportLimiter}: RFC 9991 8.1.
    """

    def test_hour(self) -> None:
        """
        The hourly limit applies to each domain; events beyond it are counted in the
        next report.
        """
        limiter = FailureReportLimiter(perHour=2, perDay=100)
        taken = [limiter.take(A, each) for each in (0, 600, 1200, 1800)]
        self.assertEqual(taken, [1, 1, 0, 0])
        self.assertEqual(limiter.take(B, 1800), 1)
        taken = [limiter.take(A, each) for each in (HOUR - 1, HOUR, HOUR + 1)]
        self.assertEqual(taken, [0, 4, 0])
        self.assertEqual(limiter.take(A, HOUR + 600), 2)

    def test_day(self) -> None:
        """
        The daily limit applies to all domains together.
        """
        limiter = FailureReportLimiter(perHour=10, perDay=3)
        taken = [limiter.take(domain, 0) for domain in (A, B, A, B, A)]
        self.assertEqual(taken, [1, 1, 1, 0, 0])
        self.assertEqual(limiter.take(B, DAY - 1), 0)
        self.assertEqual(limiter.take(A, DAY), 1)

    def test_old(self) -> None:
        """
        Held-back events are forgotten after a day without reports.
        """
        limiter = FailureReportLimiter(perHour=1, perDay=100)
        limiter.take(A, 0)
        limiter.take(A, 1)
        self.assertEqual(limiter.take(A, DAY + 1), 1)

    def test_giveBack(self) -> None:
        """
        A report that wasn't sent is given back to the daily limit, but not to the
        domain's; its events are counted in a later report.
        """
        limiter = FailureReportLimiter(perHour=1, perDay=1)
        self.assertEqual(limiter.take(A, 0), 1)
        limiter.giveBack(A, 1, 0)
        self.assertEqual(limiter.take(A, 1), 0)
        self.assertEqual(limiter.take(B, 1), 1)
        limiter.giveBack(B, 1, 1)
        self.assertEqual(limiter.take(A, HOUR), 3)

    def test_none(self) -> None:
        """
        Limits of 0 allow nothing.
        """
        self.assertEqual(FailureReportLimiter(0, 10).take(A, 0), 0)
        limiter = FailureReportLimiter(10, 0)
        self.assertEqual(limiter.take(A, 0), 0)
        limiter.giveBack(A, 1, 0)

    def test_bounded(self) -> None:
        """
        However many domains there are, those of lately are remembered, and
        the limit for all holds.
        """
        limiter = FailureReportLimiter(perHour=1, perDay=50)
        domains = [Domain(f"d{n}.example") for n in range(MAX_DOMAINS + 10)]
        taken = [limiter.take(each, 0) for each in domains]
        self.assertEqual(sum(taken), 50)
        self.assertEqual(limiter.take(domains[-1], DAY - 1), 0)
        self.assertEqual(limiter.take(domains[-1], DAY), 3)
        self.assertEqual(len(limiter._accounts), MAX_DOMAINS)


class DeduplicatorTests(SynchronousTestCase):
    """
    Tests for L{Deduplicator}.
    """

    def test_moment(self) -> None:
        """
        Something is new once, for a while.
        """
        seen = Deduplicator()
        times = (
            0,
            1,
            DEDUPLICATION_PERIOD - 1,
            DEDUPLICATION_PERIOD,
            DEDUPLICATION_PERIOD + 1,
        )
        found = [seen.isNew(b"a", each) for each in times]
        self.assertEqual(found, [True, False, False, True, False])
        self.assertTrue(seen.isNew(b"b", 1))

    def test_bounded(self) -> None:
        """
        The number of remembered events is limited; the oldest are dropped.
        """
        seen = Deduplicator()
        for each in range(MAX_REMEMBERED + 1):
            seen.isNew(str(each).encode(), 0)
        self.assertTrue(seen.isNew(b"0", 1))
        self.assertFalse(seen.isNew(str(MAX_REMEMBERED).encode(), 1))
