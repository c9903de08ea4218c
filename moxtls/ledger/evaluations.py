# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The store of DMARC evaluations: recording, listing, closing, settling and removing them.

Statements are built once, as building one takes SQLAlchemy longer than running it takes
the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    Connection,
    LargeBinary,
    Row,
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
from sqlalchemy.sql.dml import ReturningDelete
from sqlalchemy.sql.expression import ColumnElement
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.dates import HOUR, utcDay
from moxtls.dmarc.types import (
    Disposition,
    Evaluation,
    EvaluationSummary,
    PeriodSummary,
    PublishedPolicy,
    ReportRow,
    StoredEvaluation,
)
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore
from moxtls.ledger.bounds import intervalEnd
from moxtls.ledger.evaluationcounters import (
    BITS,
    PREFIX_SIZE,
    EvaluationCounters,
    closedPart,
    decodePolicy,
    decodeRow,
    decodeTexts,
    endOfPrefix,
    keyAfter,
    keyPrefix,
    rowDigestOf,
)
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.reports import ReportArchive, close, latestClosing, pruneClosings
from moxtls.ledger.tables import DIGEST_SIZE, dmarcRow, dmarcTally
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import OutgoingReport, ReportPeriod

#: Parts closed in one transaction, so that others don't wait for long.
MAX_CLOSED = 50

Page = tuple[tuple[bytes, ReportRow, int], ...]


