# -*- test-case-name: tests.smtp.test_listener -*-
"""
Listening for SMTP, be it submission or reception: who may connect, and how
all of it ends.  What is accepted is decided by an L{IAcceptor}.
"""

from __future__ import annotations

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
from moxtls.smtp.line import Line
from moxtls.smtp.rates import Place, Rate, placeOf
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
#: Of so many connections, one more may be there that is just being closed.
SHARE_LEAVING = 10
#: Seconds of silence from when on a client has to make way for another one.
SILENCE = 10


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
        self._leaving: set[ServerSession] = set()
        self._perAddress: Counter[str] = Counter()
        self._perNetwork: Counter[str] = Counter()
        self._connectionRate = Rate(settings.connectionRate)
        self._messageRate = Rate(settings.messageRate)
        self._stopped: Deferred[None] | None = None
        self._refused = 0
        self._quietUntil = 0.0

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """
        @return: C{None}, which ends the connection, where even a word of
            refusal would be too much work.
        """
        place = placeOf(str(getattr(addr, "host", "")))
        if not self._mayConnect(place):
            self._turnedAway(place)
            return None
        session = ServerSession(self, place)
        session.factory = self
        return Line(self.clock, session)

    def _mayConnect(self, place: Place) -> bool:
        settings = self.settings
        return (
            self._stopped is None
            and self._perAddress[place.address] < settings.perAddress
            and self._perNetwork[place.network] < settings.perNetwork
            and self._connectionRate.take(place, self.clock.seconds())
            and self._hasRoom()
        )

    def _hasRoom(self) -> bool:
        """
        Where all places are taken, who has been silent for longest has to go:
        else a few clients could keep everybody out by saying nothing.
        """
        most = self.settings.connections
        if len(self._sessions) < most:
            return True
        mayLeave = len(self._leaving) < most // SHARE_LEAVING
        silent = self._silent() if mayLeave else None
        if silent is not None:
            self._leaving.add(silent)
            silent.makeWay()
        return silent is not None

    def _silent(self) -> ServerSession | None:
        """
        The client to whom the least is done by sending him away.
        """
        latest = self.clock.seconds() - SILENCE
        those = (each for each in self._sessions - self._leaving if not each.isBusy)
        first = min(those, key=lambda each: each.lastHeard, default=None)
        return first if first is not None and first.lastHeard <= latest else None

    def _turnedAway(self, place: Place) -> None:
        self._refused += 1
        now = self.clock.seconds()
        if now >= self._quietUntil:
            self._quietUntil = now + QUIET
            self.log.warn(
                "too many connections, or stopping: {count} so far, now {host!r}",
                count=self._refused,
                host=place.address,
            )

    def mayMail(self, place: Place) -> bool:
        return self._messageRate.take(place, self.clock.seconds())

    def opened(self, session: ServerSession, place: Place) -> None:
        self._sessions.add(session)
        self._perAddress[place.address] += 1
        self._perNetwork[place.network] += 1

    def closed(self, session: ServerSession, place: Place) -> None:
        self._sessions.discard(session)
        self._leaving.discard(session)
        _countDown(self._perAddress, place.address)
        _countDown(self._perNetwork, place.network)
        stopped = self._stopped
        if stopped is not None and not self._sessions and not stopped.called:
            stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """
        Say goodbye to everybody.  A message that is just being accepted still
        is.

        @return: Fires when all connections are gone.  To be called when listening
            has ended, at each port that this was given to.
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
    One more who waits for C{event}.
    """
    waiting: Deferred[None] = Deferred()
    event.addCallback(waiting.callback)
    return waiting


def _countDown(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
