# -*- test-case-name: tests.smtp.test_logins -*-
"""
Limits of failed logins: for the client's address, its network, and the account.
No I/O.

Each failure uses one of so many that are allowed at once, and comes back with time.
A check counts as a failure from its beginning until it succeeds, so that several
at the same time get no further than one after the other.

The limit of an account is for guesses from everywhere, and whoever makes them could
lock the owner out.  So it isn't applied to networks from which the owner logged in
before.  At an address from which he did, only his own failures there count: neither
other people behind the same address nor those in the same network matter.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moxtls.smtp.server.limits import NETWORK_SHARE, ClientNetwork, TokenBucket

#: Failures at once from one address; a network may have four times as many.
MAX_FAILURES = 10
#: Failures at once of one account, from networks from which it never logged in.
MAX_ACCOUNT_FAILURES = 20
#: Of each, so many come back in an hour.
FAILURES_PER_HOUR = 10
#: Failures of one address that are answered at once.
UNDELAYED_FAILURES = 3
#: Seconds that the answer to a failure is delayed at most; it begins with one, and
#: doubles.
MAX_DELAY = 8
#: Networks and addresses remembered for each account, from which it logged in.
MAX_KNOWN = 64
#: Keys remembered for each kind of limit: some 4 MB.
MAX_ENTRIES = 20_000

_MINUTES = 60.0


class LoginLimit(StrEnum):
    """
    A limit that is used up.
    """

    ADDRESS = "failed logins from one address"
    NETWORK = "failed logins from one network"
    ACCOUNT = "failed logins of one account"
    ACCOUNT_AT_ADDRESS = "failed logins of one account from its own address"
    WAITING = "logins waiting from one network"


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """
    A login that was begun.

    @ivar keys: What it counts for.
    """

    user: str
    source: ClientNetwork
    keys: tuple[tuple[LoginLimit, str], ...]


class LoginLimits:
    """
    Failed logins, and who logged in from where.
    """

    def __init__(
        self,
        maxEntries: int = MAX_ENTRIES,
        known: Mapping[str, Sequence[str]] | None = None,
        save: Callable[[str, Sequence[str]], None] = lambda user, networks: None,
    ) -> None:
        """
        @param maxEntries: The most keys that are remembered for each limit.
        @param known: By account, networks and addresses from which it logged in, as
            C{save} was given them.
        @param save: Called when there is a new one.
        """
        self._buckets = {
            LoginLimit.ADDRESS: _bucket(MAX_FAILURES, 1, maxEntries),
            LoginLimit.NETWORK: _bucket(MAX_FAILURES, NETWORK_SHARE, maxEntries),
            LoginLimit.ACCOUNT: _bucket(MAX_ACCOUNT_FAILURES, 1, maxEntries),
            LoginLimit.ACCOUNT_AT_ADDRESS: _bucket(MAX_FAILURES, 1, maxEntries),
        }
        # By account: only those who have one get in here.
        self._known = {
            user: OrderedDict.fromkeys(networks)
            for user, networks in (known or {}).items()
        }
        self._save = save

    def exceeded(
        self, user: str, source: ClientNetwork, now: float
    ) -> LoginLimit | None:
        """
        The limit that forbids one more attempt.

        @param now: Seconds of a clock that is never set.
        """
        for limit, key in self._keys(user, source):
            if not self._buckets[limit].allows(key, now):
                return limit
        return None

    def begin(self, user: str, source: ClientNetwork, now: float) -> LoginAttempt:
        """
        Count an attempt as failed.
        """
        attempt = LoginAttempt(user, source, tuple(self._keys(user, source)))
        for limit, key in attempt.keys:
            self._buckets[limit].take(key, now)
        return attempt

    def delay(self, source: ClientNetwork, now: float) -> float:
        """
        Seconds for which the answer to a failure is to be held back.
        """
        used = self._buckets[LoginLimit.ADDRESS].used(source.address, now)
        beyond = round(used) - UNDELAYED_FAILURES
        return min(MAX_DELAY, 2.0 ** (beyond - 1)) if beyond > 0 else 0.0

    def giveBack(self, attempt: LoginAttempt) -> None:
        """
        An attempt didn't fail.
        """
        for limit, key in attempt.keys:
            self._buckets[limit].giveBack(key)

    def succeeded(self, attempt: LoginAttempt) -> None:
        """
        The client was whom it claimed to be.
        """
        self.giveBack(attempt)
        known = self._known.setdefault(attempt.user, OrderedDict())
        isNew = attempt.source.address not in known
        for key in (attempt.source.network, attempt.source.address):
            known[key] = None
            known.move_to_end(key)
        while len(known) > MAX_KNOWN:
            known.popitem(last=False)
        if isNew:
            self._save(attempt.user, tuple(known))

    def _keys(self, user: str, source: ClientNetwork) -> list[tuple[LoginLimit, str]]:
        known = self._known.get(user, ())
        # Whatever a client calls itself takes little room.
        account = hashlib.blake2b(
            user.encode("utf-8", "surrogatepass"), digest_size=16
        ).hexdigest()
        if source.address in known:
            return [(LoginLimit.ACCOUNT_AT_ADDRESS, f"{account} {source.address}")]
        keys = [
            (LoginLimit.ADDRESS, source.address),
            (LoginLimit.NETWORK, source.network),
        ]
        if source.network not in known:
            keys.append((LoginLimit.ACCOUNT, account))
        return keys


def _bucket(failures: int, share: int, maxEntries: int) -> TokenBucket:
    perMinute = FAILURES_PER_HOUR * share / _MINUTES
    return TokenBucket(perMinute, maxEntries, failures * share)
