# -*- test-case-name: tests.smtp.test_listener -*-
"""
Listening for SMTP, be it submission or reception: who may connect, and how
all of it ends.  What is accepted is decided by an L{IAcceptor}.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.smtp.acceptor import (
    Authenticator,
    IAcceptor,
    IMessageSink,
    ListenerSettings,
)
from moxtls.smtp.serversession import IListener, ServerSession

__all__ = [
    "Authenticator",
    "IAcceptor",
    "IMessageSink",
    "ListenerSettings",
    "SMTPServerFactory",
]

#: Seconds from one word about connections that are turned away to the next:
#: who makes many must not fill the log with them.
QUIET = 60


@implementer(IListener)
class SMTPServerFactory(ServerFactory):
    """
    Listens for SMTP.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        settings: ListenerSettings,
        acceptor: IAcceptor,
        tls: IOpenSSLServerConnectionCreator | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        """
        @param tls: For STARTTLS, if C{settings} offer it.
        @param authenticator: For AUTH, if C{settings} offer it.
        """
        self.clock = clock
        self.settings = settings
        self.acceptor = acceptor
        self.tls = tls
        self.authenticator = authenticator
        self._sessions: set[ServerSession] = set()
        self._perAddress: Counter[str] = Counter()
        self._stopped: Deferred[None] | None = None
        self._refused = 0
        self._quietUntil = 0.0

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: C{None}, which ends the connection, where even a word of
            refusal would be too much work.
        """
        neighbourhood = _neighbourhood(str(getattr(addr, "host", "")))
        isFull = len(self._sessions) >= self.settings.connections
        isMany = self._perAddress[neighbourhood] >= self.settings.perAddress
        if isFull or isMany or self._stopped is not None:
            self._turnedAway(neighbourhood)
            return None
        session = ServerSession(self, neighbourhood)
        session.factory = self
        return session

    def _turnedAway(self, neighbourhood: str) -> None:
        self._refused += 1
        now = self.clock.seconds()
        if now >= self._quietUntil:
            self._quietUntil = now + QUIET
            self.log.warn(
                "too many connections, or stopping: {count} so far, now {host!r}",
                count=self._refused,
                host=neighbourhood,
            )

    def opened(self, session: ServerSession, neighbourhood: str) -> None:
        self._sessions.add(session)
        self._perAddress[neighbourhood] += 1

    def closed(self, session: ServerSession, neighbourhood: str) -> None:
        self._sessions.discard(session)
        self._perAddress[neighbourhood] -= 1
        if not self._perAddress[neighbourhood]:
            del self._perAddress[neighbourhood]
        if self._stopped is not None and not self._sessions:
            self._stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """
        Say goodbye to everybody.  A message that is just being accepted still
        is.

        @return: Fires when all connections are gone.  To be called once, when
            listening has ended.
        """
        self._stopped = Deferred()
        for session in tuple(self._sessions):
            session.stop()
        if not self._sessions and not self._stopped.called:
            self._stopped.callback(None)
        return self._stopped


def _neighbourhood(host: str) -> str:
    """
    What counts as one client: who has one IPv6 address has 2^64.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
