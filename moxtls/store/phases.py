# -*- test-case-name: tests.store.test_ledger -*-
"""
Who is still to be told about results: the two phases of reporting, as
statements.  No I/O.

They are built once: SQLAlchemy takes longer to build one than the database to
carry it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import (
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
from sqlalchemy.sql.expression import ColumnElement

from moxtls.store.tables import tlsFailure, tlsResult

_r = tlsResult.c
_isOwn = _r.policy_domain == _r.recipient_domain


@dataclass(frozen=True, slots=True)
class Phase:
    """
    @ivar count: Of sendable subjects of days before C{before}.
    @ivar first: The first C{limit} subjects of days before C{before}.
    @ivar next: The same, behind those of C{day} and C{domain}.
    @ivar firstClosed: The first C{limit} subjects of periods that were closed.
    @ivar nextClosed: The same, behind those of C{until}, C{day} and C{domain}.
    @ivar tell: Marks what the report about C{of_domain}, C{of_day} and
        C{of_until} to the destinations C{to} (JSON) was made from, and removes
        what nobody needs any more; in this order.
    """

    count: Select[int]
    first: Select[int, date, str, int]
    next: Select[int, date, str, int]
    firstClosed: Select[int, date, str, int]
    nextClosed: Select[int, date, str, int]
    tell: tuple[Update | Delete, ...]


def _phase(
    domain: ColumnElement[str],
    isOpen: ColumnElement[bool],
    sendable: ColumnElement[bool],
    told: dict[str, object],
) -> Phase:
    """
    @param domain: What the subjects are.
    @param isOpen: Which rows are still owed to them.
    @param sendable: Which of these make them sendable.
    @param told: What to set once they are told.
    """
    before = and_(
        _r.day < bindparam("before", type_=_r.day.type), _r.until == literal_column("0")
    )
    counted = select(_r.day, domain).where(isOpen, sendable, before).distinct()
    isSendable = func.max(case((sendable, 1), else_=0))
    first = (
        select(literal_column("0"), _r.day, domain, isSendable)
        .where(isOpen, before)
        .group_by(_r.day, domain)
        .order_by(_r.day, domain)
        .limit(bindparam("limit"))
    )
    last = bindparam("day", type_=_r.day.type), bindparam("domain", type_=Text())
    # A literal, as in the condition of the index.
    closed = _r.until > literal_column("0")
    place = _r.until, _r.day, domain
    # Of what was closed for one of several who are told of it, the others get all.
    mayCause = func.max(case((_r.send_report, 1), else_=0))
    firstClosed = (
        select(*place, mayCause)
        .where(isOpen, closed)
        .group_by(*place)
        .order_by(*place)
        .limit(bindparam("limit"))
    )
    mine = and_(
        _r.day == bindparam("of_day"),
        domain == bindparam("of_domain"),
        _r.until == bindparam("of_until"),
    )
    done = and_(mine, _r.told_recipient, or_(_isOwn, _r.told_host))
    keys = select(_r.key).where(done)
    return Phase(
        count=select(func.count()).select_from(counted.subquery()),
        first=first,
        next=first.where(tuple_(_r.day, domain) > tuple_(*last)),
        firstClosed=firstClosed,
        nextClosed=firstClosed.where(
            tuple_(*place) > tuple_(bindparam("until", type_=_r.until.type), *last)
        ),
        tell=(
            # This locks the rows, so that nobody adds to them before they are
            # gone.
            update(tlsResult).where(mine, isOpen).values(told),
            delete(tlsFailure).where(tlsFailure.c.result_key.in_(keys)),
            delete(tlsResult).where(done),
        ),
    )


#: As in L{moxtls.interfaces.IOutcomeStore}.
PHASES = (
    _phase(
        _r.recipient_domain,
        not_(_r.told_recipient),
        and_(_isOwn, _r.send_report),
        {"told_recipient": True, "told_destinations": bindparam("to")},
    ),
    _phase(
        _r.policy_domain,
        and_(not_(_r.told_host), not_(_isOwn)),
        and_(_r.send_report),
        {"told_host": True, "told_destinations": bindparam("to")},
    ),
)
