# -*- test-case-name: tests.dmarc.test_evaluation -*-
"""
Makes evaluations of verdicts (RFC 9990 3.1.1), and records them for aggregate reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import lru_cache
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from moxtls.authentication.results import AuthResult, SPFResult
from moxtls.dates import HOUR
from moxtls.dmarc.discovery import printable
from moxtls.dmarc.types import (
    Discovery,
    Disposition,
    DMARCPolicy,
    DMARCRecord,
    Evaluation,
    FinalDisposition,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
    ReportURI,
    Verdict,
    VerdictEvent,
)
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain, InvalidDomain, parseHost
from moxtls.interfaces import IEvaluationRecorder, IVerdictObserver
from moxtls.outages import Backlog

#: RFC 9990 3.1.3.
MAX_SIGNATURES = 100
#: Limits of stored text.
MAX_ADDRESSES = 10
MAX_PROBLEM_LENGTH = 200

#: Reporting intervals in hours: the divisors of a day.
REPORTING_HOURS = (24, 12, 8, 6, 4, 3, 2, 1)

#: Cached evaluations, of a few kB each.
MAX_CACHED = 500

_HANDLED = (
    FinalDisposition.ACCEPTED,
    FinalDisposition.JUNK,
    FinalDisposition.REJECTED_BY_DMARC,
)

#: A signature: C{domain}, C{selector}, C{status}, C{problem} of L{DKIMResult}.
_Signature = tuple[Domain, str, AuthResult, str]

#: The hour, and what was evaluated in it.
_Entry = tuple[int, Evaluation]
#: Seconds between writes: bulk senders have many equal evaluations, and each write
#: would compete with their mail for the disk.
WRITE_INTERVAL = 0.05


class _MessageFacts(NamedTuple):
    """
    The reported properties of a message, except its verdict.

    @ivar address: The IP address of the client.
    @ivar sender: The domain of MAIL FROM; empty if there is none.
    @ivar recipient: The domain of the recipient; empty if there is none.
    """

    address: str
    sender: str
    recipient: str
    dkim: tuple[_Signature, ...]
    spf: SPFResult


def evaluationOf(event: VerdictEvent) -> Evaluation | None:
    """
    The evaluation to report for an event.

    @return: C{None} if no report is requested, if the message was rejected for another
        reason than DMARC, or if the policy that applies is uncertain.
    """
    verdict = event.verdict
    discovery, author = verdict.discovery, verdict.author
    if discovery is None or author is None or event.finalDisposition not in _HANDLED:
        return None
    record = discovery.record
    if record is None or not record.rua or not _isCertain(discovery):
        return None
    found = event.authentication
    seen = _MessageFacts(
        found.address,
        _domainOf(event.sender),
        _domainOf(event.recipient),
        tuple([(s.domain, s.selector, s.status, s.problem) for s in found.dkim]),
        found.spf,
    )
    return _evaluation(verdict, event.finalDisposition, _isOptional(event), seen)


@lru_cache(MAX_CACHED)
def _evaluation(
    verdict: Verdict,
    finalDisposition: FinalDisposition,
    optional: bool,
    seen: _MessageFacts,
) -> Evaluation:
    """
    Cached, since bulk senders have many equal evaluations.
    """
    discovery = verdict.discovery
    assert discovery is not None and discovery.record is not None
    record = discovery.record
    return Evaluation(
        _published(discovery, record),
        _row(verdict, finalDisposition, discovery, seen),
        hours=reportingHours(record.interval),
        addresses=tuple(map(_shown, record.rua[:MAX_ADDRESSES])),
        optional=optional,
        wanted=finalDisposition is FinalDisposition.ACCEPTED
        and verdict.status is AuthResult.PASS,
    )


def reportingHours(seconds: int) -> int:
    """
    The reporting interval in hours for a requested interval in seconds: the longest of
    L{REPORTING_HOURS} that isn't longer.
    """
    hours = -(-seconds // HOUR)
    return next((each for each in REPORTING_HOURS if each <= hours), 1)


def _isCertain(discovery: Discovery) -> bool:
    """
    True if the record certainly applies: false if there may be a nearer one.
    """
    return not discovery.temporary or discovery.policyDomain == discovery.author


def _isOptional(event: VerdictEvent) -> bool:
    """
    True if the message is no reason for a report: it exists because of reports (which
    could loop), or it was refused or junk and the domain is unknown (forged mail must
    not make us send mail to its domain).
    """
    finalDisposition = event.finalDisposition
    isBecauseOfDMARC = (
        finalDisposition is FinalDisposition.REJECTED_BY_DMARC
        or _isQuarantined(event.verdict, finalDisposition)
    )
    return event.isForReports or (isBecauseOfDMARC and not event.isKnown)


def _isQuarantined(verdict: Verdict, finalDisposition: FinalDisposition) -> bool:
    return (
        finalDisposition is FinalDisposition.JUNK
        and verdict.disposition is not DMARCPolicy.NONE
    )


def _published(discovery: Discovery, record: DMARCRecord) -> PublishedPolicy:
    return PublishedPolicy(
        discovery.policyDomain or discovery.author,
        record.p,
        record.sp,
        record.np,
        record.adkim,
        record.aspf,
        record.testing,
        record.fo,
        record.percent,
        discovery.method,
    )


def _row(
    verdict: Verdict,
    finalDisposition: FinalDisposition,
    discovery: Discovery,
    seen: _MessageFacts,
) -> ReportRow:
    disposition = _disposition(verdict, finalDisposition)
    return ReportRow(
        sourceIP=seen.address,
        disposition=disposition,
        dkimAligned=verdict.dkimAligned,
        spfAligned=verdict.spfAligned,
        reasons=_reasons(verdict, disposition),
        headerFrom=discovery.author.ascii,
        envelopeFrom=seen.sender,
        envelopeTo=seen.recipient,
        dkim=_signatures(seen.dkim, verdict.alignedDKIM, discovery.author),
        spf=_spf(seen.spf),
    )


def _disposition(verdict: Verdict, finalDisposition: FinalDisposition) -> Disposition:
    if finalDisposition is FinalDisposition.REJECTED_BY_DMARC:
        return Disposition.REJECT
    if _isQuarantined(verdict, finalDisposition):
        return Disposition.QUARANTINE
    isEnforcing = verdict.policy is not DMARCPolicy.NONE
    if verdict.status is AuthResult.PASS and isEnforcing:
        return Disposition.PASS
    return Disposition.NONE


def _reasons(verdict: Verdict, disposition: Disposition) -> tuple[Override, ...]:
    """
    The reasons of the verdict, and another one if its disposition wasn't applied: each
    deviation from the policy has a reason (RFC 9990 3.1.1.9).
    """
    requested = verdict.disposition
    if requested is DMARCPolicy.NONE or requested.value == disposition.value:
        return verdict.reasons
    ours = Override(OverrideKind.LOCAL_POLICY, "the recipient's choice")
    return (*verdict.reasons, ours)


def _signatures(
    dkim: tuple[_Signature, ...], alignedDKIM: tuple[int, ...], author: Domain
) -> tuple[ReportedSignature, ...]:
    """
    The results of all checked signatures, in the order of RFC 9990 3.1.3.  Signatures
    of other domains are included (RFC 9990 3.1.1.11): they show lists and services.
    """
    aligned = frozenset(alignedDKIM)
    ranked = [
        (_rank(domain, status, place in aligned, author), place)
        for place, (domain, selector, status, _) in enumerate(dkim)
        if selector
    ]
    ranked.sort()
    return tuple(_reported(*dkim[place]) for _, place in ranked[:MAX_SIGNATURES])


def _reported(
    domain: Domain, selector: str, status: AuthResult, problem: str
) -> ReportedSignature:
    shown = printable(problem)[:MAX_PROBLEM_LENGTH]
    return ReportedSignature(domain.ascii, selector, status, shown)


def _rank(domain: Domain, status: AuthResult, isAligned: bool, author: Domain) -> int:
    if status is not AuthResult.PASS:
        return 3
    if not isAligned:
        return 2
    return 0 if domain == author else 1


def _spf(spf: SPFResult) -> ReportedSPF | None:
    # The domain may be an arbitrary HELO name.
    domain = printable(spf.domain)[:MAX_DOMAIN_LENGTH]
    return ReportedSPF(domain, spf.scope, spf.status) if domain else None


def _domainOf(address: str) -> str:
    try:
        return str(parseHost(address.rpartition("@")[2]))
    except InvalidDomain:
        return ""


def _shown(uri: ReportURI) -> str:
    return f"{uri.uri}!{uri.limit}" if uri.limit else uri.uri


@implementer(IVerdictObserver)
class EvaluationRecorder:
    """
    Records the evaluations of incoming mail under the current hour.

    A single evaluation is written at once.  Those that follow within L{WRITE_INTERVAL}
    are collected and written together, equal ones as one with a count.  While the
    store is unavailable, a limited number of them waits.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: IEvaluationRecorder,
        enabled: bool = True,
        silent: Set[Domain] = frozenset(),
    ) -> None:
        """
        @param enabled: False to record nothing.
        @param silent: Local domains; evaluations of mail to them aren't recorded.
        """
        self._clock = clock
        self._store = store
        self._enabled = enabled
        self._silent = frozenset(domain.ascii for domain in silent)
        self._alarm: IDelayedCall | None = None
        self._gathered: dict[_Entry, list[Deferred[None]]] = {}
        self._backlog = Backlog(clock, "evaluations", self._record)

    def verdictGiven(self, event: VerdictEvent) -> Deferred[None]:
        evaluation = evaluationOf(event) if self._enabled else None
        if evaluation is None or evaluation.row.envelopeTo in self._silent:
            return succeed(None)
        hour = int(self._clock.seconds()) // HOUR * HOUR
        if self._alarm is None:
            self._alarm = self._clock.callLater(WRITE_INTERVAL, self._paused)
            return self._backlog.record((hour, evaluation))
        recorded: Deferred[None] = Deferred()
        self._gathered.setdefault((hour, evaluation), []).append(recorded)
        return recorded

    def flush(self) -> None:
        """
        Write the collected evaluations now.
        """
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        self._write()

    def stop(self) -> Deferred[None]:
        """
        Flush; fires once all waiting evaluations are written, or can't be.
        """
        self.flush()
        return Deferred.fromCoroutine(self._backlog.stop())

    def _paused(self) -> None:
        self._alarm = None
        if self._gathered:
            self._alarm = self._clock.callLater(WRITE_INTERVAL, self._paused)
            self._write()

    def _write(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for entry, waiting in gathered.items():
            self._backlog.record(entry, len(waiting)).addBoth(_tell, waiting)

    def _record(self, entry: _Entry, count: int) -> Deferred[None]:
        return self._store.record(*entry, count)


def _tell(result: Any, waiting: Iterable[Deferred[None]]) -> None:
    """
    @param result: C{None} or a failure.
    """
    for each in waiting:
        each.callback(result)
