"""
Tests for L{moxtls.smtp.server.factory} and L{moxtls.smtp.server.protocol}.
"""

from __future__ import annotations

import base64
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from weakref import ref

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    capturedLogs,
    globalLogPublisher,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer, provider
from zope.interface.verify import verifyObject

from moxtls.message.header import ClientInfo
from moxtls.smtp.logins import (
    MAX_ACCOUNT_FAILURES,
    MAX_DELAY,
    MAX_FAILURES,
    UNDELAYED_FAILURES,
)
from moxtls.smtp.passwords import StoredPassword
from moxtls.smtp.sasl import MECHANISMS, CredentialsChecker
from moxtls.smtp.server.factory import (
    EVICTION_IDLE_TIME,
    LOG_INTERVAL,
    Authenticator,
    IMessage,
    IMessageDelivery,
    ListenerSettings,
    SMTPServerFactory,
)
from moxtls.smtp.server.protocol import IServerFactory, ServerSession
from moxtls.smtp.server.state import ServerSettings, TransactionState
from moxtls.smtp.server.transport import CLOSE_TIMEOUT, ServerTransport
from moxtls.smtp.types import Reply
from moxtls.tls.server import ReloadingContext
from tests import MAX_WAIT
from tests.smtp.pem import writeCertificate
from tests.smtp.scramclient import ScramClient

SETTINGS = ListenerSettings(
    ServerSettings("mx.example"), maxConnections=5, maxConnectionsPerAddress=3
)
OK = Reply(250, "2.0.0", "OK")
ENVELOPE = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"
MAIL = b"EHLO c.example\r\n" + ENVELOPE + b"DATA\r\n"
ACCOUNTS = CredentialsChecker(
    {"user": StoredPassword.make("pencil", bytes(32))}, b"secret"
)


