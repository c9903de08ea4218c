"""
Tests for L{moxtls.queue.types}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import InvalidAddress
from moxtls.queue.types import Envelope, accepted, destinationOf


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
