# -*- test-case-name: tests.ledger -*-
"""
The archive of outgoing reports, and the reporting periods that they are about: their
early ends, and the statements that select and settle the periods of TLS reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Row,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    not_,
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
from moxtls.ledger.tables import (
    digest,
    insertInto,
    outgoingReport,
    reportClosing,
    tlsFailure,
    tlsResult,
)
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


# --- reporting periods and their early ends ---

_c = reportClosing.c
_kind = _c.kind == bindparam("of_kind")
_LATEST = select(func.max(_c.until)).where(_kind)
# The empty string stands for all domains.
_OF_DOMAINS = select(_c.domain, _c.until).where(
    _kind, _c.domain.in_(bindparam("of_domains", expanding=True))
)
_PRUNE = delete(reportClosing).where(_kind, _c.until < bindparam("before"))


def close(
    connection: Connection, kind: ReportKind, domain: Domain | None, end: int
) -> int:
    """
    Record that the periods of C{domain}, or of all domains, end at C{end}, or at the
    first later second at which no period ended.

    @return: The end, in Unix seconds.
    """
    latest = connection.execute(_LATEST, {"of_kind": kind.value}).scalar_one()
    until = max(end, (latest or 0) + 1)
    connection.execute(
        reportClosing.insert(),
        {"kind": kind.value, "domain": domain.ascii if domain else "", "until": until},
    )
    return until


def latestClosing(
    connection: Connection, kind: ReportKind, domain: str, before: int
) -> int:
    """
    The last recorded end of a period of C{domain} before the second C{before}; 0 if
    there is none.
    """
    return latestClosings(connection, [(domain, before)], kind)[0]


def latestClosings(
    connection: Connection, asked: Sequence[tuple[str, int]], kind: ReportKind
) -> list[int]:
    """
    The same for several pairs of C{domain} and C{before}, in order.
    """
    names = ["", *{domain for domain, _ in asked}]
    given = {"of_kind": kind.value, "of_domains": names}
    ends: dict[str, list[int]] = {}
    for domain, until in connection.execute(_OF_DOMAINS, given):
        ends.setdefault(domain, []).append(until)
    return [
        max(
            (
                until
                for name in ("", domain)
                for until in ends.get(name, ())
                if until < before
            ),
            default=0,
        )
        for domain, before in asked
    ]


def pruneClosings(connection: Connection, kind: ReportKind, before: int) -> None:
    """
    Remove records before the second C{before}.
    """
    connection.execute(_PRUNE, {"of_kind": kind.value, "before": before})


# --- the two phases of TLS reports: recipient domains, then MX hosts ---

# The statements are built once, as building one takes SQLAlchemy longer than running it
# takes the database.

_r = tlsResult.c
_isOwnHost = _r.policy_domain == _r.recipient_domain
_isDue = and_(
    _r.day < bindparam("before", type_=_r.day.type),
    _r.until == literal_column("0"),
)
# A literal, as in the condition of the partial index.
_isClosed = _r.until > literal_column("0")
_Page = Select[int, date, str, int]


@dataclass(frozen=True, slots=True)
class Phase:
    """
    The statements of one phase of reporting.

    @ivar count: The number of sendable periods on days before C{before}.
    @ivar first: The first C{limit} periods on days before C{before}.
    @ivar next: The same, after that of C{day} and C{domain}.
    @ivar firstClosed: The first C{limit} periods that were closed early.
    @ivar nextClosed: The same, after that of C{until}, C{day} and C{domain}.
    @ivar settle: Mark the results of the period C{of_domain}, C{of_day} and
        C{of_until} as reported to the destinations C{to} (JSON), and remove those
        that no phase needs any more; in this order.
    """

    count: Select[int]
    first: _Page
    next: _Page
    firstClosed: _Page
    nextClosed: _Page
    settle: tuple[Update | Delete, ...]


def _phase(
    domain: ColumnElement[str],
    isOpen: ColumnElement[bool],
    sendable: ColumnElement[bool],
    reported: dict[str, object],
) -> Phase:
    """
    @param domain: The column of the domain that is reported on.
    @param isOpen: The condition for rows that are still to be reported.
    @param sendable: The condition for those of them that make a period sendable.
    @param reported: The values to set once a row is reported.
    """
    counted = select(_r.day, domain).where(isOpen, sendable, _isDue).distinct()
    until = bindparam("until", type_=_r.until.type)
    last = bindparam("day", type_=_r.day.type), bindparam("domain", type_=Text())
    due = _due(domain, isOpen, sendable)
    closed = _closed(domain, isOpen)
    order = tuple_(_r.until, _r.day, domain)
    return Phase(
        count=select(func.count()).select_from(counted.subquery()),
        first=due,
        next=due.where(tuple_(_r.day, domain) > tuple_(*last)),
        firstClosed=closed,
        nextClosed=closed.where(order > tuple_(until, *last)),
        settle=_settle(domain, isOpen, reported),
    )


def _due(
    domain: ColumnElement[str],
    isOpen: ColumnElement[bool],
    sendable: ColumnElement[bool],
) -> _Page:
    return (
        select(
            literal_column("0"), _r.day, domain, func.max(case((sendable, 1), else_=0))
        )
        .where(isOpen, _isDue)
        .group_by(_r.day, domain)
        .order_by(_r.day, domain)
        .limit(bindparam("limit"))
    )


def _closed(domain: ColumnElement[str], isOpen: ColumnElement[bool]) -> _Page:
    order = _r.until, _r.day, domain
    # Closing for one domain closes results of others, too, which then get them all.
    mayCause = func.max(case((_r.send_report, 1), else_=0))
    return (
        select(*order, mayCause)
        .where(isOpen, _isClosed)
        .group_by(*order)
        .order_by(*order)
        .limit(bindparam("limit"))
    )


def _settle(
    domain: ColumnElement[str],
    isOpen: ColumnElement[bool],
    reported: dict[str, object],
) -> tuple[Update | Delete, ...]:
    ofPeriod = and_(
        _r.day == bindparam("of_day"),
        domain == bindparam("of_domain"),
        _r.until == bindparam("of_until"),
    )
    done = and_(ofPeriod, _r.told_recipient, or_(_isOwnHost, _r.told_host))
    keys = select(_r.key).where(done)
    return (
        # This locks the rows, so that nothing is added before they are removed.
        update(tlsResult).where(ofPeriod, isOpen).values(reported),
        delete(tlsFailure).where(tlsFailure.c.result_key.in_(keys)),
        delete(tlsResult).where(done),
    )


#: As in L{moxtls.interfaces.IOutcomeStore}.
PHASES = (
    _phase(
        _r.recipient_domain,
        not_(_r.told_recipient),
        and_(_isOwnHost, _r.send_report),
        {"told_recipient": True, "told_destinations": bindparam("to")},
    ),
    _phase(
        _r.policy_domain,
        and_(not_(_r.told_host), not_(_isOwnHost)),
        and_(_r.send_report),
        {"told_host": True, "told_destinations": bindparam("to")},
    ),
)
