# -*- test-case-name: tests.smtp.test_rates -*-
"""
Limits on the rates of client addresses and networks.  No I/O.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from moxtls.dates import MonotonicTime
from moxtls.ipaddresses import parseIP

#: Seconds that a rate is counted over, which is the size of a burst.
MINUTE = 60.0

#: The limit of a network is this many times that of an address: a network has many
#: clients, and one of them must not use up the limit of all.
NETWORK_SHARE = 4

#: Clients remembered at a time, which takes some 10 MB.
MAX_ENTRIES = 50_000


@dataclass(frozen=True, slots=True)
class ClientNetwork:
    """
    The address and network of a client, as keys for limits.

    @ivar address: For IPv6 the C{/64}: a client with one address has all of them.
    @ivar network: The C{/24}, for IPv6 the C{/48}: in general the smallest
        allocation of a site.
    """

    address: str
    network: str


@lru_cache(maxsize=4096)
def networkOf(host: str) -> ClientNetwork:
    """
    The keys of a client for limits.

    @param host: An IP address, with or without a zone.  Anything else has no
        network, and is its own key.
    """
    address = parseIP(host)
    if address is None:
        return ClientNetwork(host, host)
    if isinstance(address, ipaddress.IPv6Address):
        return ClientNetwork(_network(address, 64), _network(address, 48))
    text = str(address)
    return ClientNetwork(text, f"{text.rpartition('.')[0]}.0/24")


def _network(address: ipaddress.IPv6Address, length: int) -> str:
    rest = 128 - length
    return f"{ipaddress.IPv6Address(int(address) >> rest << rest)}/{length}"


class TokenBucket:
    """
    Token buckets, one for each key, that refill at a constant rate.

    For each key only the time at which its bucket is full again is stored.  A full
    bucket is the same as none, so it can be removed.  If there are still too many,
    the buckets that are the fullest are removed: a client that uses many addresses
    to overflow the table removes inactive clients, which lose nothing, but not
    itself.
    """

    def __init__(
        self, perMinute: float, maxEntries: int = MAX_ENTRIES, burst: float = 0
    ) -> None:
        """
        @param perMinute: 0 for no limit.
        @param maxEntries: The maximum number of keys.
        @param burst: The size of a bucket; 0 for the tokens of a minute.
        """
        self._interval = MINUTE / perMinute if perMinute else 0.0
        # A bucket holds one token at least.
        self._room = max(burst * self._interval if burst else MINUTE, self._interval)
        self._maxEntries = maxEntries
        self._fullAt: dict[str, float] = {}
        self._elapsed = MonotonicTime()

    def __len__(self) -> int:
        return len(self._fullAt)

    def allows(self, key: str, now: float) -> bool:
        """
        True if a token is available.

        @param now: Seconds.
        """
        if not self._interval:
            return True
        now = self._elapsed.at(now)
        # A tenth of an interval compensates for rounding.
        latest = now + self._room - 0.9 * self._interval
        return self._fullAt.get(key, now) <= latest

    def take(self, key: str, now: float) -> None:
        """
        Take a token, available or not.
        """
        if not self._interval:
            return
        now = self._elapsed.at(now)
        fullAt = max(self._fullAt.get(key, now), now)
        self._fullAt[key] = min(fullAt, now + self._room) + self._interval
        if len(self._fullAt) > self._maxEntries:
            self._forget(now)

    def giveBack(self, key: str) -> None:
        """
        Return a token.
        """
        if key in self._fullAt:
            self._fullAt[key] -= self._interval

    def used(self, key: str, now: float) -> float:
        """
        The number of tokens missing from a bucket.
        """
        if not self._interval:
            return 0.0
        now = self._elapsed.at(now)
        return max(0.0, self._fullAt.get(key, now) - now) / self._interval

    def _forget(self, now: float) -> None:
        used = {key: at for key, at in self._fullAt.items() if at > now}
        count = self._maxEntries * 3 // 4
        if len(used) > count:
            heaviest = sorted(used, key=used.__getitem__, reverse=True)[:count]
            used = {key: used[key] for key in heaviest}
        self._fullAt = used


class RateLimiter:
    """
    A rate limit for addresses and, four times as large, for networks.
    """

    def __init__(self, perMinute: float, maxEntries: int = MAX_ENTRIES) -> None:
        """
        @param perMinute: For one address; 0 for no limit.
        """
        self._addresses = TokenBucket(perMinute, maxEntries)
        self._networks = TokenBucket(perMinute * NETWORK_SHARE, maxEntries)

    def take(self, source: ClientNetwork, now: float) -> bool:
        """
        Count an action if the rate allows it, and return true.  A refused action
        isn't counted: a client that keeps trying gets the full rate.
        """
        allowed = self._addresses.allows(source.address, now) and self._networks.allows(
            source.network, now
        )
        if allowed:
            self._addresses.take(source.address, now)
            self._networks.take(source.network, now)
        return allowed


class ConnectionLimits:
    """
    Counts the connections of a listener, and limits those of each address and network.
    Limits have the names of their keys in the configuration.
    """

    def __init__(self, perAddress: int, perNetwork: int, ratePerMinute: float) -> None:
        """
        @param ratePerMinute: New connections of one address; 0 for no limit.
        """
        self._maxPerAddress = perAddress
        self._maxPerNetwork = perNetwork
        self._rate = RateLimiter(ratePerMinute)
        self._perAddress: Counter[str] = Counter()
        self._perNetwork: Counter[str] = Counter()

    def exceeded(self, source: ClientNetwork, now: float) -> str:
        """
        Count a new connection towards the rate, if it is allowed.

        @return: The limit that it exceeds; empty if it is allowed.
        """
        if self._perAddress[source.address] >= self._maxPerAddress:
            return "MaxConnectionsPerAddress"
        if self._perNetwork[source.network] >= self._maxPerNetwork:
            return "MaxConnectionsPerNetwork"
        return "" if self._rate.take(source, now) else "MaxConnectionRate"

    def opened(self, source: ClientNetwork) -> None:
        self._perAddress[source.address] += 1
        self._perNetwork[source.network] += 1

    def closed(self, source: ClientNetwork) -> None:
        _countDown(self._perAddress, source.address)
        _countDown(self._perNetwork, source.network)


def _countDown(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


class LogLimiter:
    """
    Limits log events of the same kind: the first is logged at once, further ones
    once per interval.  Kinds must be constants of this program, so that there are
    few.
    """

    def __init__(self, interval: float = MINUTE) -> None:
        """
        @param interval: Seconds between log events.
        """
        self._interval = interval
        self._quietUntil: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._elapsed = MonotonicTime()

    def due(self, kind: str, now: float) -> int:
        """
        Count an event.

        @return: The number of events so far; 0 if none is to be logged now.
        """
        now = self._elapsed.at(now)
        self._counts[kind] += 1
        if now < self._quietUntil.get(kind, now):
            return 0
        self._quietUntil[kind] = now + self._interval
        return self._counts[kind]
