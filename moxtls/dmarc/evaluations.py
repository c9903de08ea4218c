# -*- test-case-name: tests.dmarc.test_evaluations -*-
"""
What is remembered of a judgement until a report has it (RFC 9990 3.1.1).
No I/O.
"""

from __future__ import annotations

from moxtls.authentication import AuthResult, DKIMResult
from moxtls.dmarc.values import (
    Discovery,
    Disposition,
    DMARCRecord,
    Evaluation,
    Fate,
    Judgement,
    Override,
    OverrideKind,
    Policy,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
    ReportURI,
)
from moxtls.dmarc.walk import printable
from moxtls.domain import LONGEST_NAME, Domain, InvalidDomain, parseHost

#: RFC 9990 3.1.3.
MOST_SIGNATURES = 100
#: Of what is kept for people.
MOST_ADDRESSES = 10
LONGEST_PROBLEM = 200

#: The whole divisors of a day that reports are made by, in hours.
INTERVALS = (24, 12, 8, 6, 4, 3, 2, 1)

_HANDLED = (Fate.ACCEPTED, Fate.JUNK, Fate.REJECTED_BY_DMARC)


def evaluationOf(judgement: Judgement) -> Evaluation | None:
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
    return Evaluation(
        _published(discovery, record),
        _row(judgement, discovery),
        hours=hoursOf(record.interval),
        addresses=tuple(map(_shown, record.rua[:MOST_ADDRESSES])),
        optional=_isOptional(judgement),
        wanted=(judgement.fate is Fate.ACCEPTED and verdict.status is AuthResult.PASS),
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


def _isOptional(judgement: Judgement) -> bool:
    """
    Reports about reports would never end; and who only forges a domain shall
    not make us write to it.
    """
    isBecauseOfDMARC = judgement.fate is Fate.REJECTED_BY_DMARC or _isQuarantined(
        judgement
    )
    return judgement.isForReports or (isBecauseOfDMARC and not judgement.isKnown)


def _isQuarantined(judgement: Judgement) -> bool:
    asked = judgement.verdict.disposition
    return judgement.fate is Fate.JUNK and asked is not Policy.NONE


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


def _row(judgement: Judgement, discovery: Discovery) -> ReportRow:
    verdict = judgement.verdict
    disposition = _disposition(judgement)
    return ReportRow(
        sourceIP=judgement.authentication.address,
        disposition=disposition,
        dkimAligned=verdict.dkimAligned,
        spfAligned=verdict.spfAligned,
        reasons=_reasons(judgement, disposition),
        headerFrom=discovery.author.ascii,
        envelopeFrom=_domainOf(judgement.sender),
        envelopeTo=_domainOf(judgement.recipient),
        dkim=_signatures(judgement, discovery),
        spf=_spf(judgement),
    )


def _disposition(judgement: Judgement) -> Disposition:
    verdict = judgement.verdict
    if judgement.fate is Fate.REJECTED_BY_DMARC:
        return Disposition.REJECT
    if _isQuarantined(judgement):
        return Disposition.QUARANTINE
    isEnforcing = verdict.policy is not Policy.NONE
    if verdict.status is AuthResult.PASS and isEnforcing:
        return Disposition.PASS
    return Disposition.NONE


def _reasons(judgement: Judgement, disposition: Disposition) -> tuple[Override, ...]:
    """
    Those of the verdict, and that it wasn't followed, if so: a disposition
    that isn't the policy has a reason (RFC 9990 3.1.1.9).
    """
    verdict = judgement.verdict
    asked = verdict.disposition
    if asked is Policy.NONE or asked.value == disposition.value:
        return verdict.reasons
    ours = Override(OverrideKind.LOCAL_POLICY, "the recipient's choice")
    return (*verdict.reasons, ours)


def _signatures(
    judgement: Judgement, discovery: Discovery
) -> tuple[ReportedSignature, ...]:
    """
    In the order of RFC 9990 3.1.3.  All that were checked, whoever signed
    (RFC 9990 3.1.1.11): a list or a service in between is of interest.
    """
    aligned = frozenset(judgement.verdict.alignedDKIM)
    ranked = [
        (_rank(result, place in aligned, discovery.author), result)
        for place, result in enumerate(judgement.authentication.dkim)
        if result.selector
    ]
    ranked.sort(key=lambda each: each[0])
    return tuple(
        ReportedSignature(
            result.domain.ascii,
            result.selector,
            result.status,
            printable(result.problem)[:LONGEST_PROBLEM],
        )
        for _, result in ranked[:MOST_SIGNATURES]
    )


def _rank(result: DKIMResult, isAligned: bool, author: Domain) -> int:
    if result.status is not AuthResult.PASS:
        return 3
    if not isAligned:
        return 2
    return 0 if result.domain == author else 1


def _spf(judgement: Judgement) -> ReportedSPF | None:
    spf = judgement.authentication.spf
    # What a client calls itself may be anything.
    domain = printable(spf.domain)[:LONGEST_NAME]
    return ReportedSPF(domain, spf.scope, spf.status) if domain else None


def _domainOf(address: str) -> str:
    try:
        return str(parseHost(address.rpartition("@")[2]))
    except InvalidDomain:
        return ""


def _shown(uri: ReportURI) -> str:
    return f"{uri.uri}!{uri.limit}" if uri.limit else uri.uri
