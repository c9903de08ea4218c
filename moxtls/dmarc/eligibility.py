# -*- test-case-name: tests.dmarc.test_eligibility -*-
"""
Who gets aggregate reports, and who doesn't for everybody's good.  No I/O.

Anybody can send mail in the name of a domain of his own that asks for reports,
and so have every host he sends to write to any address of his choice, or learn
which addresses exist.  So mail that DMARC refused or put into Junk causes a report
only to domains that somebody here has had to do with: L{moxtls.dmarc.evaluation}
marks it.  Mail that was accepted always does: a domain that only begins to
authenticate its mail publishes C{p=none} to be told of it.  Operators may demand a
positive sign about every domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moxtls.dmarc.aggregate import ReportFormat
from moxtls.dmarc.discovery import PublicSuffixes
from moxtls.dmarc.types import PeriodSummary
from moxtls.dns.query import LookupGenerator, LookupQuestion
from moxtls.dns.types import RRType
from moxtls.domain import Domain


@dataclass(frozen=True, slots=True)
class DMARCReporting:
    """
    What the operator decides.

    @ivar submitter: In whose name reports are sent; C{None} if in nobody's.
    @ivar formats: By the domain of the address that a report goes to; others
        get C{format}.
    @ivar minimum: Of how many messages there has to be something to report.
    @ivar onlyTo: Policy domains that get reports; empty for all.
    @ivar notTo: Policy domains that get none.
    @ivar strangers: Whether domains get reports on accepted mail, also if none of
        it passed and nobody here has had to do with them.
    @ivar suffixes: Makes it what RFC 7489 has.
    """

    submitter: Domain | None
    format: ReportFormat = ReportFormat.RFC9990
    formats: Mapping[Domain, ReportFormat] = field(default_factory=dict)
    minimum: int = 1
    onlyTo: frozenset[Domain] = frozenset()
    notTo: frozenset[Domain] = frozenset()
    strangers: bool = True
    suffixes: PublicSuffixes | None = None


def exclusionReason(
    domain: Domain, summary: PeriodSummary, settings: DMARCReporting
) -> str | None:
    """
    Why the policy domain C{domain} gets no report, whoever it is.
    """
    if domain in settings.notTo:
        return "switched off for this domain"
    if settings.onlyTo and domain not in settings.onlyTo:
        return "not one of the domains that get reports"
    if summary.messages < settings.minimum:
        return f"fewer than {settings.minimum} messages"
    return None


def refusalReason(
    summary: PeriodSummary, hasHistory: bool, settings: DMARCReporting
) -> str | None:
    """
    Why there is no report; C{None} if there may be one.

    @param hasHistory: There is a good sign about the organizational domain,
        be it old.
    """
    refusal = exclusionReason(summary.published.domain, summary, settings)
    if refusal is not None:
        return refusal
    if settings.strangers or hasHistory or summary.wanted:
        return None
    return (
        "a stranger, all of whose mail was refused, junk or not authenticated "
        "(Strangers of DMARC is false)"
    )


def unreachableReason(domain: Domain) -> LookupGenerator[str]:
    """
    Whether anybody could answer to mail from C{domain}, as many hosts refuse
    mail that nobody could (RFC 5321 5.1, RFC 7505).

    @return: Why not; empty if somebody could.
    """
    (mx,) = yield (LookupQuestion(domain.ascii, RRType.MX),)
    if mx.failed:
        return f"the MX records of {domain} can't be looked up: {mx.reason}"
    if mx.mx:
        hosts = any(each.exchange for each in mx.mx)
        return "" if hosts else f"{domain} says that it takes no mail (RFC 7505)"
    kinds = (RRType.A, RRType.AAAA)
    addresses = yield tuple(LookupQuestion(domain.ascii, kind) for kind in kinds)
    if any(answer.addresses for answer in addresses):
        return ""
    failed = next((answer.reason for answer in addresses if answer.failed), None)
    if failed is not None:
        return f"the addresses of {domain} can't be looked up: {failed}"
    return f"{domain} can't receive mail: it has no MX and no address records"
