# -*- test-case-name: tests.smtp.server.test_factory -*-
"""
A Twisted factory of SMTP server sessions, with connection and rate limits.  An
L{IMessageDelivery} decides which mail is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.smtp.authenticator import Authenticator
from moxtls.smtp.rates import (
    ClientNetwork,
    ConnectionLimits,
    LogLimiter,
    RateLimiter,
    networkOf,
)
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.server.protocol import IServerFactory, ServerSession
from moxtls.smtp.server.syntax import encodeReply
from moxtls.smtp.server.transport import ServerTransport
from moxtls.smtp.types import Reply

__all__ = [
    "Authenticator",
    "IMessage",
    "IMessageDelivery",
    "ListenerSettings",
    "SMTPServerFactory",
]

#: Seconds between log events about refused connections of one kind: a client that
#: makes many must not fill the log.
LOG_INTERVAL = 60
#: One in this many connections may exceed the maximum while it is being closed.
EVICTION_SHARE = 10
#: Seconds of inactivity after which a session may be closed to make room for another.
EVICTION_IDLE_TIME = 10


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """
    The refusal of a connection or a message because of a limit.

    @ivar limit: The limit, for the log.
    """

    limit: str
    reply: Reply


_STOPPED = LimitRefusal("stopping", Reply(421, "4.3.2", "Shutting down"))
_FULL = LimitRefusal(
    "MaxConnections is reached",
    Reply(421, "4.3.2", "Too many connections; try again later"),
)
_EXCEEDED = {
    "MaxConnectionsPerAddress": "Too many connections from your address",
    "MaxConnectionsPerNetwork": "Too many connections from your network",
    "MaxConnectionRate": "Too many new connections from you; try again later",
}
_TOO_MANY_MESSAGES = LimitRefusal(
    "MaxMessageRate is reached",
    Reply(450, "4.7.1", "Too many messages from you; try again later"),
)


class _RefusedConnection(Protocol):
    """
    Sends one reply and closes the connection (RFC 5321 3.1, 3.8).
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def connectionMade(self) -> None:
        transport = self.transport
        assert transport is not None
        # One reply fits into the system's buffer, even if the client doesn't read.
        transport.write(encodeReply(self._reply))
        transport.loseConnection()


@implementer(IServerFactory)
class SMTPServerFactory(ServerFactory):
    """
    Makes the sessions of one listener, and enforces its limits.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        settings: ListenerSettings,
        delivery: IMessageDelivery,
        tls: IOpenSSLServerConnectionCreator | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        """
        @param tls: For STARTTLS, if C{settings} enable it.
        @param authenticator: For AUTH, if C{settings} enable it.
        """
        self.clock = clock
        self.settings = settings
        self.delivery = delivery
        self.tls = tls
        self.authenticator = authenticator
        self._sessions: set[ServerSession] = set()
        self._evicting: set[ServerSession] = set()
        self._limits = ConnectionLimits(
            settings.maxConnectionsPerAddress,
            settings.maxConnectionsPerNetwork,
            settings.maxConnectionRate,
        )
        self._messageRate = RateLimiter(settings.maxMessageRate)
        self._stopped: Deferred[None] | None = None
        self._logLimiter = LogLimiter(LOG_INTERVAL)

    @property
    def hasImmediateTLS(self) -> bool:
        return self.settings.immediateTLS

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        Make the protocol of a connection.

        @return: C{None} to close a refused connection without a reply, where a
            TLS handshake would have to precede it.
        """
        source = networkOf(str(getattr(addr, "host", "")))
        refusal = self._refusal(source)
        if refusal is not None:
            self._logRefusal(refusal, source)
            isLate = self.settings.immediateTLS
            return None if isLate else _RefusedConnection(refusal.reply)
        session = ServerSession(self, source)
        session.factory = self
        return ServerTransport(self.clock, session)

    def _refusal(self, source: ClientNetwork) -> LimitRefusal | None:
        if self._stopped is not None:
            return _STOPPED
        limit = self._limits.exceeded(source, self.clock.seconds())
        if limit:
            reply = Reply(421, "4.7.0", _EXCEEDED[limit])
            return LimitRefusal(f"{limit} is reached", reply)
        return None if self._hasRoom() else _FULL

    def _hasRoom(self) -> bool:
        """
        True if one more session is allowed.  At the maximum, the session that has
        been idle for longest is closed: otherwise a few silent clients could block
        all others.
        """
        maximum = self.settings.maxConnections
        if len(self._sessions) < maximum:
            return True
        mayEvict = len(self._evicting) < maximum // EVICTION_SHARE
        idle = self._longestIdle() if mayEvict else None
        if idle is not None:
            self._evicting.add(idle)
            idle.evict()
        return idle is not None

    def _longestIdle(self) -> ServerSession | None:
        """
        The session that has been idle for longest, if for long enough.
        """
        latest = self.clock.seconds() - EVICTION_IDLE_TIME
        sessions = (each for each in self._sessions - self._evicting if not each.isBusy)
        first = min(sessions, key=lambda each: each.lastActivity, default=None)
        return first if first is not None and first.lastActivity <= latest else None

    def _logRefusal(self, refusal: LimitRefusal, source: ClientNetwork) -> None:
        count = self._logLimiter.due(refusal.limit, self.clock.seconds())
        if count:
            self.log.warn(
                "refusing clients, as {limit}: {count} refused, the latest {host!r}",
                limit=refusal.limit,
                count=count,
                host=source.address,
            )

    def refuseMail(self, source: ClientNetwork) -> Reply | None:
        if self._messageRate.take(source, self.clock.seconds()):
            return None
        self._logRefusal(_TOO_MANY_MESSAGES, source)
        return _TOO_MANY_MESSAGES.reply

    def opened(self, session: ServerSession, source: ClientNetwork) -> None:
        self._sessions.add(session)
        self._limits.opened(source)

    def closed(self, session: ServerSession, source: ClientNetwork) -> None:
        self._sessions.discard(session)
        self._evicting.discard(session)
        self._limits.closed(source)
        stopped = self._stopped
        if stopped is not None and not self._sessions and not stopped.called:
            stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """
        Close all sessions.  A message that is being accepted is finished first.
        To be called when all ports of this factory have stopped listening.

        @return: Fires when all connections are closed.
        """
        if self._stopped is not None:
            return _whenFired(self._stopped)
        self._stopped = Deferred()
        for session in tuple(self._sessions):
            session.stop()
        if not self._sessions and not self._stopped.called:
            self._stopped.callback(None)
        return _whenFired(self._stopped)


def _whenFired(event: Deferred[None]) -> Deferred[None]:
    """
    A Deferred that fires with C{event}, and can be cancelled alone.
    """
    waiting: Deferred[None] = Deferred()
    event.addCallback(waiting.callback)
    return waiting
