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

    def test_found(self) -> None:
        """
        Equal domains are equal destinations, however they are spelled; a URI
        is its own.
        """
        for recipient, destination in (
            ("a@B.Example", "b.example"),
            ("a@bücher.example", "xn--bcher-kva.example"),
            ('"a@b"@c.example', "c.example"),
            ("a@[IPv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
            ("https://a.example/X", "https://a.example/X"),
        ):
            self.assertEqual(destinationOf(recipient), destination)

    def test_none(self) -> None:
        """
        Recipients without a destination are invalid.
        """
        for recipient in ("", "a", "a@", "a@b c", "http://a.example/"):
            self.assertRaises(InvalidAddress, destinationOf, recipient)


class AcceptedTests(SynchronousTestCase):
    """
    Tests for L{accepted}.
    """

    def test_once(self) -> None:
        """
        A recipient named twice gets the message once.
        """
        envelope = accepted(Envelope("", ("b@c.example", "a@c.example") * 2))
        self.assertEqual(envelope.recipients, ("b@c.example", "a@c.example"))

    def test_refused(self) -> None:
        """
        Nothing is accepted for nobody, nor what would end a line of SMTP.
        RFC 5321 2.3.8
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
        What a program says in answer (RFC 3834 5), and reports (RFC 6522 3),
        however the field is written (RFC 5322 2.2.3, 3.2.2).
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
        Mail that a program sends of its own accord is none, nor is what only
        speaks of it.
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
