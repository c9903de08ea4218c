# -*- test-case-name: tests.store.test_ledger -*-
"""
Adds outcomes to the counters in the database.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TypeVar

from sqlalchemy import Connection, or_, select

from moxtls.store.bulk import Bulk
from moxtls.store.database import Database
from moxtls.store.rules import admitted, bounded
from moxtls.store.sums import TLSDelta, addDeltas, failureDigest
from moxtls.store.tables import tlsFailure, tlsResult
from moxtls.tlsrpt.results import FailureDetail, SessionOutcome

T = TypeVar("T")

#: Keys per query; SQLite takes 32 766 parameters, PostgreSQL 65 535.
KEYS_AT_ONCE = 1000
#: Digests of failures remembered, about 100 octets each.
MAX_KNOWN = 200_000

_r = tlsResult.c
_f = tlsFailure.c


class _KnownFailures:
    """
    Which failures are stored for which results, so far as this process knows:
    the limit to their number costs one query for a result, not one for each
    write.  Other nodes count for themselves.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, set[bytes]] = OrderedDict()
        self._size = 0

    def load(self, connection: Connection, keys: Sequence[bytes]) -> None:
        """
        Look up results that nothing is known of.
        """
        new = [key for key in keys if key not in self._known]
        self._known.update((key, set()) for key in new)
        for some in chunks(new):
            query = select(_f.result_key, _f.digest).where(_f.result_key.in_(some))
            for key, digest in connection.execute(query):
                self._learn(key, digest)

    def admit(self, key: bytes, failure: FailureDetail) -> tuple[FailureDetail, bytes]:
        """
        What a failure is counted as, with its digest.
        """
        known = self._known[key]
        failure = admitted(
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
        Make room, by what wasn't used for longest.
        """
        for key in used:
            self._known.move_to_end(key)
        while self._size + len(self._known) > MAX_KNOWN:
            _, digests = self._known.popitem(last=False)
            self._size -= len(digests)


class TLSCounters:
    """
    Adds to rows.
    """

    def __init__(self, database: Database) -> None:
        insert = database.insert(tlsResult)
        self._addResults = Bulk(
            database,
            insert.on_conflict_do_update(
                index_elements=[_r.key],
                set_={
                    "send_report": or_(_r.send_report, insert.excluded.send_report),
                    "succeeded": _r.succeeded + insert.excluded.succeeded,
                    "failed": _r.failed + insert.excluded.failed,
                },
            ),
        )
        insert = database.insert(tlsFailure)
        self._addFailures = Bulk(
            database,
            insert.on_conflict_do_update(
                index_elements=[_f.result_key, _f.digest],
                set_={"sessions": _f.sessions + insert.excluded.sessions},
            ),
        )
        self._known = _KnownFailures()

    def record(
        self, connection: Connection, items: Sequence[tuple[date, SessionOutcome]]
    ) -> Sequence[None]:
        """
        Count many outcomes in two statements.
        """
        sums = addDeltas(items)
        # The results first: who removes them locks them first, too.
        self._addResults(connection, [_resultRow(each) for each in sums])
        failed = [each for each in sums if each.failures]
        self._addFailures(connection, self._failureRows(connection, failed))
        return [None] * len(items)

    def _failureRows(
        self, connection: Connection, sums: Sequence[TLSDelta]
    ) -> list[tuple[object, ...]]:
        keys = [each.key for each in sums]
        self._known.load(connection, keys)
        counts: Counter[tuple[bytes, bytes]] = Counter()
        failures: dict[bytes, FailureDetail] = {}
        for each in sums:
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
    In the order of the columns.
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
    In the order of the columns.
    """
    return (
        key,
        digest,
        failure.resultType.value,
        failure.reasonCode,
        failure.sendingIP,
        failure.mxHostname,
        failure.mxHELO,
        failure.receivingIP,
        failure.additional,
        sessions,
    )


def chunks(keys: Sequence[T]) -> Iterable[Sequence[T]]:
    """
    As many as fit into a query, at a time.
    """
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[start : start + KEYS_AT_ONCE]
