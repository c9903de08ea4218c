"""
Received reports, for the tests of L{moxtls.ledger}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from moxtls.dates import DAY
from moxtls.received.types import (
    AcceptedReport,
    Channel,
    DMARCRow,
    Origin,
    ParsedReport,
    RawFormat,
    ReceivedKind,
    RefusedReport,
    RowBlock,
    RowOutcome,
)
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy

ORG = "example.org"
NET = "example.net"
#: The number of a day.
MONDAY = 20_000

PASSED = int(RowOutcome.DKIM | RowOutcome.SPF)
FAILED = int(RowOutcome.REJECT)

MAIL = Origin(Channel.MAIL, "google.com", "DKIM google.com", MONDAY * DAY + 30.5)
HTTPS = Origin(Channel.HTTPS, "192.0.2.1", "", MONDAY * DAY + 40.25)


def accepted(
    report: ParsedReport,
    origin: Origin = MAIL,
    domains: frozenset[str] | None = None,
) -> AcceptedReport:
    """
    A report to store.
    """
    return AcceptedReport(report, origin, domains)


def refused(
    reason: str = "DMARC fails", report: ParsedReport | None = None, day: int = MONDAY
) -> RefusedReport:
    """
    A report that isn't accepted, received on C{day}.
    """
    origin = Origin(Channel.MAIL, "forged.example", "", day * DAY + 1.0)
    return RefusedReport(origin, reason, None, report)


def detail(envelopeFrom: str = ORG) -> tuple[bytes, str]:
    """
    The rest of a row, with its digest.
    """
    text = json.dumps({"envelope_from": envelopeFrom, "header_from": ORG})
    return blake2b(text.encode("ascii"), digest_size=16).digest(), text


@dataclass(frozen=True)
class Row:
    """
    A row, without its network and digest.
    """

    source: str = "192.0.2.1"
    outcome: int = PASSED
    messages: int = 1
    authenticated: str = ORG
    envelopeFrom: str = ORG


def block(rows: Sequence[Row]) -> bytes:
    """
    An encoded block.
    """
    details = dict(detail(each.envelopeFrom) for each in rows)
    return RowBlock(
        [
            DMARCRow(
                each.source,
                each.source.rpartition(".")[0] + ".0/24",
                each.authenticated,
                each.outcome,
                detail(each.envelopeFrom)[0],
                each.messages,
            )
            for each in rows
        ],
        details,
    ).encode()


def dmarc(
    *rows: Row,
    domain: str = ORG,
    day: int = MONDAY,
    reportID: str = "1",
    organization: str = "google.com",
    rowsOfBlock: int = 1000,
) -> ParsedReport:
    """
    A DMARC report.
    """
    rows = rows or (Row(),)
    starts = range(0, len(rows), rowsOfBlock)
    return ParsedReport(
        ReceivedKind.DMARC,
        organization,
        "noreply@google.com",
        reportID,
        day * DAY,
        (day + 1) * DAY - 1,
        digestOf(domain, day, reportID, organization, rows),
        b"raw",
        RawFormat.XML,
        sum(each.messages for each in rows),
        sum(each.messages for each in rows if each.outcome < RowOutcome.DKIM),
        domain=domain,
        published=(("p", "reject"), ("pct", "100")),
        blocks=tuple(block(rows[start : start + rowsOfBlock]) for start in starts),
    )


def policy(
    domain: str = ORG,
    succeeded: int = 10,
    failures: Mapping[str, int] | Sequence[ReceivedFailure] = (),
    type: str = "sts",
) -> ReceivedPolicy:
    """
    A policy of a TLS report; C{failures} are sessions by result type.
    """
    if isinstance(failures, Mapping):
        failures = [
            ReceivedFailure(each, count, mxHostname="mx.example.com")
            for each, count in failures.items()
        ]
    return ReceivedPolicy(
        type,
        domain,
        ("version: STSv1", "mode: enforce"),
        ("mx.example.com",),
        succeeded,
        sum(each.count for each in failures),
        tuple(failures),
    )


def tls(
    *policies: ReceivedPolicy,
    day: int = MONDAY,
    reportID: str = "1",
    organization: str = "google.com",
    domainHint: str = "",
) -> ParsedReport:
    """
    A TLS report.
    """
    policies = policies or (policy(),)
    return ParsedReport(
        ReceivedKind.TLS,
        organization,
        "tlsrpt@google.com",
        reportID,
        day * DAY,
        (day + 1) * DAY - 1,
        digestOf(policies, day, reportID, organization),
        b"raw",
        RawFormat.JSON,
        sum(each.succeeded + each.failed for each in policies),
        sum(each.failed for each in policies),
        domainHint=domainHint,
        policies=policies,
    )


def failure(domain: str = ORG, day: int = MONDAY, reportID: str = "1") -> ParsedReport:
    """
    A failure report.
    """
    return ParsedReport(
        ReceivedKind.FAILURE,
        "linkedin.com",
        "",
        reportID,
        day * DAY + 5,
        day * DAY + 5,
        digestOf(domain, day, reportID),
        b"raw",
        RawFormat.MESSAGE,
        1,
        1,
        domain=domain,
        published=(("Feedback-Type", "auth-failure"),),
    )


def digestOf(*values: object) -> bytes:
    """
    A digest of what is reported.
    """
    return blake2b(repr(values).encode(), digest_size=16).digest()
