# -*- test-case-name: tests.dmarc.test_evaluation -*-
"""
What is remembered of a event until a report has it (RFC 9990 3.1.1).
No I/O.

Puts what DMARC made of mail where reports will find it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import lru_cache
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from moxtls.authentication.results import AuthResult, SPFResult
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
#: Of what is kept for people.
MAX_ADDRESSES = 10
MAX_PROBLEM_LENGTH = 200

#: The whole divisors of a day that reports are made by, in hours.
REPORTING_HOURS = (24, 12, 8, 6, 4, 3, 2, 1)

#: Evaluations that are remembered as made, of a few kB each.
MAX_CACHED = 500

_HANDLED = (
    FinalDisposition.ACCEPTED,
    FinalDisposition.JUNK,
    FinalDisposition.REJECTED_BY_DMARC,
)

#: A signature: C{domain}, C{selector}, C{status}, C{problem} of L{DKIMResult}.
_Signature = tuple[Domain, str, AuthResult, str]


class _MessageFacts(NamedTuple):
    """
    What there is to be reported of a message, but for what DMARC made of it.

    @ivar sender: The domain of MAIL FROM, as that of the recipient; empty if
        there is none.
    """

    address: str
    sender: str
    recipient: str
    dkim: tuple[_Signature, ...]
    spf: SPFResult


def evaluationOf(event: VerdictEvent) -> Evaluation | None:
    """
    @return: C{None} if there is nothing to report: nobody wants it, it was
        refused for another reason, or it isn't known whose policy applies.
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
    Whoever sends a lot has it evaluated alike.
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
    How often reports are made for a domain that asks for them every so many
    seconds: the longest of L{REPORTING_HOURS} that isn't longer.
    """
    hours = -(-seconds // 3600)
    return next((each for each in REPORTING_HOURS if each <= hours), 1)


def _isCertain(discovery: Discovery) -> bool:
    """
    Whether it is known whom to tell: not if there may be a nearer record.
    """
    return not discovery.temporary or discovery.policyDomain == discovery.author


def _isOptional(event: VerdictEvent) -> bool:
    """
    Reports about reports would never end; and who only forges a domain shall
    not make us write to it.
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
    Those of the verdict, and that it wasn't followed, if so: a disposition
    that isn't the policy has a reason (RFC 9990 3.1.1.9).
    """
    asked = verdict.disposition
    if asked is DMARCPolicy.NONE or asked.value == disposition.value:
        return verdict.reasons
    ours = Override(OverrideKind.LOCAL_POLICY, "the recipient's choice")
    return (*verdict.reasons, ours)


def _signatures(
    dkim: tuple[_Signature, ...], alignedDKIM: tuple[int, ...], author: Domain
) -> tuple[ReportedSignature, ...]:
    """
    In the order of RFC 9990 3.1.3.  All that were checked, whoever signed
    (RFC 9990 3.1.1.11): a list or a service in between is of interest.
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
    # What a client calls itself may be anything.
    domain = printable(spf.domain)[:MAX_DOMAIN_LENGTH]
    return ReportedSPF(domain, spf.scope, spf.status) if domain else None


def _domainOf(address: str) -> str:
    try:
        return str(parseHost(address.rpartition("@")[2]))
    except InvalidDomain:
        return ""


def _shown(uri: ReportURI) -> str:
    return f"{uri.uri}!{uri.limit}" if uri.limit else uri.uri


_HOUR = 3600
#: The hour, and what was evaluated in it.
_Entry = tuple[int, Evaluation]

#: Seconds from one write to the next: who sends a lot sends what is evaluated
#: alike, and each write would compete with his mail for the disk.
WRITE_INTERVAL = 0.05


@implementer(IVerdictObserver)
class EvaluationRecorder:
    """
    Records each evaluation under the hour in which it was made.

    One that comes alone is written at once.  What comes soon after another is
    gathered, and then written together, equal ones as one.  Where the store is
    unavailable, they wait for it, as many as there is room for.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: IEvaluationRecorder,
        enabled: bool = True,
        silent: Set[Domain] = frozenset(),
    ) -> None:
        """
        @param enabled: If not, nothing is recorded.
        @param silent: Domains of ours; about mail to them, nothing is.
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
        hour = int(self._clock.seconds()) // _HOUR * _HOUR
        if self._alarm is None:
            self._alarm = self._clock.callLater(WRITE_INTERVAL, self._paused)
            return self._backlog.record((hour, evaluation))
        recorded: Deferred[None] = Deferred()
        self._gathered.setdefault((hour, evaluation), []).append(recorded)
        return recorded

    def flush(self) -> None:
        """
        Write what was gathered: there won't be more.
        """
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        self._write()

    def stop(self) -> Deferred[None]:
        """
        Fires once all that waited for the store is written, or can't be.
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
