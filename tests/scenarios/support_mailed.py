"""
Messages with reports of other hosts, as moxtls sends them.
"""

from __future__ import annotations

import time
from datetime import timedelta

from moxtls.authentication.dkim.sign import Signer, loadKey, sign
from moxtls.dates import spanOfDay, utcDay
from moxtls.dmarc.aggregate import AggregateMetadata, AggregateWriter, ReportFormat
from moxtls.dmarc.types import Disposition, DMARCPolicy, PublishedPolicy, ReportRow
from moxtls.domain import Address, Domain
from moxtls.message.mime import MessageStamp
from moxtls.queue.types import ReportKind
from moxtls.reporting.compose import composeAggregateReport, composeTLSReport
from moxtls.reporting.types import ReportDraft, ReportPeriod
from moxtls.tlsrpt.generate import TLSReportMetadata, composeReport, compress
from moxtls.tlsrpt.types import PolicyTally, PolicyType, TLSPolicy
from tests.reporting.support import ED25519_PEM

REPORTER = Domain("reporter.example")
NOW = time.time()
#: The day before.
DAY = utcDay(NOW) - timedelta(days=1)
SPAN = spanOfDay(DAY)


def signer(
    domain: str = "reporter.example", selector: str = "s", service: str = ""
) -> Signer:
    """
    A key of a domain.
    """
    return Signer(Domain.parse(domain), selector, loadKey(ED25519_PEM), service)


def tlsMessage(
    *domains: str,
    reportID: str = "tls1",
    signers: tuple[Signer, ...] = (signer(),),
    succeeded: int = 7,
    token: str = "",
) -> bytes:
    """
    A message with a TLS report with one policy for each domain.

    @param token: Distinguishes messages with the same report.
    """
    tallies = [
        PolicyTally(TLSPolicy(PolicyType.NO_POLICY, Domain.parse(each)), succeeded)
        for each in domains
    ]
    metadata = TLSReportMetadata(REPORTER, reportID, SPAN)
    document = compress(composeReport(metadata, tallies))
    draft = _draft(ReportKind.TLS, domains[0], reportID, document, "json")
    return sign(composeTLSReport(draft, _TO, _stamp(reportID + token)), signers)


def dmarcMessage(
    domain: str,
    reportID: str = "dmarc1",
    signers: tuple[Signer, ...] = (signer(),),
    count: int = 12,
) -> bytes:
    """
    A message with a DMARC aggregate report of one row.
    """
    row = ReportRow(
        "192.0.2.7", Disposition.NONE, False, False, (), domain, domain, "b.example"
    )
    writer = AggregateWriter(
        ReportFormat.RFC9990,
        AggregateMetadata(REPORTER, reportID, SPAN),
        PublishedPolicy(Domain.parse(domain), DMARCPolicy.NONE),
    )
    writer.add([(row, count)])
    draft = _draft(ReportKind.DMARC, domain, reportID, writer.finish(), "xml")
    return sign(composeAggregateReport(draft, _TO, _stamp(reportID)), signers)


_TO = (Address.parse("reports@example.org"),)


def _stamp(reportID: str) -> MessageStamp:
    # Not every ID is fit for a Message-ID.
    token = "".join(filter(str.isalnum, reportID)) or "x"
    return MessageStamp(REPORTER, token, NOW)


def _draft(
    kind: ReportKind,
    domain: str,
    reportID: str,
    document: bytes,
    suffix: str,
) -> ReportDraft:
    period = ReportPeriod(0, DAY, Domain.parse(domain))
    name = f"{REPORTER}!{domain}!{SPAN.start}!{SPAN.last}.{suffix}.gz"
    return ReportDraft(kind, period, SPAN, reportID, REPORTER, (), document, name)
