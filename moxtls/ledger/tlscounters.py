# -*- test-case-name: tests.ledger.test_ledger -*-
"""
Adds TLS outcomes to the counters in the database.

The outcomes of a transaction are summed up first, so that each row is written once.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from hashlib import blake2b

from sqlalchemy import Connection, or_, select

from moxtls.domain import Domain
from moxtls.ledger.bounds import bounded, boundedPolicy, foldedFailure
from moxtls.ledger.tables import (
    DIGEST_SIZE,
    Upsert,
    chunks,
    digest,
    tlsFailure,
    tlsResult,
)
from moxtls.tlsrpt.types import FailureDetail, PolicyTally, SessionOutcome, TLSPolicy

#: Cached digests of failures, about 100 octets each.
MAX_KNOWN = 200_000

_f = tlsFailure.c

_ADD_RESULTS = Upsert(
    tlsResult,
    lambda old, new: {
        "send_report": or_(old.send_report, new.send_report),
        "succeeded": old.succeeded + new.succeeded,
        "failed": old.failed + new.failed,
    },
)
_ADD_FAILURES = Upsert(
    tlsFailure, lambda old, new: {"sessions": old.sessions + new.sessions}
)


class _KnownFailures:
    """
    Caches which failures are stored for which results, so that the limit on their
    number costs one query per result, not one per write.  Each node has a limit of its
    own.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, set[bytes]] = OrderedDict()
        self._size = 0

    def load(self, connection: Connection, keys: Sequence[bytes]) -> None:
        """
        Load results that are not cached.
        """
        new = [key for key in keys if key not in self._known]
        self._known.update((key, set()) for key in new)
        for group in chunks(new):
            query = select(_f.result_key, _f.digest).where(_f.result_key.in_(group))
            for key, failure in connection.execute(query):
                self._learn(key, failure)

    def admit(self, key: bytes, failure: FailureDetail) -> tuple[FailureDetail, bytes]:
        """
        The failure that C{failure} is counted as, and its digest.
        """
        known = self._known[key]
        failure = foldedFailure(
            bounded(failure), len(known), lambda each: failureDigest(each) in known
        )
        digest = failureDigest(failure)
        self._learn(key, digest)
        return failure, digest

    def _learn(self, key: bytes, digest: bytes) -> None:
        known = self._known[key]
        self._size += digest not in known
        known.add(digest)

    def forget(self, used: Sequence[bytes]) -> None:
        """
        Evict the least recently used results.
        """
        for key in used:
            self._known.move_to_end(key)
        while self._size + len(self._known) > MAX_KNOWN:
            _, digests = self._known.popitem(last=False)
            self._size -= len(digests)


class TLSCounters:
    """
    Adds outcomes to the rows of results and failures.
    """

    def __init__(self) -> None:
        self._known = _KnownFailures()

    def record(
        self, connection: Connection, items: Sequence[tuple[date, SessionOutcome]]
    ) -> Sequence[None]:
        """
        Count outcomes in two statements.
        """
        deltas = sumOutcomes(items)
        # Results first, as removing locks them first, too.
        _ADD_RESULTS(connection, [_resultRow(each) for each in deltas])
        failed = [each for each in deltas if each.failures]
        _ADD_FAILURES(connection, self._failureRows(connection, failed))
        return [None] * len(items)

    def _failureRows(
        self, connection: Connection, deltas: Sequence[TLSDelta]
    ) -> list[tuple[object, ...]]:
        keys = [each.key for each in deltas]
        self._known.load(connection, keys)
        counts: Counter[tuple[bytes, bytes]] = Counter()
        failures: dict[bytes, FailureDetail] = {}
        for each in deltas:
            for failure, count in each.failures.items():
                kept, digest = self._known.admit(each.key, failure)
                counts[each.key, digest] += count
                failures[digest] = kept
        self._known.forget(keys)
        return [
            _failureRow(key, digest, failures[digest], counts[key, digest])
            for key, digest in sorted(counts)
        ]


#: told_recipient, told_host, told_destinations, until.
_NEW = (False, False, "[]", 0)


def _resultRow(each: TLSDelta) -> tuple[object, ...]:
    """
    The columns in order.
    """
    policy = each.policy
    return (
        each.key,
        each.day.isoformat(),
        policy.domain,
        each.recipientDomain,
        each.isHost,
        policy.type,
        policy.strings,
        policy.mxHosts,
        each.sendReport,
        each.succeeded,
        each.failed,
        *_NEW,
    )


