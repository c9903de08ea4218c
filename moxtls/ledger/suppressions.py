# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The store of suppressions: destinations to which no reports are sent.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, or_, select, tuple_
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.interfaces import ISuppressions
from moxtls.ledger.bounds import clean
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.tables import Upsert, digest, replaced
from moxtls.ledger.tables import suppression as table
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import Suppression

_s = table.c
_PUT = Upsert(table, replaced("until", "created", "comment", "failures"))

# Built once: building it takes longer than running it.
_ACTIVE = (
    select(table)
    .where(
        or_(_s.digest == bindparam("this"), _s.digest == bindparam("every")),
        _s.until > bindparam("now"),
    )
    .order_by(_s.until.desc())
    .limit(1)
)


@implementer(ISuppressions)
class Suppressions:
    """
    One row per destination and kind.
    """

    def __init__(self, writer: GroupCommitWriter, reader: GroupReader) -> None:
        self._writer = writer
        self._reader = reader

    def active(
        self, destination: str, kind: ReportKind, now: float
    ) -> Deferred[Suppression | None]:
        given = {
            "this": _digest(destination, kind),
            "every": _digest(destination, None),
            "now": now,
        }
        return self._reader.run(
            lambda connection: _one(connection.execute(_ACTIVE, given).first())
        )

    def put(self, suppression: Suppression) -> Deferred[None]:
        def put(connection: Connection) -> None:
            _PUT(connection, [_rowOf(suppression)])

        return self._writer.run(put)

    def remove(self, destination: str, kind: ReportKind | None) -> Deferred[bool]:
        statement = delete(table).where(_s.digest == _digest(destination, kind))
        return self._writer.run(
            lambda connection: connection.execute(statement).rowcount > 0
        )

    def entries(
        self, after: Suppression | None = None, limit: int | None = None
    ) -> Deferred[tuple[Suppression, ...]]:
        query = select(table).order_by(_s.created.desc(), _s.destination, _s.kind)
        if after is not None:
            last = (-after.created, after.destination, after.kind or "")
            query = query.where(tuple_(-_s.created, _s.destination, _s.kind) > last)
        query = query.limit(limit)
        return self._reader.run(
            lambda connection: tuple(map(_entryOf, connection.execute(query)))
        )

    def get(
        self, destination: str, kind: ReportKind | None
    ) -> Deferred[Suppression | None]:
        query = select(table).where(_s.digest == _digest(destination, kind))
        return self._reader.run(
            lambda connection: _one(connection.execute(query).first())
        )


def _digest(destination: str, kind: ReportKind | None) -> bytes:
    return digest(destination, kind or "")


def _rowOf(entry: Suppression) -> tuple[object, ...]:
    """
    The columns in order.
    """
    return (
        _digest(entry.destination, entry.kind),
        entry.destination,
        entry.kind.value if entry.kind else "",
        entry.until,
        entry.created,
        clean(entry.comment),
        entry.failures,
    )


def _one(row: Row[Any] | None) -> Suppression | None:
    return None if row is None else _entryOf(row)


def _entryOf(row: Row[Any]) -> Suppression:
    return Suppression(
        row.destination,
        ReportKind(row.kind) if row.kind else None,
        row.until,
        row.created,
        row.comment,
        row.failures,
    )
