# -*- test-case-name: tests.smtp.test_rates -*-
"""
Who counts as one client, and how often one may do a thing.  No I/O.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from moxtls.ipaddresses import parseIP

#: Seconds that a rate is counted over: what may come in one burst.
MINUTE = 60.0
#: A network is many clients, and one of them should not use up what is there
#: for all.
NETWORK_SHARE = 4
#: Clients remembered at a time, some 10 MB of them.
MOST_ENTRIES = 50_000


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a client is.

    @ivar address: For IPv6 its C{/64}: who has one address there has them all.
    @ivar network: Its C{/24}, for IPv6 C{/48}: the least that is given to one
        site, mostly.
    """

    address: str
    network: str


@lru_cache(maxsize=4096)
def placeOf(host: str) -> Place:
    """
    @param host: An IP address, with or without a zone; of anything else,
        which has no network, only that it is the same can be told.
    """
    address = parseIP(host)
    if address is None:
        return Place(host, host)
    if isinstance(address, ipaddress.IPv6Address):
        return Place(_network(address, 64), _network(address, 48))
    text = str(address)
    return Place(text, f"{text.rpartition('.')[0]}.0/24")


def _network(address: ipaddress.IPv6Address, length: int) -> str:
    rest = 128 - length
    return f"{ipaddress.IPv6Address(int(address) >> rest << rest)}/{length}"


class Allowance:
    """
    So many a minute for each key: a bucket that holds a minute's worth, and
    fills while it isn't used.

    Of each key only the time is kept at which its bucket is full again.  One
    that is full is the same as none, so forgetting it loses nothing.  Where
    there are too many even so, those are forgotten that have used the least:
    whoever comes from many addresses to have the table full makes it forget
    the quiet ones, who have nothing to lose, and not himself.
    """

    def __init__(self, perMinute: float, entries: int = MOST_ENTRIES) -> None:
        """
        @param perMinute: 0 for no limit.
        @param entries: The most keys that are remembered.
        """
        self._interval = MINUTE / perMinute if perMinute else 0.0
        # There is room for one at least.
        self._room = max(MINUTE, self._interval)
        self._entries = entries
        self._fullAt: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._fullAt)

    def allows(self, key: str, now: float) -> bool:
        """
        Whether there may be one more now.

        @param now: Seconds, never decreasing by much.
        """
        if not self._interval:
            return True
        # A tenth of an interval for what floats lose.
        latest = now + self._room - 0.9 * self._interval
        return self._fullAt.get(key, now) <= latest

    def take(self, key: str, now: float) -> None:
        """
        There was one more.
        """
        if not self._interval:
            return
        fullAt = max(self._fullAt.get(key, now), now)
        # A clock that was set back must not lock anybody out for long.
        self._fullAt[key] = min(fullAt, now + self._room) + self._interval
        if len(self._fullAt) > self._entries:
            self._forget(now)

    def _forget(self, now: float) -> None:
        used = {key: at for key, at in self._fullAt.items() if at > now}
        most = self._entries * 3 // 4
        if len(used) > most:
            heaviest = sorted(used, key=used.__getitem__, reverse=True)[:most]
            used = {key: used[key] for key in heaviest}
        self._fullAt = used


class Rate:
    """
    An allowance for addresses and, four times as large, for networks.
    """

    def __init__(self, perMinute: float, entries: int = MOST_ENTRIES) -> None:
        """
        @param perMinute: For one address; 0 for no limit.
        """
        self._addresses = Allowance(perMinute, entries)
        self._networks = Allowance(perMinute * NETWORK_SHARE, entries)

    def take(self, place: Place, now: float) -> bool:
        """
        Whether there may be one more, which then counts.  What may not be
        doesn't count: who keeps trying gets as much as is allowed.
        """
        allowed = self._addresses.allows(place.address, now) and self._networks.allows(
            place.network, now
        )
        if allowed:
            self._addresses.take(place.address, now)
            self._networks.take(place.network, now)
        return allowed
