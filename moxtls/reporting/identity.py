# -*- test-case-name: tests.reporting.test_identity -*-
"""
Identifiers and file names of reports.  No I/O.

Hosts of one domain send reports in its name about the same policy domain and
period, and consumers drop what they take for a duplicate.  So an identifier
depends on the ledger that the report was made from, besides all that tells the
reports of one ledger apart; nodes that share a ledger agree on it.
"""

from __future__ import annotations

from hashlib import blake2b

from moxtls.dates import Span
from moxtls.domain import Domain
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import ReportPeriod

#: Octets: no two reports in the world have the same by chance.
SIZE = 16
_EXTENSIONS = {ReportKind.TLS: "json.gz", ReportKind.DMARC: "xml.gz"}


def reportID(
    ledger: str, kind: ReportKind, submitter: Domain, period: ReportPeriod, span: Span
) -> str:
    """
    The identifier of a report: letters and digits only, so that it is the
    C{unique-id} of the file name, too (RFC 9990 3.1.4, 3.5.1; RFC 8460 5.1).

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
    RFC 9990 3.5.2, RFC 8460 5.1.

    @param uniqueID: The identifier of the report.
    """
    period = f"{span.start}!{span.last}"
    return f"{submitter}!{domain}!{period}!{uniqueID}.{_EXTENSIONS[kind]}"
