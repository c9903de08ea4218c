# -*- test-case-name: tests.smtp.test_logins -*-
"""
Limits failed logins for each client address, client network and account.  No I/O.

The limits are token buckets: each failure takes a token.  A check counts as a
failure from its start until it succeeds, so that parallel attempts are limited like
sequential ones.

The limit of an account is for guesses from many addresses, and an attacker could
use it to lock out the owner.  Therefore it isn't applied to networks from which the
account logged in before.  At an address from which it logged in, only the account's
own failures there count: other clients behind the same address or in the same
network have no influence.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moxtls.smtp.rates import NETWORK_SHARE, ClientNetwork, TokenBucket

#: Failures at once from one address; a network may have four times as many.
MAX_FAILURES = 10
#: Failures at once of one account, from networks from which it never logged in.
MAX_ACCOUNT_FAILURES = 20
#: Tokens that each bucket regains in an hour.
FAILURES_PER_HOUR = 10
#: Failures of one address that are answered at once.
UNDELAYED_FAILURES = 3
#: Maximum delay of the reply to a failure in seconds; it begins with one, and doubles.
MAX_DELAY = 8
#: Networks and addresses remembered for each account, from which it logged in.
MAX_KNOWN = 64
#: Keys remembered for each kind of limit: some 4 MB.
MAX_ENTRIES = 20_000

_MINUTES = 60.0


class LoginLimit(StrEnum):
    """
    A limit that is reached.
    """

    ADDRESS = "failed logins from one address"
    NETWORK = "failed logins from one network"
    ACCOUNT = "failed logins of one account"
    ACCOUNT_AT_ADDRESS = "failed logins of one account from its own address"
    WAITING = "logins waiting from one network"


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """
    A login attempt in progress.

    @ivar keys: The limits it counts for, with their keys.
    """

    user: str
    source: ClientNetwork
    keys: tuple[tuple[LoginLimit, str], ...]


class LoginLimits:
    """
    The limits, and the networks from which each account logged in.
    """

    def __init__(
        self,
        maxEntries: int = MAX_ENTRIES,
        known: Mapping[str, Sequence[str]] | None = None,
        save: Callable[[str, Sequence[str]], None] = lambda user, networks: None,
    ) -> None:
        """
        @param maxEntries: The maximum number of keys of each limit.
        @param known: Networks and addresses of previous logins by account, as
            passed to C{save}.
        @param save: Called with those of an account when there is a new one.
        """
        self._buckets = {
            LoginLimit.ADDRESS: _bucket(MAX_FAILURES, 1, maxEntries),
            LoginLimit.NETWORK: _bucket(MAX_FAILURES, NETWORK_SHARE, maxEntries),
            LoginLimit.ACCOUNT: _bucket(MAX_ACCOUNT_FAILURES, 1, maxEntries),
            LoginLimit.ACCOUNT_AT_ADDRESS: _bucket(MAX_FAILURES, 1, maxEntries),
        }
        # By account.  Only existing accounts get in here.
        self._known = {
            user: OrderedDict.fromkeys(networks)
            for user, networks in (known or {}).items()
        }
        self._save = save

    def exceeded(
        self, user: str, source: ClientNetwork, now: float
    ) -> LoginLimit | None:
        """
        The limit that refuses another attempt, if any.

        @param now: Seconds of a monotonic clock.
        """
        for limit, key in self._keys(user, source):
            if not self._buckets[limit].allows(key, now):
                return limit
        return None

    def begin(self, user: str, source: ClientNetwork, now: float) -> LoginAttempt:
        """
        Start an attempt, and count it as failed.
        """
        attempt = LoginAttempt(user, source, tuple(self._keys(user, source)))
        for limit, key in attempt.keys:
            self._buckets[limit].take(key, now)
        return attempt

    def delay(self, source: ClientNetwork, now: float) -> float:
        """
        Seconds by which to delay the reply to a failure.
        """
        used = self._buckets[LoginLimit.ADDRESS].used(source.address, now)
        beyond = round(used) - UNDELAYED_FAILURES
        return min(MAX_DELAY, 2.0 ** (beyond - 1)) if beyond > 0 else 0.0

    def giveBack(self, attempt: LoginAttempt) -> None:
        """
        Return the tokens of an attempt.
        """
        for limit, key in attempt.keys:
            self._buckets[limit].giveBack(key)

    def succeeded(self, attempt: LoginAttempt) -> None:
        """
        Record a successful attempt.
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
        # Hashed, as user names from clients may be long.
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
