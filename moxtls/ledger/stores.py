# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The stores of the sender history, of MTA-STS policies (RFC 8461 3.3), of suppressions
and of leases.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    exists,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.expression import ColumnElement
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.dates import DAY
from moxtls.domain import Domain
from moxtls.interfaces import ILeases, IPolicyStore, ISenderHistory, ISuppressions
from moxtls.ledger.bounds import SIGN_RECEIVED, SIGN_SENT, boundedAccount, clean
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.tables import (
    MAX_KEYS,
    Upsert,
    digest,
    insertInto,
    lease,
    replaced,
    senderHistory,
    stsPolicy,
)
from moxtls.ledger.tables import suppression as suppressionTable
from moxtls.mtasts.policy import CachedPolicy, Mode, STSPolicy
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import Suppression

#: Cached entries known to be written, about 300 octets each.
MAX_KNOWN = 20_000

_h = senderHistory.c
_KEY = (_h.account, _h.domain, _h.sign)
_below = and_(_h.domain >= bindparam("first"), _h.domain < bindparam("end"))


def _isThere(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists(select(_h.day).where(*conditions))


#: True if there is an entry from C{first} up to C{end}: of any account, or of one.
KNOWN_TO_ANY = select(_isThere(_below))
KNOWN_TO_ACCOUNT = select(_isThere(_h.account == bindparam("account"), _below))

_old = _h.day < bindparam("before")
_OLD = (
    select(*_KEY)
    .where(_old, tuple_(*_KEY) > tuple_(*map(bindparam, ("a", "d", "s"))))
    .order_by(*_KEY)
    .limit(MAX_KEYS)
)
_FORGET = delete(senderHistory).where(
    tuple_(*_KEY).in_(bindparam("keys", expanding=True)), _old
)

_NOTE = Upsert(
    senderHistory,
    lambda old, new: {"day": case((new.day > old.day, new.day), else_=old.day)},
)

#: Account, domain (reversed), sign.
_Key = tuple[str, str, str]


@implementer(ISenderHistory)
class SenderHistory:
    """
    The domains with which local accounts have corresponded: one row per account, domain
    and kind of entry.

    Entries that this process knows to be written today are not written again.
    """

    def __init__(self, writer: GroupCommitWriter, reader: GroupReader) -> None:
        self._writer = writer
        self._reader = reader
        self._written: OrderedDict[_Key, int] = OrderedDict()

    def sent(self, account: str, domain: Domain, now: float) -> Deferred[None]:
        return self._note(account, domain, SIGN_SENT, now)

    def received(self, account: str, domain: Domain, now: float) -> Deferred[None]:
        return self._note(account, domain, SIGN_RECEIVED, now)

    def _note(
        self, account: str, domain: Domain, sign: str, now: float
    ) -> Deferred[None]:
        key, day = (boundedAccount(account), reverse(domain), sign), int(now // DAY)
        if self._written.get(key, day - 1) >= day:
            self._written.move_to_end(key)
            return succeed(None)

        def written(result: None) -> None:
            self._written[key] = max(day, self._written.get(key, day))
            self._written.move_to_end(key)
            if len(self._written) > MAX_KNOWN:
                self._written.popitem(last=False)

        return self._writer.add(self._write, (*key, day)).addCallback(written)

    def _write(
        self, connection: Connection, several: Sequence[tuple[str, str, str, int]]
    ) -> Sequence[None]:
        # Sorted, as nodes that lock rows in the same order can't deadlock.
        _NOTE(connection, sorted(set(several)))
        return [None] * len(several)

    def isKnown(self, account: str | None, organizational: Domain) -> Deferred[bool]:
        name = reverse(organizational)
        # "/" follows "." in ASCII.
        given: dict[str, object] = {"first": name, "end": name[:-1] + "/"}
        query = KNOWN_TO_ANY
        if account is not None:
            query = KNOWN_TO_ACCOUNT
            given["account"] = boundedAccount(account)
        return self._reader.run(
            lambda connection: bool(connection.execute(query, given).scalar_one())
        )

    def prune(self, before: float) -> Deferred[int]:
        day = int(before // DAY)

        def forget(keys: Sequence[_Key]) -> Deferred[int]:
            given = {"keys": keys, "before": day}
            return self._writer.run(
                lambda connection: connection.execute(_FORGET, given).rowcount
            )

        def old(last: _Key) -> Deferred[list[_Key]]:
            given = {"before": day, **dict(zip("ads", last, strict=True))}
            return self._reader.run(
                lambda connection: [
                    (row.account, row.domain, row.sign)
                    for row in connection.execute(_OLD, given)
                ]
            )

        async def prune() -> int:
            number = 0
            last = ("", "", "")
            # Found by a reader, so that writers don't wait.
            while keys := await old(last):
                number += await forget(keys)
                last = keys[-1]
            self._written.clear()
            return number

        return Deferred.fromCoroutine(prune())


def reverse(domain: Domain) -> str:
    """
    The labels of a domain in reverse: C{org.example.www.} for C{www.example.org}.
    """
    return "".join(f"{label}." for label in reversed(domain.ascii.split(".")))


_p = stsPolicy.c
_SAVE_POLICY = Upsert(
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
            return None if row is None else _policyOf(row)

        return self._reader.run(read)

    def save(self, entry: CachedPolicy) -> Deferred[None]:
        def save(connection: Connection) -> None:
            _SAVE_POLICY(connection, [_policyRow(entry)])

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
            lambda connection: tuple(map(_policyOf, connection.execute(query)))
        )


def _policyRow(entry: CachedPolicy) -> tuple[object, ...]:
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


def _policyOf(row: Row[Any]) -> CachedPolicy:
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


_s = suppressionTable.c
_PUT_SUPPRESSION = Upsert(
    suppressionTable, replaced("until", "created", "comment", "failures")
)

# Built once: building it takes longer than running it.
_ACTIVE_SUPPRESSION = (
    select(suppressionTable)
    .where(
        or_(
            _s.digest == bindparam("this"),
            _s.digest == bindparam("every"),
        ),
        _s.until > bindparam("now"),
    )
    .order_by(_s.until.desc())
    .limit(1)
)


@implementer(ISuppressions)
class Suppressions:
    """
    The destinations to which no reports are sent: one row per destination and kind.
    """

    def __init__(self, writer: GroupCommitWriter, reader: GroupReader) -> None:
        self._writer = writer
        self._reader = reader

    def active(
        self, destination: str, kind: ReportKind, now: float
    ) -> Deferred[Suppression | None]:
        given = {
            "this": _suppressionDigest(destination, kind),
            "every": _suppressionDigest(destination, None),
            "now": now,
        }
        return self._reader.run(
            lambda connection: _suppressionOrNone(
                connection.execute(_ACTIVE_SUPPRESSION, given).first()
            )
        )

    def put(self, suppression: Suppression) -> Deferred[None]:
        def put(connection: Connection) -> None:
            _PUT_SUPPRESSION(connection, [_suppressionRow(suppression)])

        return self._writer.run(put)

    def remove(self, destination: str, kind: ReportKind | None) -> Deferred[bool]:
        statement = delete(suppressionTable).where(
            _s.digest == _suppressionDigest(destination, kind)
        )
        return self._writer.run(
            lambda connection: connection.execute(statement).rowcount > 0
        )

    def entries(
        self, after: Suppression | None = None, limit: int | None = None
    ) -> Deferred[tuple[Suppression, ...]]:
        query = select(suppressionTable).order_by(
            _s.created.desc(), _s.destination, _s.kind
        )
        if after is not None:
            last = (-after.created, after.destination, after.kind or "")
            query = query.where(tuple_(-_s.created, _s.destination, _s.kind) > last)
        query = query.limit(limit)
        return self._reader.run(
            lambda connection: tuple(map(_suppressionOf, connection.execute(query)))
        )

    def get(
        self, destination: str, kind: ReportKind | None
    ) -> Deferred[Suppression | None]:
        query = select(suppressionTable).where(
            _s.digest == _suppressionDigest(destination, kind)
        )
        return self._reader.run(
            lambda connection: _suppressionOrNone(connection.execute(query).first())
        )


def _suppressionDigest(destination: str, kind: ReportKind | None) -> bytes:
    return digest(destination, kind or "")


def _suppressionRow(entry: Suppression) -> tuple[object, ...]:
    """
    The columns in order.
    """
    return (
        _suppressionDigest(entry.destination, entry.kind),
        entry.destination,
        entry.kind.value if entry.kind else "",
        entry.until,
        entry.created,
        clean(entry.comment),
        entry.failures,
    )


def _suppressionOrNone(row: Row[Any] | None) -> Suppression | None:
    return None if row is None else _suppressionOf(row)


def _suppressionOf(row: Row[Any]) -> Suppression:
    return Suppression(
        row.destination,
        ReportKind(row.kind) if row.kind else None,
        row.until,
        row.created,
        row.comment,
        row.failures,
    )


_l = lease.c


@implementer(ILeases)
class Leases:
    """
    Leases, by which nodes agree on who does a task: one row per lease.
    """

    def __init__(self, writer: GroupCommitWriter) -> None:
        self._writer = writer

    def acquire(
        self, name: str, holder: str, until: float, now: float
    ) -> Deferred[bool]:
        def acquire(connection: Connection) -> bool:
            insert = insertInto(lease, connection.dialect.name).values(
                name=name, holder=holder, until=until
            )
            statement = insert.on_conflict_do_update(
                index_elements=[_l.name],
                set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
                where=or_(_l.holder == holder, _l.until <= now),
            ).returning(_l.name)
            return connection.execute(statement).first() is not None

        return self._writer.run(acquire)

    def release(self, name: str, holder: str) -> Deferred[None]:
        statement = delete(lease).where(_l.name == name, _l.holder == holder)

        def release(connection: Connection) -> None:
            connection.execute(statement)

        return self._writer.run(release)
