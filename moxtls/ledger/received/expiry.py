# -*- test-case-name: tests.ledger.received.test_store -*-
"""
Removes received reports, in small steps.

The sums of a domain's day are removed before the first of its reports is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Table,
    bindparam,
    delete,
    func,
    not_,
    or_,
    select,
    text,
    update,
)

from moxtls.dates import DAY
from moxtls.ledger.received.tables import (
    receivedDetail,
    receivedDMARCDay,
    receivedDomain,
    receivedFailure,
    receivedOrganization,
    receivedPolicy,
    receivedRaw,
    receivedReport,
    receivedRow,
    receivedSource,
    receivedTLSDay,
)
from moxtls.ledger.received.values import (
    MAX_REFUSED,
    MAX_REFUSED_OCTETS,
    State,
    decodeNames,
    monthOf,
    organizationNumber,
)
from moxtls.ledger.received.writing import reserveNumbers
from moxtls.received.types import ReceivedKind

_r = receivedReport.c
_d = receivedDomain.c
_o = receivedOrganization.c
_w = receivedRow.c
_e = receivedDetail.c
_s = receivedSource.c

_HEAD = (
    _r.number,
    _r.state,
    _r.kind,
    _r.day,
    _r.domains,
    _r.organization,
    _r.row_count,
)
_EXPIRED = (
    select(*_HEAD)
    .join(receivedDomain, _d.report == _r.number)
    .where(
        _d.kind == bindparam("kind"),
        _d.domain == "",
        _d.day < bindparam("before"),
        not_(_d.refused),
    )
    .order_by(_d.day, _d.report)
    .limit(bindparam("limit"))
)
_OTHERS = text("received_report.state > 0")
_NOT_ACCEPTED = (
    select(*_HEAD)
    .where(
        _OTHERS,
        _r.state.in_(bindparam("states", expanding=True)),
        or_(_r.received < bindparam("before"), _r.state == State.ABANDONED),
    )
    .order_by(_r.number)
    .limit(bindparam("limit"))
)
_LEFT = (State.INCOMPLETE, State.ABANDONED)
_RANKS = (
    select(
        _r.number,
        func.row_number().over(order_by=_r.number.desc()).label("rank"),
        func.sum(_r.size).over(order_by=_r.number.desc()).label("octets"),
    )
    .where(_OTHERS, _r.state == State.REFUSED)
    .subquery()
)
_BEYOND = (
    select(*_HEAD)
    .where(
        _OTHERS,
        _r.number.in_(
            select(_RANKS.c.number).where(
                or_(
                    _RANKS.c.rank > bindparam("most"),
                    _RANKS.c.octets > bindparam("octets"),
                )
            )
        ),
    )
    .order_by(_r.number)
)
_MONTHS = (
    select(_e.month, _e.digest)
    .where(_e.month < bindparam("month"))
    .limit(bindparam("limit"))
)
_SOURCE_KEY = tuple(receivedSource.primary_key)
_SOURCES_OF_DAY = (
    select(*_SOURCE_KEY)
    .where(_s.domain == bindparam("domain"), _s.day == bindparam("day"))
    .limit(bindparam("limit"))
)
_SOURCES_OF_PART = _SOURCES_OF_DAY.where(_s.part == bindparam("part"))
_REMOVE_ROWS = delete(receivedRow).where(
    _w.report == bindparam("report"), _w.position >= bindparam("first")
)
_SET_ROW_COUNT = (
    update(receivedReport)
    .where(_r.number == bindparam("of"))
    .values(row_count=bindparam("count"))
)
_SUBTRACT = (
    update(receivedOrganization)
    .where(_o.number == bindparam("of"))
    .values(reports=_o.reports - 1)
)
_REMOVE_UNUSED = delete(receivedOrganization).where(
    _o.number == bindparam("of"), _o.reports <= 0
)


def _removal(table: Table, *names: str) -> Any:
    """
    A statement that removes the rows with given values of some columns.
    """
    return delete(table).where(
        *(table.c[name] == bindparam(f"of_{name}") for name in names)
    )


_REMOVE_REPORT = _removal(receivedReport, "number")
_REMOVE_RAW = _removal(receivedRaw, "report")
_REMOVE_ENTRY = _removal(receivedDomain, "refused", "domain", "report")
_REMOVE_POLICIES = _removal(receivedPolicy, "domain", "day", "report")
_REMOVE_FAILURES = _removal(receivedFailure, "domain", "day", "report")
_REMOVE_TLS_DAY = _removal(receivedTLSDay, "domain", "day")
_REMOVE_DMARC_DAY = _removal(receivedDMARCDay, "domain", "day")
_REMOVE_SOURCE = _removal(receivedSource, *(each.name for each in _SOURCE_KEY))
_REMOVE_DETAIL = _removal(receivedDetail, "month", "digest")


def expire(
    connection: Connection, kind: ReceivedKind | None, before: int, limit: int
) -> int:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.expire}.
    """
    reserveNumbers(connection, 0)
    removal = _Removal(connection, limit)
    if kind in (None, ReceivedKind.DMARC):
        states = _LEFT if kind else (State.REFUSED, *_LEFT)
        given: dict[str, object] = {
            "states": states,
            "before": before * DAY,
            "limit": limit,
        }
        removal.remove(connection.execute(_NOT_ACCEPTED, given).all())
    if kind and not removal.removed:
        given = {"kind": kind, "before": before, "limit": limit}
        removal.remove(connection.execute(_EXPIRED, given).all())
    if kind is ReceivedKind.DMARC and not removal.removed:
        given = {"month": monthOf(before), "limit": limit}
        details = connection.execute(_MONTHS, given).all()
        return _removeAll(connection, _REMOVE_DETAIL, details)
    return removal.removed


