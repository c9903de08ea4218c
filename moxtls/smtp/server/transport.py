# -*- test-case-name: tests.smtp.server.test_transport -*-
"""
The transport of SMTP server sessions: writes directly to the socket, and supports
STARTTLS.

Twisted's transports write when the reactor finds the socket writable, which for the
short replies of SMTP takes as long as processing the commands; with TLS they wait
twice.  This transport writes to the socket first, and leaves only the rest to the
reactor.  Likewise a connection is closed without waiting for the reactor.

Reading pauses while the client doesn't read its replies: the unsent output is
bounded by the replies to a single read.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

# Linux: send the data together with what follows.
_MORE = getattr(socket, "MSG_MORE", 0)


@implementer(ITransport)
class ServerTransport(Protocol):
    """
    The protocol of Twisted's transport, and the transport of a session.

    @ivar session: The session's protocol.
    """

    def __init__(self, clock: IReactorTime, session: Protocol) -> None:
        self.session = session
        self._clock = clock
        self._above: Protocol | TLSMemoryBIOProtocol = session
        self._below: _DirectTransport
        self._tls: TLSMemoryBIOProtocol | None = None

    # --- for the transport ---------------------------------------------------

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._below = _DirectTransport(self.transport)
        self.session.makeConnection(self)

    def dataReceived(self, data: bytes) -> None:
        self._above.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        above = self._above
        # Breaks a reference cycle, which the garbage collector would have to find.
        del self.session, self._above
        above.connectionLost(reason)

    # --- for the session -----------------------------------------------------

    def write(self, data: bytes) -> None:
        (self._tls or self._below).write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def end(self, data: bytes) -> None:
        """
        Write the last data, and close the connection.
        """
        if self._tls is None:
            self._below.write(data, _MORE)
        else:
            self._tls.write(data)
        self.loseConnection()

    def loseConnection(self) -> None:
        # TLS waits for a registered producer to end.
        self._below.unregister()
        (self._tls or self._below).loseConnection()

    def abortConnection(self) -> None:
        (self._tls or self._below).abortConnection()

    def startTLS(self, creator: IOpenSSLServerConnectionCreator) -> None:
        """
        Start TLS as a server.
        """
        factory = TLSMemoryBIOFactory(creator, False, Factory(), self._clock)
        # The factory's own protocol would buffer small writes.
        self._tls = self._above = TLSMemoryBIOProtocol(factory, self.session, False)
        self._tls.makeConnection(self._below)

    def getHandle(self) -> object:
        """
        The TLS connection, or the socket.
        """
        return self._below.getHandle() if self._tls is None else self._tls.getHandle()

    def getPeer(self) -> IAddress:
        return self._below.getPeer()

    def getHost(self) -> IAddress:
        return self._below.getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        See C{ITCPTransport}; ignored for other transports.
        """
        if isinstance(self._below.getHandle(), socket.socket):
            self._below.transport.setTcpNoDelay(enabled)

    def pauseProducing(self) -> None:
        self._below.read(isWanted=False)

    def resumeProducing(self) -> None:
        self._below.read(isWanted=True)


@implementer(IPushProducer)
class _DirectTransport:
    """
    Writes to the socket of a transport while the transport has no unsent data.

    For the transport, this is the producer of the output: it pauses by not reading.
    """

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        handle = self.getHandle()
        # With TLS from the beginning, the handle is not a socket.
        self._socket = handle if isinstance(handle, socket.socket) else None
        self._isWanted = True
        self._isFull = False
        self._isRegistered = False
        # A producer registered with TLS would be paused during the handshake.
        self._base = transport
        while isinstance(self._base, TLSMemoryBIOProtocol):
            self._base = self._base.transport
        if self._socket is None:
            self._register()

    def write(self, data: bytes, flags: int = 0) -> None:
        """
        Write data.

        @param flags: For C{send}.
        """
        line = self._socket
        if line is not None:
            try:
                sent = line.send(data, flags)
            except OSError:
                # The socket's buffer is full or the connection lost, which the
                # transport will find out.
                sent = 0
            if sent == len(data):
                return
            # From now on the transport may have unsent data that must go first.
            self._socket = None
            self._register()
            data = data[sent:]
        self.transport.write(data)

    def read(self, isWanted: bool) -> None:
        """
        Read or pause reading, as the session has capacity.
        """
        self._isWanted = isWanted
        self._regulate()

    def pauseProducing(self) -> None:
        """
        The transport has too much unsent data.
        """
        self._isFull = True
        self._regulate()

    def resumeProducing(self) -> None:
        """
        The transport has sent its data.
        """
        self._isFull = False
        self._regulate()

    def stopProducing(self) -> None:
        """
        The connection was lost.
        """
        self._isRegistered = False

    def unregister(self) -> None:
        """
        No more data is written.
        """
        if self._isRegistered:
            self._isRegistered = False
            self._base.unregisterProducer()

    def _register(self) -> None:
        self._isRegistered = True
        self._base.registerProducer(self, True)

    def _regulate(self) -> None:
        if self._isWanted and not self._isFull:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def loseConnection(self) -> None:
        transport = self.transport
        if self._socket is None or not isinstance(transport, Connection):
            transport.loseConnection()
        elif transport.connected and not transport.disconnecting:
            # The transport would wait for the socket to become writable, without
            # having any data.  Called later, as connectionLost must not be called
            # within the caller.
            transport.disconnecting = True
            transport.stopReading()
            clock = IReactorTime(transport.reactor)
            clock.callLater(0, transport.connectionLost, connectionDone)

    def abortConnection(self) -> None:
        self.transport.abortConnection()

    def getHandle(self) -> object:
        return getattr(self.transport, "getHandle", lambda: None)()

    def getPeer(self) -> IAddress:
        peer: IAddress = self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        host: IAddress = self.transport.getHost()
        return host
