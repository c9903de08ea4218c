"""
Tests for L{moxtls.reporting.destinations}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY
from moxtls.domain import Address
from moxtls.queue.types import ReportKind
from moxtls.reporting.destinations import (
    BOUNCE_WINDOW,
    MAX_DESTINATIONS,
    MAX_REASONS,
    DSNNotification,
    InvalidDestination,
    afterFailure,
    bounceMailbox,
    canonicalURI,
    canReset,
    chooseDestinations,
    parseDestination,
    readDSN,
    suppressionPeriod,
)
from moxtls.reporting.types import Suppression


class ParseDestinationTests(SynchronousTestCase):
    """
    Tests for L{parseDestination} and L{canonicalURI}.
    """

    def test_canonical(self) -> None:
        """
        Spellings of one destination are equal: case of scheme and host, IDNs
        in either form, percent-encoding, default port; a local part's case is
        its own (RFC 5321 2.4).
        """
        for text, expected in [
            ("mailto:Tls@Example.ORG", "mailto:Tls@example.org"),
            ("MAILTO:tls@bücher.example", "mailto:tls@xn--bcher-kva.example"),
            ("mailto:tls@XN--BCHER-KVA.example.", "mailto:tls@xn--bcher-kva.example"),
            ("mailto:tls%2Brpt%40example.org", "mailto:tls+rpt@example.org"),
            ("mailto:a@b.example?subject=x%0d%0aBcc:c", "mailto:a@b.example"),
            ("mailto:%22a b%22@b.example", "mailto:%22a%20b%22@b.example"),
            ("HTTPS://Example.ORG:443", "https://example.org/"),
            ("https://example.org:8443/A?b=c#d", "https://example.org:8443/A?b=c"),
            ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
            ("https://a_b.example/", "https://a_b.example/"),
            ("mailto:a..b@c_d.example", "mailto:a..b@c_d.example"),
            (f"mailto:{'x' * 65}@c.example", f"mailto:{'x' * 65}@c.example"),
        ]:
            self.assertEqual(canonicalURI(text), expected)
            self.assertEqual(canonicalURI(expected), expected)

    def test_address(self) -> None:
        """
        Only C{mailto:} has an address.
        """
        to = parseDestination("mailto:Tls%2Ba@example.org").address
        self.assertEqual(to, Address.parse("Tls+a@example.org"))
        self.assertIsNone(parseDestination("https://example.org/").address)

    def test_refused(self) -> None:
        """
        Refused destinations: other schemes, several addresses in one URI,
        credentials, and addresses in private networks.
        """
        for text in [
            "tls@example.org",
            "http://example.org/",
            "ftp://example.org/",
            "mailto:",
            "mailto:a@b.example,c@d.example",
            "mailto:a@b.example%0d%0aBcc:c@d.example",
            "mailto:a@[127.0.0.1]",
            "mailto:%ff@example.org",
            "mailto:böse@example.org",
            "https:",
            "https://",
            "https:///path",
            "https://user:secret@example.org/",
            "https://user@example.org/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://example.org:0/",
            "https://example.org:65536/",
            "https://example.org/a b",
            "https://example.org/\r\nHost: x",
            "https://a-.example/",
            "https://example.org/" + "a" * 2000,
        ]:
            with self.assertRaises(InvalidDestination, msg=text):
                parseDestination(text)

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(["", "mailto:", "https://", "https://a.example/"]), st.text()
    )
    def test_hostile(self, start: str, rest: str) -> None:
        """
        Any URI is valid or raises the documented exception; the canonical form is
        ASCII and stable.
        """
        try:
            uri = parseDestination(start + rest).uri
        except InvalidDestination:
            return
        self.assertTrue(uri.isascii() and uri.isprintable(), uri)
        self.assertEqual(canonicalURI(uri), uri)


class ChooseTests(SynchronousTestCase):
    """
    Tests for L{chooseDestinations}.
    """

    def test_distinct(self) -> None:
        """
        Each destination is there once; refused ones have a reason and don't affect
        others.
        """
        chosen, reasons = chooseDestinations(
            ["mailto:a@b.example", "ftp://c.example/", "mailto:a@B.example?x=y"]
        )
        self.assertEqual([each.uri for each in chosen], ["mailto:a@b.example"])
        self.assertEqual(reasons, ("reports are not sent to 'ftp' URIs",))

    def test_capped(self) -> None:
        """
        The number of destinations in a record is limited.
        """
        uris = [f"mailto:a{number}@b.example" for number in range(1000)]
        chosen, reasons = chooseDestinations(uris)
        self.assertEqual([each.uri for each in chosen], uris[:MAX_DESTINATIONS])
        self.assertEqual(len(reasons), 1)

    def test_reasonsAreBounded(self) -> None:
        """
        Thousands of invalid URIs yield a bounded reason.
        """
        chosen, reasons = chooseDestinations(
            ["ftp://c.example/"] * 5000 + ["mailto:a@b.example"]
        )
        self.assertEqual(len(chosen), 1)
        self.assertEqual(len(reasons), MAX_REASONS)


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
