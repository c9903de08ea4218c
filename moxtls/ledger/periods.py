# -*- test-case-name: tests.ledger.test_ledger -*-
"""
Reporting periods in the database: their early ends, and the statements that select and
settle the periods of TLS reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
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

from moxtls.domain import Domain
from moxtls.ledger.tables import reportClosing, tlsFailure, tlsResult
from moxtls.queue.types import ReportKind

_c = reportClosing.c
_kind = _c.kind == bindparam("of_kind")
_LATEST = select(func.max(_c.until)).where(_kind)
# The empty string stands for all domains.
_LATEST_OF = _LATEST.where(
    _c.domain.in_(["", bindparam("of_domain")]), _c.until < bindparam("before")
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
    given = {"of_kind": kind.value, "of_domain": domain, "before": before}
    return connection.execute(_LATEST_OF, given).scalar_one() or 0


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
