# -*- test-case-name: tests.store.test_memory -*-
"""
The stores of L{moxtls.interfaces} in memory: for tests, for embedding, and
for who needs nothing to survive a restart.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from operator import attrgetter

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from moxtls.calendar import midnight
from moxtls.domain import Domain
from moxtls.interfaces import (
    ILeases,
    IOutcomeStore,
    IPolicyStore,
    ISuppressions,
)
from moxtls.policy.mtasts import CachedPolicy
from moxtls.queue.values import ReportKind
from moxtls.reporting.values import (
    OutgoingReport,
    ReportPeriod,
    StoredResult,
    Suppression,
)
from moxtls.store.memoryarchive import MemoryReportArchive, SenderTaken
from moxtls.store.memoryclosings import MemoryClosings
from moxtls.store.memoryevaluations import MemoryEvaluationStore
from moxtls.store.memoryhistory import MemorySenderHistory
from moxtls.store.rules import admitted, bounded, boundedPolicy, clean, pageOf
from moxtls.tlsrpt.results import FailureDetail, PolicyTally, SessionOutcome, TLSPolicy

__all__ = [
    "MemoryEvaluationStore",
    "MemoryLeases",
    "MemoryLedger",
    "MemoryOutcomeStore",
    "MemoryPolicyStore",
    "MemoryReportArchive",
    "MemorySenderHistory",
    "MemorySuppressions",
    "SenderTaken",
]


@implementer(IPolicyStore)
class MemoryPolicyStore:
    """
    MTA-STS policies in a dictionary.
    """

    def __init__(self) -> None:
        self._entries: dict[Domain, CachedPolicy] = {}

    def load(self, domain: Domain) -> Deferred[CachedPolicy | None]:
        return succeed(self._entries.get(domain))

    def save(self, entry: CachedPolicy) -> Deferred[None]:
        self._entries[entry.domain] = entry
        return succeed(None)

    def used(self, domain: Domain, now: float) -> Deferred[None]:
        entry = self._entries.get(domain)
        if entry is not None:
            self._entries[domain] = replace(entry, lastUse=now)
        return succeed(None)

    def drop(self, domain: Domain) -> Deferred[bool]:
        return succeed(self._entries.pop(domain, None) is not None)

    def entries(
        self, after: CachedPolicy | None = None, limit: int | None = None
    ) -> Deferred[tuple[CachedPolicy, ...]]:
        return succeed(
            pageOf(
                self._entries.values(),
                lambda entry: (-entry.lastUse, entry.domain),
                after,
                limit,
            )
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """
    What is counted together.
    """

    day: date
    policyDomain: Domain
    recipientDomain: Domain
    isHost: bool
    policy: TLSPolicy
    until: int = 0

    @property
    def isOwn(self) -> bool:
        return self.policyDomain == self.recipientDomain

    @property
    def result(self) -> tuple[date, Domain, Domain, bool, int]:
        """
        The L{StoredResult} that it is part of.
        """
        place = self.day, self.policyDomain, self.recipientDomain, self.isHost
        return *place, self.until


@dataclass(slots=True)
class _Row:
    sendReport: bool = False
    succeeded: int = 0
    failed: int = 0
    failures: Counter[FailureDetail] = field(default_factory=Counter)
    toldRecipient: bool = False
    toldHost: bool = False
    toldDestinations: tuple[str, ...] = ()

    def add(self, tally: PolicyTally, sendReport: bool) -> None:
        self.sendReport |= sendReport
        self.succeeded += max(0, tally.succeeded)
        self.failed += max(0, tally.failed)
        for failure, count in tally.failures.items():
            kept = admitted(
                bounded(failure), len(self.failures), self.failures.__contains__
            )
            self.failures[kept] += max(0, count)

    def tally(self, policy: TLSPolicy) -> PolicyTally:
        return PolicyTally(policy, self.succeeded, self.failed, Counter(self.failures))


#: When it was closed, or 0; day; domain.
_SubjectKey = tuple[int, date, Domain]


@implementer(IOutcomeStore)
class MemoryOutcomeStore:
    """
    Counts in dictionaries.
    """

    def __init__(self, archive: MemoryReportArchive) -> None:
        """
        @param archive: Where reports are filed.
        """
        self._archive = archive
        self._rows: dict[_Place, _Row] = {}
        # By phase: the subjects, and what they are made of.
        self._subjects: tuple[dict[_SubjectKey, set[_Place]], ...] = ({}, {})
        self._closings = MemoryClosings()

    def record(self, day: date, outcome: SessionOutcome) -> Deferred[None]:
        if outcome.recipient is not None:
            self._add(day, outcome, outcome.recipient, False)
        for tally in outcome.hosts:
            self._add(day, outcome, tally, True)
        return succeed(None)

    def _add(
        self, day: date, outcome: SessionOutcome, tally: PolicyTally, isHost: bool
    ) -> None:
        policy = boundedPolicy(tally.policy)
        place = _Place(day, policy.domain, outcome.recipientDomain, isHost, policy)
        if place not in self._rows:
            self._put(place, _Row())
        self._rows[place].add(tally, outcome.sendReport)

    def _put(self, place: _Place, row: _Row) -> None:
        self._rows[place] = row
        for phase, domains in enumerate(self._subjects):
            domains.setdefault(_subjectOf(phase, place), set()).add(place)

    def results(
        self,
        day: date | None = None,
        policyDomain: Domain | None = None,
        recipientDomain: Domain | None = None,
        after: StoredResult | None = None,
        limit: int | None = None,
    ) -> Deferred[tuple[StoredResult, ...]]:
        grouped: dict[tuple[date, Domain, Domain, bool, int], list[_Place]] = {}
        for place in self._rows:
            if (
                day in (None, place.day)
                and policyDomain in (None, place.policyDomain)
                and recipientDomain in (None, place.recipientDomain)
            ):
                grouped.setdefault(place.result, []).append(place)
        results = (self._result(places) for places in grouped.values())
        return succeed(pageOf(results, attrgetter("place"), after, limit))

    def _result(self, places: list[_Place]) -> StoredResult:
        places.sort(key=lambda place: place.policy)
        rows = [self._rows[place] for place in places]
        first = places[0]
        return StoredResult(
            first.day,
            first.policyDomain,
            first.recipientDomain,
            first.isHost,
            sendReport=any(row.sendReport for row in rows),
            tallies=tuple(self._rows[place].tally(place.policy) for place in places),
            toldRecipient=all(row.toldRecipient for row in rows),
            toldHost=all(row.toldHost for row in rows),
            toldDestinations=tuple(
                sorted({to for row in rows for to in row.toldDestinations})
            ),
            until=first.until,
        )

    def remove(self, domain: Domain, day: date | None = None) -> Deferred[int]:
        return succeed(
            self._forget(
                place
                for place in self._rows
                if place.policyDomain == domain and day in (None, place.day)
            )
        )

    def _forget(self, places: Iterable[_Place]) -> int:
        places = list(places)
        for place in places:
            del self._rows[place]
            for phase, domains in enumerate(self._subjects):
                subject = _subjectOf(phase, place)
                domains[subject].discard(place)
                if not domains[subject]:
                    del domains[subject]
        return len({place.result for place in places})

    def count(self, phase: int, before: date) -> Deferred[int]:
        subjects = self._open(phase, before, None)
        return succeed(sum(subject.sendable for subject in subjects))

    def subjects(
        self, phase: int, before: date, after: ReportPeriod | None, limit: int
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        return succeed(tuple(self._open(phase, before, after)[:limit]))

    def _open(
        self, phase: int, before: date, after: ReportPeriod | None
    ) -> list[ReportPeriod]:
        keys = [key for key in self._subjects[phase] if key[0] or key[1] < before]
        if after is not None:
            last = _inOrder(_keyOf(after))
            keys = [key for key in keys if _inOrder(key) > last]
        found = []
        for key in sorted(keys, key=_inOrder):
            rows = self._untold(phase, key)
            if rows:
                sendable = any(
                    row.sendReport
                    for place, row in rows
                    if phase == 1 or place.isOwn or place.until
                )
                until, day, domain = key
                part = f"{until or ''}"
                found.append(ReportPeriod(phase, day, domain, sendable, part, until))
        return found

    def _untold(self, phase: int, key: _SubjectKey) -> list[tuple[_Place, _Row]]:
        places = self._subjects[phase].get(key, ())
        return [
            (place, row)
            for place in places
            if not _told(phase, row := self._rows[place])
            and not (phase == 1 and place.isOwn)
        ]

    def settle(
        self,
        subject: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        try:
            new = self._archive.file(reports)
        except SenderTaken as error:
            return fail(error)
        rows = self._untold(subject.phase, _keyOf(subject))
        for _, row in rows:
            row.toldDestinations = tuple(sorted(set(destinations)))
            if subject.phase == 0:
                row.toldRecipient = True
            else:
                row.toldHost = True
        self._forget(
            [
                place
                for place, row in rows
                if row.toldRecipient and (place.isOwn or row.toldHost)
            ]
        )
        return succeed(new)

    def close(self, domain: Domain | None, end: int) -> Deferred[int]:
        places = [
            place
            for place in self._rows
            if not place.until
            and domain in (None, place.policyDomain, place.recipientDomain)
        ]
        until = self._closings.close(domain, end) if places else 0
        for place in places:
            row = self._rows[place]
            self._forget([place])
            self._put(replace(place, until=until), row)
        return succeed(len(places))

    def lastClosing(self, domain: Domain, before: int) -> Deferred[int]:
        return succeed(self._closings.latest(domain, before))

    def prune(self, before: date) -> Deferred[int]:
        self._closings.prune(midnight(before))
        return succeed(self._forget(p for p in self._rows if p.day < before))


def _subjectOf(phase: int, place: _Place) -> _SubjectKey:
    domain = place.policyDomain if phase else place.recipientDomain
    return place.until, place.day, domain


def _keyOf(subject: ReportPeriod) -> _SubjectKey:
    return int(subject.part or 0), subject.day, subject.domain


def _inOrder(key: _SubjectKey) -> tuple[bool, _SubjectKey]:
    """
    Closed ones first.
    """
    return key[0] == 0, key


def _told(phase: int, row: _Row) -> bool:
    return row.toldHost if phase else row.toldRecipient


@implementer(ISuppressions)
class MemorySuppressions:
    """
    Suppressions in a dictionary.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, ReportKind | None], Suppression] = {}

    def active(
        self, destination: str, kind: ReportKind, now: float
    ) -> Deferred[Suppression | None]:
        found = (self._entries.get((destination, each)) for each in (kind, None))
        live = [entry for entry in found if entry is not None and entry.until > now]
        return succeed(max(live, key=lambda entry: entry.until, default=None))

    def put(self, suppression: Suppression) -> Deferred[None]:
        key = suppression.destination, suppression.kind
        self._entries[key] = replace(suppression, comment=clean(suppression.comment))
        return succeed(None)

    def remove(self, destination: str, kind: ReportKind | None) -> Deferred[bool]:
        return succeed(self._entries.pop((destination, kind), None) is not None)

    def entries(
        self, after: Suppression | None = None, limit: int | None = None
    ) -> Deferred[tuple[Suppression, ...]]:
        return succeed(
            pageOf(
                self._entries.values(),
                lambda entry: (-entry.created, entry.destination, entry.kind or ""),
                after,
                limit,
            )
        )

    def get(
        self, destination: str, kind: ReportKind | None
    ) -> Deferred[Suppression | None]:
        return succeed(self._entries.get((destination, kind)))


