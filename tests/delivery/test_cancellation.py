"""
Tests for L{moxtls.delivery.attempt}: attempts that are broken off.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.delivery.sessions import FINISH_TIMEOUT
from moxtls.dns.types import RRType
from moxtls.mtasts.policy import Mode
from moxtls.queue.types import DeliveryStatus, Result
from moxtls.tlsrpt.types import PolicyType, ResultType
from tests.certificates import selfSigned
from tests.delivery.deliveries import IP4, MX, SECOND_IP, DeliveryCase

OTHER = "other@example.com"


class CancellationTests(DeliveryCase):
    """
    Tests for attempts that are broken off.
    """

    def broken(self, attempt: Deferred[tuple[Result, ...]], seen: bool = False) -> None:
        """
        Cancel an attempt without results.

        @param seen: Whether there is a TLS outcome.
        """
        self.assertNoResult(attempt)
        attempt.cancel()
        results = self.successResultOf(attempt)
        self.assertEqual({each.ending for each in results}, {DeliveryStatus.TEMPORARY})
        for each in results:
            self.assertIn("the attempt took too long", each.text)
        self.assertEqual(bool(self.observer.outcomes), seen)
        self.observer.outcomes.clear()
        self.assertTidy()

    def test_lookups(self) -> None:
        """
        While something is looked up.
        """
        self.secure()
        for name, kind in (
            ("example.com", RRType.MX),
            (MX, RRType.A),
            (MX, RRType.AAAA),
            (f"_25._tcp.{MX}", RRType.TLSA),
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
        In every step of a session before the server has the message; the session is
        then aborted.
        """
        for verb in ("EHLO", "STARTTLS", "MAIL", "RCPT", "DATA"):
            self.serve(self.goodContext(), extensions=(), replies={verb: ""})
            self.broken(self.attempt(), seen=verb not in ("EHLO", "STARTTLS"))
            self.serve(extensions=(), replies={verb: ""}, greeting="")
            self.broken(self.attempt())
        self.assertEqual(len(self.network.calls), 10)

    def test_accepted(self) -> None:
        """
        A host that has the message gets ten seconds for its reply: a message that it
        accepts isn't sent again.
        """
        server = self.serve(self.goodContext(), replies={"END": ""})
        other = self.batchMessage(OTHER, messageID="m2")
        attempt = self.attempt(self.batchMessage(), other)
        attempt.cancel()
        self.clock.advance(FINISH_TIMEOUT - 1)
        self.assertNoResult(attempt)
        assert server.transport is not None
        server.transport.write(b"250 ok\r\n")
        self.network.flush()
        results = self.successResultOf(attempt)
        self.assertEqual(
            [(each.messageID, each.ending) for each in results],
            [("m1", DeliveryStatus.DELIVERED), ("m2", DeliveryStatus.TEMPORARY)],
        )
        self.assertEqual((self.recipient.succeeded, self.host.succeeded), (1, 1))
        self.assertTidy()

    def test_notAccepted(self) -> None:
        """
        A host that doesn't reply in that time, or refuses for now, gets the message in
        another attempt.
        """
        self.serve(replies={"END": ""})
        attempt = self.attempt()
        attempt.cancel()
        self.clock.advance(FINISH_TIMEOUT)
        (result,) = self.successResultOf(attempt)
        self.assertEqual(result.ending, DeliveryStatus.TEMPORARY)
        self.assertIn("the attempt took too long", result.text)
        self.assertTidy()
        server = self.serve(replies={"END": ""})
        attempt = self.attempt()
        attempt.cancel()
        assert server.transport is not None
        server.transport.write(b"451 4.3.0 later\r\n")
        self.network.flush()
        (result,) = self.successResultOf(attempt)
        self.assertEqual((result.ending, result.code), (DeliveryStatus.TEMPORARY, 451))
        self.assertTidy()

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
        self.broken(self.attempt(), seen=True)
        self.assertEqual(len(self.network.dialed), 2)

    def test_partly(self) -> None:
        """
        Recipients that hosts accepted before the cancellation stay delivered, so that
        they aren't sent to again; the TLS outcome is recorded with them.
        """
        self.serve(self.goodContext(), replies={"END": ["250 ok", ""]})
        other = self.batchMessage(OTHER, messageID="m2")
        attempt = self.attempt(self.batchMessage(), other)
        attempt.cancel()
        self.clock.advance(FINISH_TIMEOUT)
        results = self.successResultOf(attempt)
        self.assertEqual(
            [(each.messageID, each.ending) for each in results],
            [("m1", DeliveryStatus.DELIVERED), ("m2", DeliveryStatus.TEMPORARY)],
        )
        self.assertEqual((self.recipient.succeeded, self.host.succeeded), (1, 1))
        self.assertTidy()

    def test_seen(self) -> None:
        """
        RFC 8460 4: the TLS outcome of the first hosts is recorded and in the result,
        also if the attempt times out at the next ones.
        """
        self.secondHost()
        self.publish(Mode.ENFORCE)
        self.serve(selfSigned(MX).context())
        self.serve(ip=SECOND_IP, greeting="")
        attempt = self.attempt()
        self.assertNoResult(attempt)
        attempt.cancel()
        results = self.successResultOf(attempt)
        self.assertDelayed(results, "4.7.5")
        (result,) = results
        self.assertIn(f"{MX}: refused: certificate-not-trusted", result.text)
        self.assertEqual((result.host, result.code), ("", 0))
        recipient, (first, second) = self.recipient, self.outcome.hosts
        self.assertEqual((recipient.policy.type, recipient.failed), (PolicyType.STS, 1))
        self.assertEqual(
            [each.resultType for each in recipient.failures],
            [ResultType.CERTIFICATE_NOT_TRUSTED],
        )
        self.assertEqual((first.failed, second.failed), (1, 0))
        self.assertTidy()

    def test_passing(self) -> None:
        """
        RFC 5321 4.2.1: a host's reply to a recipient is preferred to the timeout.
        """
        self.secondHost()
        self.serve(replies={"RCPT": "450 4.2.1 full"})
        self.serve(ip=SECOND_IP, greeting="")
        attempt = self.attempt()
        attempt.cancel()
        (result,) = self.successResultOf(attempt)
        self.assertEqual((result.status, result.host), ("4.2.1", MX))

    def test_recording(self) -> None:
        """
        A cancelled attempt doesn't wait for its outcome to be recorded: recording
        goes on, and a failure is logged.
        """
        for fails in (False, True):
            recording: Deferred[None] = Deferred(lambda _: self.fail("cancelled"))
            self.serve()
            self.observer.answer = iter([recording]).__next__
            attempt = self.attempt()
            self.assertNoResult(attempt)
            attempt.cancel()
            self.assertDelivered(self.successResultOf(attempt))
            self.assertTidy()
            if fails:
                recording.errback(OSError("disk"))
            else:
                recording.callback(None)
            self.assertEqual(len(self.flushLoggedErrors(OSError)), int(fails))
