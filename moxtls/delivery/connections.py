# -*- test-case-name: tests.delivery.test_connections -*-
"""
Opens client sessions, and closes them in the background.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from moxtls.smtp.client.connection import ClientSettings, ConnectFailed
from moxtls.smtp.client.session import ClientSession, openSession

#: Addresses of one host that are tried in each address family.  RFC 5321 5.1: at
#: least two; more only delay the next host.
MAX_ADDRESSES_PER_FAMILY = 2
#: Unreachable addresses that are remembered.
MAX_FAILURES = 1000


def connectOrder(addresses: Iterable[str]) -> Iterator[str]:
    """
    The addresses of a host that are tried, in their order, at most
    L{MAX_ADDRESSES_PER_FAMILY} in each address family.
    """
    seen: Counter[bool] = Counter()
    for ip in addresses:
        isIPv6 = ":" in ip
        seen[isIPv6] += 1
        if seen[isIPv6] <= MAX_ADDRESSES_PER_FAMILY:
            yield ip


class Dialer:
    """
    Opens client sessions, and closes released ones in the background.

    A server may take long to answer QUIT; a delivery doesn't wait for that, but
    the end of the process does.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: Callable[[str, int], IStreamClientEndpoint],
        pause: float = 0,
    ) -> None:
        """
        @param endpoint: Makes the endpoint for an IP address and a port.
        @param pause: Seconds for which no further connection is made to an
            unreachable address: one host may serve thousands of domains.
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
        Open a session with a host, as L{openSession} does.
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
        @raise ConnectFailed: The address was unreachable less than C{pause}
            seconds ago.
        """
        at, failed = self._failures.get((ip, port), (0, None))
        since = self._clock.seconds() - at
        # A clock that was set back makes no pause longer.
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
        Close a session in the background: with QUIT, or at once if it is in the
        middle of a transaction.
        """

        def removed(result: object) -> None:
            del self._closing[session]

        closed = self._closing[session] = session.quit()
        closed.addBoth(removed)

    def stop(self) -> Deferred[None]:
        """
        Abort the sessions that are being closed.

        @return: Fires when all connections are closed.
        """
        # Not by cancelling: that fires before the connection is closed.
        closing = dict(self._closing)
        closed = DeferredList(tuple(closing.values()), consumeErrors=True)
        for session in closing:
            session.abort()
        return closed.addCallback(lambda results: None)
