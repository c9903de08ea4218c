# -*- test-case-name: tests.dmarc.test_eligibility -*-
"""
Selects the domains that may receive aggregate reports (abuse prevention, RFC 9990 8).  No I/O.

An attacker can send mail in the name of a domain of his own that requests reports, and
so make every receiving host send mail to addresses of his choice, or learn which
addresses exist.  Therefore mail that was rejected or put into Junk because of DMARC
causes a report only to domains with which a local account has corresponded;
L{moxtls.dmarc.evaluation} marks other evaluations as optional.  Accepted mail always
causes a report: a domain that introduces authentication publishes C{p=none} in order
to get reports.  Operators may demand previous correspondence for all domains.
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
    The operator's settings for aggregate reports.

    @ivar submitter: The reporting domain; C{None} if no domain can sign reports.
    @ivar formats: Formats by the domain of the destination; others get C{format}.
    @ivar minimum: The minimum number of messages in a report.
    @ivar onlyTo: Policy domains that get reports; empty for all.
    @ivar notTo: Policy domains that get none.
    @ivar strangers: True to report on accepted mail even if none of it passed and no
        local account has corresponded with the domain.
    @ivar suffixes: If given, discovery as in RFC 7489.
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
    The reason why the settings exclude a report to C{domain}; C{None} if they don't.
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
    The reason why there is no report; C{None} if there may be one.

    @param hasHistory: True if a local account has ever corresponded with the
        organizational domain.
    """
    refusal = exclusionReason(summary.published.domain, summary, settings)
    if refusal is not None:
        return refusal
    if settings.strangers or hasHistory or summary.wanted:
        return None
    return (
        "an unknown domain, all of whose mail was refused, junk or not authenticated "
        "(Strangers of DMARC is false)"
    )


def unreachableReason(domain: Domain) -> LookupGenerator[str]:
    """
    Look up whether C{domain} can receive mail, since many hosts refuse mail to which
    no reply is possible (RFC 5321 5.1, RFC 7505).

    @return: The reason why it can't; empty if it can.
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
