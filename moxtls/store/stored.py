# -*- test-case-name: tests.store.test_ledger -*-
"""
Results as they are stored: found, put together, and removed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
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

from moxtls.domain import Domain
from moxtls.queue.values import ReportKind
from moxtls.reporting.values import StoredResult
from moxtls.store.closings import close
from moxtls.store.counters import KEYS_AT_ONCE
from moxtls.store.sums import DIGEST_SIZE
from moxtls.store.tables import tlsFailure, tlsResult
from moxtls.tlsrpt.results import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    TLSPolicy,
)

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
    The same a page at a time, each of one day: what an index has in order costs
    no more than is on the page.

    @param after: Where to go on behind.
    """
    first = after.day if after is not None else date.min
    for day in _days(connection, first):
        wanted = and_(_matching(given), _r.day == day)
        if after is not None and after.day == day:
            place = after.policyDomain.ascii, after.recipientDomain.ascii
            wanted = and_(wanted, tuple_(*_PAIR) > place)
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
        .limit(KEYS_AT_ONCE)
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
    page = _open(domain).where(_r.key > last).order_by(_r.key).limit(KEYS_AT_ONCE)
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
        toldRecipient=all(row.told_recipient for row in rows),
        toldHost=all(row.told_host for row in rows),
        toldDestinations=tuple(sorted(told)),
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