@implementer(ILeases)
class MemoryLeases:
    """
    Leases in a dictionary.
    """

    def __init__(self) -> None:
        self._leases: dict[str, tuple[str, float]] = {}

    def acquire(
        self, name: str, holder: str, until: float, now: float
    ) -> Deferred[bool]:
        owner, end = self._leases.get(name, (holder, now))
        if owner != holder and end > now:
            return succeed(False)
        self._leases[name] = (holder, until)
        return succeed(True)

    def release(self, name: str, holder: str) -> Deferred[None]:
        if name in self._leases and self._leases[name][0] == holder:
            del self._leases[name]
        return succeed(None)


class MemoryLedger:
    """
    All stores, in the shape of L{moxtls.store.ledger.Ledger}.
    """

    def __init__(self) -> None:
        self.identifier = secrets.token_hex(16)
        self.archive = MemoryReportArchive()
        self.outcomes = MemoryOutcomeStore(self.archive)
        self.evaluations = MemoryEvaluationStore(self.archive)
        self.history = MemorySenderHistory()
        self.policies = MemoryPolicyStore()
        self.suppressions = MemorySuppressions()
        self.leases = MemoryLeases()

    def stop(self) -> Deferred[None]:
        """
        Nothing has to be waited for.
        """
        return succeed(None)
