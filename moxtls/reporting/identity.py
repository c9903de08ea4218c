# -*- test-case-name: tests.reporting.test_identity -*-
"""
Identifiers and file names of reports.  No I/O.

Several hosts of an organization may report to the same policy domain about the same
period, and consumers discard reports that look like duplicates.  So an identifier is
a digest of the ledger's identifier and of everything that distinguishes the reports
of one ledger; nodes that share a ledger compute the same one.
"""

from __future__ import annotations

from hashlib import blake2b

from moxtls.dates import Span
from moxtls.domain import Domain
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import ReportPeriod

#: Octets of the digest; collisions are negligible.
SIZE = 16
_EXTENSIONS = {ReportKind.TLS: "json.gz", ReportKind.DMARC: "xml.gz"}


def reportID(
    ledger: str, kind: ReportKind, submitter: Domain, period: ReportPeriod, span: Span
) -> str:
    """
    The identifier of a report.  Letters and digits only, since it is also the
    C{unique-id} of the file name (RFC 9990 3.1.4, 3.5.1; RFC 8460 5.1).

    @param ledger: The identifier of the ledger.
    """
    parts = (
        ledger,
        kind,
        submitter.ascii,
        str(period.phase),
        period.domain.ascii,
        period.part,
        str(span.start),
        str(span.end),
    )
    return blake2b("\0".join(parts).encode("ascii"), digest_size=SIZE).hexdigest()


def filename(
    kind: ReportKind, submitter: Domain, domain: Domain, span: Span, uniqueID: str
) -> str:
    """
    The file name of a report (RFC 9990 3.5.2, RFC 8460 5.1).

    @param uniqueID: The identifier of the report.
    """
    period = f"{span.start}!{span.last}"
    return f"{submitter}!{domain}!{period}!{uniqueID}.{_EXTENSIONS[kind]}"
