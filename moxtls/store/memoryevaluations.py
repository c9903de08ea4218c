# -*- test-case-name: tests.store.test_memory -*-
"""
What DMARC made of mail, in memory.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from moxtls.calendar import HOUR, utcDay
from moxtls.dmarc.values import (
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
from moxtls.reporting.values import OutgoingReport, ReportPeriod
from moxtls.store.encoding import closedPart, encodeRow, partOfEvaluation, rowKey
from moxtls.store.memoryarchive import MemoryReportArchive, SenderTaken
from moxtls.store.memoryclosings import MemoryClosings
from moxtls.store.rules import (
    boundedEvaluation,
    dueBefore,
    hasRoomForPart,
    hasRoomForRow,
)


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
_Place = tuple[int, Domain, str]


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
        self._tallies: dict[_Place, _Tally] = {}
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

    def _forget(self, places: Iterable[_Place]) -> int:
        messages = 0
        for hour, domain, part in list(places):
            messages += self._tallies.pop((hour, domain, part)).messages
            parts = self._parts[hour, domain]
            parts.discard(part)
            if not parts:
                del self._parts[hour, domain]
        return messages

    def count(self, before: int) -> Deferred[int]:
        return succeed(sum(subject.sendable for subject in self._due(before)))

    def subjects(
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

    def overview(self, subject: ReportPeriod) -> Deferred[PeriodSummary | None]:
        places = self._about(subject)
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
                since=self._closings.latest(subject.domain, subject.end),
            )
        )

    def _about(self, subject: ReportPeriod) -> list[_Place]:
        return [
            place
            for place in self._tallies
            if place[1:] == (subject.domain, subject.part) and place[0] < subject.end
        ]

    def rows(
        self, subject: ReportPeriod, after: bytes, limit: int
    ) -> Deferred[tuple[tuple[bytes, ReportRow, int], ...]]:
        rows: dict[bytes, ReportRow] = {}
        counts: Counter[bytes] = Counter()
        for place in self._about(subject):
            for kind, count in self._tallies[place].counts.items():
                if kind.row > after:
                    rows[kind.row] = count.evaluation.row
                    counts[kind.row] += count.messages
        page = heapq.nsmallest(limit, rows)
        return succeed(tuple((key, rows[key], counts[key]) for key in page))

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
        self._forget(self._about(subject))
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
