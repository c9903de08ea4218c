# -*- test-case-name: tests.ledger.test_memory -*-
"""
The stores of L{moxtls.interfaces} in memory: for tests, for embedding, and
for who needs nothing to survive a restart.

Reports of ours, in memory.

What DMARC made of mail, in memory.

Who somebody has good reason to hear from, in memory.

When reporting periods were closed before their time, in memory.
"""

from __future__ import annotations

import heapq
import secrets
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import islice
from operator import attrgetter

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from moxtls.dates import DAY, HOUR, midnight, utcDay
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
from moxtls.interfaces import (
    IEvaluationStore,
    ILeases,
    IOutcomeStore,
    IPolicyStore,
    IReportArchive,
    ISenderHistory,
    ISuppressions,
)
from moxtls.ledger.bounds import (
    SIGN_RECEIVED,
    SIGN_SENT,
    admitted,
    bounded,
    boundedAccount,
    boundedEvaluation,
    boundedPolicy,
    clean,
    dueBefore,
    follows,
    hasRoomForPart,
    hasRoomForRow,
    pageOf,
)
from moxtls.ledger.evaluationcounters import (
    closedPart,
    encodeRow,
    partOfEvaluation,
    rowKey,
)
from moxtls.mtasts.policy import CachedPolicy
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import (
    OutgoingReport,
    ReportKey,
    ReportPeriod,
    ReportState,
    StoredResult,
    Suppression,
)
from moxtls.tlsrpt.types import FailureDetail, PolicyTally, SessionOutcome, TLSPolicy


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
    reportedToRecipient: bool = False
    reportedToHost: bool = False
    reportedDestinations: tuple[str, ...] = ()

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
_PeriodKey = tuple[int, date, Domain]


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
        # By phase: the periods, and what they are made of.
        self._periods: tuple[dict[_PeriodKey, set[_Place]], ...] = ({}, {})
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
        for phase, domains in enumerate(self._periods):
            domains.setdefault(_periodOf(phase, place), set()).add(place)

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
            reportedToRecipient=all(row.reportedToRecipient for row in rows),
            reportedToHost=all(row.reportedToHost for row in rows),
            reportedDestinations=tuple(
                sorted({to for row in rows for to in row.reportedDestinations})
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
            for phase, domains in enumerate(self._periods):
                period = _periodOf(phase, place)
                domains[period].discard(place)
                if not domains[period]:
                    del domains[period]
        return len({place.result for place in places})

    def count(self, phase: int, before: date) -> Deferred[int]:
        periods = self._open(phase, before, None)
        return succeed(sum(period.sendable for period in periods))

    def periods(
        self, phase: int, before: date, after: ReportPeriod | None, limit: int
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        return succeed(tuple(self._open(phase, before, after)[:limit]))

    def _open(
        self, phase: int, before: date, after: ReportPeriod | None
    ) -> list[ReportPeriod]:
        keys = [key for key in self._periods[phase] if key[0] or key[1] < before]
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

    def _untold(self, phase: int, key: _PeriodKey) -> list[tuple[_Place, _Row]]:
        places = self._periods[phase].get(key, ())
        return [
            (place, row)
            for place in places
            if not _told(phase, row := self._rows[place])
            and not (phase == 1 and place.isOwn)
        ]

    def settle(
        self,
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        try:
            new = self._archive.file(reports)
        except SenderTaken as error:
            return fail(error)
        rows = self._untold(period.phase, _keyOf(period))
        for _, row in rows:
            row.reportedDestinations = tuple(sorted(set(destinations)))
            if period.phase == 0:
                row.reportedToRecipient = True
            else:
                row.reportedToHost = True
        self._forget(
            [
                place
                for place, row in rows
                if row.reportedToRecipient and (place.isOwn or row.reportedToHost)
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


def _periodOf(phase: int, place: _Place) -> _PeriodKey:
    domain = place.policyDomain if phase else place.recipientDomain
    return place.until, place.day, domain


def _keyOf(period: ReportPeriod) -> _PeriodKey:
    return int(period.part or 0), period.day, period.domain


def _inOrder(key: _PeriodKey) -> tuple[bool, _PeriodKey]:
    """
    Closed ones first.
    """
    return key[0] == 0, key


def _told(phase: int, row: _Row) -> bool:
    return row.reportedToHost if phase else row.reportedToRecipient


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
    All stores, in the shape of L{moxtls.ledger.ledger.Ledger}.
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


class SenderTaken(Exception):
    """
    Two reports can't have one envelope sender: it tells where a DSN belongs.
    """


@implementer(IReportArchive)
class MemoryReportArchive:
    """
    Reports in a dictionary.
    """

    def __init__(self) -> None:
        self._reports: dict[str, OutgoingReport] = {}
        self._senders: dict[str, str] = {}
        # Keys; of reports that nobody has taken yet, and by who has.
        self._composed = {kind: deque[str]() for kind in ReportKind}
        self._handing: dict[tuple[ReportKind, str], dict[str, None]] = {}

    def file(self, reports: Sequence[OutgoingReport]) -> int:
        """
        Add reports, all or none of them, passing over those known.

        @return: How many are new.

        @raise SenderTaken: Another report has the sender of one.
        """
        new: dict[str, OutgoingReport] = {}
        senders: dict[str, str] = {}
        for report in reports:
            key, sender = str(report.key), report.sender.lower()
            if key in self._reports or key in new:
                continue
            if sender and (sender in self._senders or sender in senders):
                raise SenderTaken(report.sender)
            new[key] = report
            if sender:
                senders[sender] = key
        self._reports.update(new)
        self._senders.update(senders)
        for key, report in new.items():
            self._composed[report.key.kind].append(key)
        return len(new)

    def take(
        self, kind: ReportKind, node: str, most: int
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        handing = self._handing.setdefault((kind, node), {})
        keys = [key for key in handing if not self._reports[key].detail]
        if not keys:
            keys = list(islice(self._waiting(kind), most))
            for key in keys:
                taken = replace(
                    self._reports[key], state=ReportState.HANDING, node=node
                )
                self._reports[key] = taken
                handing[key] = None
        keys = keys or list(handing)
        return succeed(tuple(self._reports[key] for key in keys[:most]))

    def _waiting(self, kind: ReportKind) -> Iterator[str]:
        keys = self._composed[kind]
        while keys:
            key = keys.popleft()
            report = self._reports.get(key)
            if report is not None and report.state is ReportState.COMPOSED:
                yield key

    def mark(
        self, key: ReportKey, state: ReportState, now: float, detail: str = ""
    ) -> Deferred[None]:
        report = self._reports.get(str(key))
        if report is not None and follows(report.state, state):
            self._reports[str(key)] = replace(
                report, state=state, updated=now, detail=clean(detail)
            )
            handing = self._handing.get((key.kind, report.node), {})
            if str(key) in handing:
                del handing[str(key)]
                if state is ReportState.HANDING:
                    handing[str(key)] = None  # Behind the others.
        return succeed(None)

    def reports(
        self,
        kind: ReportKind | None = None,
        domain: Domain | None = None,
        state: ReportState | None = None,
        limit: int = 1000,
        after: OutgoingReport | None = None,
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        wanted = [
            report
            for report in self._reports.values()
            if kind in (None, report.key.kind)
            and domain in (None, report.key.domain)
            and state in (None, report.state)
        ]
        return succeed(
            pageOf(wanted, lambda report: (-report.composed, report.key), after, limit)
        )

    def find(self, key: str) -> Deferred[OutgoingReport | None]:
        return succeed(self._reports.get(key))

    def bySender(self, sender: str) -> Deferred[OutgoingReport | None]:
        key = self._senders.get(sender.lower()) if sender else None
        return succeed(None if key is None else self._reports[key])

    def prune(self, before: float) -> Deferred[int]:
        unfinished = (ReportState.COMPOSED, ReportState.HANDING)
        old = [
            report
            for report in self._reports.values()
            if report.composed < before and report.state not in unfinished
        ]
        for report in old:
            del self._reports[str(report.key)]
            self._senders.pop(report.sender.lower(), None)
        return succeed(len(old))


@dataclass(frozen=True, slots=True, order=True)
class _Kind:
    """
    What tells evaluations of one policy and hour apart.
    """

    row: bytes
    optional: bool
    wanted: bool


@dataclass(slots=True)
class _Count:
    evaluation: Evaluation
    messages: int = 0


@dataclass(slots=True)
class _Tally:
    """
    The evaluations under one policy in one hour.
    """

    published: PublishedPolicy
    hours: int
    counts: dict[_Kind, _Count] = field(default_factory=dict)
    omitted: int = 0
    until: int = 0

    @property
    def messages(self) -> int:
        return sum(count.messages for count in self.counts.values())

    @property
    def sendable(self) -> bool:
        return not all(kind.optional for kind in self.counts)


#: Hour, policy domain, part.
_EvaluationPlace = tuple[int, Domain, str]


@implementer(IEvaluationStore)
class MemoryEvaluationStore:
    """
    Counts in dictionaries.
    """

    def __init__(self, archive: MemoryReportArchive) -> None:
        """
        @param archive: Where reports are filed.
        """
        self._archive = archive
        self._tallies: dict[_EvaluationPlace, _Tally] = {}
        self._parts: dict[tuple[int, Domain], set[str]] = {}
        self._closings = MemoryClosings()

    def record(
        self, hour: int, evaluation: Evaluation, count: int = 1
    ) -> Deferred[None]:
        hour -= hour % HOUR
        evaluation = boundedEvaluation(evaluation)
        domain, part = evaluation.published.domain, partOfEvaluation(evaluation)
        key = rowKey(encodeRow(evaluation.row))
        kind = _Kind(key, evaluation.optional, evaluation.wanted)
        place = (hour, domain, part)
        siblings = self._parts.setdefault((hour, domain), set())
        if part not in siblings:
            if not hasRoomForPart(len(siblings)):
                return succeed(None)
            siblings.add(part)
            self._tallies[place] = _Tally(evaluation.published, evaluation.hours)
        tally = self._tallies[place]
        isNew = kind not in tally.counts
        if isNew and not hasRoomForRow(self._kept(hour, domain)):
            tally.omitted += count
            return succeed(None)
        kept = tally.counts.setdefault(kind, _Count(evaluation))
        kept.evaluation = evaluation
        kept.messages += count
        return succeed(None)

    def _kept(self, hour: int, domain: Domain) -> int:
        parts = self._parts[hour, domain]
        return sum(len(self._tallies[hour, domain, part].counts) for part in parts)

    def evaluations(
        self, domain: Domain | None = None, limit: int = 1000
    ) -> Deferred[tuple[StoredEvaluation, ...]]:
        found = [
            StoredEvaluation(place[0], count.evaluation, count.messages)
            for place, tally in sorted(self._tallies.items(), key=lambda item: item[0])
            if domain in (None, place[1])
            for _, count in sorted(tally.counts.items(), key=lambda item: item[0])
        ]
        return succeed(tuple(found[:limit]))

    def summaries(self) -> Deferred[tuple[EvaluationSummary, ...]]:
        domains: dict[Domain, list[_Tally]] = {}
        for place, tally in self._tallies.items():
            domains.setdefault(place[1], []).append(tally)
        return succeed(tuple(_summary(each, domains[each]) for each in sorted(domains)))

    def remove(self, domain: Domain) -> Deferred[int]:
        return succeed(self._forget(p for p in self._tallies if p[1] == domain))

    def _forget(self, places: Iterable[_EvaluationPlace]) -> int:
        messages = 0
        for hour, domain, part in list(places):
            messages += self._tallies.pop((hour, domain, part)).messages
            parts = self._parts[hour, domain]
            parts.discard(part)
            if not parts:
                del self._parts[hour, domain]
        return messages

    def count(self, before: int) -> Deferred[int]:
        return succeed(sum(period.sendable for period in self._due(before)))

    def periods(
        self, before: int, after: ReportPeriod | None, limit: int, early: bool = False
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        due = self._due(before, early)
        if after is not None:
            last = after.domain, after.part
            due = [each for each in due if (each.domain, each.part) > last]
        return succeed(tuple(due[:limit]))

    def close(self, domain: Domain | None, end: int) -> Deferred[int]:
        places = [
            place
            for place, tally in self._tallies.items()
            if not tally.until and domain in (None, place[1])
        ]
        until = self._closings.close(domain, end) if places else 0
        for place in places:
            hour, name, part = place
            tally, new = self._tallies[place], closedPart(part, until)
            self._forget([place])
            tally.until = until
            self._tallies[hour, name, new] = tally
            self._parts.setdefault((hour, name), set()).add(new)
        return succeed(len({place[1:] for place in places}))

    def _due(self, before: int, early: bool = False) -> list[ReportPeriod]:
        sendable: dict[tuple[Domain, str, int], bool] = {}
        for (hour, domain, part), tally in self._tallies.items():
            due = before if early else dueBefore(before, tally.hours)
            end = tally.until or due
            if early or hour < end:
                key = domain, part, end
                sendable[key] = sendable.get(key, False) or tally.sendable
        return [
            ReportPeriod(0, utcDay(key[2] - 1), key[0], sendable[key], key[1], key[2])
            for key in sorted(sendable)
        ]

    def overview(self, period: ReportPeriod) -> Deferred[PeriodSummary | None]:
        places = self._about(period)
        if not places:
            return succeed(None)
        tallies = [self._tallies[place] for place in places]
        kinds = [kind for tally in tallies for kind in tally.counts]
        wanted = [
            count.messages
            for tally in tallies
            for kind, count in tally.counts.items()
            if kind.wanted
        ]
        return succeed(
            PeriodSummary(
                tallies[0].published,
                tallies[0].hours,
                first=min(place[0] for place in places),
                messages=sum(tally.messages for tally in tallies),
                rows=len({kind.row for kind in kinds}),
                wanted=sum(wanted),
                omitted=sum(tally.omitted for tally in tallies),
                since=self._closings.latest(period.domain, period.end),
            )
        )

    def _about(self, period: ReportPeriod) -> list[_EvaluationPlace]:
        return [
            place
            for place in self._tallies
            if place[1:] == (period.domain, period.part) and place[0] < period.end
        ]

    def rows(
        self, period: ReportPeriod, after: bytes, limit: int
    ) -> Deferred[tuple[tuple[bytes, ReportRow, int], ...]]:
        rows: dict[bytes, ReportRow] = {}
        counts: Counter[bytes] = Counter()
        for place in self._about(period):
            for kind, count in self._tallies[place].counts.items():
                if kind.row > after:
                    rows[kind.row] = count.evaluation.row
                    counts[kind.row] += count.messages
        page = heapq.nsmallest(limit, rows)
        return succeed(tuple((key, rows[key], counts[key]) for key in page))

    def settle(
        self,
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        try:
            new = self._archive.file(reports)
        except SenderTaken as error:
            return fail(error)
        self._forget(self._about(period))
        return succeed(new)

    def prune(self, before: int) -> Deferred[int]:
        self._closings.prune(before)
        return succeed(self._forget(p for p in self._tallies if p[0] < before))


def _summary(domain: Domain, tallies: Sequence[_Tally]) -> EvaluationSummary:
    counts = [count for tally in tallies for count in tally.counts.values()]
    seen = {count.evaluation.row.disposition for count in counts}
    return EvaluationSummary(
        domain,
        tuple(each for each in Disposition if each in seen),
        sum(tally.messages for tally in tallies),
        any(tally.sendable for tally in tallies),
    )


@implementer(ISenderHistory)
class MemorySenderHistory:
    """
    The days of signs in a dictionary.
    """

    def __init__(self) -> None:
        # By account, domain and sign.
        self._days: dict[tuple[str, Domain, str], int] = {}
        # Accounts, and None for all of them, with domains about which or
        # below which there is a sign.
        self._known: set[tuple[str | None, Domain]] = set()

    def sent(self, account: str, domain: Domain, now: float) -> Deferred[None]:
        return self._note(account, domain, SIGN_SENT, now)

    def received(self, account: str, domain: Domain, now: float) -> Deferred[None]:
        return self._note(account, domain, SIGN_RECEIVED, now)

    def _note(
        self, account: str, domain: Domain, sign: str, now: float
    ) -> Deferred[None]:
        account = boundedAccount(account)
        key = account, domain, sign
        day = int(now // DAY)
        self._days[key] = max(day, self._days.get(key, day))
        self._learn(account, domain)
        return succeed(None)

    def _learn(self, account: str, domain: Domain) -> None:
        for each in _upwards(domain):
            self._known |= {(account, each), (None, each)}

    def isKnown(self, account: str | None, organizational: Domain) -> Deferred[bool]:
        whose = None if account is None else boundedAccount(account)
        return succeed((whose, organizational) in self._known)

    def prune(self, before: float) -> Deferred[int]:
        day = before // DAY
        old = [key for key, last in self._days.items() if last < day]
        for key in old:
            del self._days[key]
        self._known.clear()
        for account, domain, _ in self._days:
            self._learn(account, domain)
        return succeed(len(old))


def _upwards(domain: Domain) -> Iterator[Domain]:
    here: Domain | None = domain
    while here is not None:
        yield here
        here = here.parent


class MemoryClosings:
    """
    Those of one kind of report.
    """

    def __init__(self) -> None:
        self._closings: list[tuple[Domain | None, int]] = []

    def close(self, domain: Domain | None, end: int) -> int:
        """
        As L{moxtls.ledger.closings.close}.
        """
        until = max([end, *(each + 1 for _, each in self._closings)])
        self._closings.append((domain, until))
        return until

    def latest(self, domain: Domain, before: int) -> int:
        """
        As L{moxtls.ledger.closings.latestClosing}.
        """
        found = (
            until
            for name, until in self._closings
            if name in (None, domain) and until < before
        )
        return max(found, default=0)

    def prune(self, before: int) -> None:
        """
        Forget those before the second C{before}.
        """
        self._closings = [each for each in self._closings if each[1] >= before]
