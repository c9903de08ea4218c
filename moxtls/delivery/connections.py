# -*- test-case-name: tests.delivery.test_connections -*-
"""
Opens sessions, and sees them closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from moxtls.smtp.client.session import (
    ClientSession,
    ClientSettings,
    ConnectFailed,
    openSession,
)

#: Of one host, in each family of addresses.  RFC 5321 5.1: at least two; more
#: only delay the next host.
MAX_CONNECTED = 2
#: Addresses where nobody was that are remembered.
MAX_FAILURES = 1000


def connectOrder(addresses: Iterable[str]) -> Iterator[str]:
    """
    Those of a host's addresses to which to connect, in their order.  Many of
    one family don't keep the other one from its turn.
    """
    seen: Counter[bool] = Counter()
    for ip in addresses:
        isIPv6 = ":" in ip
        seen[isIPv6] += 1
        if seen[isIPv6] <= MAX_CONNECTED:
            yield ip


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
        pause: float = 0,
    ) -> None:
        """
        @param endpoint: For an IP address and a port.
        @param pause: Seconds for which an address where nobody was is not
            dialed again: a host may be that of thousands of domains.
        """
        self._pause = pause
        self._failures: dict[tuple[str, int], tuple[float, ConnectFailed]] = {}
        self._clock = clock
        self._endpoint = endpoint
        self._closing: dict[ClientSession, Deferred[None]] = {}

    def dial(
        self, ip: str, port: int, settings: ClientSettings
    ) -> Deferred[ClientSession]:
        """
        As L{openSession}.
        """
        return Deferred.fromCoroutine(self._dial(ip, port, settings))

    async def _dial(
        self, ip: str, port: int, settings: ClientSettings
    ) -> ClientSession:
        self._checkPause(ip, port)
        endpoint = self._endpoint(ip, port)
        try:
            return await openSession(self._clock, endpoint, settings)
        except ConnectFailed as failed:
            self._remember((ip, port), failed)
            raise

    def _checkPause(self, ip: str, port: int) -> None:
        """
        @raise ConnectFailed: There was nobody a moment ago.
        """
        at, failed = self._failures.get((ip, port), (0, None))
        since = self._clock.seconds() - at
        # A date that was set back makes no pause longer.
        if failed is not None and 0 <= since < self._pause:
            reason = f"{failed.reason} ({since:.0f} seconds ago)"
            raise ConnectFailed(failed.record, reason)

    def _remember(self, address: tuple[str, int], failed: ConnectFailed) -> None:
        if self._pause:
            self._failures.pop(address, None)
            self._failures[address] = self._clock.seconds(), failed
            if len(self._failures) > MAX_FAILURES:
                del self._failures[next(iter(self._failures))]

    def release(self, session: ClientSession) -> None:
        """
        Have a session ended: politely, or at once in the middle of something.
        """

        def gone(result: object) -> None:
            del self._closing[session]

        closed = self._closing[session] = session.quit()
        closed.addBoth(gone)

    def stop(self) -> Deferred[None]:
        """
        Cut goodbyes short.  Fires when all connections are closed.
        """
        # Not by cancelling: that fires before the connection is closed.
        leaving = dict(self._closing)
        gone = DeferredList(tuple(leaving.values()), consumeErrors=True)
        for session in leaving:
            session.abort()
        return gone.addCallback(lambda results: None)
