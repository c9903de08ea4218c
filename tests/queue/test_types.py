"""
Tests for L{moxtls.queue.types}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import InvalidAddress
from moxtls.queue.types import Envelope, accepted, destinationOf, isResponse


class DestinationTests(SynchronousTestCase):
    """
    Tests for L{destinationOf}.
    """

    def test_normalized(self) -> None:
        """
        Equal domains are equal destinations in any spelling; the destination of a URI
        is the URI itself.
        """
        for recipient, destination in (
            ("a@B.Example", "b.example"),
            ("a@bücher.example", "xn--bcher-kva.example"),
            ('"a@b"@c.example', "c.example"),
            ("a@[IPv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
            ("https://a.example/X", "https://a.example/X"),
        ):
            self.assertEqual(destinationOf(recipient), destination)

    def test_invalid(self) -> None:
        """
        Recipients without a destination are invalid.
        """
        for recipient in ("", "a", "a@", "a@b c", "http://a.example/"):
            self.assertRaises(InvalidAddress, destinationOf, recipient)


class AcceptedTests(SynchronousTestCase):
    """
    Tests for L{accepted}.
    """

    def test_duplicates(self) -> None:
        """
        A recipient given twice is kept once.
        """
        envelope = accepted(Envelope("", ("b@c.example", "a@c.example") * 2))
        self.assertEqual(envelope.recipients, ("b@c.example", "a@c.example"))

    def test_invalid(self) -> None:
        """
        Envelopes without recipients, or with addresses that contain line ends, are not
        accepted.  RFC 5321 2.3.8
        """
        for sender, recipients in (
            ("", ()),
            ("a@b.example\r\nRCPT TO:<x@y.example>", ("a@b.example",)),
            ("", ("https://a.example/\r\nX: y",)),
            ("", ("a@b.example", "a@")),
        ):
            self.assertRaises(ValueError, accepted, Envelope(sender, recipients))


class IsResponseTests(SynchronousTestCase):
    """
    Tests for L{isResponse}.
    """

    def test_responses(self) -> None:
        """
        Automatic replies (RFC 3834 5) and reports (RFC 6522 3) are responses, with any
        spelling and folding of the field (RFC 5322 2.2.3, 3.2.2).
        """
        for field in (
            b"Auto-Submitted: auto-replied",
            b"auto-submitted:AUTO-REPLIED (vacation)",
            b"Auto-Submitted:\r\n\t(a program) auto-replied",
            b"Content-Type: multipart/report; report-type=tlsrpt",
            b"Content-Type:\r\n multipart/report;\r\n\treport-type=delivery-status",
        ):
            header = b"From: a@a.example\r\n" + field + b"\r\nTo: b@b.example\r\n"
            self.assertTrue(isResponse(header), field)

    def test_others(self) -> None:
        """
        Automatically generated mail is no response, nor are messages with similar
        fields.
        """
        for field in (
            b"Auto-Submitted: auto-generated",
            b"Auto-Submitted: no",
            b"Auto-Submitted: auto-repliedly-x",
            b"Subject: Auto-Submitted: auto-replied",
            b"Content-Type: multipart/reporting",
            b"Content-Type: text/plain; x=multipart/report",
            b"",
        ):
            header = b"From: a@a.example\r\n" + field + b"\r\nTo: b@b.example\r\n"
            self.assertFalse(isResponse(header), field)
