# -*- test-case-name: tests.smtp.server.test_transport -*-
"""
A connection as a server's session sees it: what it writes goes out at once,
and TLS may begin in the middle.

Twisted's transports write when the reactor next looks whether they can, which
for the short replies of SMTP costs as much as finding out what to say; with
TLS they wait twice.  Here the socket is asked first, and only what it doesn't
take is left to the reactor.  Nor does a connection wait to be closed until the
reactor finds that nothing is left to be written.

Who doesn't read what he is told is not listened to either: what waits to be
sent is bounded by what one read can ask for.
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

# Of Linux: what is written goes together with what comes next.
_MORE = getattr(socket, "MSG_MORE", 0)


@implementer(ITransport)
class ServerTransport(Protocol):
    """
    The protocol of a transport, and the transport of a session.

    @ivar session: To whom it belongs.
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
        # The session refers to this: both ways, it would be there until the
        # garbage collector comes.
        del self.session, self._above
        above.connectionLost(reason)

    # --- for the session -----------------------------------------------------

    def write(self, data: bytes) -> None:
        (self._tls or self._below).write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def end(self, lastWords: bytes) -> None:
        """
        Write C{lastWords}, and close the connection.
        """
        if self._tls is None:
            self._below.write(lastWords, _MORE)
        else:
            self._tls.write(lastWords)
        self.loseConnection()

    def loseConnection(self) -> None:
        # TLS would wait for a producer to end.
        self._below.unregister()
        (self._tls or self._below).loseConnection()

    def abortConnection(self) -> None:
        (self._tls or self._below).abortConnection()

    def startTLS(self, creator: IOpenSSLServerConnectionCreator) -> None:
        """
        From now on there is TLS.
        """
        factory = TLSMemoryBIOFactory(creator, False, Factory(), self._clock)
        # Not its own protocol, which collects small writes.
        self._tls = self._above = TLSMemoryBIOProtocol(factory, self.session, False)
        self._tls.makeConnection(self._below)

    def getHandle(self) -> object:
        """
        The TLS connection, if there is one.
        """
        return self._below.getHandle() if self._tls is None else self._tls.getHandle()

    def getPeer(self) -> IAddress:
        return self._below.getPeer()

    def getHost(self) -> IAddress:
        return self._below.getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        See C{ITCPTransport}; what isn't TCP takes no notice.
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
    A transport whose socket is written to while nothing waits for it.

    To the transport it is the producer of what is written: that which is to be
    paused by not reading on.
    """

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        handle = self.getHandle()
        # Where there is TLS from the beginning it is none.
        self._socket = handle if isinstance(handle, socket.socket) else None
        self._isWanted = True
        self._isFull = False
        self._isRegistered = False
        # Registered with TLS, the wait for a handshake would stop it.
        self._base = transport
        while isinstance(self._base, TLSMemoryBIOProtocol):
            self._base = self._base.transport
        if self._socket is None:
            self._register()

    def write(self, data: bytes, flags: int = 0) -> None:
        """
        @param flags: For C{send}.
        """
        line = self._socket
        if line is not None:
            try:
                sent = line.send(data, flags)
            except OSError:
                # It has no room, or is lost, which the transport will find
                # out and say when it may.
                sent = 0
            if sent == len(data):
                return
            # From now on there may be something in the transport that has to
            # go first.
            self._socket = None
            self._register()
            data = data[sent:]
        self.transport.write(data)

    def read(self, isWanted: bool) -> None:
        """
        Whether the session has room for more.
        """
        self._isWanted = isWanted
        self._regulate()

    def pauseProducing(self) -> None:
        """
        What was written doesn't get away.
        """
        self._isFull = True
        self._regulate()

    def resumeProducing(self) -> None:
        """
        Now it did.
        """
        self._isFull = False
        self._regulate()

    def stopProducing(self) -> None:
        """
        The connection is lost.
        """
        self._isRegistered = False

    def unregister(self) -> None:
        """
        Nothing more is written.
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
            # It would wait until it may write, only to find that there is
            # nothing.  Not at once: whoever calls isn't to be called by it.
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
