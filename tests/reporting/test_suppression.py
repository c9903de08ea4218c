"""
Tests for L{moxtls.reporting.suppression}.

Tests for L{moxtls.reporting.suppression}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY
from moxtls.queue.types import ReportKind
from moxtls.reporting.suppression import (
    BOUNCE_WINDOW,
    DSNNotification,
    afterFailure,
    bounceMailbox,
    canReset,
    readDSN,
    suppressionPeriod,
)
from moxtls.reporting.types import Suppression

DSN = b"""\
From: <mailer-daemon@a.example>\r
Content-Type: multipart/report; report-type=delivery-status; boundary=b\r
\r
--b\r
\r
Sorry.\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; mx.a.example\r
\r
Final-Recipient: rfc822; tls@a.example\r
Action: %s\r
Status: %s\r
Diagnostic-Code: smtp; 550 5.1.1\r
 no such user\r
--b--\r
"""


class ReadDSNTests(SynchronousTestCase):
    """
    Tests for L{readDSN}: RFC 3464.
    """

    def test_failed(self) -> None:
        """
        Giving up is a failure.
        """
        for action in (b"failed", b"Failed (what else)"):
            self.assertEqual(
                readDSN(DSN % (action, b"5.1.1 (really)")),
                DSNNotification(True, "5.1.1 550 5.1.1 no such user"),
            )

    def test_other(self) -> None:
        """
        A delay, or success, is none.
        """
        for action in (b"delayed", b"delivered", b"relayed", b"expanded", b""):
            found = readDSN(DSN % (action, b"4.2.1"))
            self.assertEqual(found, DSNNotification(False))

    def test_someRecipient(self) -> None:
        """
        One failed recipient of several is enough.
        """
        group = (
            b"\r\nFinal-Recipient: rfc822; x@a.example\r\nAction: delayed\r\n\r\nFinal"
        )
        message = (DSN % (b"failed", b"5.0.0")).replace(b"\r\nFinal", group)
        found = readDSN(message)
        assert found is not None
        self.assertTrue(found.failed)

    def test_none(self) -> None:
        """
        A reply by a person, or an automatic one, isn't a DSN.
        """
        for message in [
            b"Subject: Out of office\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            (DSN % (b"failed", b"5.1.1")).replace(
                b"delivery-status\r\n", b"rfc822\r\n"
            ),
            b"",
        ]:
            self.assertIsNone(readDSN(message))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200))
    def test_hostile(self, body: bytes) -> None:
        """
        Any message is read without an exception, and the result is bounded.
        """
        start = (
            b"Content-Type: message/delivery-status\n\nAction: failed\nDiagnostic-Code"
        )
        found = readDSN(start + body)
        self.assertIsInstance(found, DSNNotification)
        found = readDSN(start + b": x;" + body * 100)
        assert found is not None
        self.assertLessEqual(len(found.detail), 500)


class BounceMailboxTests(SynchronousTestCase):
    """
    Tests for L{bounceMailbox}.
    """

    def test_kinds(self) -> None:
        """
        Each kind of report has a mailbox beneath the postmaster's.
        """
        self.assertEqual(bounceMailbox(ReportKind.TLS, "Post"), "Post/tlsrpt")
        self.assertEqual(bounceMailbox(ReportKind.DMARC, "Post"), "Post/dmarc")


URI = "mailto:tls@a.example"


class SuppressionTests(SynchronousTestCase):
    """
    Tests for how long a destination is left alone.
    """

    def test_growth(self) -> None:
        """
        Each failure in a row doubles the period, up to a year.
        """
        days = [suppressionPeriod(failures) // DAY for failures in range(1, 11)]
        self.assertEqual(days, [2, 4, 8, 16, 32, 64, 128, 256, 365, 365])
        self.assertEqual(suppressionPeriod(10**6), 365 * DAY)

    def test_suppress(self) -> None:
        """
        A new entry continues the count of the previous one.
        """
        first = afterFailure(URI, ReportKind.TLS, 1000, "550", None)
        self.assertEqual(
            first, Suppression(URI, ReportKind.TLS, 1000 + 2 * DAY, 1000, "550", 1)
        )
        second = afterFailure(URI, ReportKind.TLS, 3 * DAY, "551", first)
        self.assertEqual((second.failures, second.until), (2, 7 * DAY))

    def test_byHand(self) -> None:
        """
        A longer manual suppression isn't shortened.
        """
        manual = Suppression(URI, ReportKind.TLS, 100 * DAY, 0)
        entry = afterFailure(URI, ReportKind.TLS, 50 * DAY, "550", manual)
        self.assertEqual((entry.failures, entry.until), (1, 100 * DAY))

    def test_forgiven(self) -> None:
        """
        A delivery resets the count; but as a DSN may follow acceptance by a mail
        host, only after the time in which one would have come. Manual suppressions
        stay.
        """
        entry = afterFailure(URI, ReportKind.TLS, 0, "", None)
        self.assertFalse(canReset(entry, entry.until - 1, final=True))
        self.assertTrue(canReset(entry, entry.until, final=True))
        self.assertFalse(canReset(entry, entry.until, final=False))
        self.assertTrue(canReset(entry, entry.until + BOUNCE_WINDOW, final=False))
        manual = Suppression(URI, None, 0, 0)
        self.assertFalse(canReset(manual, 1000 * DAY, final=True))
