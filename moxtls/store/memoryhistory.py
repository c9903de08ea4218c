# -*- test-case-name: tests.store.test_memory -*-
"""
Who somebody has good reason to hear from, in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.calendar import DAY
from moxtls.domain import Domain
from moxtls.interfaces import ISenderHistory
from moxtls.store.rules import SIGN_RECEIVED, SIGN_SENT, boundedAccount


@implementer(ISenderHistory)
class MemorySenderHistory:
    """
    The days of signs in a dictionary.
    """

    def __init__(self) -> None:
        # By account, domain and sign.
        self._days: dict[tuple[str, Domain, str], int] = {}
        # Accounts, and None for all of them, with domains about which or
        # below which there is a sign.
        self._known: set[tuple[str | None, Domain]] = set()

    def sent(self, account: str, domain: Domain, now: float) -> Deferred[None]:
        return self._note(account, domain, SIGN_SENT, now)

    def received(self, account: str, domain: Domain, now: float) -> Deferred[None]:
        return self._note(account, domain, SIGN_RECEIVED, now)

    def _note(
        self, account: str, domain: Domain, sign: str, now: float
    ) -> Deferred[None]:
        account = boundedAccount(account)
        key = account, domain, sign
        day = int(now // DAY)
        self._days[key] = max(day, self._days.get(key, day))
        self._learn(account, domain)
        return succeed(None)

    def _learn(self, account: str, domain: Domain) -> None:
        for each in _upwards(domain):
            self._known |= {(account, each), (None, each)}

    def isKnown(self, account: str | None, organizational: Domain) -> Deferred[bool]:
        whose = None if account is None else boundedAccount(account)
        return succeed((whose, organizational) in self._known)

    def prune(self, before: float) -> Deferred[int]:
        day = before // DAY
        old = [key for key, last in self._days.items() if last < day]
        for key in old:
            del self._days[key]
        self._known.clear()
        for account, domain, _ in self._days:
            self._learn(account, domain)
        return succeed(len(old))


def _upwards(domain: Domain) -> Iterator[Domain]:
    here: Domain | None = domain
    while here is not None:
        yield here
        here = here.parent