def _failureRow(
    key: bytes, digest: bytes, failure: FailureDetail, sessions: int
) -> tuple[object, ...]:
    """
    The columns in order.
    """
    return (
        key,
        digest,
        *_texts(failure),
        sessions,
    )


def _texts(failure: FailureDetail) -> tuple[str, ...]:
    return (
        failure.resultType.value,
        failure.reasonCode,
        failure.sendingIP,
        failure.mxHostname,
        failure.mxHELO,
        failure.receivingIP,
        failure.additional,
    )


#: Cached policies in their stored form; nearly all have a few hundred octets, and
#: those with more than L{LARGE_POLICY} characters are not cached.
MAX_POLICIES = 16384
LARGE_POLICY = 2000


def failureDigest(failure: FailureDetail) -> bytes:
    """
    The digest that distinguishes the failures of a result.

    @param failure: Within the limits: L{moxtls.ledger.bounds.bounded}.
    """
    return digest(*_texts(failure))


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """
    A policy in the form in which it is stored.

    @ivar strings: A JSON list.
    @ivar mxHosts: A JSON list.
    """

    type: str
    domain: str
    strings: str
    mxHosts: str
    digest: bytes


def storedPolicy(policy: TLSPolicy) -> StoredPolicy:
    """
    C{policy} within the limits, in the form in which it is stored.
    """
    if sum(map(len, policy.strings)) + sum(map(len, policy.mxHosts)) > LARGE_POLICY:
        return _toStored(policy)
    return _cachedPolicy(policy)


def _toStored(policy: TLSPolicy) -> StoredPolicy:
    policy = boundedPolicy(policy)
    strings, mxHosts = json.dumps(policy.strings), json.dumps(policy.mxHosts)
    return StoredPolicy(
        policy.type.value,
        policy.domain.ascii,
        strings,
        mxHosts,
        digest(policy.type, policy.domain.ascii, strings, mxHosts),
    )


_cachedPolicy = lru_cache(maxsize=MAX_POLICIES)(_toStored)


@dataclass(slots=True)
class TLSDelta:
    """
    The sum to add to one row.

    @ivar key: A digest of the attributes up to C{policy}.
    """

    key: bytes
    day: date
    recipientDomain: str
    isHost: bool
    policy: StoredPolicy
    sendReport: bool = False
    succeeded: int = 0
    failed: int = 0
    failures: dict[FailureDetail, int] = field(default_factory=dict)

    def add(self, tally: PolicyTally, sendReport: bool) -> None:
        """
        Add the sessions of C{tally}.
        """
        self.sendReport |= sendReport
        self.succeeded += max(0, tally.succeeded)
        self.failed += max(0, tally.failed)
        for failure, count in tally.failures.items():
            self.failures[failure] = self.failures.get(failure, 0) + max(0, count)


class TLSDeltas:
    """
    The deltas to add to rows, by their keys.
    """

    def __init__(self) -> None:
        self._deltas: dict[bytes, TLSDelta] = {}

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
        policy = storedPolicy(tally.policy)
        key = _key(day, outcome.recipientDomain, isHost, policy)
        delta = self._deltas.get(key)
        if delta is None:
            domain = outcome.recipientDomain.ascii
            delta = self._deltas[key] = TLSDelta(key, day, domain, isHost, policy)
        delta.add(tally, outcome.sendReport)

    def inOrder(self) -> list[TLSDelta]:
        """
        The deltas sorted by their keys: nodes that lock rows in the same order can't
        deadlock.
        """
        return [self._deltas[key] for key in sorted(self._deltas)]


def _key(day: date, recipient: Domain, isHost: bool, policy: StoredPolicy) -> bytes:
    text = f"{day.isoformat()}\0{recipient.ascii}\0{isHost:d}\0"
    return blake2b(
        text.encode("ascii") + policy.digest, digest_size=DIGEST_SIZE
    ).digest()


def sumOutcomes(items: Iterable[tuple[date, SessionOutcome]]) -> list[TLSDelta]:
    """
    Sum up outcomes of UTC days; the order of C{items} doesn't matter.
    """
    deltas = TLSDeltas()
    for day, outcome in items:
        deltas.add(day, outcome)
    return deltas.inOrder()
