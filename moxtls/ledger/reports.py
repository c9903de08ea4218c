# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The archive of outgoing reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    bindparam,
    delete,
    or_,
    select,
    tuple_,
    update,
)
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.domain import Domain
from moxtls.interfaces import IReportArchive
from moxtls.ledger.bounds import canFollow, clean
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.tables import digest, insertInto, outgoingReport
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import OutgoingReport, ReportKey, ReportState

_o = outgoingReport.c
_Given = dict[str, object]


@implementer(IReportArchive)
class ReportArchive:
    """
    One row per report and destination.
    """

    def __init__(self, writer: GroupCommitWriter, reader: GroupReader) -> None:
        self._writer = writer
        self._reader = reader

    def file(
        self, connection: Connection, several: Sequence[Sequence[OutgoingReport]]
    ) -> list[int]:
        """
        Add several groups of reports in a transaction, except those already stored.

        @param several: The groups.

        @return: The number of new reports in each group.
        """
        groups = [[_rowOf(report) for report in reports] for reports in several]
        rows = [row for group in groups for row in group]
        new = _insert(connection, rows) if rows else set()
        counts = []
        for group in groups:
            own = {row["digest"] for row in group} & new
            # A report that is in two groups counts for the first.
            new -= own
            counts.append(len(own))
        return counts

    def take(
        self, kind: ReportKind, node: str, limit: int
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        return self._writer.run(lambda connection: _take(connection, kind, node, limit))

    def mark(
        self, key: ReportKey, state: ReportState, now: float, detail: str = ""
    ) -> Deferred[None]:
        given: _Given = {
            "of": digest(str(key)),
            "state": state.value,
            "updated": now,
            "detail": clean(detail),
        }
        return self._writer.add(_MARK[state], given)

    def reports(
        self,
        kind: ReportKind | None = None,
        domain: Domain | None = None,
        state: ReportState | None = None,
        limit: int = 1000,
        after: OutgoingReport | None = None,
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        order = (_o.kind, _o.domain, _o.span_start, _o.destination, _o.digest)
        query = select(outgoingReport).order_by(_o.composed.desc(), *order)
        if after is not None:
            key = after.key
            last = (
                *(key.kind.value, key.domain.ascii, key.start, key.destination),
                digest(str(key)),
            )
            query = query.where(
                # For the index; the exact condition follows.
                _o.composed <= after.composed,
                or_(_o.composed < after.composed, tuple_(*order) > last),
            )
        if kind is not None:
            query = query.where(_o.kind == kind.value)
        if domain is not None:
            query = query.where(_o.domain == domain.ascii)
        if state is not None:
            query = query.where(_o.state == state.value)

        def read(connection: Connection) -> tuple[OutgoingReport, ...]:
            return tuple(map(_reportOf, connection.execute(query.limit(limit))))

        return self._reader.run(read)

    def find(self, key: str) -> Deferred[OutgoingReport | None]:
        return self._one(_o.digest == digest(key))

    def bySender(self, sender: str) -> Deferred[OutgoingReport | None]:
        return self._one(_o.sender_key == clean(sender.lower()))

    def _one(self, wanted: ColumnElement[bool]) -> Deferred[OutgoingReport | None]:
        def read(connection: Connection) -> OutgoingReport | None:
            row = connection.execute(select(outgoingReport).where(wanted)).first()
            return None if row is None else _reportOf(row)

        return self._reader.run(read)

    def prune(self, before: float) -> Deferred[int]:
        unfinished = [ReportState.COMPOSED.value, ReportState.HANDING.value]
        statement = delete(outgoingReport).where(
            _o.composed < before, _o.state.not_in(unfinished)
        )
        return self._writer.run(
            lambda connection: connection.execute(statement).rowcount
        )


def _insert(connection: Connection, rows: Sequence[_Given]) -> set[bytes]:
    """
    Insert rows; returns the digests of those that are new.
    """
    statement = (
        insertInto(outgoingReport, connection.dialect.name)
        .on_conflict_do_nothing(index_elements=[_o.digest])
        .returning(_o.digest)
    )
    return set(connection.scalars(statement, rows))


def _marking(
    state: ReportState,
) -> Callable[[Connection, Sequence[_Given]], Sequence[None]]:
    before = [old.value for old in ReportState if canFollow(old, state)]
    statement = (
        update(outgoingReport)
        .where(_o.digest == bindparam("of"), _o.state.in_(before))
        .values(
            state=bindparam("state"),
            updated=bindparam("updated"),
            detail=bindparam("detail"),
        )
    )

    def mark(connection: Connection, several: Sequence[_Given]) -> Sequence[None]:
        connection.execute(statement, list(several))
        return [None] * len(several)

    return mark


_MARK = {state: _marking(state) for state in ReportState}


_OLDEST = (
    select(outgoingReport)
    .where(_o.kind == bindparam("kind"), _o.state == bindparam("state"))
    .order_by(_o.composed, _o.domain, _o.destination)
    .limit(bindparam("limit"))
)
_OURS = _OLDEST.where(_o.node == bindparam("node"), _o.detail == "")
# Reports that failed to be handed over come after those not tried yet.
_FAILED = _OLDEST.where(_o.node == bindparam("node"), _o.detail != "")
_FAILED = _FAILED.order_by(None).order_by(_o.updated, _o.composed, _o.digest)
# Skips rows that another node is taking.
_FREE = _OLDEST.with_for_update(skip_locked=True)
_TAKE = (
    update(outgoingReport)
    .where(_o.digest.in_(bindparam("these", expanding=True)))
    .values(state=bindparam("state"), node=bindparam("node"))
)


def _take(
    connection: Connection, kind: ReportKind, node: str, limit: int
) -> tuple[OutgoingReport, ...]:
    taking = {"state": ReportState.HANDING.value, "node": node}
    given = {"kind": kind.value, "limit": limit}
    ours = connection.execute(_OURS, given | taking).all()
    if ours:
        return tuple(map(_reportOf, ours))
    waiting = given | {"state": ReportState.COMPOSED.value}
    free = connection.execute(_FREE, waiting).all()
    if not free:
        return tuple(map(_reportOf, connection.execute(_FAILED, given | taking)))
    digests = [row.digest for row in free]
    connection.execute(_TAKE, {"these": digests} | taking)
    return tuple(_reportOf(row, ReportState.HANDING, node) for row in free)


def _rowOf(report: OutgoingReport) -> dict[str, object]:
    key = report.key
    return {
        "digest": digest(str(key)),
        "kind": key.kind.value,
        "domain": key.domain.ascii,
        "span_start": key.start,
        "span_end": key.end,
        "destination": key.destination,
        "phase": key.phase,
        "report_id": report.reportID,
        "sender": report.sender,
        "sender_key": report.sender.lower() or None,
        "message": report.message,
        "content_type": report.contentType,
        "composed": report.composed,
        "state": report.state.value,
        "node": report.node,
        "updated": report.updated,
        "detail": clean(report.detail),
        "part": key.part,
    }


def _reportOf(
    row: Row[Any], state: ReportState | None = None, node: str | None = None
) -> OutgoingReport:
    return OutgoingReport(
        ReportKey(
            ReportKind(row.kind),
            Domain(row.domain),
            row.span_start,
            row.span_end,
            row.destination,
            row.phase,
            row.part,
        ),
        row.report_id,
        row.sender,
        bytes(row.message),
        row.content_type,
        row.composed,
        ReportState(row.state) if state is None else state,
        row.node if node is None else node,
        row.updated,
        row.detail,
    )
