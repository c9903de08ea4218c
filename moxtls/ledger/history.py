# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The sender history: domains with which local accounts have corresponded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, select, tuple_
from sqlalchemy.sql.expression import ColumnElement
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.dates import DAY
from moxtls.domain import Domain
from moxtls.interfaces import ISenderHistory
from moxtls.ledger.bounds import SIGN_RECEIVED, SIGN_SENT, boundedAccount
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.tables import MAX_KEYS, Upsert, senderHistory

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
    One row per account, domain and kind of entry.

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
