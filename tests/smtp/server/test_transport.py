"""
Tests for L{moxtls.smtp.server.transport}.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, ITransport
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import (
    ClientCreator,
    Factory,
    Protocol,
    ServerFactory,
    connectionDone,
)
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.smtp.server.transport import ServerTransport
from tests import certificates
from tests.starttls import Link, ServerTLSCreator


class RecordingProtocol(Protocol):
    """
    Records its input.
    """

    def __init__(self) -> None:
        self.heard = b""
        self.isLost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.isLost = True


@implementer(IOpenSSLServerConnectionCreator)
class Serving:
    """
    A server with a certificate.
    """

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(certificates.good().context(), None)


class SocketTransport(StringTransport):
    """
    A transport over one end of a pair of sockets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.socket, self.other = socket.socketpair()
        self.socket.setblocking(False)
        self.other.setblocking(False)
        self.isNoDelay = False

    def getHandle(self) -> socket.socket:
        return self.socket

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.isNoDelay = enabled

    def arrived(self) -> bytes:
        """
        All that went through the sockets.
        """
        data = b""
        try:
            while piece := self.other.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return data


class DirectTests(SynchronousTestCase):
    """
    Tests for how a line writes.
    """

    def setUp(self) -> None:
        self.session = RecordingProtocol()
        self.line = ServerTransport(Clock(), self.session)
        self.transport = SocketTransport()
        self.addCleanup(self.transport.socket.close)
        self.addCleanup(self.transport.other.close)
        self.line.makeConnection(self.transport)

    def test_interface(self) -> None:
        """
        To the session it is a transport.
        """
        verifyObject(ITransport, self.line)
        self.assertIs(self.session.transport, self.line)

    def test_atOnce(self) -> None:
        """
        Written data is in the socket when C{write} returns.
        """
        self.line.write(b"one")
        self.line.writeSequence([b"two", b"three"])
        self.assertEqual(self.transport.arrived(), b"onetwothree")
        self.assertEqual(self.transport.value(), b"")

    def test_noRoom(self) -> None:
        """
        Data beyond the socket's buffer, and all that follows, goes through the
        transport: nothing is lost or reordered.
        """
        piece = bytes(range(256)) * 1024
        for _ in range(10):
            self.line.write(piece)
        self.line.write(b"end")
        sent = self.transport.arrived()
        self.line.write(b"!")
        self.assertEqual(sent + self.transport.value(), piece * 10 + b"end!")
        self.assertLess(len(sent), len(piece) * 10)

    def test_deaf(self) -> None:
        """
        Reading pauses while the client doesn't read, or the session has no
        capacity.
        """
        while not self.transport.value():
            self.line.write(b"a" * 65536)
        producer = self.transport.producer
        assert producer is not None
        producer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.line.resumeProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.line.pauseProducing()
        producer.resumeProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.line.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.line.loseConnection()
        self.assertIsNone(self.transport.producer)

    def test_end(self) -> None:
        """
        The last data is written, also through a transport that isn't TCP's and has to
        wait, which closes the connection itself.
        """
        self.line.end(b"221\r\n")
        self.assertEqual(self.transport.arrived(), b"221\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.line.end(b"a" * 10_000_000)
        self.assertTrue(self.transport.value().endswith(b"a"))
        self.assertIsNone(self.transport.producer)

    def test_lost(self) -> None:
        """
        The loss of a connection is reported by the transport.
        """
        self.transport.other.close()
        self.line.write(b"a")
        self.line.write(b"b")
        self.assertEqual(self.transport.value(), b"ab")
        self.assertFalse(self.session.isLost)

    def test_passedOn(self) -> None:
        """
        All other calls are passed to the transport.
        """
        self.line.dataReceived(b"x")
        self.assertEqual(self.session.heard, b"x")
        self.line.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.line.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.line.setTcpNoDelay(True)
        self.assertTrue(self.transport.isNoDelay)
        self.assertEqual(self.line.getPeer(), self.transport.getPeer())
        self.assertEqual(self.line.getHost(), self.transport.getHost())
        self.line.loseConnection()
        self.assertTrue(self.transport.disconnecting)
        self.line.connectionLost(Failure(Exception()))
        self.assertTrue(self.session.isLost)


class ClosingProtocol(Protocol):
    """
    Calls C{begin} on connection and C{answer} on input, and records the end of the
    connection.

    @ivar ended: Fires with the reason.
    """

    transport: ITransport

    def __init__(self) -> None:
        self.heard = bytearray()
        self.begin: Callable[[], None] = lambda: None
        self.answer: Callable[[], None] = lambda: None
        self.reasons: list[type[BaseException]] = []
        self.ended: Deferred[type[BaseException]] = Deferred()

    def connectionMade(self) -> None:
        self.begin()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self.answer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.type is not None
        self.reasons.append(reason.type)
        if len(self.reasons) == 1:
            self.ended.callback(reason.type)


class OneTransport(ServerFactory):
    """
    Has one line.
    """

    noisy = False

    def __init__(self, line: ServerTransport) -> None:
        self.buildProtocol = lambda addr: line  # type: ignore[method-assign]


class CloseTests(TestCase):
    """
    Tests for how a line ends, over sockets.
    """

    def setUp(self) -> None:
        assert isinstance(reactor, PosixReactorBase)
        self.reactor = reactor
        self.session, self.client = ClosingProtocol(), ClosingProtocol()
        self.line = ServerTransport(reactor, self.session)

    async def connect(self) -> None:
        """
        The client is connected.
        """
        port = self.reactor.listenTCP(0, OneTransport(self.line), interface="127.0.0.1")
        assert isinstance(port, Port)
        self.addCleanup(port.stopListening)
        creator = ClientCreator(self.reactor, lambda: self.client)
        await creator.connectTCP("127.0.0.1", port.getHost().port)

    async def test_orderly(self) -> None:
        """
        The last data arrives, followed by the end of the stream and no reset;
        C{connectionLost} is called later, once.
        """

        def quit() -> None:
            self.line.end(b"221\r\n")
            self.line.loseConnection()
            self.assertEqual(self.session.reasons, [])

        self.session.answer = quit
        self.client.begin = lambda: self.client.transport.write(b"QUIT\r\n")
        await self.connect()
        self.assertIs(await self.client.ended, ConnectionDone)
        self.assertEqual(self.client.heard, b"221\r\n")
        self.assertIs(await self.session.ended, ConnectionDone)
        self.assertEqual(self.session.heard, b"QUIT\r\n")
        self.assertEqual(self.session.reasons, [ConnectionDone])

    async def test_atOnce(self) -> None:
        """
        A connection refused in the greeting is closed after its last data too.
        """
        self.session.begin = lambda: self.line.end(b"421\r\n")
        await self.connect()
        self.assertIs(await self.client.ended, ConnectionDone)
        self.assertEqual(self.client.heard, b"421\r\n")
        self.assertIs(await self.session.ended, ConnectionDone)

    async def test_noRoom(self) -> None:
        """
        Data beyond the socket's buffer is sent before the connection closes.
        """
        words = b"a" * 12_000_000
        self.session.begin = lambda: self.line.end(words)
        await self.connect()
        self.assertEqual(self.session.reasons, [])
        self.assertIs(await self.client.ended, ConnectionDone)
        self.assertEqual(len(self.client.heard), len(words))
        self.assertIs(await self.session.ended, ConnectionDone)

    async def test_silent(self) -> None:
        """
        A connection closes without last data too.
        """
        self.session.begin = lambda: self.line.loseConnection()
        await self.connect()
        self.assertIs(await self.client.ended, ConnectionDone)
        self.assertEqual(self.client.heard, b"")
        self.assertIs(await self.session.ended, ConnectionDone)

    async def test_cutOff(self) -> None:
        """
        A client that is aborted while the connection closes is lost once.
        """

        def cut() -> None:
            self.line.end(b"421\r\n")
            self.line.abortConnection()

        self.session.begin = cut
        await self.connect()
        self.assertIn(await self.client.ended, (ConnectionDone, ConnectionLost))
        self.assertIn(await self.session.ended, (ConnectionDone, ConnectionAborted))
        self.assertEqual(len(self.session.reasons), 1)

    async def test_gone(self) -> None:
        """
        Writing to a closed connection has no effect.
        """
        self.client.begin = lambda: self.client.transport.loseConnection()
        await self.connect()
        await self.session.ended
        self.line.end(b"221\r\n")
        self.line.loseConnection()
        self.assertEqual(self.session.reasons, [ConnectionDone])


class TLSTests(SynchronousTestCase):
    """
    Tests for TLS over a line.
    """

    def test_starttls(self) -> None:
        """
        TLS begins in the middle, with OpenSSL at both ends, and ends
        properly.
        """
        clock, client, session = Clock(), RecordingProtocol(), RecordingProtocol()
        line = ServerTransport(clock, session)
        link = Link(client, line, clock)
        line.write(b"220\r\n")
        link.flush()
        self.assertEqual(client.heard, b"220\r\n")
        line.startTLS(Serving())
        link.client.startTLS(ServerTLSCreator(SSL.Context(SSL.TLS_CLIENT_METHOD)))
        link.flush()
        assert isinstance(client.transport, type(link.client))
        client.transport.write(b"hello")
        line.write(b"250\r\n")
        link.flush()
        self.assertEqual((session.heard, client.heard), (b"hello", b"220\r\n250\r\n"))
        self.assertIsInstance(line.getHandle(), SSL.Connection)
        line.loseConnection()
        link.flush()
        self.assertTrue(session.isLost)
        self.assertTrue(client.isLost)

    def test_end(self) -> None:
        """
        The last data goes through TLS too.
        """
        clock, client, session = Clock(), RecordingProtocol(), RecordingProtocol()
        line = ServerTransport(clock, session)
        link = Link(client, line, clock)
        line.startTLS(Serving())
        link.client.startTLS(ServerTLSCreator(SSL.Context(SSL.TLS_CLIENT_METHOD)))
        link.flush()
        line.end(b"221\r\n")
        link.flush()
        self.assertEqual(client.heard, b"221\r\n")
        self.assertTrue(session.isLost)
        self.assertTrue(client.isLost)

    def test_fromTheBeginning(self) -> None:
        """
        With TLS from the beginning (RFC 8314 3.3), output before the handshake
        waits for it, and a client that doesn't read is noticed by the lower
        transport.
        """
        clock, client, session = Clock(), RecordingProtocol(), RecordingProtocol()
        line = ServerTransport(clock, session)
        factory = TLSMemoryBIOFactory(Serving(), False, Factory(), clock)
        link = Link(client, TLSMemoryBIOProtocol(factory, line), clock)
        below = link.server.below
        self.assertIsNotNone(below.producer)
        line.write(b"220\r\n")
        link.client.startTLS(ServerTLSCreator(SSL.Context(SSL.TLS_CLIENT_METHOD)))
        link.flush()
        self.assertEqual(client.heard, b"220\r\n")
        self.assertIsInstance(line.getHandle(), SSL.Connection)
        line.loseConnection()
        self.assertIsNone(below.producer)
        link.flush()
        self.assertTrue(session.isLost)
