# -*- test-case-name: tests.store.test_ledger -*-
"""
How TLS went, in the database.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeStore
from moxtls.reporting.values import OutgoingReport, StoredResult, Subject
from moxtls.store.archive import ReportArchive
from moxtls.store.counters import Counters
from moxtls.store.database import Database
from moxtls.store.phases import PHASES
from moxtls.store.stored import removeResults, storedResults
from moxtls.store.writer import Reader, Writer
from moxtls.tlsrpt.results import SessionOutcome


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
        self._counters = Counters(database)

    def record(self, day: date, outcome: SessionOutcome) -> Deferred[None]:
        return self._writer.add(self._counters.record, (day, outcome))

    def results(
        self,
        day: date | None = None,
        policyDomain: Domain | None = None,
        recipientDomain: Domain | None = None,
    ) -> Deferred[tuple[StoredResult, ...]]:
        given = _given(day, policyDomain, recipientDomain)
        return self._reader.ask(lambda connection: storedResults(connection, given))

    def remove(self, domain: Domain, day: date | None = None) -> Deferred[int]:
        given = _given(day, domain, None)
        return self._writer.run(lambda connection: removeResults(connection, given))

    def prune(self, before: date) -> Deferred[int]:
        given = {"before": before}
        return self._writer.run(lambda connection: removeResults(connection, given))

    def count(self, phase: int, before: date) -> Deferred[int]:
        query = PHASES[phase].count
        return self._reader.ask(
            lambda connection: connection.execute(
                query, {"before": before}
            ).scalar_one()
        )

    def subjects(
        self, phase: int, before: date, after: Subject | None, limit: int
    ) -> Deferred[tuple[Subject, ...]]:
        given: dict[str, object] = {"before": before, "limit": limit}
        query = PHASES[phase].first
        if after is not None:
            query = PHASES[phase].next
            given |= {"day": after.day, "domain": after.domain.ascii}

        def ask(connection: Connection) -> tuple[Subject, ...]:
            return tuple(
                Subject(phase, day, Domain(name), bool(sendable))
                for day, name, sendable in connection.execute(query, given)
            )

        return self._reader.ask(ask)

    def settle(
        self,
        subject: Subject,
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

    subject: Subject
    told: str
    reports: Sequence[OutgoingReport]

    @property
    def given(self) -> dict[str, object]:
        day, domain = self.subject.day, self.subject.domain.ascii
        return {"of_day": day, "of_domain": domain, "to": self.told}


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
