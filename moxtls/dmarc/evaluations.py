# -*- test-case-name: tests.dmarc.test_evaluations -*-
"""
What is remembered of a judgement until a report has it (RFC 9990 3.1.1).
No I/O.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from moxtls.authentication import AuthResult, SPFResult
from moxtls.dmarc.values import (
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
from moxtls.dmarc.walk import printable
from moxtls.domain import MAX_NAME, Domain, InvalidDomain, parseHost

#: RFC 9990 3.1.3.
MAX_SIGNATURES = 100
#: Of what is kept for people.
MAX_ADDRESSES = 10
MAX_PROBLEM_LENGTH = 200

#: The whole divisors of a day that reports are made by, in hours.
INTERVALS = (24, 12, 8, 6, 4, 3, 2, 1)

#: Evaluations that are remembered as made, of a few kB each.
MAX_KNOWN = 500

_HANDLED = (
    FinalDisposition.ACCEPTED,
    FinalDisposition.JUNK,
    FinalDisposition.REJECTED_BY_DMARC,
)

#: A signature: C{domain}, C{selector}, C{status}, C{problem} of L{DKIMResult}.
_Signed = tuple[Domain, str, AuthResult, str]


class _Seen(NamedTuple):
    """
    What there is to be reported of a message, but for what DMARC made of it.

    @ivar sender: The domain of MAIL FROM, as that of the recipient; empty if
        there is none.
    """

    address: str
    sender: str
    recipient: str
    dkim: tuple[_Signed, ...]
    spf: SPFResult


def evaluationOf(judgement: VerdictEvent) -> Evaluation | None:
    """
    @return: C{None} if there is nothing to report: nobody wants it, it was
        refused for another reason, or it isn't known whose policy applies.
    """
    verdict = judgement.verdict
    discovery, author = verdict.discovery, verdict.author
    if discovery is None or author is None or judgement.fate not in _HANDLED:
        return None
    record = discovery.record
    if record is None or not record.rua or not _isCertain(discovery):
        return None
    found = judgement.authentication
    seen = _Seen(
        found.address,
        _domainOf(judgement.sender),
        _domainOf(judgement.recipient),
        tuple([(s.domain, s.selector, s.status, s.problem) for s in found.dkim]),
        found.spf,
    )
    return _evaluation(verdict, judgement.fate, _isOptional(judgement), seen)


@lru_cache(MAX_KNOWN)
def _evaluation(
    verdict: Verdict, fate: FinalDisposition, optional: bool, seen: _Seen
) -> Evaluation:
    """
    Whoever sends a lot has it evaluated alike.
    """
    discovery = verdict.discovery
    assert discovery is not None and discovery.record is not None
    record = discovery.record
    return Evaluation(
        _published(discovery, record),
        _row(verdict, fate, discovery, seen),
        hours=hoursOf(record.interval),
        addresses=tuple(map(_shown, record.rua[:MAX_ADDRESSES])),
        optional=optional,
        wanted=fate is FinalDisposition.ACCEPTED and verdict.status is AuthResult.PASS,
    )


def hoursOf(seconds: int) -> int:
    """
    How often reports are made for a domain that asks for them every so many
    seconds: the longest of L{INTERVALS} that isn't longer.
    """
    hours = -(-seconds // 3600)
    return next((each for each in INTERVALS if each <= hours), 1)


def _isCertain(discovery: Discovery) -> bool:
    """
    Whether it is known whom to tell: not if there may be a nearer record.
    """
    return not discovery.temporary or discovery.policyDomain == discovery.author


def _isOptional(judgement: VerdictEvent) -> bool:
    """
    Reports about reports would never end; and who only forges a domain shall
    not make us write to it.
    """
    fate = judgement.fate
    isBecauseOfDMARC = fate is FinalDisposition.REJECTED_BY_DMARC or _isQuarantined(
        judgement.verdict, fate
    )
    return judgement.isForReports or (isBecauseOfDMARC and not judgement.isKnown)


def _isQuarantined(verdict: Verdict, fate: FinalDisposition) -> bool:
    return fate is FinalDisposition.JUNK and verdict.disposition is not DMARCPolicy.NONE


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
    verdict: Verdict, fate: FinalDisposition, discovery: Discovery, seen: _Seen
) -> ReportRow:
    disposition = _disposition(verdict, fate)
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


def _disposition(verdict: Verdict, fate: FinalDisposition) -> Disposition:
    if fate is FinalDisposition.REJECTED_BY_DMARC:
        return Disposition.REJECT
    if _isQuarantined(verdict, fate):
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
    dkim: tuple[_Signed, ...], alignedDKIM: tuple[int, ...], author: Domain
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
    domain = printable(spf.domain)[:MAX_NAME]
    return ReportedSPF(domain, spf.scope, spf.status) if domain else None


def _domainOf(address: str) -> str:
    try:
        return str(parseHost(address.rpartition("@")[2]))
    except InvalidDomain:
        return ""


def _shown(uri: ReportURI) -> str:
    return f"{uri.uri}!{uri.limit}" if uri.limit else uri.uri
