# -*- test-case-name: tests.store.test_ledger -*-
"""
How TLS went, in the database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.calendar import midnight
from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeStore
from moxtls.queue.values import ReportKind
from moxtls.reporting.values import OutgoingReport, ReportPeriod, StoredResult
from moxtls.store.archive import ReportArchive
from moxtls.store.closings import latestClosing, pruneClosings
from moxtls.store.counters import TLSCounters
from moxtls.store.database import Database
from moxtls.store.phases import PHASES
from moxtls.store.stored import (
    closePeriod,
    closeResults,
    pageOfResults,
    removeResults,
    storedResults,
)
from moxtls.store.writer import GroupCommitWriter, GroupReader
from moxtls.tlsrpt.results import SessionOutcome


@implementer(IOutcomeStore)
class OutcomeStore:
    """
    Counts in two tables: sessions per policy, and per failure under it.
    """

    def __init__(
        self,
        database: Database,
        writer: GroupCommitWriter,
        reader: GroupReader,
        archive: ReportArchive,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._archive = archive
        self._counters = TLSCounters(database)

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
            return self._reader.ask(lambda connection: storedResults(connection, given))
        return self._reader.ask(
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
        return self._reader.ask(
            lambda connection: connection.execute(
                query, {"before": before}
            ).scalar_one()
        )

    def subjects(
        self, phase: int, before: date, after: ReportPeriod | None, limit: int
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        def ask(connection: Connection) -> tuple[ReportPeriod, ...]:
            if after is not None and not after.part:
                return _due(connection, phase, before, after, limit)
            closed = _closed(connection, phase, after, limit)
            rest = limit - len(closed)
            return closed + _due(connection, phase, before, None, rest)

        return self._reader.ask(ask)

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
        return self._reader.ask(
            lambda connection: latestClosing(connection, ReportKind.TLS, name, before)
        )

    def settle(
        self,
        subject: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        told = json.dumps(sorted(set(destinations)))
        return self._writer.add(self._settle, _Settling(subject, told, reports))

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

    subject: ReportPeriod
    told: str
    reports: Sequence[OutgoingReport]

    @property
    def given(self) -> dict[str, object]:
        subject = self.subject
        return {
            "of_day": subject.day,
            "of_domain": subject.domain.ascii,
            "of_until": int(subject.part or 0),
            "to": self.told,
        }


def _closed(
    connection: Connection, phase: int, after: ReportPeriod | None, limit: int
) -> tuple[ReportPeriod, ...]:
    """
    Subjects of periods that were closed.
    """
    given: dict[str, object] = {"limit": limit}
    query = PHASES[phase].firstClosed
    if after is not None:
        query = PHASES[phase].nextClosed
        given |= {"until": int(after.part)} | _behind(after)
    return _subjects(phase, connection.execute(query, given))


def _due(
    connection: Connection,
    phase: int,
    before: date,
    after: ReportPeriod | None,
    limit: int,
) -> tuple[ReportPeriod, ...]:
    """
    Subjects of days that are over.
    """
    given: dict[str, object] = {"before": before, "limit": limit}
    query = PHASES[phase].first
    if after is not None:
        query = PHASES[phase].next
        given |= _behind(after)
    return _subjects(phase, connection.execute(query, given))


def _behind(after: ReportPeriod) -> dict[str, object]:
    return {"day": after.day, "domain": after.domain.ascii}


def _subjects(phase: int, rows: Iterable[Any]) -> tuple[ReportPeriod, ...]:
    return tuple(
        ReportPeriod(phase, day, Domain(name), bool(sendable), f"{until or ''}", until)
        for until, day, name, sendable in rows
    )


def _phaseOf(settling: _Settling) -> int:
    return settling.subject.phase


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
