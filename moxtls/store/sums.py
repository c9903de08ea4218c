# -*- test-case-name: tests.store.test_sums -*-
"""
Outcomes added up, into the rows that they add to.  No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from hashlib import blake2b

from moxtls.domain import Domain
from moxtls.store.rules import boundedPolicy
from moxtls.tlsrpt.results import FailureDetail, PolicyTally, SessionOutcome, TLSPolicy

#: Octets: enough that nobody finds two texts with the same digest by trying.
DIGEST_SIZE = 24
#: Policies remembered as they are stored; nearly all have a few hundred
#: octets, and none that is L{LARGE_POLICY} is remembered.
MAX_POLICIES = 16384
LARGE_POLICY = 2000


def digest(*texts: str) -> bytes:
    """
    A short name for C{texts}, none of which may have a NUL in it.
    """
    joined = "\0".join(texts).encode("utf-8", "replace")
    return blake2b(joined, digest_size=DIGEST_SIZE).digest()


def failureDigest(failure: FailureDetail) -> bytes:
    """
    @param failure: Is L{moxtls.store.rules.bounded}.
    """
    return digest(
        failure.resultType,
        failure.reasonCode,
        failure.sendingIP,
        failure.mxHostname,
        failure.mxHELO,
        failure.receivingIP,
        failure.additional,
    )


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """
    A policy as it is stored.

    @ivar strings: A JSON list.
    @ivar mxHosts: A JSON list.
    """

    type: str
    domain: str
    strings: str
    mxHosts: str
    digest: bytes


def keptPolicy(policy: TLSPolicy) -> KeptPolicy:
    """
    C{policy}, within bounds, as it is stored.
    """
    if sum(map(len, policy.strings)) + sum(map(len, policy.mxHosts)) > LARGE_POLICY:
        return _keptPolicy(policy)
    return _cachedPolicy(policy)


def _keptPolicy(policy: TLSPolicy) -> KeptPolicy:
    policy = boundedPolicy(policy)
    strings, mxHosts = json.dumps(policy.strings), json.dumps(policy.mxHosts)
    return KeptPolicy(
        policy.type.value,
        policy.domain.ascii,
        strings,
        mxHosts,
        digest(policy.type, policy.domain.ascii, strings, mxHosts),
    )


_cachedPolicy = lru_cache(maxsize=MAX_POLICIES)(_keptPolicy)


@dataclass(slots=True)
class TLSDelta:
    """
    What is to be added to one row.

    @ivar key: A digest of everything up to C{policy}.
    """

    key: bytes
    day: date
    recipientDomain: str
    isHost: bool
    policy: KeptPolicy
    sendReport: bool = False
    succeeded: int = 0
    failed: int = 0
    failures: dict[FailureDetail, int] = field(default_factory=dict)

    def add(self, tally: PolicyTally, sendReport: bool) -> None:
        """
        Count one more session, or several.
        """
        self.sendReport |= sendReport
        self.succeeded += max(0, tally.succeeded)
        self.failed += max(0, tally.failed)
        for failure, count in tally.failures.items():
            self.failures[failure] = self.failures.get(failure, 0) + max(0, count)


class TLSDeltas:
    """
    What is to be added to rows, by their keys.
    """

    def __init__(self) -> None:
        self._sums: dict[bytes, TLSDelta] = {}

    def add(self, day: date, outcome: SessionOutcome) -> None:
        """
        Count an outcome for the recipient domain and for each host.
        """
        if outcome.recipient is not None:
            self._add(day, outcome, outcome.recipient, False)
        for tally in outcome.hosts:
            self._add(day, outcome, tally, True)

    def _add(
        self, day: date, outcome: SessionOutcome, tally: PolicyTally, isHost: bool
    ) -> None:
        policy = keptPolicy(tally.policy)
        key = _key(day, outcome.recipientDomain, isHost, policy)
        known = self._sums.get(key)
        if known is None:
            domain = outcome.recipientDomain.ascii
            known = self._sums[key] = TLSDelta(key, day, domain, isHost, policy)
        known.add(tally, outcome.sendReport)

    def inOrder(self) -> list[TLSDelta]:
        """
        By their keys: nodes that lock rows in the same order can't wait for
        each other in a circle.
        """
        return [self._sums[key] for key in sorted(self._sums)]


def _key(day: date, recipient: Domain, isHost: bool, policy: KeptPolicy) -> bytes:
    place = f"{day.isoformat()}\0{recipient.ascii}\0{isHost:d}\0"
    return blake2b(
        place.encode("ascii") + policy.digest, digest_size=DIGEST_SIZE
    ).digest()


def addDeltas(items: Iterable[tuple[date, SessionOutcome]]) -> list[TLSDelta]:
    """
    The sums of outcomes, with the UTC days that they belong to; the order of
    C{items} doesn't matter.
    """
    sums = TLSDeltas()
    for day, outcome in items:
        sums.add(day, outcome)
    return sums.inOrder()
