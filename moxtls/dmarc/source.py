# -*- test-case-name: tests.dmarc.test_source -*-
"""
The source of DMARC aggregate reports: due periods and report documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.dates import DAY, HOUR
from moxtls.dmarc.aggregate import (
    MAX_REPORT,
    AggregateMetadata,
    AggregateWriter,
    ReportFormat,
)
from moxtls.dmarc.discovery import discover, printable
from moxtls.dmarc.eligibility import (
    DMARCReporting,
    VerifiedDestinations,
    exclusionReason,
    refusalReason,
    unreachableReason,
    verifyDestinations,
)
from moxtls.dmarc.types import PeriodSummary
from moxtls.domain import Domain
from moxtls.interfaces import (
    IEvaluationStore,
    IReportSource,
    IResolver,
    ISenderHistory,
)
from moxtls.queue.types import ReportKind
from moxtls.reporting.destinations import parseDestination
from moxtls.reporting.schedule import intervalSpan, lastHour, staleHoursBefore
from moxtls.reporting.types import (
    DocumentVariant,
    NoReport,
    ReportDraft,
    ReportPeriod,
    Retention,
    filename,
    reasonAgainst,
    reportID,
)
from moxtls.tasks import resolve

#: Rows in memory at a time.  A flood can make each of them 50 KB.
PAGE = 250
#: Seconds for which correspondence is remembered: longer than a year.
HISTORY = 400 * DAY

_INCOMPLETE = "Incomplete: all of it would be too large a report."
_OMITTED = "Incomplete: {} more messages differ in too many ways to be listed."

#: The reason for no report on periods that may not cause one.
UNSENDABLE = (
    "all of it exists because of reports, or was refused or junk from unknown domains"
)

_Plan = tuple[Domain, PeriodSummary, VerifiedDestinations]
#: Destinations by format.
_Groups = dict[ReportFormat, list[str]]


@implementer(IReportSource)
class DMARCReportSource:
    """
    Reports on the evaluations of an L{IEvaluationStore}.
    """

    kind = ReportKind.DMARC
    phases = 1

    def __init__(
        self,
        resolver: IResolver,
        store: IEvaluationStore,
        history: ISenderHistory,
        settings: DMARCReporting,
        ledger: str,
        largest: int = MAX_REPORT,
    ) -> None:
        """
        @param ledger: The identifier of the ledger with the stores.
        @param largest: Maximum number of octets of a report before compression; the
            rest is omitted.
        """
        self._resolver = resolver
        self._store = store
        self.backlog = store
        self._history = history
        self._settings = settings
        self._ledger = ledger
        self._largest = largest

    def count(self, phase: int, now: float) -> Deferred[int]:
        return self._store.count(lastHour(now))

    def periods(
        self,
        phase: int,
        now: float,
        after: ReportPeriod | None,
        limit: int,
        early: bool = False,
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        before = int(now) if early else lastHour(now)
        return self._store.periods(before, after, limit, early)

    def refusal(self, period: ReportPeriod) -> Deferred[str]:
        planned = Deferred.fromCoroutine(self._plan(period))
        return planned.addCallback(reasonAgainst)

    def draft(self, period: ReportPeriod) -> Deferred[ReportDraft | NoReport]:
        return Deferred.fromCoroutine(self._draft(period))

    def prune(self, now: float) -> Deferred[None]:
        return Deferred.fromCoroutine(self._prune(now))

    async def _prune(self, now: float) -> None:
        await self._store.prune(staleHoursBefore(now))
        await self._history.prune(now - HISTORY)

    async def _draft(self, period: ReportPeriod) -> ReportDraft | NoReport:
        planned = await self._plan(period)
        if isinstance(planned, NoReport):
            return planned
        return await self._compose(period, *planned)

    async def _plan(self, period: ReportPeriod) -> _Plan | NoReport:
        """
        The requirements of a report, or the reason why there is none.
        """
        if not period.sendable:
            return _nothing(period, UNSENDABLE)
        submitter = self._settings.submitter
        if submitter is None:
            return _nothing(period, "no domain of ours can sign reports")
        summary = await self._store.summary(period)
        if summary is None:
            return _nothing(period, "nothing that isn't reported already")
        refusal = exclusionReason(period.domain, summary, self._settings)
        if refusal is not None:
            return _nothing(period, refusal)
        reason = await resolve(self._resolver, unreachableReason(submitter))
        if reason:
            return _later(period, reason)
        wanted = await self._wanted(period, summary)
        if isinstance(wanted, NoReport):
            return wanted
        return submitter, summary, wanted

    async def _wanted(
        self, period: ReportPeriod, summary: PeriodSummary
    ) -> VerifiedDestinations | NoReport:
        """
        The destinations in the record as it is published now, not as it was when the
        mail was received.
        """
        suffixes = self._settings.suffixes
        found = await resolve(self._resolver, discover(period.domain, suffixes))
        if found.temporary:
            return _later(period, f"the DMARC record: {found.problem}")
        if found.record is None or found.policyDomain is None:
            return _nothing(period, found.problem or "no DMARC record any more")
        known = await self._history.isKnown(None, found.organizational)
        refusal = refusalReason(summary, known, self._settings)
        if refusal is not None:
            return _nothing(period, refusal)
        wanted = await resolve(
            self._resolver,
            verifyDestinations(found.policyDomain, found.record.rua, suffixes),
        )
        problems = tuple(map(printable, found.record.problems))
        wanted = replace(wanted, errors=(*problems, *wanted.errors))
        return _usable(period, summary, wanted)

    async def _compose(
        self,
        period: ReportPeriod,
        submitter: Domain,
        summary: PeriodSummary,
        wanted: VerifiedDestinations,
    ) -> ReportDraft | NoReport:
        begun = summary.first, summary.since
        span = intervalSpan(period.end, summary.hours, *begun)
        name = reportID(self._ledger, self.kind, submitter, period, span)
        metadata = AggregateMetadata(
            submitter, name, span, (*_omitted(summary), *wanted.errors)
        )
        groups = self._groups(wanted)
        documents = await self._documents(period, metadata, summary, groups)
        if not documents:
            return _nothing(period, "nothing that isn't reported already")
        first, *others = zip(documents, groups.values(), strict=True)
        return ReportDraft(
            kind=ReportKind.DMARC,
            period=period,
            span=span,
            reportID=name,
            submitter=submitter,
            destinations=tuple(uri for uri, _ in wanted.accepted),
            document=first[0],
            filename=filename(self.kind, submitter, period.domain, span, name),
            limits=tuple(limit for _, limit in wanted.accepted),
            variants=tuple(
                DocumentVariant(document, frozenset(uris)) for document, uris in others
            ),
        )

    def _groups(self, wanted: VerifiedDestinations) -> _Groups:
        groups: _Groups = {}
        for uri, _ in wanted.accepted:
            address = parseDestination(uri).address
            domain = address.domain if address else None
            format = self._settings.format
            if isinstance(domain, Domain):
                format = self._settings.formats.get(domain, format)
            groups.setdefault(format, []).append(uri)
        return groups

    async def _documents(
        self,
        period: ReportPeriod,
        metadata: AggregateMetadata,
        summary: PeriodSummary,
        formats: Iterable[ReportFormat],
    ) -> list[bytes]:
        """
        The report in each of C{formats}, from one pass over the rows; none if there
        are no rows.
        """
        attempts = (
            metadata,
            # The error is written before the rows, so the report is written again.
            replace(metadata, errors=(_INCOMPLETE, *metadata.errors)),
        )
        for each in attempts:
            writers = [
                AggregateWriter(format, each, summary.published, self._largest)
                for format in formats
            ]
            if await self._fill(period, writers):
                break
        return [writer.finish() for writer in writers if writer.records]

    async def _fill(
        self, period: ReportPeriod, writers: Sequence[AggregateWriter]
    ) -> bool:
        """
        @return: True if all rows were written.
        """
        after = b""
        while True:
            page = await self._store.rows(period, after, PAGE)
            if not page:
                return True
            if any(writer.isFull for writer in writers):
                return False
            rows = [(row, count) for _, row, count in page]
            for writer in writers:
                writer.add(rows)
            after = page[-1][0]


def _usable(
    period: ReportPeriod, summary: PeriodSummary, wanted: VerifiedDestinations
) -> VerifiedDestinations | NoReport:
    """
    The accepted destinations, or the reason why there are none.

    If lookups failed for some destinations, the report is delayed, so that all
    destinations get it at the same time, but by one interval at most: some name
    servers never answer.
    """
    reasons = "; ".join(wanted.errors)
    overdue = period.end - summary.first > summary.hours * HOUR
    if wanted.temporary and not (wanted.accepted and overdue):
        return _later(period, reasons or "a destination can't be looked up")
    if not wanted.accepted:
        return _nothing(period, f"no usable rua: {reasons}" if reasons else "no rua")
    return wanted


def _omitted(summary: PeriodSummary) -> list[str]:
    return [_OMITTED.format(summary.omitted)] if summary.omitted else []


def _nothing(period: ReportPeriod, reason: str) -> NoReport:
    return NoReport(period, reason, Retention.CLEAR)


def _later(period: ReportPeriod, reason: str) -> NoReport:
    return NoReport(period, reason, Retention.KEEP)
