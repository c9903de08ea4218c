# -*- test-case-name: tests.store.test_ledger -*-
"""
What there is of evaluations, and which are due, as statements.  No I/O.

They are built once: SQLAlchemy takes longer to build one than the database to
carry it out.
"""

from __future__ import annotations

from sqlalchemy import (
    LargeBinary,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.expression import ColumnElement

from moxtls.calendar import HOUR
from moxtls.dmarc.values import Disposition
from moxtls.store.sums import DIGEST_SIZE
from moxtls.store.tables import dmarcRow, dmarcTally
from moxtls.store.tallies import BITS, PLACE_SIZE

_t = dmarcTally.c
_r = dmarcRow.c

#: In the order of the names of columns below.
DISPOSITIONS = tuple(BITS)
#: Tallies removed in one transaction: others don't wait for long.
MAX_REMOVED = 200

_sendable = func.max(case((_t.sendable, 1), else_=0))
_before = bindparam("before", type_=_t.hour.type)
# See moxtls.store.rules.dueBefore.
_due = or_(_t.until > 0, _t.hour < _before - _before % (_t.hours * HOUR))
_mine = and_(
    _t.policy_domain == bindparam("domain"),
    _t.part == bindparam("part"),
    _t.hour < bindparam("end"),
)
_last = bindparam("domain", type_=Text()), bindparam("part", type_=Text())
_removed = _t.policy_domain, _t.part, _t.hour, _t.messages


def _hasSeen(disposition: Disposition) -> ColumnElement[int]:
    seen = _t.dispositions.bitwise_and(BITS[disposition]) != 0
    return case((seen, 1), else_=0)


#: One row for each policy domain; behind the sums, whether each of
#: L{DISPOSITIONS} was seen.
SUMMARIES = (
    select(
        _t.policy_domain,
        func.sum(_t.messages),
        _sendable,
        *(func.max(_hasSeen(each)) for each in DISPOSITIONS),
    )
    .group_by(_t.policy_domain)
    .order_by(_t.policy_domain)
)

COUNT = select(func.count()).select_from(
    select(_t.policy_domain, _t.part).where(_due, _t.sendable).distinct().subquery()
)
#: The first C{limit} subjects due at C{before}.
_subjects = (
    select(_t.policy_domain, _t.part, func.max(_t.hours), _sendable, func.max(_t.until))
    .group_by(_t.policy_domain, _t.part)
    .order_by(_t.policy_domain, _t.part)
    .limit(bindparam("limit"))
)
FIRST = _subjects.where(_due)
_behind = tuple_(_t.policy_domain, _t.part) > tuple_(*_last)
#: The same, behind those of C{domain} and C{part}.
NEXT = FIRST.where(_behind)
#: Both, whether due or not.
FIRST_OF_ALL = _subjects
NEXT_OF_ALL = _subjects.where(_behind)

_open = _t.until == 0
#: What isn't closed, in the order in which everybody locks it.
OPEN = (
    select(_t.policy_domain, _t.part)
    .where(_open)
    .distinct()
    .order_by(_t.policy_domain, _t.part)
    .limit(bindparam("limit"))
)
OPEN_OF_DOMAIN = OPEN.where(_t.policy_domain == bindparam("domain"))
#: Have C{part} of C{domain} end at C{at}, as another part: first its tallies,
#: then the rows of their hours.
CLOSE_TALLIES = (
    update(dmarcTally)
    .where(_t.policy_domain == bindparam("domain"), _t.part == bindparam("old"), _open)
    .values(part=bindparam("new"), until=bindparam("at"))
    .returning(_t.hour)
)

#: What the tallies of a subject come to; one row, also for none.
OVERVIEW = select(
    func.max(_t.published),
    func.max(_t.hours),
    func.min(_t.hour),
    func.sum(_t.messages),
    func.sum(_t.wanted),
    func.sum(_t.omitted),
).where(_mine)

_between = and_(
    _r.key > bindparam("first"),
    _r.key < bindparam("last"),
)
#: How many rows of a report differ.
DIFFERENT = select(
    func.count(func.substr(_r.key, PLACE_SIZE + 1, DIGEST_SIZE).distinct())
).where(_between, _r.hour < bindparam("end"))
#: The next rows of a report, where they may be apart by hour and flags.
ROWS = (
    select(_r.key, _r.content, _r.messages)
    .where(_between, _r.hour < bindparam("end"))
    .order_by(_r.key)
    .limit(bindparam("limit"))
)

#: Tallies, the oldest first.
TALLIES = (
    select(_t.policy_domain, _t.part, _t.hour, _t.hours, _t.published)
    .where(_t.messages > 0)
    .order_by(_t.hour, _t.policy_domain, _t.part)
    .limit(bindparam("limit"))
)
TALLIES_OF_DOMAIN = TALLIES.where(_t.policy_domain == bindparam("domain"))
#: The rows of one tally.
ROWS_OF_TALLY = (
    select(dmarcRow)
    .where(_between, _r.hour == bindparam("hour"))
    .order_by(_r.key)
    .limit(bindparam("limit"))
)

#: These lock what they remove, so that nobody adds to it before its rows are
#: gone, too: a tally and its rows come and go together.
REMOVE_SUBJECT = delete(dmarcTally).where(_mine).returning(*_removed)
REMOVE_DOMAIN = (
    delete(dmarcTally)
    .where(_t.policy_domain == bindparam("domain"))
    .returning(*_removed)
)
REMOVE_OLD = (
    delete(dmarcTally)
    .where(
        tuple_(_t.policy_domain, _t.part, _t.hour).in_(
            select(_t.policy_domain, _t.part, _t.hour)
            .where(_t.hour < _before)
            .order_by(_t.hour, _t.policy_domain, _t.part)
            .limit(MAX_REMOVED)
        )
    )
    .returning(*_removed)
)
# On SQLite, what is put together is text until it is said to be none.
_moved = cast(
    bindparam("place", type_=LargeBinary()).op("||")(
        func.substr(_r.key, PLACE_SIZE + 1, type_=LargeBinary())
    ),
    LargeBinary,
)
CLOSE_ROWS = (
    update(dmarcRow)
    .where(_between, _r.hour.in_(bindparam("hours", expanding=True)))
    .values(key=_moved)
)
#: Of the tallies of one policy in these hours.
REMOVE_ROWS = delete(dmarcRow).where(
    _between, _r.hour.in_(bindparam("hours", expanding=True))
)
