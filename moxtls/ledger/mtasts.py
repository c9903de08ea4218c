# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The store of MTA-STS policies (RFC 8461 3.3).
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, delete, select, tuple_, update
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.domain import Domain
from moxtls.interfaces import IPolicyStore
from moxtls.ledger.bounds import clean
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.tables import Upsert, replaced, stsPolicy
from moxtls.mtasts.policy import CachedPolicy, Mode, STSPolicy

_p = stsPolicy.c
_SAVE = Upsert(
    stsPolicy,
    replaced(*(column.name for column in _p if column is not _p.domain)),
)


@implementer(IPolicyStore)
class PolicyStore:
    """
    One row per domain.
    """

    def __init__(self, writer: GroupCommitWriter, reader: GroupReader) -> None:
        self._writer = writer
        self._reader = reader

    def load(self, domain: Domain) -> Deferred[CachedPolicy | None]:
        query = select(stsPolicy).where(_p.domain == domain.ascii)

        def read(connection: Connection) -> CachedPolicy | None:
            row = connection.execute(query).first()
            return None if row is None else _entryOf(row)

        return self._reader.run(read)

    def save(self, entry: CachedPolicy) -> Deferred[None]:
        def save(connection: Connection) -> None:
            _SAVE(connection, [_rowOf(entry)])

        return self._writer.run(save)

    def used(self, domain: Domain, now: float) -> Deferred[None]:
        statement = update(stsPolicy).where(_p.domain == domain.ascii)

        def used(connection: Connection) -> None:
            connection.execute(statement.values(last_use=now))

        return self._writer.run(used)

    def drop(self, domain: Domain) -> Deferred[bool]:
        statement = delete(stsPolicy).where(_p.domain == domain.ascii)
        return self._writer.run(
            lambda connection: connection.execute(statement).rowcount > 0
        )

    def entries(
        self, after: CachedPolicy | None = None, limit: int | None = None
    ) -> Deferred[tuple[CachedPolicy, ...]]:
        query = select(stsPolicy).order_by(_p.last_use.desc(), _p.domain).limit(limit)
        if after is not None:
            last = (-after.lastUse, after.domain.ascii)
            query = query.where(tuple_(-_p.last_use, _p.domain) > last)
        return self._reader.run(
            lambda connection: tuple(map(_entryOf, connection.execute(query)))
        )


def _rowOf(entry: CachedPolicy) -> tuple[object, ...]:
    """
    The columns in order.
    """
    policy = entry.policy
    return (
        entry.domain.ascii,
        policy.mode.value if policy else None,
        policy.maxAge if policy else 0,
        json.dumps(policy.mx if policy else ()),
        # JSON escapes NULs and surrogates.
        json.dumps(policy.lines if policy else ()),
        clean(entry.recordID),
        entry.inserted,
        entry.fetched,
        entry.validEnd,
        entry.lastUse,
    )


def _entryOf(row: Row[Any]) -> CachedPolicy:
    policy = None
    if row.mode is not None:
        mx, lines = json.loads(row.mx), json.loads(row.lines)
        policy = STSPolicy(Mode(row.mode), row.max_age, tuple(mx), tuple(lines))
    return CachedPolicy(
        Domain(row.domain),
        policy,
        row.record_id,
        row.inserted,
        row.fetched,
        row.valid_end,
        row.last_use,
    )
