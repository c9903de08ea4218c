"""
A policy host in memory, and policies for tests.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.domain import Domain
from moxtls.interfaces import IPolicyFetcher
from moxtls.mtasts.policy import CachedPolicy, Mode, STSPolicy
from moxtls.tlsrpt.types import FailureDetail

DOMAIN = Domain("example.com")
RECORD = "v=STSv1; id=1;"
DAY = 86400


def policy(mode: Mode = Mode.ENFORCE, days: float = 7, mx: str = "mx") -> STSPolicy:
    """
    A policy with lines of its own.
    """
    return STSPolicy(mode, int(days * DAY), (f"{mx}.example.com",), (f"mx: {mx}",))


def entry(
    now: float,
    known: STSPolicy | None,
    recordID: str = "1",
    age: float = 0,
    domain: Domain = DOMAIN,
    unused: float = 0,
) -> CachedPolicy:
    """
    Something remembered.

    @param age: For how many days.
    @param unused: How many days ago it was used.
    """
    fetched = now - age * DAY
    end = fetched + (known.maxAge if known else 300)
    used = now - unused * DAY
    return CachedPolicy(domain, known, recordID, fetched, fetched, end, used)


@implementer(IPolicyFetcher)
class FakeFetcher:
    """
    Returns scripted policies, and records requests.

    @ivar waiting: Deferreds of requests without a scripted policy.
    """

    def __init__(self, *results: STSPolicy | FailureDetail) -> None:
        self.results = list(results)
        self.asked: list[Domain] = []
        self.waiting: list[Deferred[STSPolicy | FailureDetail]] = []

    def fetch(self, domain: Domain) -> Deferred[STSPolicy | FailureDetail]:
        self.asked.append(domain)
        if self.results:
            return succeed(self.results.pop(0))
        waiting: Deferred[STSPolicy | FailureDetail] = Deferred(self.waiting.remove)
        self.waiting.append(waiting)
        return waiting
