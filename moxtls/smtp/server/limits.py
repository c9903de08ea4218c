# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
How often one client may do what leads nowhere.  No I/O.

Who counts as one client, and how often one may do a thing.  No I/O.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from moxtls.dates import MonotonicTime
from moxtls.ipaddresses import parseIP
from moxtls.smtp.server.events import ServerSettings
from moxtls.smtp.types import Reply

#: Transactions with all the recipients there may be that may come to nothing.
RECIPIENTS_FACTOR = 2


#: Seconds that a rate is counted over: what may come in one burst.
MINUTE = 60.0

#: A network is many clients, and one of them should not use up what is there
#: for all.
NETWORK_SHARE = 4

#: Clients remembered at a time, some 10 MB of them.
MAX_ENTRIES = 50_000


class SessionLimits:
    """
    Counts what a client does; each method says whether it was once too often,
    and if so with which words the connection ends.
    """

    __slots__ = (
        "_authFailures",
        "_errors",
        "_idleCommands",
        "_recipients",
        "_refusals",
        "_settings",
        "_transactions",
    )

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._errors = 0
        self._authFailures = 0
        self._refusals = 0
        self._idleCommands = 0
        self._recipients = 0
        self._transactions = 0

    def error(self) -> Reply | None:
        self._errors += 1
        return _limitReply(self._errors > self._settings.maxErrors, "errors")

    def failedLogin(self) -> Reply | None:
        self._authFailures += 1
        isOver = self._authFailures >= self._settings.maxAuthFailures
        return _limitReply(isOver, "failed logins")

    def refusal(self) -> Reply | None:
        """
        A recipient was refused for what it is.
        """
        self._refusals += 1
        isOver = self._refusals > self._settings.maxRefusals
        return _limitReply(isOver, "recipients refused")

    def recipient(self) -> Reply | None:
        """
        A recipient was accepted, perhaps not for the first time, or was beyond the
        most that one transaction takes.
        """
        self._recipients += 1
        isOver = self._recipients > RECIPIENTS_FACTOR * self._settings.maxRecipients
        return _limitReply(isOver, "recipients without mail")

    def idleCommand(self) -> Reply | None:
        """
        There was a command that doesn't lead to mail.
        """
        self._idleCommands += 1
        isOver = self._idleCommands > self._settings.maxIdleCommands
        return _limitReply(isOver, "commands without mail")

    def transaction(self) -> Reply | None:
        """
        One more message (RFC 9422 MAILMAX).
        """
        self._transactions += 1
        isOver = self._transactions > self._settings.maxTransactions
        return _limitReply(isOver, "messages in one connection")

    def madeProgress(self) -> None:
        """
        What led nowhere is forgiven.
        """
        self._idleCommands = 0
        self._recipients = 0


def _limitReply(isOver: bool, what: str) -> Reply | None:
    return Reply(421, "4.7.0", f"Too many {what}") if isOver else None


@dataclass(frozen=True, slots=True)
class ClientNetwork:
    """
    Where a client is.

    @ivar address: For IPv6 its C{/64}: who has one address there has them all.
    @ivar network: Its C{/24}, for IPv6 C{/48}: the least that is given to one
        site, mostly.
    """

    address: str
    network: str


@lru_cache(maxsize=4096)
def networkOf(host: str) -> ClientNetwork:
    """
    @param host: An IP address, with or without a zone; of anything else,
        which has no network, only that it is the same can be told.
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
    So many a minute for each key: a bucket that holds a minute's worth, and
    fills while it isn't used.

    Of each key only the time is kept at which its bucket is full again.  One
    that is full is the same as none, so forgetting it loses nothing.  Where
    there are too many even so, those are forgotten that have used the least:
    whoever comes from many addresses to have the table full makes it forget
    the quiet ones, who have nothing to lose, and not himself.
    """

    def __init__(
        self, perMinute: float, maxEntries: int = MAX_ENTRIES, burst: float = 0
    ) -> None:
        """
        @param perMinute: 0 for no limit.
        @param maxEntries: The most keys that are remembered.
        @param burst: How many at once; 0 for a minute's worth.
        """
        self._interval = MINUTE / perMinute if perMinute else 0.0
        # There is room for one at least.
        self._room = max(burst * self._interval if burst else MINUTE, self._interval)
        self._maxEntries = maxEntries
        self._fullAt: dict[str, float] = {}
        self._elapsed = MonotonicTime()

    def __len__(self) -> int:
        return len(self._fullAt)

    def allows(self, key: str, now: float) -> bool:
        """
        Whether there may be one more now.

        @param now: Seconds.
        """
        if not self._interval:
            return True
        now = self._elapsed.at(now)
        # A tenth of an interval for what floats lose.
        latest = now + self._room - 0.9 * self._interval
        return self._fullAt.get(key, now) <= latest

    def take(self, key: str, now: float) -> None:
        """
        There was one more.
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
        One that was taken didn't count.
        """
        if key in self._fullAt:
            self._fullAt[key] -= self._interval

    def used(self, key: str, now: float) -> float:
        """
        How many of those that may be at once were used and haven't come back.
        """
        if not self._interval:
            return 0.0
        now = self._elapsed.at(now)
        return max(0.0, self._fullAt.get(key, now) - now) / self._interval

    def _forget(self, now: float) -> None:
        used = {key: at for key, at in self._fullAt.items() if at > now}
        most = self._maxEntries * 3 // 4
        if len(used) > most:
            heaviest = sorted(used, key=used.__getitem__, reverse=True)[:most]
            used = {key: used[key] for key in heaviest}
        self._fullAt = used


class RateLimiter:
    """
    An allowance for addresses and, four times as large, for networks.
    """

    def __init__(self, perMinute: float, maxEntries: int = MAX_ENTRIES) -> None:
        """
        @param perMinute: For one address; 0 for no limit.
        """
        self._addresses = TokenBucket(perMinute, maxEntries)
        self._networks = TokenBucket(perMinute * NETWORK_SHARE, maxEntries)

    def take(self, source: ClientNetwork, now: float) -> bool:
        """
        Whether there may be one more, which then counts.  What may not be
        doesn't count: who keeps trying gets as much as is allowed.
        """
        allowed = self._addresses.allows(source.address, now) and self._networks.allows(
            source.network, now
        )
        if allowed:
            self._addresses.take(source.address, now)
            self._networks.take(source.network, now)
        return allowed


class LogLimiter:
    """
    Says of what happens again and again when to write it down: at once, and then
    once in a while.  For kinds that we name ourselves, so that there are few.
    """

    def __init__(self, interval: float = MINUTE) -> None:
        """
        @param interval: Seconds from one to the next.
        """
        self._interval = interval
        self._quietUntil: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._elapsed = MonotonicTime()

    def due(self, kind: str, now: float) -> int:
        """
        It happened once more.

        @return: How often it did so far; 0 if it isn't to be written down now.
        """
        now = self._elapsed.at(now)
        self._counts[kind] += 1
        if now < self._quietUntil.get(kind, now):
            return 0
        self._quietUntil[kind] = now + self._interval
        return self._counts[kind]
