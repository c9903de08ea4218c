# -*- test-case-name: tests.store.test_ledger -*-
"""
How TLS went, counted in the database.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    Row,
    Text,
    and_,
    case,
    delete,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeStore
from moxtls.reporting.values import OutgoingReport, StoredResult, Subject
from moxtls.store.archive import ReportArchive
from moxtls.store.database import Database
from moxtls.store.rules import admitted, bounded
from moxtls.store.sums import Sum, addUp, failureDigest
from moxtls.store.tables import tlsFailure, tlsResult
from moxtls.store.writer import Reader, Writer
from moxtls.tlsrpt.results import (
    Failure,
    Policy,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
)

#: Keys per statement; SQLite takes 32 766 parameters, PostgreSQL 65 535.
KEYS_AT_ONCE = 1000
#: Digests of failures remembered, about 100 octets each.
MOST_KNOWN = 200_000

_r = tlsResult.c
_f = tlsFailure.c
_isOwn = _r.policy_domain == _r.recipient_domain
_RESULT = (_r.day, _r.policy_domain, _r.recipient_domain, _r.is_host)


class _KnownFailures:
    """
    Which failures are stored for which results, so far as this process knows:
    the limit to their number costs one query for a result, not one for each
    write.  Other nodes count for themselves.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, set[bytes]] = OrderedDict()
        self._size = 0

    def load(self, connection: Connection, keys: Sequence[bytes]) -> None:
        """
        Look up results that nothing is known of.
        """
        new = [key for key in keys if key not in self._known]
        self._known.update((key, set()) for key in new)
        for some in _chunks(new):
            query = select(_f.result_key, _f.digest).where(_f.result_key.in_(some))
            for key, digest in connection.execute(query):
                self._learn(key, digest)

    def admit(self, key: bytes, failure: Failure) -> tuple[Failure, bytes]:
        """
        What a failure is counted as, with its digest.
        """
        known = self._known[key]
        failure = admitted(
            bounded(failure), len(known), lambda each: failureDigest(each) in known
        )
        digest = failureDigest(failure)
        self._learn(key, digest)
        return failure, digest

    def _learn(self, key: bytes, digest: bytes) -> None:
        known = self._known[key]
        self._size += digest not in known
        known.add(digest)

    def forget(self, used: Sequence[bytes]) -> None:
        """
        Make room, by what wasn't used for longest.
        """
        for key in used:
            self._known.move_to_end(key)
        while self._size + len(self._known) > MOST_KNOWN:
            _, digests = self._known.popitem(last=False)
            self._size -= len(digests)


class _Counters:
    """
    Adds to rows.
    """

    def __init__(self, database: Database) -> None:
        insert = database.insert(tlsResult)
        self._addResults = insert.on_conflict_do_update(
            index_elements=[_r.key],
            set_={
                "send_report": or_(_r.send_report, insert.excluded.send_report),
                "succeeded": _r.succeeded + insert.excluded.succeeded,
                "failed": _r.failed + insert.excluded.failed,
            },
        )
        insert = database.insert(tlsFailure)
        self._addFailures = insert.on_conflict_do_update(
            index_elements=[_f.result_key, _f.digest],
            set_={"sessions": _f.sessions + insert.excluded.sessions},
        )
        self._known = _KnownFailures()

    def record(
        self, connection: Connection, items: Sequence[tuple[date, SessionOutcome]]
    ) -> Sequence[None]:
        """
        Count many outcomes in two statements.
        """
        sums = addUp(items)
        if sums:
            # The results first: who removes them locks them first, too.
            connection.execute(self._addResults, [_resultRow(each) for each in sums])
        failed = [each for each in sums if each.failures]
        if failed:
            rows = self._failureRows(connection, failed)
            connection.execute(self._addFailures, rows)
        return [None] * len(items)

    def _failureRows(
        self, connection: Connection, sums: Sequence[Sum]
    ) -> list[dict[str, object]]:
        keys = [each.key for each in sums]
        self._known.load(connection, keys)
        counts: Counter[tuple[bytes, bytes]] = Counter()
        failures: dict[bytes, Failure] = {}
        for each in sums:
            for failure, count in each.failures.items():
                kept, digest = self._known.admit(each.key, failure)
                counts[each.key, digest] += count
                failures[digest] = kept
        self._known.forget(keys)
        return [
            _failureRow(key, digest, failures[digest], counts[key, digest])
            for key, digest in sorted(counts)
        ]


