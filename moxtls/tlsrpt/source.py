# -*- test-case-name: tests.tlsrpt.test_source -*-
"""
What TLS reports are owed, and what is in them.
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
from moxtls.reporting.identity import filename, reportID
from moxtls.reporting.rua import chooseDestinations
from moxtls.reporting.schedule import dueBefore, staleBefore
from moxtls.reporting.types import (
    NoReport,
    OutgoingReport,
    ReportDraft,
    ReportPeriod,
    Retention,
)
from moxtls.tlsrpt.generate import (
    TLSReportMetadata,
    composeReport,
    compress,
    findFaults,
)
from moxtls.tlsrpt.record import TLSRPTRecordError, findTLSRPTRecord, tlsrptRecordName
from moxtls.tlsrpt.types import PolicyTally, StoredResult, mergeTallies

#: Why there is no report about what may not be the reason for one.
UNSENDABLE = "only reports, and what answers them, were delivered"

_Plan = tuple[Domain, tuple[str, ...], list[PolicyTally]]


class InvalidReport(Exception):
    """
    A report of ours isn't what RFC 8460 says: something of ours is broken.

    It is logged as such and never sent; the results stay for the next round,
    and a version that is mended, until they are stale.
    """


@dataclass(frozen=True, slots=True)
class TLSReporting:
    """
    What the operator decides.

    @ivar submitter: In whose name reports are sent; C{None} if in nobody's.
    @ivar forAllSuccess: Whether to report also where nothing went wrong.
    @ivar notTo: Policy domains that get no reports.
    """

    submitter: Domain | None
    forAllSuccess: bool = False
    notTo: frozenset[Domain] = frozenset()


@implementer(IReportSource)
class TLSReportSource:
    """
    Reports on what an L{IOutcomeStore} has about days that are over.
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
        @param ledger: The identifier of the ledger that C{store} is in.
        """
        self._resolver = resolver
        self._store = store
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

    def close(self, domain: Domain | None, now: float) -> Deferred[int]:
        return self._store.close(domain, int(now))

    def refusal(self, period: ReportPeriod) -> Deferred[str]:
        return Deferred.fromCoroutine(self._refusal(period))

    def draft(self, period: ReportPeriod) -> Deferred[ReportDraft | NoReport]:
        return Deferred.fromCoroutine(self._draft(period))

    def settle(
        self,
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        return self._store.settle(period, destinations, reports)

    def prune(self, now: float) -> Deferred[None]:
        pruned = self._store.prune(staleBefore(now))
        return pruned.addCallback(lambda count: None)

    async def _refusal(self, period: ReportPeriod) -> str:
        planned = await self._plan(period)
        return planned.reason if isinstance(planned, NoReport) else ""

    async def _draft(self, period: ReportPeriod) -> ReportDraft | NoReport:
        planned = await self._plan(period)
        if isinstance(planned, NoReport):
            return planned
        return await self._compose(period, *planned)

    async def _plan(self, period: ReportPeriod) -> _Plan | NoReport:
        """
        What is needed to compose a report, or why there is none.
        """
        if not period.sendable:
            return _nothing(period, UNSENDABLE)
        submitter = self._settings.submitter
        if submitter is None:
            return _nothing(period, "no domain of ours can sign reports")
        if period.domain in self._settings.notTo:
            return _nothing(period, "switched off for this domain")
        wanted = await self._destinations(period)
        if isinstance(wanted, NoReport):
            return wanted
        results = unreported(period, await self._results(period))
        addressees = withNewDestinations(results, wanted)
        tallies = talliesFor(period, results, addressees)
        if not tallies:
            return _nothing(period, "nothing that isn't told already")
        if not self._settings.forAllSuccess and not any(map(_isTrouble, tallies)):
            return _nothing(period, "nothing went wrong")
        return submitter, addressees, tallies

    async def _compose(
        self,
        period: ReportPeriod,
        submitter: Domain,
        destinations: tuple[str, ...],
        tallies: Sequence[PolicyTally],
    ) -> ReportDraft:
        """
        @raise InvalidReport: The report would break the rules.
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
        RFC 8460 4.1: a report is about a whole UTC day, also if it is late;
        but for one that a person wanted earlier, and the one after it.
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
            reason = f"the TLSRPT record can't be looked up: {answer.reason}"
            return NoReport(period, reason, Retention.KEEP)
        record = findTLSRPTRecord(answer.texts)
        if isinstance(record, TLSRPTRecordError):
            return _nothing(period, str(record))
        chosen, reasons = chooseDestinations(record.rua)
        if not chosen:
            return _nothing(period, f"no usable rua: {'; '.join(reasons)}")
        return tuple(destination.uri for destination in chosen)

    def _results(self, period: ReportPeriod) -> Deferred[tuple[StoredResult, ...]]:
        if period.phase == 0:
            return self._store.results(period.day, recipientDomain=period.domain)
        return self._store.results(period.day, policyDomain=period.domain)


def endedBy(periods: Iterable[ReportPeriod], now: int) -> tuple[ReportPeriod, ...]:
    """
    C{periods}, those of periods that go on as if these ended now.
    """
    return tuple(each if each.end else replace(each, end=now) for each in periods)


def unreported(
    period: ReportPeriod, results: Iterable[StoredResult]
) -> list[StoredResult]:
    """
    Those of C{results} that C{period} is about and has had no report on.
    """
    mine = [each for each in results if each.until == int(period.part or 0)]
    if period.phase == 0:
        return [each for each in mine if not each.reportedToRecipient]
    return [
        each
        for each in mine
        if not each.reportedToHost and each.recipientDomain != period.domain
    ]


def withNewDestinations(
    results: Sequence[StoredResult], destinations: Iterable[str]
) -> tuple[str, ...]:
    """
    Those of C{destinations} to which something in C{results} is new.
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
    What a report on C{period} to C{destinations} says.

    A recipient domain is told about itself and all its hosts.  A host is told
    about the recipient domains whose mail it takes.  Whoever of the two comes
    second isn't told what went in the other's report to wherever this one
    would: mostly the host, but a recipient domain whose record couldn't be
    looked up may be later.

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
    # Not in RFC 8460: an operator of hosts learns whose mail is affected.
    hosts = (str(tally.policy.domain),) if result.isHost else tally.policy.mxHosts
    policy = replace(tally.policy, domain=result.recipientDomain, mxHosts=hosts)
    return replace(tally, policy=policy)


def _isTrouble(tally: PolicyTally) -> bool:
    return tally.failed > 0 or bool(tally.failures)


def _nothing(period: ReportPeriod, reason: str) -> NoReport:
    return NoReport(period, reason, Retention.CLEAR)
