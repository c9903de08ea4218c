# -*- test-case-name: tests.outbound.test_delivery -*-
"""
Opens sessions, and sees them closed.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from moxtls.smtp.session import Session, openSession
from moxtls.smtp.settings import Settings


class Dialer:
    """
    Where sessions come from, and where they go when their work is done.

    Saying goodbye takes as long as the other side likes; nobody who waits for
    the result of a delivery should wait for that, but a process that ends
    should.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: Callable[[str, int], IStreamClientEndpoint],
    ) -> None:
        """
        @param endpoint: For an IP address and a port.
        """
        self._clock = clock
        self._endpoint = endpoint
        self._leaving: set[Deferred[None]] = set()

    def dial(self, ip: str, port: int, settings: Settings) -> Deferred[Session]:
        """
        As L{openSession}.
        """
        endpoint = self._endpoint(ip, port)
        return Deferred.fromCoroutine(openSession(self._clock, endpoint, settings))

    def leave(self, session: Session) -> None:
        """
        Have a session ended: politely, or at once in the middle of something.
        """
        closed = session.quit()
        self._leaving.add(closed)
        closed.addBoth(lambda result: self._leaving.discard(closed))

    def stop(self) -> Deferred[None]:
        """
        Cut goodbyes short.  Fires when all connections are closed.
        """
        leaving = tuple(self._leaving)
        gone = DeferredList(leaving, consumeErrors=True)
        for each in leaving:
            each.cancel()
        return gone.addCallback(lambda results: None)
