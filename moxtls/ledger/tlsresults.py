# -*- test-case-name: tests.ledger.test_ledger -*-
"""
How TLS went, in the database.

Results as they are stored: found, put together, and removed.

Who is still to be told about results: the two phases of reporting, as
statements.  No I/O.

They are built once: SQLAlchemy takes longer to build one than the database to
carry it out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import groupby
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
    true,
    tuple_,
    update,
)
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.dates import midnight
from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeStore
from moxtls.ledger.closings import close, latestClosing, pruneClosings
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.reports import ReportArchive
from moxtls.ledger.sql import DIGEST_SIZE, MAX_KEYS
from moxtls.ledger.tables import tlsFailure, tlsResult
from moxtls.ledger.tlscounters import TLSCounters
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import OutgoingReport, ReportPeriod
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    StoredResult,
    TLSPolicy,
)


@implementer(IOutcomeStore)
class OutcomeStore:
    """
    Counts in two tables: sessions per policy, and per failure under it.
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
        self._counters = TLSCounters()

    def record(self, day: date, outcome: SessionOutcome) -> Deferred[None]:
        return self._writer.add(self._counters.record, (day, outcome))

    def results(
        self,
        day: date | None = None,
        policyDomain: Domain | None = None,
        recipientDomain: Domain | None = None,
        after: StoredResult | None = None,
        limit: int | None = None,
    ) -> Deferred[tuple[StoredResult, ...]]:
        given = _given(day, policyDomain, recipientDomain)
        if limit is None and after is None:
            return self._reader.run(lambda connection: storedResults(connection, given))
        return self._reader.run(
            lambda connection: pageOfResults(connection, given, after, limit)
        )

    def remove(self, domain: Domain, day: date | None = None) -> Deferred[int]:
        given = _given(day, domain, None)
        return self._writer.run(lambda connection: removeResults(connection, given))

    def prune(self, before: date) -> Deferred[int]:
        given = {"before": before}

        def prune(connection: Connection) -> int:
            pruneClosings(connection, ReportKind.TLS, midnight(before))
            return removeResults(connection, given)

        return self._writer.run(prune)

    def count(self, phase: int, before: date) -> Deferred[int]:
        query = PHASES[phase].count
        return self._reader.run(
            lambda connection: connection.execute(
                query, {"before": before}
            ).scalar_one()
        )

    def periods(
        self, phase: int, before: date, after: ReportPeriod | None, limit: int
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        def read(connection: Connection) -> tuple[ReportPeriod, ...]:
            if after is not None and not after.part:
                return _due(connection, phase, before, after, limit)
            closed = _closed(connection, phase, after, limit)
            rest = limit - len(closed)
            return closed + _due(connection, phase, before, None, rest)

        return self._reader.run(read)

    def close(self, domain: Domain | None, end: int) -> Deferred[int]:
        async def close() -> int:
            until = await self._writer.run(partial(closePeriod, domain=domain, end=end))
            count, last = 0, b""
            while until:
                page = partial(closeResults, domain=domain, until=until, last=last)
                keys = await self._writer.run(page)
                if not keys:
                    break
                count, last = count + len(keys), keys[-1]
            return count

        return Deferred.fromCoroutine(close())

    def lastClosing(self, domain: Domain, before: int) -> Deferred[int]:
        name = domain.ascii
        return self._reader.run(
            lambda connection: latestClosing(connection, ReportKind.TLS, name, before)
        )

    def settle(
        self,
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        told = json.dumps(sorted(set(destinations)))
        return self._writer.add(self._settle, _Settling(period, told, reports))

    def _settle(
        self, connection: Connection, several: Sequence[_Settling]
    ) -> Sequence[int]:
        for phase, some in groupby(several, _phaseOf):
            given = [each.given for each in some]
            for statement in PHASES[phase].tell:
                connection.execute(statement, given)
        return self._archive.file(connection, [each.reports for each in several])


@dataclass(frozen=True, slots=True)
class _Settling:
    """
    @ivar told: Destinations, in JSON.
    """

    period: ReportPeriod
    told: str
    reports: Sequence[OutgoingReport]

    @property
    def given(self) -> dict[str, object]:
        period = self.period
        return {
            "of_day": period.day,
            "of_domain": period.domain.ascii,
            "of_until": int(period.part or 0),
            "to": self.told,
        }


def _closed(
    connection: Connection, phase: int, after: ReportPeriod | None, limit: int
) -> tuple[ReportPeriod, ...]:
    """
    Periods of periods that were closed.
    """
    given: dict[str, object] = {"limit": limit}
    query = PHASES[phase].firstClosed
    if after is not None:
        query = PHASES[phase].nextClosed
        given |= {"until": int(after.part)} | _behind(after)
    return _periods(phase, connection.execute(query, given))


def _due(
    connection: Connection,
    phase: int,
    before: date,
    after: ReportPeriod | None,
    limit: int,
) -> tuple[ReportPeriod, ...]:
    """
    Periods of days that are over.
    """
    given: dict[str, object] = {"before": before, "limit": limit}
    query = PHASES[phase].first
    if after is not None:
        query = PHASES[phase].next
        given |= _behind(after)
    return _periods(phase, connection.execute(query, given))


def _behind(after: ReportPeriod) -> dict[str, object]:
    return {"day": after.day, "domain": after.domain.ascii}


def _periods(phase: int, rows: Iterable[Any]) -> tuple[ReportPeriod, ...]:
    return tuple(
        ReportPeriod(phase, day, Domain(name), bool(sendable), f"{until or ''}", until)
        for until, day, name, sendable in rows
    )


def _phaseOf(settling: _Settling) -> int:
    return settling.period.phase


def _given(
    day: date | None, policyDomain: Domain | None, recipientDomain: Domain | None
) -> dict[str, object]:
    given: dict[str, object] = {}
    if day is not None:
        given["day"] = day
    if policyDomain is not None:
        given["policy_domain"] = policyDomain.ascii
    if recipientDomain is not None:
        given["recipient_domain"] = recipientDomain.ascii
    return given


_r = tlsResult.c
_f = tlsFailure.c
_RESULT = (_r.day, _r.policy_domain, _r.recipient_domain, _r.is_host, _r.until)
_PAIR = (_r.policy_domain, _r.recipient_domain)
_CONDITIONS = {
    "day": _r.day == bindparam("day"),
    "policy_domain": _r.policy_domain == bindparam("policy_domain"),
    "recipient_domain": _r.recipient_domain == bindparam("recipient_domain"),
    "before": _r.day < bindparam("before", type_=_r.day.type),
}


def storedResults(
    connection: Connection, given: Mapping[str, object]
) -> tuple[StoredResult, ...]:
    """
    What is stored, in order.

    @param given: C{day}, C{policy_domain}, C{recipient_domain}, C{before}, as
        far as they are to count.
    """
    return _found(connection, _queries(tuple(given)), given)


def pageOfResults(
    connection: Connection,
    given: Mapping[str, object],
    after: StoredResult | None,
    limit: int | None,
) -> tuple[StoredResult, ...]:
    """
    One page of what is stored.  A page is of one day, so that it is read in the
    order of the index and costs no more than its own rows.

    @param after: The last result of the page before.
    @param limit: Maximum number of pairs of policy and recipient domain.
    """
    first = after.day if after is not None else date.min
    for day in _days(connection, first):
        wanted = and_(_matching(given), _r.day == day)
        if after is not None and after.day == day:
            last = after.policyDomain.ascii, after.recipientDomain.ascii
            wanted = and_(wanted, tuple_(*_PAIR) > last)
        pairs = select(*_PAIR).where(wanted).distinct().order_by(*_PAIR).limit(limit)
        found = connection.execute(pairs, given).all()
        if found:
            wanted = and_(wanted, tuple_(*_PAIR) <= tuple(found[-1]))
            return _found(connection, _selected(wanted), given)
    return ()


def _days(connection: Connection, first: date) -> Iterator[date]:
    """
    The days from C{first} on of which there are results.
    """
    query = select(func.min(_r.day))
    day = connection.scalar(query.where(_r.day >= first))
    while day is not None:
        yield day
        day = connection.scalar(query.where(_r.day > day))


def _found(
    connection: Connection,
    queries: tuple[Select[Any], Select[Any]],
    given: Mapping[str, object],
) -> tuple[StoredResult, ...]:
    ofResults, ofFailures = queries
    failures: dict[bytes, Counter[FailureDetail]] = {}
    for row in connection.execute(ofFailures, given):
        known = failures.setdefault(row.result_key, Counter())
        known[_failureOf(row)] = row.sessions
    rows = connection.execute(ofResults, given)
    return tuple(
        _storedResult(list(same), failures) for _, same in groupby(rows, _placeOf)
    )


@lru_cache  # There are a dozen sets of names.
def _queries(names: tuple[str, ...]) -> tuple[Select[Any], Select[Any]]:
    return _selected(_matching(names))


def _selected(wanted: ColumnElement[bool]) -> tuple[Select[Any], Select[Any]]:
    join = tlsFailure.join(tlsResult, _f.result_key == _r.key)
    return (
        select(tlsResult).where(wanted).order_by(*_RESULT),
        select(tlsFailure).select_from(join).where(wanted),
    )


def removeResults(connection: Connection, given: Mapping[str, object]) -> int:
    """
    Remove what matches, however much it is; returns how many results it is.
    """
    wanted = _matching(given)
    results = select(*_RESULT).where(wanted).distinct().subquery()
    count = select(func.count()).select_from(results)
    number = connection.execute(count, given).scalar_one()
    page = (
        select(_r.key)
        .where(wanted, _r.key > bindparam("last"))
        .order_by(_r.key)
        .limit(MAX_KEYS)
        # In the order in which they are written, and before their failures:
        # nobody adds to them meanwhile.
        .with_for_update()
    )
    last = b""
    while keys := connection.scalars(page, {**given, "last": last}).all():
        connection.execute(delete(tlsFailure).where(_f.result_key.in_(keys)))
        connection.execute(delete(tlsResult).where(_r.key.in_(keys)))
        last = keys[-1]
    return number


def closePeriod(connection: Connection, domain: Domain | None, end: int) -> int:
    """
    Begin a new period for C{domain}, or for all, if there are results of this
    one.

    @return: When this one ends; 0 if there is nothing in it.
    """
    if connection.execute(_open(domain).limit(1)).first() is None:
        return 0
    return close(connection, ReportKind.TLS, domain, end)


def closeResults(
    connection: Connection, domain: Domain | None, until: int, last: bytes
) -> Sequence[bytes]:
    """
    Have results end at C{until}: some, whose keys are behind C{last}.  What is
    counted from now on is counted apart from them.

    @return: The keys that they had, in order.
    """
    page = _open(domain).where(_r.key > last).order_by(_r.key).limit(MAX_KEYS)
    # In the order in which they are written, and before their failures: nobody
    # adds to them meanwhile.
    keys = connection.scalars(page.with_for_update()).all()
    given = [{"old": key, "new": _closedKey(key, until), "at": until} for key in keys]
    if given:
        connection.execute(_CLOSE_RESULT, given)
        connection.execute(_CLOSE_FAILURES, given)
    return keys


_CLOSE_RESULT = (
    update(tlsResult)
    .where(_r.key == bindparam("old"))
    .values(key=bindparam("new"), until=bindparam("at"))
)
_CLOSE_FAILURES = (
    update(tlsFailure)
    .where(_f.result_key == bindparam("old"))
    .values(result_key=bindparam("new"))
)


def _open(domain: Domain | None) -> Select[bytes]:
    """
    The keys of what isn't closed.
    """
    query = select(_r.key).where(_r.until == 0)
    if domain is None:
        return query
    name = domain.ascii
    return query.where(or_(_r.recipient_domain == name, _r.policy_domain == name))


def _closedKey(key: bytes, until: int) -> bytes:
    return blake2b(key + until.to_bytes(8), digest_size=DIGEST_SIZE).digest()


def _matching(names: Mapping[str, object] | Sequence[str]) -> ColumnElement[bool]:
    return and_(true(), *(_CONDITIONS[name] for name in names))


def _placeOf(row: Row[Any]) -> tuple[date, str, str, bool, int]:
    return (
        row.day,
        row.policy_domain,
        row.recipient_domain,
        row.is_host,
        row.until,
    )


def _storedResult(
    rows: Sequence[Row[Any]], failures: dict[bytes, Counter[FailureDetail]]
) -> StoredResult:
    tallies = [
        PolicyTally(
            _policyOf(row), row.succeeded, row.failed, failures.get(row.key, Counter())
        )
        for row in rows
    ]
    told = {to for row in rows for to in json.loads(row.told_destinations)}
    return StoredResult(
        rows[0].day,
        Domain(rows[0].policy_domain),
        Domain(rows[0].recipient_domain),
        rows[0].is_host,
        sendReport=any(row.send_report for row in rows),
        tallies=tuple(sorted(tallies, key=lambda tally: tally.policy)),
        reportedToRecipient=all(row.told_recipient for row in rows),
        reportedToHost=all(row.told_host for row in rows),
        reportedDestinations=tuple(sorted(told)),
        until=rows[0].until,
    )


def _policyOf(row: Row[Any]) -> TLSPolicy:
    return TLSPolicy(
        PolicyType(row.policy_type),
        Domain(row.policy_domain),
        tuple(json.loads(row.policy_strings)),
        tuple(json.loads(row.policy_mx_hosts)),
    )


def _failureOf(row: Row[Any]) -> FailureDetail:
    return FailureDetail(
        ResultType(row.result_type),
        row.reason_code,
        row.sending_ip,
        row.mx_hostname,
        row.mx_helo,
        row.receiving_ip,
        row.additional,
    )


_resultColumns = tlsResult.c
_isOwn = _resultColumns.policy_domain == _resultColumns.recipient_domain


@dataclass(frozen=True, slots=True)
class Phase:
    """
    @ivar count: Of sendable periods of days before C{before}.
    @ivar first: The first C{limit} periods of days before C{before}.
    @ivar next: The same, behind those of C{day} and C{domain}.
    @ivar firstClosed: The first C{limit} periods of periods that were closed.
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
    @param domain: What the periods are.
    @param isOpen: Which rows are still owed to them.
    @param sendable: Which of these make them sendable.
    @param told: What to set once they are told.
    """
    before = and_(
        _resultColumns.day < bindparam("before", type_=_resultColumns.day.type),
        _resultColumns.until == literal_column("0"),
    )
    counted = (
        select(_resultColumns.day, domain).where(isOpen, sendable, before).distinct()
    )
    isSendable = func.max(case((sendable, 1), else_=0))
    first = (
        select(literal_column("0"), _resultColumns.day, domain, isSendable)
        .where(isOpen, before)
        .group_by(_resultColumns.day, domain)
        .order_by(_resultColumns.day, domain)
        .limit(bindparam("limit"))
    )
    last = (
        bindparam("day", type_=_resultColumns.day.type),
        bindparam("domain", type_=Text()),
    )
    # A literal, as in the condition of the index.
    closed = _resultColumns.until > literal_column("0")
    place = _resultColumns.until, _resultColumns.day, domain
    # Of what was closed for one of several who are told of it, the others get all.
    mayCause = func.max(case((_resultColumns.send_report, 1), else_=0))
    firstClosed = (
        select(*place, mayCause)
        .where(isOpen, closed)
        .group_by(*place)
        .order_by(*place)
        .limit(bindparam("limit"))
    )
    mine = and_(
        _resultColumns.day == bindparam("of_day"),
        domain == bindparam("of_domain"),
        _resultColumns.until == bindparam("of_until"),
    )
    done = and_(
        mine, _resultColumns.told_recipient, or_(_isOwn, _resultColumns.told_host)
    )
    keys = select(_resultColumns.key).where(done)
    return Phase(
        count=select(func.count()).select_from(counted.subquery()),
        first=first,
        next=first.where(tuple_(_resultColumns.day, domain) > tuple_(*last)),
        firstClosed=firstClosed,
        nextClosed=firstClosed.where(
            tuple_(*place)
            > tuple_(bindparam("until", type_=_resultColumns.until.type), *last)
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
        _resultColumns.recipient_domain,
        not_(_resultColumns.told_recipient),
        and_(_isOwn, _resultColumns.send_report),
        {"told_recipient": True, "told_destinations": bindparam("to")},
    ),
    _phase(
        _resultColumns.policy_domain,
        and_(not_(_resultColumns.told_host), not_(_isOwn)),
        and_(_resultColumns.send_report),
        {"told_host": True, "told_destinations": bindparam("to")},
    ),
)
