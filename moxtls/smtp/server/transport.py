# -*- test-case-name: tests.smtp.server -*-
"""
The transport of SMTP server sessions, which writes directly to the socket and supports
STARTTLS, and the timeouts of sessions.

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
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.smtp.types import Reply

#: Seconds for a closed connection to end before it is aborted.
CLOSE_TIMEOUT = 10

_IDLE = Reply(421, "4.4.2", "Idle for too long")
_TOO_LONG = Reply(421, "4.4.2", "The session has taken too long")
_TOO_SLOW = Reply(421, "4.4.2", "The message arrives too slowly")

# Linux: send the data together with what follows.
_MORE = getattr(socket, "MSG_MORE", 0)


@implementer(ITransport)
class ServerTransport(protocol.Protocol):
    """
    The protocol of Twisted's transport, and the transport of a session.

    @ivar session: The session's protocol.
    """

    def __init__(self, clock: IReactorTime, session: protocol.Protocol) -> None:
        self.session = session
        self._clock = clock
        self._above: protocol.Protocol | TLSMemoryBIOProtocol = session
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


class TimedSession(Protocol):
    """
    A session, as its timeouts use it.
    """

    @property
    def isBusy(self) -> bool:
        """
        True while the server processes an event: the client isn't responsible for
        the time.
        """

    @property
    def inMessage(self) -> bool:
        """
        True while a message is received.
        """

    def closeWith(self, reply: Reply) -> None:
        """
        Send a last reply and close the connection, once no event is in progress.
        """

    def abort(self) -> None:
        """
        Close the connection at once.
        """


class SessionTimeouts:
    """
    The timeouts of one session.

    There is one timer.  When it expires, it checks all timeouts and then waits for
    the next: commands only record their time, without resetting a timer.
    """

    def __init__(
        self, clock: IReactorTime, settings: ListenerSettings, session: TimedSession
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._session = session
        self._since = self._lastActivity = self._began = clock.seconds()
        self._size = 0
        self._end: float | None = None
        self._timer: IDelayedCall | None = None
        self._sleep(min(settings.idleTimeout, settings.sessionTimeout))

    @property
    def lastActivity(self) -> float:
        """
        The time of the latest input or output.
        """
        return self._lastActivity

    def active(self) -> None:
        """
        Record input or output.
        """
        self._lastActivity = self._clock.seconds()

    def messageBegins(self) -> None:
        self._began = self._clock.seconds()
        self._size = 0

    def received(self, size: int) -> None:
        """
        Record C{size} octets of a message.
        """
        self._size += size
        self._lastActivity = self._clock.seconds()

    def excludeTime(self, seconds: float) -> None:
        """
        Don't count C{seconds} of processing against the rate of a message.
        """
        self._began += seconds

    def startClosing(self) -> None:
        """
        Start the timeout for closing, after which the connection is aborted.
        """
        if self._end is None:
            self._end = self._clock.seconds() + CLOSE_TIMEOUT
            self.stop()
            self._sleep(CLOSE_TIMEOUT)

    def stop(self) -> None:
        """
        Stop the timer.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _sleep(self, seconds: float) -> None:
        self._timer = self._clock.callLater(max(0, seconds), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._end is not None:
            self._session.abort()
            return
        limits = list(self._limits(now))
        over = [reply for at, reply in limits if at <= now]
        if over:
            self._session.closeWith(over[0])
        else:
            self._sleep(min(at for at, _ in limits) - now)

    def _limits(self, now: float) -> list[tuple[float, Reply]]:
        settings, limits = self._settings, []
        limits.append((self._since + settings.sessionTimeout, _TOO_LONG))
        if self._session.isBusy:
            # Check again later: only the client's own time counts.
            limits.append((now + settings.idleTimeout, _IDLE))
            return limits
        limits.append((self._lastActivity + settings.idleTimeout, _IDLE))
        if self._session.inMessage and settings.minBodyRate:
            allowed = settings.bodyGrace + self._size / settings.minBodyRate
            limits.append((self._began + allowed, _TOO_SLOW))
        return limits