@implementer(IMessageDelivery, IMessage)
class FakeDelivery:
    """
    Returns prepared replies, and records its calls.

    @ivar answers: Replies to events other than C{OK}.
    @ivar full: The result of C{write}.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.clients: list[ClientInfo] = []
        self.answers: dict[str, Deferred[Reply] | Exception] = {}
        self.text = b""
        self.full: Deferred[None] | Exception | None = None

    def _answer(self, event: str) -> Deferred[Reply]:
        self.asked.append(event)
        answer = self.answers.pop(event, None)
        if isinstance(answer, Exception):
            raise answer
        return succeed(OK) if answer is None else answer

    def mailFrom(
        self, client: ClientInfo, transaction: TransactionState
    ) -> Deferred[Reply]:
        self.clients.append(client)
        return self._answer("mail")

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        return self._answer("rcpt")

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        self.text = b""
        return self

    def write(self, chunk: bytes) -> Deferred[None] | None:
        self.text += chunk
        if isinstance(self.full, Exception):
            raise self.full
        return self.full

    def finish(self) -> Deferred[Reply]:
        return self._answer("finish")

    def abort(self) -> None:
        self.asked.append("abort")


def atOnce(check: Callable[[], bool]) -> Deferred[bool]:
    """
    For tests there is no need of a thread.
    """
    return succeed(check())


class Wire(StringTransport):
    """
    A transport that is lost as soon as it is closed.
    """

    def __init__(self, session: ServerSession, peer: IPv4Address | IPv6Address) -> None:
        super().__init__(peerAddress=peer)
        self.session = session
        self.tls: object = None
        self.isLazy = False
        self.isAborted = False

    def end(self, data: bytes) -> None:
        self.write(data)
        self.loseConnection()

    def loseConnection(self) -> None:
        super().loseConnection()
        if not self.isLazy:
            self.hangUp()

    def abortConnection(self) -> None:
        self.isAborted = True
        self.hangUp()

    def hangUp(self) -> None:
        """
        The client is gone.
        """
        self.session.connectionLost()

    def startTLS(self, creator: object) -> None:
        self.tls = creator

    def says(self, data: bytes) -> list[bytes]:
        """
        @return: The replies to C{data}.
        """
        self.session.dataReceived(data)
        return self.said()

    def said(self) -> list[bytes]:
        """
        The output since the last call.
        """
        lines: list[bytes] = self.value().splitlines()
        self.clear()
        return lines


class ListenerCase(SynchronousTestCase):
    """
    A listener without a network.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.delivery = FakeDelivery()
        verifyObject(IMessageDelivery, self.delivery)
        verifyObject(IMessage, self.delivery)
        self.listen(SETTINGS)

    def listen(
        self,
        settings: ListenerSettings,
        tls: ReloadingContext | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        """
        Begin to listen.
        """
        self.factory = SMTPServerFactory(
            self.clock, settings, self.delivery, tls, authenticator
        )

    def connect(self, host: str = "192.0.2.1") -> Wire:
        """
        Connect a client, and read the greeting.
        """
        address = (IPv6Address if ":" in host else IPv4Address)("TCP", host, 1234)
        line = self.factory.buildProtocol(address)
        assert isinstance(line, ServerTransport)
        session = line.session
        assert isinstance(session, ServerSession)
        wire = Wire(session, address)
        session.makeConnection(wire)
        self.assertEqual(wire.said(), [b"220 mx.example ESMTP"])
        return wire

    def assertGone(self) -> None:
        """
        All connections are closed, without delayed calls.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.factory.stop())


class SessionTests(ListenerCase):
    """
    Tests for sessions and their delivery.
    """

    def test_interface(self) -> None:
        """
        The factory provides the interface that sessions use.
        """
        verifyObject(IServerFactory, self.factory)

    def test_message(self) -> None:
        """
        A message passes L{IMessageDelivery}, and is acknowledged.
        """
        wire = self.connect()
        self.assertEqual(wire.says(MAIL)[-1][:3], b"354")
        self.assertEqual(wire.says(b"a\r\n..b\r\n.\r\n"), [b"250 2.0.0 OK"])
        self.assertEqual(self.delivery.text, b"a\r\n.b\r\n")
        self.assertEqual(self.delivery.asked, ["mail", "rcpt", "finish"])
        [client] = self.delivery.clients
        self.assertEqual(client, ClientInfo("192.0.2.1", "c.example"))
        self.assertEqual(wire.says(b"QUIT\r\n"), [b"221 2.0.0 Bye"])
        self.assertGone()

    def test_noGarbage(self) -> None:
        """
        A lost connection leaves no reference cycles.
        """
        address = IPv4Address("TCP", "192.0.2.1", 1234)
        line = self.factory.buildProtocol(address)
        assert isinstance(line, ServerTransport)
        session, transport = ref(line.session), StringTransport(peerAddress=address)
        line.makeConnection(transport)
        line.dataReceived(MAIL)
        line.dataReceived(b"a\r\n.\r\nQUIT\r\n")
        self.assertTrue(transport.disconnecting)
        line.connectionLost()
        self.assertEqual(self.delivery.asked, ["mail", "rcpt", "finish"])
        self.assertIsNone(session())
        self.assertGone()

    def test_order(self) -> None:
        """
        Pipelined commands wait for the answer to the one before (RFC 2920).
        """
        wire = self.connect()
        later: Deferred[Reply] = Deferred()
        self.delivery.answers["mail"] = later
        self.assertEqual(len(wire.says(b"EHLO c\r\n" + ENVELOPE)), 8)
        self.assertEqual(wire.says(b"NOOP\r\n"), [])
        later.callback(Reply(451, "4.7.1", "Not you"))
        self.assertEqual(
            wire.said(),
            [b"451 4.7.1 Not you", b"503 5.5.1 Send MAIL first", b"250 2.0.0 OK"],
        )

    def test_broken(self) -> None:
        """
        Internal errors result in 451, and the session continues.
        """
        for event in ("mail", "rcpt", "finish"):
            wire = self.connect()
            self.delivery.answers[event] = OSError("disk")
            lines = wire.says(MAIL)
            if event == "finish":
                lines = wire.says(b".\r\n")
            codes = {line[:9] for line in lines}
            self.assertIn(b"451 4.3.0", codes, event)
            self.assertEqual(wire.says(b"NOOP\r\n"), [b"250 2.0.0 OK"])
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
            wire.hangUp()

    def test_sinkBroken(self) -> None:
        """
        A message that can't be kept is refused at its end.
        """
        wire = self.connect()
        wire.says(MAIL)
        self.delivery.full = OSError("disk")
        self.assertEqual(wire.says(b"a\r\n"), [])
        self.assertEqual(wire.says(b"b\r\n.\r\n")[0][:9], b"451 4.3.0")
        self.assertEqual(self.delivery.asked, ["mail", "rcpt", "abort"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_flawed(self) -> None:
        """
        A message refused during its transfer is aborted at once.
        """
        wire = self.connect()
        wire.says(MAIL)
        wire.says(b"a\n.\nb")
        self.assertEqual(self.delivery.asked[-1], "abort")
        self.assertEqual(wire.says(b"\r\n.\r\n")[0][:9], b"554 5.6.0")

    def test_backpressure(self) -> None:
        """
        While there is no room, no more is read than a little.
        """
        wire = self.connect()
        wire.says(MAIL)
        full: Deferred[None] = Deferred()
        self.delivery.full = full
        piece = b"a" * 998 + b"\r\n"
        for _ in range(30):
            wire.says(piece)
        self.assertEqual(wire.producerState, "producing")
        for _ in range(40):
            wire.says(piece)
        self.assertEqual(wire.producerState, "paused")
        self.delivery.full = None
        full.callback(None)
        self.assertEqual(wire.producerState, "producing")
        # The last line end may still turn out to be the message's.
        self.assertEqual(len(self.delivery.text), 70 * len(piece) - 2)

    def test_chunks(self) -> None:
        """
        A message in chunks (RFC 3030) is received like any other; an abandoned one is
        aborted.
        """
        wire = self.connect()
        wire.says(b"EHLO c\r\n" + ENVELOPE)
        codes = [line[:3] for line in wire.says(b"BDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\n")]
        self.assertEqual(codes, [b"250", b"250"])
        self.assertEqual(self.delivery.text, b"a\r\nb\r\n")
        self.assertEqual(self.delivery.asked, ["mail", "rcpt", "finish"])
        for command in (b"RSET\r\n", b"STARTTLS\r\n", b"QUIT\r\n"):
            self.listen(
                replace(SETTINGS, server=ServerSettings("mx.example", starttls=True))
            )
            wire = self.connect()
            wire.says(b"EHLO c\r\n" + ENVELOPE + b"BDAT 3\r\na\r\n")
            wire.says(command)
            self.assertEqual(self.delivery.asked[-1], "abort", command)

    def test_cancelledByAcceptor(self) -> None:
        """
        A decision that was cancelled, though the client is connected, is an internal
        error.
        """
        wire = self.connect()
        later: Deferred[Reply] = Deferred()
        self.delivery.answers["mail"] = later
        wire.says(b"EHLO c\r\nMAIL FROM:<>\r\n")
        later.cancel()
        self.assertEqual(wire.said()[0][:9], b"451 4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)

    def test_lostWhileDeciding(self) -> None:
        """
        A decision is cancelled when the connection is lost.
        """
        given: list[str] = []
        wire = self.connect()
        self.delivery.answers["mail"] = Deferred(lambda deferred: given.append("up"))
        wire.says(b"EHLO c\r\n" + ENVELOPE)
        wire.hangUp()
        self.assertEqual(given, ["up"])
        self.assertEqual(self.delivery.asked, ["mail"])
        self.assertGone()

    def test_lostInMessage(self) -> None:
        """
        Half a message is no message.
        """
        wire = self.connect()
        wire.says(MAIL)
        wire.says(b"a\r\n")
        wire.hangUp()
        self.assertEqual(self.delivery.asked[-1], "abort")
        self.assertGone()

    def test_lostWhileAccepting(self) -> None:
        """
        A complete message is kept, though the client gets no reply; the connection
        counts until then.
        """
        wire = self.connect()
        later: Deferred[Reply] = Deferred()
        self.delivery.answers["finish"] = later
        wire.says(MAIL)
        wire.says(b".\r\n")
        wire.hangUp()
        stopped = self.factory.stop()
        self.assertNoResult(stopped)
        later.callback(OK)
        self.successResultOf(stopped)
        self.assertEqual(self.delivery.asked[-1], "finish")


class TimeTests(ListenerCase):
    """
    Tests for time limits.
    """

    def test_idle(self) -> None:
        """
        Five minutes without input end the connection (RFC 5321 4.5.3.2.7).
        """
        wire = self.connect()
        self.clock.advance(299)
        wire.says(b"NOOP\r\n")
        self.clock.advance(299)
        self.assertEqual(wire.said(), [])
        wire.says(b"no whole com")
        self.clock.advance(1)
        self.assertEqual(wire.said()[0][:9], b"421 4.4.2")
        self.assertGone()

    def test_idleInMessage(self) -> None:
        """
        Chunks of a message count as input, if there is no limit on slow ones.
        """
        self.listen(replace(SETTINGS, minBodyRate=0))
        wire = self.connect()
        wire.says(MAIL)
        for _ in range(5):
            self.clock.advance(200)
            self.assertEqual(wire.says(b"a\r\n"), [])
        self.clock.advance(300)
        self.assertEqual(wire.said()[0][:9], b"421 4.4.2")
        self.assertEqual(self.delivery.asked[-1], "abort")

    def test_slowly(self) -> None:
        """
        A message that arrives too slowly ends the connection long before the session
        timeout; a large one that arrives steadily doesn't.
        """
        for piece, isSlow in ((b"a\r\n", True), (b"a" * 60_000, False)):
            self.listen(replace(SETTINGS, bodyGrace=300, minBodyRate=1000))
            wire = self.connect()
            wire.says(MAIL)
            for _ in range(9):
                self.clock.pump([10] * 6)
                lines = wire.said() or wire.says(piece)
                if lines:
                    break
            self.assertEqual(bool(lines), isSlow)
            if isSlow:
                self.assertLess(self.clock.seconds(), 400)
                self.assertEqual(lines[0][:9], b"421 4.4.2")
                self.assertEqual(self.delivery.asked[-1], "abort")

    def test_slowChunks(self) -> None:
        """
        A message in many small chunks, or one refused already, is limited in time
        too.
        """
        for start, piece in (
            (b"BDAT 1\r\na", b"BDAT 1\r\na"),
            (b"DATA\r\n", b"\n"),
        ):
            self.listen(replace(SETTINGS, sessionTimeout=10**6))
            wire = self.connect()
            wire.says(b"EHLO c\r\n" + ENVELOPE)
            wire.says(start)
            count = 0
            while not any(line.startswith(b"421") for line in wire.said()):
                wire.says(piece)
                wire.clear()
                self.clock.advance(50)
                count += 1
            self.assertLess(count, 10)

    def test_oneTimer(self) -> None:
        """
        A connection has one timer at any time.
        """
        wire = self.connect()
        [timer] = self.clock.getDelayedCalls()
        for _ in range(10):
            self.clock.advance(1)
            wire.says(MAIL)
            wire.says(b"a\r\n.\r\nRSET\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [timer])

    def test_slowSink(self) -> None:
        """
        The time that we take to keep a message isn't the client's.
        """
        self.listen(replace(SETTINGS, bodyGrace=100))
        wire = self.connect()
        wire.says(MAIL)
        full: Deferred[None] = Deferred()
        self.delivery.full = full
        wire.says(b"a" * 1000)
        self.clock.pump([100] * 10)
        self.delivery.full = None
        full.callback(None)
        self.clock.pump([9] * 10)
        self.assertEqual(wire.says(b"\r\n.\r\n"), [b"250 2.0.0 OK"])

    def test_ourFault(self) -> None:
        """
        The client isn't blamed for the time that we take.
        """
        wire = self.connect()
        later: Deferred[Reply] = Deferred()
        self.delivery.answers["mail"] = later
        wire.says(b"EHLO c\r\n" + ENVELOPE)
        self.clock.pump([100] * 10)
        later.callback(OK)
        self.assertEqual(wire.said(), [b"250 2.0.0 OK"] * 2)

    def test_longest(self) -> None:
        """
        No connection lasts forever.
        """
        wire = self.connect()
        for _ in range(72):
            self.clock.advance(100)
            lines = wire.said() or wire.says(b"NOOP\r\n")
        self.assertEqual(lines[0][:9], b"421 4.4.2")
        self.assertGone()

    def test_longestWhileAccepting(self) -> None:
        """
        The answer to a whole message still comes before the end.
        """
        self.listen(replace(SETTINGS, sessionTimeout=100))
        wire = self.connect()
        later: Deferred[Reply] = Deferred()
        self.delivery.answers["finish"] = later
        wire.says(MAIL)
        self.clock.advance(99)
        self.assertEqual(wire.says(b".\r\n"), [])
        self.clock.advance(1)
        later.callback(OK)
        self.assertEqual([line[:3] for line in wire.said()], [b"250", b"421"])
        self.assertGone()

    def test_deaf(self) -> None:
        """
        A client that doesn't let go is cut off.
        """
        wire = self.connect()
        wire.isLazy = True
        wire.says(b"QUIT\r\n")
        self.assertFalse(wire.isAborted)
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertTrue(wire.isAborted)
        self.assertGone()


class ConnectionTests(ListenerCase):
    """
    Tests for how many there can be, and how all of it ends.
    """

    def refused(self, host: str) -> bool:
        return bool(self.refusal(host))

    def refusal(self, host: str) -> bytes:
        """
        The reply to a refused connection; empty if it is accepted.
        """
        protocol = self.factory.buildProtocol(IPv4Address("TCP", host, 1))
        assert protocol is not None
        if isinstance(protocol, ServerTransport):
            return b""
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(b"EHLO c\r\n")
        self.assertTrue(transport.disconnecting)
        said: bytes = transport.value()
        return said

    def test_refused(self) -> None:
        """
        A refused connection gets a reply (RFC 5321 3.8), and the log names the
        limit.
        """
        full = replace(SETTINGS, maxConnections=2)
        for settings, host, word, key in (
            (full, "198.51.100.1", b"421 4.3.2 Too many conn", "MaxConnections "),
            (
                replace(SETTINGS, maxConnectionsPerAddress=2),
                "192.0.2.1",
                b"421 4.7.0 Too many connections from your address",
                "MaxConnectionsPerAddress",
            ),
            (
                replace(SETTINGS, maxConnectionsPerNetwork=2),
                "192.0.2.2",
                b"421 4.7.0 Too many connections from your network",
                "MaxConnectionsPerNetwork",
            ),
            (
                replace(SETTINGS, maxConnectionRate=2),
                "192.0.2.1",
                b"421 4.7.0 Too many new",
                "MaxConnectionRate",
            ),
        ):
            self.listen(settings)
            for _ in range(2):
                self.connect()
            with capturedLogs() as events:
                self.assertTrue(self.refusal(host).startswith(word), word)
                self.assertTrue(self.refused(host))
            [event] = events
            self.assertTrue(event["limit"].startswith(key), key)

    def test_stopping(self) -> None:
        """
        New connections are refused after stopping.
        """
        self.factory.stop()
        self.assertEqual(self.refusal("192.0.2.1"), b"421 4.3.2 Shutting down\r\n")

    def test_setBack(self) -> None:
        """
        Setting the clock back changes nothing for known clients.
        """
        self.listen(replace(SETTINGS, maxConnectionRate=3, maxMessageRate=3))
        wire = self.connect()
        wire.says(b"EHLO c\r\nMAIL FROM:<>\r\nRSET\r\n")
        self.clock.rightNow -= 3600
        self.assertFalse(self.refused("192.0.2.1"))
        self.assertEqual(wire.says(b"MAIL FROM:<>\r\n")[0][:3], b"250")

    def test_perAddress(self) -> None:
        """
        The connections of an address are limited; for IPv6, of a /64.
        """
        wires = [self.connect() for _ in range(3)]
        self.assertTrue(self.refused("192.0.2.1"))
        self.assertFalse(self.refused("192.0.2.2"))
        wires.pop().hangUp()
        self.assertFalse(self.refused("192.0.2.1"))
        for wire in wires:
            wire.hangUp()
        for n in range(3):
            self.connect(f"2001:db8::{n}")
        self.assertTrue(self.refused("2001:db8::ff"))
        self.assertFalse(self.refused("2001:db8:0:1::1"))

    def test_perNetwork(self) -> None:
        """
        The connections of a network are limited: a C{/24}, for IPv6 a C{/48}.
        """
        self.listen(replace(SETTINGS, maxConnections=9, maxConnectionsPerNetwork=2))
        wires = [self.connect(f"192.0.2.{n}") for n in range(2)]
        self.assertTrue(self.refused("192.0.2.9"))
        self.assertFalse(self.refused("192.0.3.9"))
        wires.pop().hangUp()
        self.assertFalse(self.refused("192.0.2.9"))
        for n in range(2):
            self.connect(f"2001:db8:0:{n}::1")
        self.assertTrue(self.refused("2001:db8:0:ff::1"))
        self.assertFalse(self.refused("2001:db8:1::1"))

    def test_crowded(self) -> None:
        """
        At the maximum of connections, the session that has been idle for longest is
        closed for a new one, but no active session.
        """
        self.listen(replace(SETTINGS, maxConnections=10))
        wires = [self.connect(f"192.0.{n}.1") for n in range(10)]
        self.assertTrue(self.refused("198.51.100.1"))
        self.clock.advance(EVICTION_IDLE_TIME)
        wires[0].says(b"EHLO c\r\n")
        self.delivery.answers["mail"] = Deferred()
        wires[1].says(b"EHLO c\r\nMAIL FROM:<>\r\n")
        self.clock.advance(EVICTION_IDLE_TIME - 1)
        for n in range(8):
            self.connect(f"198.51.{n}.1")
        self.assertTrue(self.refused("198.51.100.1"))
        said = [wire.said() for wire in wires]
        self.assertEqual(said[:2], [[], []])
        self.assertEqual({line[:9] for (line,) in said[2:]}, {b"421 4.3.2"})

    def test_crowdedByTheDeaf(self) -> None:
        """
        Sessions that don't end when closed aren't replaced by any number of others.
        """
        self.listen(replace(SETTINGS, maxConnections=20, maxConnectionsPerAddress=99))
        for wire in [self.connect() for _ in range(20)]:
            wire.isLazy = True
        self.clock.advance(EVICTION_IDLE_TIME)
        for _ in range(2):
            self.connect()
        self.assertTrue(self.refused("192.0.2.1"))
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertFalse(self.refused("192.0.2.1"))

    def test_connectionRate(self) -> None:
        """
        New connections above the rate are refused until there are tokens again.
        """
        self.listen(replace(SETTINGS, maxConnectionRate=3))
        for _ in range(3):
            self.connect().hangUp()
        self.assertTrue(self.refused("192.0.2.1"))
        self.assertFalse(self.refused("192.0.2.2"))
        self.clock.advance(20)
        self.connect().hangUp()
        self.assertTrue(self.refused("192.0.2.1"))
        self.assertGone()

    def test_messageRate(self) -> None:
        """
        Messages above the rate get a temporary negative reply, across all
        connections, without asking the delivery.
        """
        self.listen(replace(SETTINGS, maxMessageRate=2))
        codes = []
        for _ in range(2):
            wire = self.connect()
            wire.says(b"EHLO c\r\n")
            lines = wire.says(b"MAIL FROM:<>\r\nRSET\r\n" * 2)
            codes += [line[:9] for line in lines[::2]]
        self.assertEqual(codes, [b"250 2.0.0"] * 2 + [b"450 4.7.1"] * 2)
        self.assertEqual(self.delivery.asked, ["mail"] * 2)
        self.clock.advance(30)
        self.assertEqual(wire.says(b"MAIL FROM:<>\r\n"), [b"250 2.0.0 OK"])

    def test_quietly(self) -> None:
        """
        Repeated refusals don't fill the log.
        """
        counts: list[int] = []

        @provider(ILogObserver)
        def notice(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.warn:
                counts.append(event["count"])

        globalLogPublisher.addObserver(notice)
        self.addCleanup(globalLogPublisher.removeObserver, notice)
        for _ in range(3):
            self.connect()
        self.clock.advance(1)
        for _ in range(100):
            self.assertTrue(self.refused("192.0.2.1"))
        self.assertEqual(counts, [1])
        self.clock.advance(LOG_INTERVAL)
        self.assertTrue(self.refused("192.0.2.1"))
        self.assertEqual(counts, [1, 101])

    def test_total(self) -> None:
        """
        All together are bounded too.
        """
        for n in range(5):
            self.connect(f"192.0.2.{n}")
        self.assertTrue(self.refused("192.0.2.99"))

    def test_stop(self) -> None:
        """
        Idle sessions get 421 and are closed (RFC 5321 3.8); new connections are
        refused.
        """
        wire = self.connect()
        self.successResultOf(self.factory.stop())
        self.assertEqual(wire.said()[0][:9], b"421 4.3.2")
        self.assertTrue(self.refused("192.0.2.1"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopWhileBusy(self) -> None:
        """
        A message that is being accepted still is.
        """
        wire = self.connect()
        later: Deferred[Reply] = Deferred()
        self.delivery.answers["finish"] = later
        wire.says(MAIL)
        wire.says(b".\r\nNOOP\r\n")
        stopped = self.factory.stop()
        self.assertNoResult(stopped)
        later.callback(OK)
        self.assertEqual(wire.said(), [b"250 2.0.0 OK", b"421 4.3.2 Shutting down"])
        self.successResultOf(stopped)

    def test_stopWhileStuck(self) -> None:
        """
        Stopping waits only for messages that are being accepted.
        """
        wire = self.connect()
        self.delivery.answers["mail"] = Deferred()
        wire.says(b"EHLO c\r\n" + ENVELOPE)
        stopped = self.factory.stop()
        self.assertNoResult(stopped)
        self.clock.advance(CLOSE_TIMEOUT)
        self.successResultOf(stopped)


class AuthenticationTests(ListenerCase):
    """
    Tests for AUTH over a session.
    """

    def setUp(self) -> None:
        super().setUp()
        server = ServerSettings(
            "mx.example", mechanisms=MECHANISMS, authWithoutTLS=True, authRequired=True
        )
        self.authenticator = Authenticator(ACCOUNTS, lambda: "nonce", atOnce)
        self.settings = replace(SETTINGS, server=server)
        self.listen(self.settings, authenticator=self.authenticator)

    def test_plain(self) -> None:
        """
        PLAIN (RFC 4616), right and wrong.
        """
        wire = self.connect()
        wire.says(b"EHLO c\r\n")
        for password, code in ((b"pen", b"535 5.7.8"), (b"pencil", b"235 2.7.0")):
            response = base64.b64encode(b"\0user\0" + password)
            lines = wire.says(b"AUTH PLAIN " + response + b"\r\n")
            self.assertEqual(lines[0][:9], code)
        wire.says(ENVELOPE)
        self.assertEqual(self.delivery.clients[0].user, "user")

    def test_scram(self) -> None:
        """
        SCRAM-SHA-256 from beginning to end (RFC 7677, RFC 4954 4).
        """
        wire = self.connect()
        wire.says(b"EHLO c\r\n")
        client = ScramClient("user", "pencil", "client")
        line = b"AUTH SCRAM-SHA-256 " + base64.b64encode(client.initial())
        while (reply := wire.says(line + b"\r\n")[0]).startswith(b"334 "):
            response = client.respond(base64.b64decode(reply[4:]))
            line = b"*" if response is None else base64.b64encode(response)
        self.assertEqual(reply, b"235 2.7.0 Authenticated")
        self.assertTrue(client.satisfied)

    def guess(self, host: str, password: bytes = b"pen") -> bytes:
        """
        @return: The answer to PLAIN over a new connection, empty if it is delayed.
        """
        wire = self.connect(host)
        wire.says(b"EHLO c\r\n")
        response = base64.b64encode(b"\0user\0" + password)
        lines = wire.says(b"AUTH PLAIN " + response + b"\r\n")
        if not lines:
            self.clock.advance(MAX_DELAY)
            self.assertEqual(wire.said()[0][:9], b"535 5.7.8")
        wire.hangUp()
        return lines[0][:9] if lines else b""

    def test_limited(self) -> None:
        """
        Replies to failed logins are delayed more and more, and then passwords aren't
        checked any more (RFC 4954 6), over any number of connections; other clients
        aren't affected.
        """
        answers = [self.guess("192.0.2.1") for _ in range(MAX_FAILURES)]
        slow = MAX_FAILURES - UNDELAYED_FAILURES
        self.assertEqual(answers, [b"535 5.7.8"] * UNDELAYED_FAILURES + [b""] * slow)
        with capturedLogs() as events:
            for password in (b"pen", b"pencil") * 20:
                self.assertEqual(self.guess("192.0.2.1", password), b"454 4.7.0")
        [event] = [each for each in events if each["log_level"] is LogLevel.warn]
        self.assertEqual(event["limit"], "failed logins from one address")
        self.assertEqual(self.guess("198.51.100.1", b"pencil"), b"235 2.7.0")
        self.clock.advance(3600)
        self.assertEqual(self.guess("192.0.2.1", b"pencil"), b"235 2.7.0")

    def test_lockedOut(self) -> None:
        """
        Guesses from other networks don't lock out the owner of an account where he
        logged in before.
        """
        self.assertEqual(self.guess("198.51.100.1", b"pencil"), b"235 2.7.0")
        answers = {self.guess(f"10.{n}.0.1") for n in range(MAX_ACCOUNT_FAILURES)}
        self.assertEqual(answers, {b"535 5.7.8"})
        self.assertEqual(self.guess("203.0.113.1", b"pencil"), b"454 4.7.0")
        self.assertEqual(self.guess("198.51.100.9", b"pencil"), b"235 2.7.0")

    def test_scramLimited(self) -> None:
        """
        Proofs of SCRAM count like passwords.
        """
        codes: list[bytes] = []
        for _ in range(MAX_ACCOUNT_FAILURES + 1):
            wire = self.connect(f"10.{len(codes)}.0.1")
            wire.says(b"EHLO c\r\n")
            client = ScramClient("user", "pen", "client")
            line = b"AUTH SCRAM-SHA-256 " + base64.b64encode(client.initial())
            reply = wire.says(line + b"\r\n")[0]
            response = client.respond(base64.b64decode(reply[4:])) or b""
            codes += [wire.says(base64.b64encode(response) + b"\r\n")[0][:3]]
            wire.hangUp()
        self.assertEqual(codes, [b"535"] * MAX_ACCOUNT_FAILURES + [b"454"])

    def test_againAfterFailure(self) -> None:
        """
        Each AUTH begins its own exchange.
        """
        wire = self.connect()
        wire.says(b"EHLO c\r\n")
        wire.says(b"AUTH LOGIN\r\n")
        self.assertEqual(wire.says(b"*\r\n")[0][:9], b"501 5.7.0")
        self.assertEqual(wire.says(b"AUTH LOGIN\r\n"), [b"334 VXNlcm5hbWU6"])

    def test_broken(self) -> None:
        """
        If passwords can't be checked, the client tries again later (RFC 4954
        4.7.6).
        """

        def broken(check: Callable[[], bool]) -> Deferred[bool]:
            raise OSError("no threads")

        self.listen(
            self.settings, authenticator=Authenticator(ACCOUNTS, lambda: "n", broken)
        )
        wire = self.connect()
        wire.says(b"EHLO c\r\n")
        self.assertEqual(wire.says(b"AUTH PLAIN AGEAYg==\r\n")[0][:9], b"454 4.7.0")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_lostWhileChecking(self) -> None:
        """
        A client that leaves doesn't leave anything behind.
        """
        stuck = Authenticator(ACCOUNTS, lambda: "n", lambda check: Deferred())
        self.listen(self.settings, authenticator=stuck)
        wire = self.connect()
        wire.says(b"EHLO c\r\n")
        self.assertEqual(wire.says(b"AUTH PLAIN AGEAYg==\r\n"), [])
        wire.hangUp()
        self.assertGone()


class STARTTLSTests(ListenerCase):
    """
    Tests for STARTTLS over a session.
    """

    def setUp(self) -> None:
        super().setUp()
        server = ServerSettings("mx.example", starttls=True)
        folder = Path(self.mktemp())
        self.tls = ReloadingContext(*writeCertificate(folder, "mx.example"))
        self.listen(replace(SETTINGS, server=server), self.tls)

    def test_starttls(self) -> None:
        """
        TLS begins behind the reply (RFC 3207 4).
        """
        wire = self.connect()
        self.assertEqual(wire.says(b"EHLO c\r\nSTARTTLS\r\n")[-1][:3], b"220")
        self.assertIs(wire.tls, self.tls)
        self.assertEqual(wire.says(ENVELOPE)[0], b"503 5.5.1 Send EHLO first")

    def test_injection(self) -> None:
        """
        Plaintext behind STARTTLS ends the connection before there is TLS.
        """
        wire = self.connect()
        self.assertEqual(wire.says(b"STARTTLS\r\nEHLO c\r\n")[-1][:9], b"421 4.7.0")
        self.assertIsNone(wire.tls)
        self.assertGone()


class LoopbackTests(TestCase):
    """
    Tests with a client that others have written, and real TLS.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.delivery = FakeDelivery()
        self.folder = Path(self.mktemp())
        self.certFile, self.keyFile = writeCertificate(self.folder, "localhost")

    def listen(self, server: ServerSettings) -> int:
        """
        @return: The port.
        """
        assert IReactorTCP.providedBy(reactor) and IReactorTime.providedBy(reactor)
        authenticator = Authenticator(ACCOUNTS, lambda: "nonce", deferToThread)
        factory = SMTPServerFactory(
            reactor,
            ListenerSettings(server),
            self.delivery,
            ReloadingContext(self.certFile, self.keyFile),
            authenticator,
        )
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(factory.stop)
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    def submit(self, port: int) -> None:
        """
        Submit a message as a mail program does; runs in a thread.
        """
        context = ssl.create_default_context(cafile=str(self.certFile))
        with smtplib.SMTP("127.0.0.1", port, timeout=MAX_WAIT) as client:
            client._host = "localhost"  # type: ignore[attr-defined]
            client.ehlo("c.example")
            client.starttls(context=context)
            client.login("user", "pencil")
            message = b"Subject: x\r\n\r\n" + b".\r\n..\r\n" * 50_000
            client.sendmail("a@a.example", ["b@b.example"], message)
            client.sendmail("a@a.example", ["b@b.example"], message)

    async def test_submission(self) -> None:
        """
        STARTTLS, AUTH and large messages over TCP.
        """
        server = ServerSettings(
            "mx.example",
            starttls=True,
            tlsRequired=True,
            mechanisms=MECHANISMS,
            authRequired=True,
        )
        await deferToThread(self.submit, self.listen(server))
        expected = b"Subject: x\r\n\r\n" + b".\r\n..\r\n" * 50_000
        self.assertEqual(self.delivery.text, expected)
        self.assertEqual(self.delivery.asked, ["mail", "rcpt", "finish"] * 2)
        client = self.delivery.clients[0]
        self.assertEqual(client.user, "user")
        self.assertRegex(client.tls, r"\ATLSv1\.3 TLS_")

    async def test_immediate(self) -> None:
        """
        TLS before anything else (RFC 8314 3.3) counts as TLS.
        """
        assert IReactorTCP.providedBy(reactor) and IReactorTime.providedBy(reactor)
        settings = ListenerSettings(
            ServerSettings("mx.example", tlsRequired=True), immediateTLS=True
        )
        factory = SMTPServerFactory(reactor, settings, self.delivery)
        context = ReloadingContext(self.certFile, self.keyFile)
        wrapped = TLSMemoryBIOFactory(context, False, factory, clock=reactor)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(wrapped)
        self.addCleanup(factory.stop)
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        await deferToThread(self.submitOverTLS, address.port)
        self.assertEqual(self.delivery.text, b"Subject: x\r\n\r\n")
        self.assertRegex(self.delivery.clients[0].tls, r"\ATLSv1\.3 TLS_")

    def submitOverTLS(self, port: int) -> None:
        """
        Submit a message as a mail program does on port 465; runs in a thread.
        """
        context = ssl.create_default_context(cafile=str(self.certFile))
        context.check_hostname = False
        with smtplib.SMTP_SSL(
            "127.0.0.1", port, context=context, timeout=MAX_WAIT
        ) as client:
            client.sendmail("a@a.example", ["b@b.example"], b"Subject: x\r\n\r\n")