@implementer(IEvaluationStore)
class EvaluationStore:
    """
    Stores numbers of messages in two tables: per policy and hour, and per row of a
    report under it.
    """

    def __init__(
        self,
        writer: GroupCommitWriter,
        reader: GroupReader,
        archive: ReportArchive,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._archive = archive
        self._counters = EvaluationCounters()

    def record(
        self, hour: int, evaluation: Evaluation, count: int = 1
    ) -> Deferred[None]:
        return self._writer.add(self._counters.record, (hour, evaluation, count))

    def evaluations(
        self, domain: Domain | None = None, limit: int = 1000
    ) -> Deferred[tuple[StoredEvaluation, ...]]:
        return self._reader.run(lambda connection: _stored(connection, domain, limit))

    def summaries(
        self, after: EvaluationSummary | None = None, limit: int = 1000
    ) -> Deferred[tuple[EvaluationSummary, ...]]:
        given = {"after": after.domain.ascii if after else "", "limit": limit}

        def read(connection: Connection) -> tuple[EvaluationSummary, ...]:
            rows = connection.execute(SUMMARIES, given)
            return tuple(_summary(*row) for row in rows)

        return self._reader.run(read)

    def remove(self, domain: Domain) -> Deferred[int]:
        given = {"domain": domain.ascii}
        return self._writer.run(
            lambda connection: sum(_remove(connection, REMOVE_DOMAIN, given))
        )

    def count(self, before: int) -> Deferred[int]:
        given = {"before": before}
        return self._reader.run(
            lambda connection: connection.execute(COUNT, given).scalar_one()
        )

    def periods(
        self, before: int, after: ReportPeriod | None, limit: int, early: bool = False
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        given: dict[str, object] = {"limit": limit}
        if not early:
            given["before"] = before
        query = FIRST_OF_ALL if early else FIRST
        if after is not None:
            query = NEXT_OF_ALL if early else NEXT
            given |= {"domain": after.domain.ascii, "part": after.part}

        def read(connection: Connection) -> tuple[ReportPeriod, ...]:
            rows = connection.execute(query, given)
            return tuple(_period(before, early, *row) for row in rows)

        return self._reader.run(read)

    def close(self, domain: Domain | None, end: int) -> Deferred[int]:
        async def close() -> int:
            until = await self._writer.run(
                partial(_closePeriod, domain=domain, end=end)
            )
            count = 0
            while until:
                page = partial(_closeParts, domain=domain, until=until)
                closed = await self._writer.run(page)
                if not closed:
                    break
                count += closed
            return count

        return Deferred.fromCoroutine(close())

    def summary(self, period: ReportPeriod) -> Deferred[PeriodSummary | None]:
        return self._reader.run(lambda connection: _overview(connection, period))

    def rows(self, period: ReportPeriod, after: bytes, limit: int) -> Deferred[Page]:
        return self._reader.run(
            lambda connection: _page(connection, period, after, limit)
        )

    def settle(
        self,
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        return self._writer.add(self._settle, _Settling(period, reports))

    def _settle(
        self, connection: Connection, several: Sequence[_Settling]
    ) -> Sequence[int]:
        # In the order in which all nodes lock them.
        for given in sorted(
            (_parameters(each.period) for each in several), key=_lockOrder
        ):
            _remove(connection, REMOVE_PERIOD, given)
        return self._archive.file(connection, [each.reports for each in several])

    def prune(self, before: int) -> Deferred[int]:
        def page(connection: Connection) -> list[int]:
            return _remove(connection, REMOVE_OLD, {"before": before})

        async def prune() -> int:
            messages = 0
            await self._writer.run(
                lambda connection: pruneClosings(connection, ReportKind.DMARC, before)
            )
            while removed := await self._writer.run(page):
                messages += sum(removed)
            return messages

        return Deferred.fromCoroutine(prune())


@dataclass(frozen=True, slots=True)
class _Settling:
    period: ReportPeriod
    reports: Sequence[OutgoingReport]


def _parameters(period: ReportPeriod) -> dict[str, object]:
    return {
        "domain": period.domain.ascii,
        "part": period.part,
        "end": period.end,
    }


def _lockOrder(given: Mapping[str, object]) -> tuple[str, str]:
    return str(given["domain"]), str(given["part"])


def _range(period: ReportPeriod, after: bytes = b"") -> dict[str, object]:
    prefix = keyPrefix(period.domain.ascii, period.part)
    return {
        "first": keyAfter(prefix, after),
        "last": endOfPrefix(prefix),
        "end": period.end,
    }


def _period(
    before: int,
    early: bool,
    name: str,
    part: str,
    hours: int,
    sendable: int,
    until: int,
) -> ReportPeriod:
    end = until or (before if early else intervalEnd(before, hours))
    return ReportPeriod(0, utcDay(end - 1), Domain(name), bool(sendable), part, end)


def _summary(name: str, messages: int, sendable: int, *seen: int) -> EvaluationSummary:
    dispositions = zip(DISPOSITIONS, seen, strict=True)
    return EvaluationSummary(
        Domain(name),
        tuple(each for each, wasSeen in dispositions if wasSeen),
        int(messages),
        bool(sendable),
    )


def _overview(connection: Connection, period: ReportPeriod) -> PeriodSummary | None:
    found = connection.execute(OVERVIEW, _parameters(period)).one()
    published, hours, first, messages, wanted, omitted = found
    if published is None:
        return None
    rows = connection.execute(DIFFERENT, _range(period)).scalar_one()
    domain, kind = period.domain.ascii, ReportKind.DMARC
    return PeriodSummary(
        decodePolicy(published),
        hours,
        first,
        int(messages),
        rows,
        int(wanted),
        int(omitted),
        latestClosing(connection, kind, domain, period.end),
    )


def _page(
    connection: Connection, period: ReportPeriod, after: bytes, limit: int
) -> Page:
    """
    Read a page of rows.  Rows of different hours that add up to one are next to each
    other, so the page ends where the first row beyond the limit begins.
    """
    given = _range(period, after) | {"limit": limit + 1}
    keys: list[bytes] = []
    contents: list[str] = []
    counts: list[int] = []
    while found := connection.execute(ROWS, given).all():
        for key, content, messages in found:
            row = rowDigestOf(key)
            if keys and keys[-1] == row:
                counts[-1] += messages
                continue
            if len(keys) >= limit:
                return _decoded(keys, contents, counts)
            keys.append(row)
            contents.append(content)
            counts.append(messages)
        given["first"] = found[-1].key
    return _decoded(keys, contents, counts)


def _decoded(
    keys: Sequence[bytes], contents: Sequence[str], counts: Sequence[int]
) -> Page:
    rows = map(decodeRow, contents)
    return tuple(zip(keys, rows, counts, strict=True))


def _stored(
    connection: Connection, domain: Domain | None, limit: int
) -> tuple[StoredEvaluation, ...]:
    given: dict[str, object] = {"limit": limit}
    query = TALLIES
    if domain is not None:
        query = TALLIES_OF_DOMAIN
        given["domain"] = domain.ascii
    stored: list[StoredEvaluation] = []
    for tally in connection.execute(query, given).all():
        if len(stored) >= limit:
            break
        prefix = keyPrefix(tally.policy_domain, tally.part)
        rows = connection.execute(
            ROWS_OF_TALLY,
            {
                "first": keyAfter(prefix),
                "last": endOfPrefix(prefix),
                "hour": tally.hour,
                "limit": limit - len(stored),
            },
        )
        published = decodePolicy(tally.published)
        stored.extend(_evaluation(published, tally.hours, row) for row in rows)
    return tuple(stored)


def _evaluation(
    published: PublishedPolicy, hours: int, row: Row[Any]
) -> StoredEvaluation:
    evaluation = Evaluation(
        published,
        decodeRow(row.content),
        hours,
        decodeTexts(row.addresses),
        row.optional,
        row.wanted,
    )
    return StoredEvaluation(row.hour, evaluation, row.messages)


def _open(connection: Connection, domain: Domain | None, limit: int) -> list[Row[Any]]:
    given: dict[str, object] = {"limit": limit}
    if domain is None:
        return list(connection.execute(OPEN, given))
    return list(connection.execute(OPEN_OF_DOMAIN, given | {"domain": domain.ascii}))


def _closePeriod(connection: Connection, domain: Domain | None, end: int) -> int:
    """
    Begin a new period for C{domain}, or for all domains, if the current one has
    evaluations.

    @return: The end of the current period; 0 if it has no evaluations.
    """
    if not _open(connection, domain, 1):
        return 0
    return close(connection, ReportKind.DMARC, domain, end)


def _closeParts(connection: Connection, domain: Domain | None, until: int) -> int:
    """
    Close up to L{MAX_CLOSED} parts at C{until}.  Evaluations recorded later are counted
    in other rows.

    @return: The number of parts.
    """
    found = [
        (row.policy_domain, row.part) for row in _open(connection, domain, MAX_CLOSED)
    ]
    for name, part in found:
        new = closedPart(part, until)
        tally = {"domain": name, "old": part, "new": new, "at": until}
        hours = connection.scalars(CLOSE_TALLIES, tally).all()
        prefix = keyPrefix(name, part)
        connection.execute(
            CLOSE_ROWS,
            {
                "first": keyAfter(prefix),
                "last": endOfPrefix(prefix),
                "hours": hours,
                "prefix": keyPrefix(name, new),
            },
        )
    return len(found)


def _remove(
    connection: Connection,
    statement: ReturningDelete[Any],
    given: Mapping[str, object],
) -> list[int]:
    """
    Remove tallies and their rows; returns the number of messages of each.
    """
    hours: dict[tuple[str, str], list[int]] = {}
    messages = []
    for domain, part, hour, count in connection.execute(statement, given).all():
        hours.setdefault((domain, part), []).append(hour)
        messages.append(count)
    for domain, part in sorted(hours):
        prefix = keyPrefix(domain, part)
        connection.execute(
            REMOVE_ROWS,
            {
                "first": keyAfter(prefix),
                "last": endOfPrefix(prefix),
                "hours": hours[domain, part],
            },
        )
    return messages


_t = dmarcTally.c
_r = dmarcRow.c

#: In the order of the names of columns below.
DISPOSITIONS = tuple(BITS)
#: Tallies removed in one transaction, so that others don't wait for long.
MAX_REMOVED = 200

_sendable = func.max(case((_t.sendable, 1), else_=0))
_before = bindparam("before", type_=_t.hour.type)
# See moxtls.ledger.bounds.intervalEnd.
_due = or_(_t.until > 0, _t.hour < _before - _before % (_t.hours * HOUR))
_ofPeriod = and_(
    _t.policy_domain == bindparam("domain"),
    _t.part == bindparam("part"),
    _t.hour < bindparam("end"),
)
_last = bindparam("domain", type_=Text()), bindparam("part", type_=Text())
_removed = _t.policy_domain, _t.part, _t.hour, _t.messages


def _hasSeen(disposition: Disposition) -> ColumnElement[int]:
    seen = _t.dispositions.bitwise_and(BITS[disposition]) != 0
    return case((seen, 1), else_=0)


#: One row for each policy domain; after the sums, whether each of L{DISPOSITIONS}
#: occurred.
SUMMARIES = (
    select(
        _t.policy_domain,
        func.sum(_t.messages),
        _sendable,
        *(func.max(_hasSeen(each)) for each in DISPOSITIONS),
    )
    .where(_t.policy_domain > bindparam("after"))
    .group_by(_t.policy_domain)
    .order_by(_t.policy_domain)
    .limit(bindparam("limit"))
)

COUNT = select(func.count()).select_from(
    select(_t.policy_domain, _t.part).where(_due, _t.sendable).distinct().subquery()
)
#: The first C{limit} periods due at C{before}.
_periods = (
    select(_t.policy_domain, _t.part, func.max(_t.hours), _sendable, func.max(_t.until))
    .group_by(_t.policy_domain, _t.part)
    .order_by(_t.policy_domain, _t.part)
    .limit(bindparam("limit"))
)
FIRST = _periods.where(_due)
_after = tuple_(_t.policy_domain, _t.part) > tuple_(*_last)
#: The same, after that of C{domain} and C{part}.
NEXT = FIRST.where(_after)
#: Both, whether due or not.
FIRST_OF_ALL = _periods
NEXT_OF_ALL = _periods.where(_after)

_openTallies = _t.until == 0
#: Parts that are not closed, in the order in which all nodes lock them.
OPEN = (
    select(_t.policy_domain, _t.part)
    .where(_openTallies)
    .distinct()
    .order_by(_t.policy_domain, _t.part)
    .limit(bindparam("limit"))
)
OPEN_OF_DOMAIN = OPEN.where(_t.policy_domain == bindparam("domain"))
#: Close the part C{old} of C{domain} at C{at} by renaming it C{new}: first its tallies,
#: then the rows of their hours.
CLOSE_TALLIES = (
    update(dmarcTally)
    .where(
        _t.policy_domain == bindparam("domain"),
        _t.part == bindparam("old"),
        _openTallies,
    )
    .values(part=bindparam("new"), until=bindparam("at"))
    .returning(_t.hour)
)

#: The sums of the tallies of a period; one row even without tallies.
OVERVIEW = select(
    func.max(_t.published),
    func.max(_t.hours),
    func.min(_t.hour),
    func.sum(_t.messages),
    func.sum(_t.wanted),
    func.sum(_t.omitted),
).where(_ofPeriod)

_between = and_(
    _r.key > bindparam("first"),
    _r.key < bindparam("last"),
)
#: The number of different rows of a report.
DIFFERENT = select(
    func.count(func.substr(_r.key, PREFIX_SIZE + 1, DIGEST_SIZE).distinct())
).where(_between, _r.hour < bindparam("end"))
#: The next rows of a report, before those of different hours and flags are added.
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

#: These lock the tallies that they remove, so that nothing is added before their rows
#: are removed, too: a tally and its rows exist together.
REMOVE_PERIOD = delete(dmarcTally).where(_ofPeriod).returning(*_removed)
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
# On SQLite, the result of || is text unless cast.
_moved = cast(
    bindparam("prefix", type_=LargeBinary()).op("||")(
        func.substr(_r.key, PREFIX_SIZE + 1, type_=LargeBinary())
    ),
    LargeBinary,
)
CLOSE_ROWS = (
    update(dmarcRow)
    .where(_between, _r.hour.in_(bindparam("hours", expanding=True)))
    .values(key=_moved)
)
#: The rows of the tallies of one policy in C{hours}.
REMOVE_ROWS = delete(dmarcRow).where(
    _between, _r.hour.in_(bindparam("hours", expanding=True))
)