def _resultRow(each: Sum) -> dict[str, object]:
    return {
        "key": each.key,
        "day": each.day,
        "policy_domain": each.policy.domain,
        "recipient_domain": each.recipientDomain,
        "is_host": each.isHost,
        "policy_type": each.policy.type,
        "policy_strings": each.policy.strings,
        "policy_mx_hosts": each.policy.mxHosts,
        "send_report": each.sendReport,
        "succeeded": each.succeeded,
        "failed": each.failed,
        "told_recipient": False,
        "told_host": False,
        "told_destinations": "[]",
    }


def _failureRow(
    key: bytes, digest: bytes, failure: Failure, sessions: int
) -> dict[str, object]:
    return {
        "result_key": key,
        "digest": digest,
        "result_type": failure.resultType.value,
        "reason_code": failure.reasonCode,
        "sending_ip": failure.sendingIP,
        "mx_hostname": failure.mxHostname,
        "mx_helo": failure.mxHELO,
        "receiving_ip": failure.receivingIP,
        "additional": failure.additional,
        "sessions": sessions,
    }


@implementer(IOutcomeStore)
class OutcomeStore:
    """
    Counts in two tables: sessions per policy, and per failure under it.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        reader: Reader,
        archive: ReportArchive,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._archive = archive
        self._counters = _Counters(database)

    def record(self, day: date, outcome: SessionOutcome) -> Deferred[None]:
        return self._writer.add(self._counters.record, (day, outcome))

    def results(
        self,
        day: date | None = None,
        policyDomain: Domain | None = None,
        recipientDomain: Domain | None = None,
    ) -> Deferred[tuple[StoredResult, ...]]:
        wanted = _matching(day, policyDomain, recipientDomain)
        return self._reader.ask(lambda connection: _results(connection, wanted))

    def remove(self, domain: Domain, day: date | None = None) -> Deferred[int]:
        wanted = _matching(day, domain, None)
        return self._writer.run(lambda connection: _remove(connection, wanted))

    def prune(self, before: date) -> Deferred[int]:
        return self._writer.run(lambda connection: _remove(connection, _r.day < before))

    def count(self, phase: int, before: date) -> Deferred[int]:
        domain, isOpen, sendable = _phase(phase)
        subjects = (
            select(_r.day, domain)
            .where(isOpen, sendable, _r.day < before)
            .distinct()
            .subquery()
        )
        query = select(func.count()).select_from(subjects)
        return self._reader.ask(
            lambda connection: connection.execute(query).scalar_one()
        )

    def subjects(
        self, phase: int, before: date, after: Subject | None, limit: int
    ) -> Deferred[tuple[Subject, ...]]:
        domain, isOpen, sendable = _phase(phase)
        query = (
            select(_r.day, domain, func.max(case((sendable, 1), else_=0)))
            .where(isOpen, _r.day < before)
            .group_by(_r.day, domain)
            .order_by(_r.day, domain)
            .limit(limit)
        )
        if after is not None:
            last = literal(after.day, Date), literal(after.domain.ascii, Text)
            query = query.where(tuple_(_r.day, domain) > tuple_(*last))

        def ask(connection: Connection) -> tuple[Subject, ...]:
            return tuple(
                Subject(phase, day, Domain(name), bool(sendable))
                for day, name, sendable in connection.execute(query)
            )

        return self._reader.ask(ask)

    def settle(
        self,
        subject: Subject,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        def settle(connection: Connection) -> int:
            _tell(connection, subject, destinations)
            return self._archive.file(connection, reports)

        return self._writer.run(settle)


def _phase(
    phase: int,
) -> tuple[ColumnElement[str], ColumnElement[bool], ColumnElement[bool]]:
    """
    What the subjects of a phase are, which rows are still owed to them, and
    which of these make them sendable.
    """
    if phase == 0:
        return (
            _r.recipient_domain,
            not_(_r.told_recipient),
            and_(_isOwn, _r.send_report),
        )
    return (
        _r.policy_domain,
        and_(not_(_r.told_host), not_(_isOwn)),
        and_(_r.send_report, true()),
    )


def _tell(
    connection: Connection, subject: Subject, destinations: Sequence[str]
) -> None:
    """
    Mark what a subject's report was made from, and remove what nobody needs
    any more.
    """
    domain, isOpen, _ = _phase(subject.phase)
    mine = and_(_r.day == subject.day, domain == subject.domain.ascii)
    told: dict[str, object] = {"told_host": True}
    if subject.phase == 0:
        to = json.dumps(sorted(set(destinations)))
        told = {"told_recipient": True, "told_destinations": to}
    # This locks the rows, so that nobody adds to them before they are gone.
    connection.execute(update(tlsResult).where(mine, isOpen).values(**told))
    done = and_(mine, _r.told_recipient, or_(_isOwn, _r.told_host))
    keys = select(_r.key).where(done)
    connection.execute(delete(tlsFailure).where(_f.result_key.in_(keys)))
    connection.execute(delete(tlsResult).where(done))


def _remove(connection: Connection, wanted: ColumnElement[bool]) -> int:
    """
    Remove rows, however many, in order of their keys as they are written;
    returns how many results they are.
    """
    number = connection.execute(
        select(func.count()).select_from(
            select(*_RESULT).where(wanted).distinct().subquery()
        )
    ).scalar_one()
    last = b""
    page = select(_r.key).where(wanted).order_by(_r.key).limit(KEYS_AT_ONCE)
    while keys := connection.scalars(page.where(_r.key > last).with_for_update()).all():
        connection.execute(delete(tlsFailure).where(_f.result_key.in_(keys)))
        connection.execute(delete(tlsResult).where(_r.key.in_(keys)))
        last = keys[-1]
    return number


def _matching(
    day: date | None, policyDomain: Domain | None, recipientDomain: Domain | None
) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [true()]
    if day is not None:
        conditions.append(_r.day == day)
    if policyDomain is not None:
        conditions.append(_r.policy_domain == policyDomain.ascii)
    if recipientDomain is not None:
        conditions.append(_r.recipient_domain == recipientDomain.ascii)
    return and_(*conditions)


def _results(
    connection: Connection, wanted: ColumnElement[bool]
) -> tuple[StoredResult, ...]:
    failures: dict[bytes, Counter[Failure]] = {}
    join = tlsFailure.join(tlsResult, _f.result_key == _r.key)
    for row in connection.execute(select(tlsFailure).select_from(join).where(wanted)):
        known = failures.setdefault(row.result_key, Counter())
        known[_failureOf(row)] = row.sessions
    rows = connection.execute(select(tlsResult).where(wanted).order_by(*_RESULT))
    return tuple(
        _storedResult(list(same), failures) for _, same in groupby(rows, _placeOf)
    )


def _placeOf(row: Row[Any]) -> tuple[date, str, str, bool]:
    return row.day, row.policy_domain, row.recipient_domain, row.is_host


def _storedResult(
    rows: Sequence[Row[Any]], failures: dict[bytes, Counter[Failure]]
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
    )


def _policyOf(row: Row[Any]) -> Policy:
    return Policy(
        PolicyType(row.policy_type),
        Domain(row.policy_domain),
        tuple(json.loads(row.policy_strings)),
        tuple(json.loads(row.policy_mx_hosts)),
    )


def _failureOf(row: Row[Any]) -> Failure:
    return Failure(
        ResultType(row.result_type),
        row.reason_code,
        row.sending_ip,
        row.mx_hostname,
        row.mx_helo,
        row.receiving_ip,
        row.additional,
    )


def _chunks(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[start : start + KEYS_AT_ONCE]
