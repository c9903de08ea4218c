"""
Tests for L{moxtls.outbound.delivery}: attempts that are broken off.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from moxtls.dns.answers import Kind
from moxtls.queue.values import Ending, Result
from tests.outbound.deliveries import (
    IP4,
    MX,
    DeliveryCase,
)

OTHER = "other@example.com"


class CancellationTests(DeliveryCase):
    """
    Tests for attempts that are broken off.
    """

    def broken(self, attempt: Deferred[tuple[Result, ...]]) -> None:
        """
        Break off an attempt that has come to nothing yet.
        """
        self.assertNoResult(attempt)
        attempt.cancel()
        self.failureResultOf(attempt, CancelledError)
        self.assertEqual(self.observer.outcomes, [])
        self.assertTidy()

    def test_lookups(self) -> None:
        """
        While something is looked up.
        """
        self.secure()
        for name, kind in (
            ("example.com", Kind.MX),
            (MX, Kind.A),
            (MX, Kind.AAAA),
            (f"_25._tcp.{MX}", Kind.TLSA),
        ):
            self.resolver.hang(name, kind)
            self.broken(self.attempt())
            self.resolver.release(name, kind)
        self.policies.lookup = None
        self.broken(self.attempt())
        self.assertEqual(self.network.dialed, [])

    def test_connecting(self) -> None:
        """
        While a connection is made.
        """
        self.network.silence(IP4)
        self.broken(self.attempt())

    def test_session(self) -> None:
        """
        In every step of a session, which is then aborted.
        """
        for verb in ("EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "END"):
            self.serve(self.goodContext(), extensions=(), replies={verb: ""})
            self.broken(self.attempt())
            self.serve(extensions=(), replies={verb: ""}, greeting="")
            self.broken(self.attempt())
        self.assertEqual(len(self.network.calls), 12)

    def test_handshake(self) -> None:
        """
        While the other side has its part of a handshake to do.
        """
        self.serve(behindStartTLS=b"", extensions=("STARTTLS",))
        self.broken(self.attempt())

    def test_fallback(self) -> None:
        """
        While it is in plaintext after TLS failed.
        """
        self.serve(
            None,
            self.server(replies={"MAIL": ""}, extensions=()),
            extensions=("STARTTLS",),
            replies={"STARTTLS": "454 no"},
        )
        self.broken(self.attempt())
        self.assertEqual(len(self.network.dialed), 2)

    def test_partly(self) -> None:
        """
        What hosts took before stays delivered, so that it isn't sent again;
        nothing is said about the rest, nor about TLS.
        """
        self.serve(replies={"END": ["250 ok", ""]})
        other = self.parcel(OTHER, messageID="m2")
        attempt = self.attempt(self.parcel(), other)
        attempt.cancel()
        (result,) = self.successResultOf(attempt)
        self.assertEqual((result.messageID, result.ending), ("m1", Ending.DELIVERED))
        self.assertEqual(self.observer.outcomes, [])
        self.assertTidy()

    def test_recording(self) -> None:
        """
        The mail is delivered, also if we don't wait for that to be recorded.
        """
        self.serve()
        self.observer.answer = lambda: Deferred()
        attempt = self.attempt()
        self.assertNoResult(attempt)
        attempt.cancel()
        self.assertDelivered(self.successResultOf(attempt))
        self.assertTidy()
