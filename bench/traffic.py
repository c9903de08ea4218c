"""
Generates outcomes, lifelike or to one domain. No I/O.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from itertools import accumulate

from moxtls.domain import Domain
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)

DAY = date(2026, 11, 24)
#: Domains that mail goes to.
DOMAINS = 50_000
#: Number of hosts: most domains share one with many others.
DOMAINS_PER_HOST = 100
#: One session in so many fails.
FAILING = 10

Outcomes = Callable[[int], Iterator[SessionOutcome]]


def lifelike(count: int) -> Iterator[SessionOutcome]:
    """
    A few domains get much, many get little (Zipf's law).
    """
    chance = random.Random(count)
    weights = list(accumulate(1 / rank for rank in range(1, DOMAINS + 1)))
    for domain in chance.choices(range(DOMAINS), cum_weights=weights, k=count):
        yield outcome(domain, chance.randrange(FAILING) == 0)


def flood(count: int) -> Iterator[SessionOutcome]:
    """
    Outcomes that are all of one domain.
    """
    for number in range(count):
        yield outcome(0, number % FAILING == 0)


@cache
def outcome(number: int, failed: bool) -> SessionOutcome:
    """
    One session with one host of domain C{number}, which has a policy.
    """
    domain = Domain(f"d{number}.example")
    host = Domain(f"mx{number // DOMAINS_PER_HOST}.host.example")
    failures: Counter[FailureDetail] = Counter()
    if failed:
        failures[_expired(host)] += 1
    sts = _policy(domain, host)
    none = TLSPolicy(PolicyType.NO_POLICY, host)
    counts = (0, 1) if failed else (1, 0)
    return SessionOutcome(
        domain,
        PolicyTally(sts, *counts, failures),
        (PolicyTally(none, *counts),),
    )


def _expired(host: Domain) -> FailureDetail:
    return FailureDetail(
        ResultType.CERTIFICATE_EXPIRED,
        sendingIP="192.0.2.1",
        mxHostname=host.ascii,
        mxHELO=host.ascii,
        receivingIP="198.51.100.1",
    )


def _policy(domain: Domain, host: Domain) -> TLSPolicy:
    lines = ("version: STSv1", "mode: testing", f"mx: {host}", "max_age: 604800")
    return TLSPolicy(PolicyType.STS, domain, lines, (host.ascii,))
