# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The store of TLS results: recording, listing, closing, settling and removing them.
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
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
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
from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.reports import (
    PHASES,
    ReportArchive,
    close,
    latestClosings,
    pruneClosings,
)
from moxtls.ledger.tables import DIGEST_SIZE, MAX_KEYS, tlsFailure, tlsResult
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
    Stores numbers of sessions in two tables: per policy, and per failure under it.
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
        given = _conditions(day, policyDomain, recipientDomain)
        if limit is None and after is None:
            return self._reader.run(lambda connection: storedResults(connection, given))
        return self._reader.run(
            lambda connection: pageOfResults(connection, given, after, limit)
        )

    def remove(self, domain: Domain, day: date | None = None) -> Deferred[int]:
        given = _conditions(day, domain, None)
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
        return self._reader.add(_latestClosings, (domain.ascii, before))

    def settle(
        self,
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        names = json.dumps(sorted(set(destinations)))
        return self._writer.add(self._settle, _Settling(period, names, reports))

    def _settle(
        self, connection: Connection, several: Sequence[_Settling]
    ) -> Sequence[int]:
        for phase, group in groupby(several, _phaseOf):
            given = [each.given for each in group]
            for statement in PHASES[phase].settle:
                connection.execute(statement, given)
        return self._archive.file(connection, [each.reports for each in several])


@dataclass(frozen=True, slots=True)
class _Settling:
    """
    Reports filed for a period.

    @ivar destinations: The destinations, as a JSON list.
    """

    period: ReportPeriod
    destinations: str
    reports: Sequence[OutgoingReport]

    @property
    def given(self) -> dict[str, object]:
        period = self.period
        return {
            "of_day": period.day,
            "of_domain": period.domain.ascii,
            "of_until": int(period.part or 0),
            "to": self.destinations,
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
        given |= {"until": int(after.part)} | _after(after)
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
        given |= _after(after)
    return _periods(phase, connection.execute(query, given))


def _after(after: ReportPeriod) -> dict[str, object]:
    return {"day": after.day, "domain": after.domain.ascii}


def _periods(phase: int, rows: Iterable[Any]) -> tuple[ReportPeriod, ...]:
    return tuple(
        ReportPeriod(phase, day, Domain(name), bool(sendable), f"{until or ''}", until)
        for until, day, name, sendable in rows
    )


def _phaseOf(settling: _Settling) -> int:
    return settling.period.phase


def _conditions(
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
    All stored results that match, in order.

    @param given: The conditions: any of C{day}, C{policy_domain}, C{recipient_domain}
        and C{before}.
    """
    return _found(connection, _queries(tuple(given)), given)


def pageOfResults(
    connection: Connection,
    given: Mapping[str, object],
    after: StoredResult | None,
    limit: int | None,
) -> tuple[StoredResult, ...]:
    """
    One page of the stored results that match.  A page is of one day, so that it is read
    in the order of the index and costs no more than its own rows.

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
    The days with results, from C{first} on.
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
        _storedResult(list(same), failures) for _, same in groupby(rows, _resultKey)
    )


@lru_cache  # There are a dozen sets of conditions.
def _queries(names: tuple[str, ...]) -> tuple[Select[Any], Select[Any]]:
    return _selected(_matching(names))


def _selected(wanted: ColumnElement[bool]) -> tuple[Select[Any], Select[Any]]:
    join = tlsFailure.join(tlsResult, _f.result_key == _r.key)
    return (
        select(tlsResult).where(wanted).order_by(*_RESULT),
        select(tlsFailure).select_from(join).where(wanted),
    )


# One function for all, as operations with the same one are performed together.
_latestClosings = partial(latestClosings, kind=ReportKind.TLS)


def removeResults(connection: Connection, given: Mapping[str, object]) -> int:
    """
    Remove all results that match; returns their number.
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
        # Locked in the order of writers, and before their failures, so that nothing
        # is added to them meanwhile.
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
    Begin a new period for C{domain}, or for all domains, if the current one has
    results.

    @return: The end of the current period; 0 if it has no results.
    """
    if connection.execute(_open(domain).limit(1)).first() is None:
        return 0
    return close(connection, ReportKind.TLS, domain, end)


def closeResults(
    connection: Connection, domain: Domain | None, until: int, last: bytes
) -> Sequence[bytes]:
    """
    Close one page of results at C{until}: those with keys after C{last}.  Sessions
    recorded later are counted in other rows.

    @return: The previous keys of the page, in order.
    """
    page = _open(domain).where(_r.key > last).order_by(_r.key).limit(MAX_KEYS)
    # Locked in the order of writers, and before their failures, so that nothing is
    # added to them meanwhile.
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
    The keys of results that are not closed.
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


def _resultKey(row: Row[Any]) -> tuple[date, str, str, bool, int]:
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
    reported = {to for row in rows for to in json.loads(row.told_destinations)}
    return StoredResult(
        rows[0].day,
        Domain(rows[0].policy_domain),
        Domain(rows[0].recipient_domain),
        rows[0].is_host,
        sendReport=any(row.send_report for row in rows),
        tallies=tuple(sorted(tallies, key=lambda tally: tally.policy)),
        reportedToRecipient=all(row.told_recipient for row in rows),
        reportedToHost=all(row.told_host for row in rows),
        reportedDestinations=tuple(sorted(reported)),
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
