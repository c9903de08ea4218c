"""
Values to keep, for the tests of L{moxtls.ledger}.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date

from moxtls.authentication.results import AuthResult
from moxtls.dates import midnight, spanOfDay
from moxtls.dmarc.types import (
    Disposition,
    DMARCPolicy,
    Evaluation,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger
from moxtls.mtasts.policy import CachedPolicy, Mode, STSPolicy
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import OutgoingReport, ReportKey, ReportPeriod, ReportState
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)

MONDAY = date(2026, 11, 23)
TUESDAY = date(2026, 11, 24)
WEDNESDAY = date(2026, 11, 25)

ORG = Domain("example.org")
NET = Domain("example.net")
MX = Domain("mx.example.com")


def sts(domain: Domain, maxAge: int = 86400) -> TLSPolicy:
    """
    The MTA-STS policy of C{domain}; another C{maxAge} makes it another one.
    """
    lines = ("version: STSv1", "mode: enforce", f"max_age: {maxAge}", f"mx: {MX}")
    return TLSPolicy(PolicyType.STS, domain, lines, (str(MX),))


def tlsa(domain: Domain) -> TLSPolicy:
    """
    The TLSA records of a host.
    """
    return TLSPolicy(PolicyType.TLSA, domain, ("3 1 1 aa", "3 1 1 bb"))


def noPolicy(domain: Domain) -> TLSPolicy:
    """
    A tally of C{domain} without a policy.
    """
    return TLSPolicy(PolicyType.NO_POLICY, domain)


EXPIRED = FailureDetail(
    ResultType.CERTIFICATE_EXPIRED,
    "",
    "192.0.2.1",
    str(MX),
    "mx1.example.com",
    "2001:db8::1",
    "",
)
UNUSABLE = FailureDetail(
    ResultType.TLSA_INVALID, "all-unusable-records+ignored", mxHostname=str(MX)
)


def good(
    domain: Domain = ORG, host: Domain = MX, sendReport: bool = True
) -> SessionOutcome:
    """
    A session under an MTA-STS policy and DANE that went well.
    """
    return SessionOutcome(
        domain,
        PolicyTally(sts(domain), succeeded=1),
        (PolicyTally(tlsa(host), succeeded=1),),
        sendReport,
    )


def bad(
    domain: Domain = ORG,
    host: Domain = MX,
    failure: FailureDetail = EXPIRED,
    sendReport: bool = True,
) -> SessionOutcome:
    """
    A session that failed under MTA-STS, and was fine by itself for DANE.
    """
    return SessionOutcome(
        domain,
        PolicyTally(sts(domain), failed=1, failures=Counter({failure: 1})),
        (PolicyTally(tlsa(host), failed=1),),
        sendReport,
    )


def report(
    domain: Domain = ORG,
    destination: str = "mailto:tlsrpt@example.org",
    composed: float = 1000.0,
    day: date = MONDAY,
    state: ReportState = ReportState.COMPOSED,
    kind: ReportKind = ReportKind.TLS,
) -> OutgoingReport:
    """
    A report, whose envelope sender follows from its key.
    """
    span = spanOfDay(day)
    key = ReportKey(kind, domain, span.start, span.end, destination)
    return OutgoingReport(
        key,
        reportID=f"{day}.{domain}@example.com",
        sender=f"TLSRPT+{abs(hash(key)):x}@example.com",
        message=b"From: tlsrpt@example.com\r\n\r\n\xff\x00",
        contentType="application/tlsrpt+gzip",
        composed=composed,
        state=state,
    )


def cached(domain: Domain = ORG, lastUse: float = 5.5) -> CachedPolicy:
    """
    A policy as it is remembered.
    """
    policy = STSPolicy(
        Mode.ENFORCE, 86400, (str(MX), "*.example.net"), sts(domain).strings
    )
    return CachedPolicy(domain, policy, "20261124", 1.25, 2.0, 86402.0, lastUse)


def file(ledger: Ledger, *reports: OutgoingReport) -> None:
    """
    File reports in the archive of C{ledger}.
    """
    ledger.outcomes.settle(ReportPeriod(0, MONDAY, ORG), (), reports)


#: Monday's first second.
MIDNIGHT = midnight(MONDAY)
PUBLISHED = PublishedPolicy(ORG, DMARCPolicy.REJECT)
ROW = ReportRow(
    "192.0.2.1",
    Disposition.REJECT,
    False,
    False,
    (Override(OverrideKind.LOCAL_POLICY, "known"),),
    "www.example.org",
    "bounce.example.org",
    "example.com",
    (ReportedSignature("example.org", "s1", AuthResult.FAIL, "body hash"),),
    ReportedSPF("bounce.example.org", "mfrom", AuthResult.SOFTFAIL),
)
EVALUATION = Evaluation(PUBLISHED, ROW, addresses=("mailto:dmarc@example.org",))


def evaluation(
    number: int = 1,
    published: PublishedPolicy = PUBLISHED,
    hours: int = 24,
    optional: bool = False,
    wanted: bool = False,
) -> Evaluation:
    """
    An evaluation of mail from C{192.0.2.number}.
    """
    row = replace(ROW, sourceIP=f"192.0.2.{number}")
    return Evaluation(published, row, hours, (), optional, wanted)
