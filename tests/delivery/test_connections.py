"""
Tests for L{moxtls.delivery.connections}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.connections import Dialer, connectOrder
from moxtls.smtp.client.connection import ClientSettings, ConnectFailed
from moxtls.smtp.client.session import ClientSession
from tests.delivery.deliveries import IP4, TRUST
from tests.network import SMTP, Network
from tests.smtp.scripted import Scripted


class ConnectOrderTests(SynchronousTestCase):
    """
    Tests for L{connectOrder}.
    """

    def test_order(self) -> None:
        """
        Two of each family, in the order they come (RFC 5321 5.1).
        """
        addresses = ("::1", "::2", "192.0.2.1", "::3", "192.0.2.2", "192.0.2.3")
        self.assertEqual(
            list(connectOrder(addresses)), ["::1", "::2", "192.0.2.1", "192.0.2.2"]
        )


class DialerTests(SynchronousTestCase):
    """
    Tests for L{Dialer}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.dialer = Dialer(self.clock, self.network.endpoint)

    def session(self, quit: str = "221 bye") -> ClientSession:
        """
        A session with a server that expects C{quit} at the end.
        """
        self.network.serve(IP4, Scripted(replies={"QUIT": quit}))
        opening = self.dialer.dial(IP4, SMTP, ClientSettings("us.example", TRUST))
        self.network.flush()
        return self.successResultOf(opening)

    def test_pause(self) -> None:
        """
        An address that doesn't answer isn't tried again for a while; the previous
        error is reported instead. Other addresses are tried.
        """
        dialer = Dialer(self.clock, self.network.endpoint, pause=60)
        settings = ClientSettings("us.example", TRUST)

        def fails(ip: str) -> str:
            dialing = dialer.dial(ip, SMTP, settings)
            why = self.failureResultOf(dialing, ConnectFailed).value
            assert isinstance(why, ConnectFailed)
            return why.reason

        first = fails(IP4)
        self.clock.advance(59)
        self.assertEqual(fails(IP4), f"{first} (59 seconds ago)")
        self.assertEqual(self.network.dialed, [IP4])
        fails("192.0.2.77")
        self.assertEqual(len(self.network.dialed), 2)
        self.clock.advance(1)
        self.assertEqual(fails(IP4), first)
        self.assertEqual(len(self.network.dialed), 3)

    def test_cancelled(self) -> None:
        """
        Sessions end with QUIT (RFC 5321 4.1.1.10).
        """
        self.dialer.release(self.session())
        self.network.flush()
        (call,) = self.network.calls
        self.assertFalse(call.open)
        self.assertIn("QUIT", call.server.protocol.commands)
        self.successResultOf(self.dialer.stop())

    def test_slow(self) -> None:
        """
        A server that doesn't answer is waited for no longer than a few
        seconds.
        """
        self.dialer.release(self.session(quit=""))
        self.network.flush()
        self.assertEqual(len(self.network.open), 1)
        self.clock.advance(5)
        self.network.flush()
        self.assertEqual(self.network.open, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.dialer.stop())

    def test_stop(self) -> None:
        """
        Stopping cuts goodbyes short, and fires when the connections are
        closed, not before.
        """
        self.dialer.release(self.session(quit=""))
        self.dialer.release(self.session(quit=""))
        stopped = self.dialer.stop()
        self.assertNoResult(stopped)
        self.assertEqual(len(self.network.open), 2)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.network.open, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """
        A session whose connection is gone already is left without a trace.
        """
        session = self.session()
        self.network.calls[0].hangUp()
        self.dialer.release(session)
        self.successResultOf(self.dialer.stop())