def limitRefused(connection: Connection) -> None:
    """
    Remove the oldest refused reports beyond the limits.
    """
    given = {"most": MAX_REFUSED, "octets": MAX_REFUSED_OCTETS}
    found = connection.execute(_BEYOND, given).all()
    # They have no rows, so that the limit is not reached.
    _Removal(connection, len(found) + 1).remove(found)


class _Removal:
    """
    Removes reports until a number of rows is reached.

    @ivar removed: The number so far.
    """

    def __init__(self, connection: Connection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self.removed = 0
        self._days: set[tuple[str, int]] = set()

    @property
    def _left(self) -> int:
        return max(self._limit - self.removed, 0)

    def remove(self, heads: Iterable[Any]) -> None:
        """
        Remove reports, in order, as far as there is room.
        """
        done: list[Any] = []
        for head in heads:
            if not self._left or not self._removeParts(head) or not self._left:
                break
            self.removed += 1
            done.append(head)
        self._removeHeads(done)

    def _removeParts(self, head: Any) -> bool:
        """
        Remove sums and rows.

        @return: False if some are left.
        """
        for domain in decodeNames(head.domains):
            if head.state == State.ACCEPTED:
                isDone = self._removeDay(head.kind, domain, head.day)
            elif head.state == State.REFUSED:
                isDone = True
            else:
                given = {"domain": domain, "day": head.day, "part": head.number}
                isDone = self._removeSources(_SOURCES_OF_PART, given)
            if not isDone:
                return False
        return self._removeRows(head)

    def _removeDay(self, kind: str, domain: str, day: int) -> bool:
        given = {"of_domain": domain, "of_day": day}
        if (domain, day) in self._days:
            return True
        if kind == ReceivedKind.TLS:
            self._connection.execute(_REMOVE_TLS_DAY, given)
        elif kind == ReceivedKind.DMARC:
            self._connection.execute(_REMOVE_DMARC_DAY, given)
            ofDay = {"domain": domain, "day": day}
            if not self._removeSources(_SOURCES_OF_DAY, ofDay):
                return False
        self._days.add((domain, day))
        return True

    def _removeSources(self, query: Any, given: dict[str, object]) -> bool:
        limit = self._left
        keys = self._connection.execute(query, given | {"limit": limit}).all()
        self.removed += _removeAll(self._connection, _REMOVE_SOURCE, keys)
        return len(keys) < limit

    def _removeRows(self, head: Any) -> bool:
        if not head.row_count:
            return True
        first = max(head.row_count - self._left, 0)
        given = {"report": head.number, "first": first}
        self._connection.execute(_REMOVE_ROWS, given)
        self.removed += head.row_count - first
        given = {"of": head.number, "count": first}
        self._connection.execute(_SET_ROW_COUNT, given)
        return not first

    def _removeHeads(self, heads: Sequence[Any]) -> None:
        """
        Remove everything else of reports without rows.
        """
        execute = self._connection.execute
        if not heads:
            return
        numbers = [{"of_report": head.number} for head in heads]
        execute(_REMOVE_RAW, numbers)
        entries = [
            {
                "of_refused": head.state == State.REFUSED,
                "of_domain": domain,
                "of_day": head.day,
                "of_report": head.number,
            }
            for head in heads
            for domain in ("", *decodeNames(head.domains))
        ]
        execute(_REMOVE_ENTRY, [_without(each, "of_day") for each in entries])
        parts = [_without(each, "of_refused") for each in entries]
        execute(_REMOVE_POLICIES, parts)
        execute(_REMOVE_FAILURES, parts)
        execute(_REMOVE_REPORT, [{"of_number": head.number} for head in heads])
        listed = (State.ACCEPTED, State.REFUSED)
        organizations = [
            {"of": organizationNumber(head.organization)}
            for head in heads
            if head.state in listed
        ]
        if organizations:
            execute(_SUBTRACT, organizations)
            execute(_REMOVE_UNUSED, organizations)


def _without(given: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in given.items() if key != name}


def _removeAll(connection: Connection, statement: Any, keys: Sequence[Any]) -> int:
    """
    Remove rows by their keys; returns their number.
    """
    if keys:
        connection.execute(
            statement,
            [
                {f"of_{name}": value for name, value in key._mapping.items()}
                for key in keys
            ],
        )
    return len(keys)
