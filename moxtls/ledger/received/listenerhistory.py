# -*- test-case-name: tests.ledger.received.test_store -*-
"""
The store of TLS events of this host's listeners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, delete, func, or_, select
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.dates import HOUR
from moxtls.ledger.bounds import MAX_NAME_LENGTH, MAX_REASON, clean
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.received.tables import listenerCertificate, listenerFailure
from moxtls.ledger.received.values import (
    MAX_LISTENER_REASONS,
    OTHER_REASONS,
    decodeNames,
    encodeNames,
)
from moxtls.ledger.tables import InsertMissing, Upsert
from moxtls.received.interfaces import IListenerHistory
from moxtls.received.types import CertificateSeen, HandshakeFailures

_f = listenerFailure.c
_c = listenerCertificate.c

_ADD_FAILURES = Upsert(
    listenerFailure, lambda old, new: {"count": old.count + new.count}
)
_ADD_CERTIFICATE = InsertMissing(listenerCertificate)
_REASONS = select(_f.reason).where(
    _f.hour == bindparam("hour"), _f.listener == bindparam("listener")
)
_LATEST = (
    select(_c.fingerprint)
    .where(_c.listener == bindparam("listener"))
    .order_by(_c.since.desc())
    .limit(1)
)
_FAILURES = (
    select(_f.listener, _f.hour, _f.reason, _f.count)
    .where(_f.hour > bindparam("start") - HOUR, _f.hour < bindparam("end"))
    .order_by(_f.hour, _f.listener, _f.reason)
)
_SPANS = select(
    listenerCertificate,
    func.lead(_c.since).over(partition_by=_c.listener, order_by=_c.since).label("next"),
).subquery()
_s = _SPANS.c
_CERTIFICATES = (
    select(_SPANS)
    .where(
        _s.since < bindparam("end"),
        or_(_s.next.is_(None), _s.next > bindparam("start")),
    )
    .order_by(_s.since, _s.listener)
)
_REPLACED = select(_s.listener, _s.since).where(_s.next < bindparam("before"))
_REMOVE_FAILURES = delete(listenerFailure).where(_f.hour < bindparam("before"))
_REMOVE_CERTIFICATE = delete(listenerCertificate).where(
    _c.listener == bindparam("of"), _c.since == bindparam("at")
)

#: Hour and name of the listener.
_Hour = tuple[int, str]


@implementer(IListenerHistory)
class ListenerHistory:
    """
    Stores failed handshakes by hour, and certificates.
    """

    def __init__(self, writer: GroupCommitWriter, reader: GroupReader) -> None:
        self._writer = writer
        self._reader = reader

    def addFailures(self, failures: Iterable[HandshakeFailures]) -> Deferred[None]:
        counts: dict[_Hour, Counter[str]] = {}
        for each in failures:
            hour = each.hour, clean(each.listener, MAX_NAME_LENGTH)
            reasons = counts.setdefault(hour, Counter())
            reasons[clean(each.reason, MAX_REASON)] += each.count
        return self._writer.run(lambda connection: _addFailures(connection, counts))

    def addCertificate(self, seen: CertificateSeen) -> Deferred[None]:
        return self._writer.run(lambda connection: _addCertificate(connection, seen))

    def failures(
        self, start: float, end: float
    ) -> Deferred[tuple[HandshakeFailures, ...]]:
        given = {"start": start, "end": end}

        def read(connection: Connection) -> tuple[HandshakeFailures, ...]:
            found = connection.execute(_FAILURES, given)
            return tuple(HandshakeFailures(*each) for each in found)

        return self._reader.run(read)

    def certificates(
        self, start: float, end: float
    ) -> Deferred[tuple[CertificateSeen, ...]]:
        given = {"start": start, "end": end}

        def read(connection: Connection) -> tuple[CertificateSeen, ...]:
            return tuple(
                CertificateSeen(
                    each.listener,
                    each.since,
                    each.fingerprint,
                    decodeNames(each.names),
                    each.not_before,
                    each.not_after,
                )
                for each in connection.execute(_CERTIFICATES, given)
            )

        return self._reader.run(read)

    def expireHistory(self, before: float) -> Deferred[None]:
        given = {"before": before}

        def expire(connection: Connection) -> None:
            connection.execute(_REMOVE_FAILURES, given)
            for listener, since in connection.execute(_REPLACED, given).all():
                connection.execute(_REMOVE_CERTIFICATE, {"of": listener, "at": since})

        return self._writer.run(expire)


def _addFailures(
    connection: Connection, counts: Mapping[_Hour, Mapping[str, int]]
) -> None:
    rows: Counter[tuple[int, str, str]] = Counter()
    for (hour, listener), reasons in counts.items():
        given = {"hour": hour, "listener": listener}
        kept = set(connection.scalars(_REASONS, given))
        for reason, count in sorted(reasons.items()):
            if reason not in kept and len(kept) >= MAX_LISTENER_REASONS:
                reason = OTHER_REASONS
            kept.add(reason)
            rows[hour, listener, reason] += count
    # Sorted, as nodes that lock rows in the same order can't deadlock.
    _ADD_FAILURES(connection, [(*key, count) for key, count in sorted(rows.items())])


def _addCertificate(connection: Connection, seen: CertificateSeen) -> None:
    listener = clean(seen.listener, MAX_NAME_LENGTH)
    fingerprint = clean(seen.fingerprint, MAX_NAME_LENGTH)
    latest = connection.execute(_LATEST, {"listener": listener}).scalar()
    if latest == fingerprint:
        return
    names = encodeNames(clean(each, MAX_NAME_LENGTH) for each in seen.names)
    row = (
        listener,
        seen.since,
        fingerprint,
        names,
        seen.notBefore,
        seen.notAfter,
    )
    _ADD_CERTIFICATE(connection, [row])
