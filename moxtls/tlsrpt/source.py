# -*- test-case-name: tests.tlsrpt.test_source -*-
"""
The source of TLS reports: which are due, and their content (RFC 8460 3, 4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.dates import DAY, Span, spanOfDay, utcDay
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeStore, IReportSource, IResolver
from moxtls.queue.types import ReportKind
from moxtls.reporting.destinations import chooseDestinations
from moxtls.reporting.schedule import dueBefore, staleBefore
from moxtls.reporting.types import (
    NoReport,
    ReportDraft,
    ReportPeriod,
    Retention,
    filename,
    reasonAgainst,
    reportID,
)
from moxtls.tlsrpt.generate import (
    TLSReportMetadata,
    composeReport,
    compress,
    findFaults,
)
from moxtls.tlsrpt.types import (
    PolicyTally,
    StoredResult,
    TLSRPTRecordError,
    findTLSRPTRecord,
    mergeTallies,
    tlsrptRecordName,
)

#: The reason for no report where L{SessionOutcome.sendReport} was never set.
UNSENDABLE = "only reports and their replies were delivered"

_Plan = tuple[Domain, tuple[str, ...], list[PolicyTally]]


class InvalidReport(Exception):
    """
    A composed report violates RFC 8460: a bug.

    It is logged and never sent; the results are kept for the next run, perhaps of a
    fixed version, until they are too old.
    """


@dataclass(frozen=True, slots=True)
class TLSReporting:
    """
    The operator's settings for TLS reports.

    @ivar submitter: The domain in whose name reports are sent; C{None} to send none.
    @ivar forAllSuccess: Report also if all sessions succeeded.
    @ivar notTo: Policy domains that get no reports.
    """

    submitter: Domain | None
    forAllSuccess: bool = False
    notTo: frozenset[Domain] = frozenset()


@implementer(IReportSource)
class TLSReportSource:
    """
    Makes reports from the results of an L{IOutcomeStore} for days that are over.
    """

    kind = ReportKind.TLS
    phases = 2

    def __init__(
        self,
        resolver: IResolver,
        store: IOutcomeStore,
        settings: TLSReporting,
        ledger: str,
    ) -> None:
        """
        @param ledger: The identifier of the ledger that contains C{store}.
        """
        self._resolver = resolver
        self._store = store
        self.backlog = store
        self._settings = settings
        self._ledger = ledger

    def count(self, phase: int, now: float) -> Deferred[int]:
        return self._store.count(phase, dueBefore(now))

    def periods(
        self,
        phase: int,
        now: float,
        after: ReportPeriod | None,
        limit: int,
        early: bool = False,
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        if not early:
            return self._store.periods(phase, dueBefore(now), after, limit)
        tomorrow = utcDay(now + DAY)
        found = self._store.periods(phase, tomorrow, after, limit)
        return found.addCallback(lambda periods: endedBy(periods, int(now)))

    def refusal(self, period: ReportPeriod) -> Deferred[str]:
        planned = Deferred.fromCoroutine(self._plan(period))
        return planned.addCallback(reasonAgainst)

    def draft(self, period: ReportPeriod) -> Deferred[ReportDraft | NoReport]:
        return Deferred.fromCoroutine(self._draft(period))

    def prune(self, now: float) -> Deferred[None]:
        pruned = self._store.prune(staleBefore(now))
        return pruned.addCallback(lambda count: None)

    async def _draft(self, period: ReportPeriod) -> ReportDraft | NoReport:
        planned = await self._plan(period)
        if isinstance(planned, NoReport):
            return planned
        return await self._compose(period, *planned)

    async def _plan(self, period: ReportPeriod) -> _Plan | NoReport:
        """
        The content of a report, or the reason why there is none.
        """
        if not period.sendable:
            return _noReport(period, UNSENDABLE)
        submitter = self._settings.submitter
        if submitter is None:
            return _noReport(period, "no domain of ours can sign reports")
        if period.domain in self._settings.notTo:
            return _noReport(period, "switched off for this domain")
        wanted = await self._destinations(period)
        if isinstance(wanted, NoReport):
            return wanted
        results = unreported(period, await self._results(period))
        addressees = withNewDestinations(results, wanted)
        tallies = talliesFor(period, results, addressees)
        if not tallies:
            return _noReport(period, "everything is already reported")
        if not self._settings.forAllSuccess and not any(map(_hasFailures, tallies)):
            return _noReport(period, "no failures")
        return submitter, addressees, tallies

    async def _compose(
        self,
        period: ReportPeriod,
        submitter: Domain,
        destinations: tuple[str, ...],
        tallies: Sequence[PolicyTally],
    ) -> ReportDraft:
        """
        @raise InvalidReport: The report would violate RFC 8460.
        """
        span = await self._span(period)
        name = reportID(self._ledger, self.kind, submitter, period, span)
        report = composeReport(TLSReportMetadata(submitter, name, span), tallies)
        faults = findFaults(report)
        if faults:
            raise InvalidReport("; ".join(faults))
        return ReportDraft(
            kind=self.kind,
            period=period,
            span=span,
            reportID=name,
            submitter=submitter,
            destinations=destinations,
            document=compress(report),
            filename=filename(self.kind, submitter, period.domain, span, name),
        )

    async def _span(self, period: ReportPeriod) -> Span:
        """
        RFC 8460 4.1: a report covers a whole UTC day, even if it is late; except for
        one that the operator requested early, and the one after it.
        """
        day = spanOfDay(period.day)
        end = min(period.end or day.end, day.end)
        since = await self._store.lastClosing(period.domain, end)
        return Span(max(day.start, since), end)

    async def _destinations(self, period: ReportPeriod) -> tuple[str, ...] | NoReport:
        answer = await self._resolver.lookup(
            tlsrptRecordName(period.domain), RRType.TXT
        )
        if answer.failed:
            reason = f"the lookup of the TLSRPT record failed: {answer.reason}"
            return NoReport(period, reason, Retention.KEEP)
        record = findTLSRPTRecord(answer.texts)
        if isinstance(record, TLSRPTRecordError):
            return _noReport(period, str(record))
        chosen, reasons = chooseDestinations(record.rua)
        if not chosen:
            return _noReport(period, f"no usable rua: {'; '.join(reasons)}")
        return tuple(destination.uri for destination in chosen)

    def _results(self, period: ReportPeriod) -> Deferred[tuple[StoredResult, ...]]:
        if period.phase == 0:
            return self._store.results(period.day, recipientDomain=period.domain)
        return self._store.results(period.day, policyDomain=period.domain)


def endedBy(periods: Iterable[ReportPeriod], now: int) -> tuple[ReportPeriod, ...]:
    """
    C{periods}, where those without an end end at C{now}.
    """
    return tuple(each if each.end else replace(each, end=now) for each in periods)


def unreported(
    period: ReportPeriod, results: Iterable[StoredResult]
) -> list[StoredResult]:
    """
    Those of C{results} in C{period} that are not yet reported.
    """
    ofPeriod = [each for each in results if each.until == int(period.part or 0)]
    if period.phase == 0:
        return [each for each in ofPeriod if not each.reportedToRecipient]
    return [
        each
        for each in ofPeriod
        if not each.reportedToHost and each.recipientDomain != period.domain
    ]


def withNewDestinations(
    results: Sequence[StoredResult], destinations: Iterable[str]
) -> tuple[str, ...]:
    """
    Those of C{destinations} to which some of C{results} are not yet reported.
    """
    return tuple(
        to
        for to in destinations
        if any(to not in each.reportedDestinations for each in results)
    )


def talliesFor(
    period: ReportPeriod,
    results: Iterable[StoredResult],
    destinations: Collection[str],
) -> list[PolicyTally]:
    """
    The tallies for a report on C{period} to C{destinations}.

    The report to a recipient domain covers the domain and all its hosts.  The report
    to a host covers the recipient domains whose mail it accepts.  The second of the
    two omits results that the first one reported to the same destinations: usually
    the second is the host's, but a failed lookup may delay the recipient domain's.

    @param destinations: In canonical form.
    """
    new = (
        each
        for each in results
        if not set(destinations) <= set(each.reportedDestinations)
    )
    if period.phase == 0:
        return mergeTallies(tally for each in new for tally in each.tallies)
    return mergeTallies(
        _aboutRecipient(each, tally) for each in new for tally in each.tallies
    )


def _aboutRecipient(result: StoredResult, tally: PolicyTally) -> PolicyTally:
    # Beyond RFC 8460: tells the operator of hosts which recipient domains are affected.
    hosts = (str(tally.policy.domain),) if result.isHost else tally.policy.mxHosts
    policy = replace(tally.policy, domain=result.recipientDomain, mxHosts=hosts)
    return replace(tally, policy=policy)


def _hasFailures(tally: PolicyTally) -> bool:
    return tally.failed > 0 or bool(tally.failures)


def _noReport(period: ReportPeriod, reason: str) -> NoReport:
    return NoReport(period, reason, Retention.CLEAR)
