"""
Connections in memory with real TLS: OpenSSL at both ends, no sockets. Data moves only
when a test flushes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IOpenSSLContextFactory,
    IProtocol,
    IProtocolFactory,
    ISSLTransport,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

CLIENT_IP = "192.0.2.1"
SERVER_IP = "192.0.2.2"
#: As Twisted's own transports.
BUFFER = 65536


@implementer(IOpenSSLContextFactory)
class ServerTLSCreator:
    """
    A server's TLS connection creator for C{startTLS}.
    """

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def getContext(self) -> SSL.Context:
        return self._context


@implementer(ITransport, IConsumer)
class End:
    """
    One end of a L{Link}: the transport of its protocol.
    """

    disconnecting = False

    def __init__(self, link: Link, isClient: bool) -> None:
        self.link = link
        self.isClient = isClient
        self.below = _Below(self)
        self.tls: Any = None
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        (self.tls or self.below).write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        (self.tls or self.below).loseConnection()

    def abortConnection(self) -> None:
        self.below.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        (self.tls or self.below).registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        (self.tls or self.below).unregisterProducer()

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        factory = TLSMemoryBIOFactory(
            contextFactory, self.isClient, Factory(), self.link.clock
        )
        tls = factory.protocol(factory, self.protocol, False)
        self.tls = self.protocol = tls
        alsoProvides(self, ISSLTransport)
        tls.makeConnection(self.below)

    def getPeerCertificate(self) -> Any:
        return self.tls.getPeerCertificate()

    def getHandle(self) -> Any:
        return self.tls and self.tls.getHandle()

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", CLIENT_IP if self.isClient else SERVER_IP, 25)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", SERVER_IP if self.isClient else CLIENT_IP, 25)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        There is no Nagle here.
        """


@implementer(ITransport, IConsumer)
class _Below:
    """
    The bytes on the wire.
    """

    disconnecting = False

    def __init__(self, end: End) -> None:
        self.end = end
        self.written: list[bytes] = []
        self.size = 0
        self.peak = 0
        self.producer: Any = None
        self.streaming = True
        self.paused = False

    def write(self, data: bytes) -> None:
        if self.disconnecting and self.producer is None:
            return
        self.written.append(data)
        self.size += len(data)
        self.peak = max(self.peak, self.size)
        if self.producer is not None and self.size > BUFFER and not self.paused:
            self.paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def take(self) -> bytes:
        """
        The data for the peer.
        """
        data, self.written, self.size = b"".join(self.written), [], 0
        if self.producer is not None and (self.paused or not self.streaming):
            self.paused = False
            self.producer.resumeProducing()
        return data

    def loseConnection(self) -> None:
        self.disconnecting = self.end.disconnecting = True

    def abortConnection(self) -> None:
        self.written = []
        self.disconnecting = True
        # As Twisted's own transports: connectionLost comes later.
        self.end.link.clock.callLater(
            0, self.end.link.cut, ConnectionAborted(), ConnectionLost(), self.end
        )

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        self.streaming = streaming

    def unregisterProducer(self) -> None:
        self.producer = None
        self.paused = False

    def getHost(self) -> IPv4Address:
        return self.end.getHost()

    def getPeer(self) -> IPv4Address:
        return self.end.getPeer()


class Link:
    """
    A client and a server, joined.
    """

    def __init__(self, client: IProtocol, server: IProtocol, clock: Clock) -> None:
        self.clock = clock
        self.open = True
        self.client = End(self, True)
        self.server = End(self, False)
        for end, protocol in ((self.server, server), (self.client, client)):
            end.protocol = protocol
            protocol.makeConnection(end)

    def flush(self) -> None:
        """
        Deliver everything, and all that follows from it.
        """
        moved = True
        while moved and self.open:
            self.clock.advance(0)
            ends = (self.client, self.server), (self.server, self.client)
            moved = any([self._move(*pair) for pair in ends])

    def _move(self, sender: End, receiver: End) -> bool:
        data = sender.below.take()
        if data and self.open:
            receiver.protocol.dataReceived(data)
        below = sender.below
        if below.disconnecting and not below.written and below.producer is None:
            self.cut(ConnectionDone(), ConnectionDone(), sender)
        return bool(data or sender.below.written)

    def cut(self, here: Exception, there: Exception, end: End) -> None:
        """
        The connection is gone: for the reason C{here} at C{end}, and C{there}
        at the other one.
        """
        if not self.open:
            return
        self.open = False
        other = self.server if end.isClient else self.client
        end.protocol.connectionLost(Failure(here))
        other.protocol.connectionLost(Failure(there))

    def hangUp(self) -> None:
        """
        Close the server's end.
        """
        self.cut(ConnectionDone(), ConnectionDone(), self.server)


@implementer(IStreamClientEndpoint)
class Reaching:
    """
    An endpoint that connects to C{server}.
    """

    link: Link

    def __init__(self, server: IProtocol, clock: Clock) -> None:
        self._server = server
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol = protocolFactory.buildProtocol(IPv4Address("TCP", SERVER_IP, 25))
        assert protocol is not None
        self.link = Link(protocol, self._server, self._clock)
        return succeed(protocol)


@implementer(IStreamClientEndpoint)
class Failing:
    """
    An endpoint that fails to connect.
    """

    def __init__(self, answer: Callable[[], Deferred[IProtocol]]) -> None:
        self._answer = answer

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._answer()
