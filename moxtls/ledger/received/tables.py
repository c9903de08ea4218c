# -*- test-case-name: tests.ledger.received.test_store -*-
"""
The tables of received reports, and of TLS events of this host's listeners.  No I/O.

A report belongs to a day: see L{moxtls.received.types}.  What has to be added up for
days is kept as sums, which the transaction that stores a report adds to.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine

from moxtls.ledger.tables import metadata, nameType


def _number() -> TypeEngine[int]:
    """
    Only an INTEGER is SQLite's row number.
    """
    return BigInteger().with_variant(Integer, "sqlite")


#: The last number given to a report; each transaction that writes reports locks it.
receivedSequence = Table(
    "received_sequence",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Reports, accepted or refused.
receivedReport = Table(
    "received_report",
    metadata,
    Column("number", _number(), primary_key=True, autoincrement=False),
    # moxtls.ledger.received.values.State.
    Column("state", Integer, nullable=False),
    # A digest of submitter, identifier and period; NULL unless accepted.
    Column("identity", LargeBinary, nullable=True),
    Column("content", LargeBinary, nullable=False),
    # Empty if unknown.
    Column("kind", Text, nullable=False),
    Column("organization", Text, nullable=False),
    Column("contact", Text, nullable=False),
    Column("report_id", Text, nullable=False),
    Column("period_start", BigInteger, nullable=False),
    Column("period_end", BigInteger, nullable=False),
    Column("day", Integer, nullable=False),
    # A JSON list.
    Column("domains", Text, nullable=False),
    # JSON.
    Column("published", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("authentication", Text, nullable=False),
    Column("received", Double, nullable=False),
    Column("refused", Text, nullable=False),
    Column("is_variant", Boolean, nullable=False),
    Column("format", Text, nullable=False),
    # Octets in received_raw, rows in received_dmarc_row.
    Column("size", BigInteger, nullable=False),
    Column("row_count", Integer, nullable=False),
)
Index(
    "ix_received_report_identity",
    receivedReport.c.identity,
    receivedReport.c.content,
    unique=True,
)
# Partial, as few reports are not accepted.
Index(
    "ix_received_report_state",
    receivedReport.c.state,
    receivedReport.c.number,
    sqlite_where=text("state > 0"),
    postgresql_where=text("state > 0"),
)

#: Reports in gzip.
receivedRaw = Table(
    "received_raw",
    metadata,
    Column("report", _number(), primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)

#: Which reports there are, for each of their policy domains, and once more with an
#: empty domain.  Lists read only this table until they have found a page.
receivedDomain = Table(
    "received_domain",
    metadata,
    Column("refused", Boolean, primary_key=True),
    Column("domain", nameType(), primary_key=True),
    Column("report", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("organization", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    # Also true for failures without a failed session: no policy was enforced.
    Column("has_failures", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
# With all columns, so that sums over days read nothing else.
Index(
    "ix_received_domain_day",
    receivedDomain.c.kind,
    receivedDomain.c.domain,
    receivedDomain.c.day,
    receivedDomain.c.report,
    receivedDomain.c.refused,
    receivedDomain.c.organization,
    receivedDomain.c.failed,
    receivedDomain.c.total,
    receivedDomain.c.has_failures,
)

#: Names of reporting organizations; C{number} is a digest of the name.
receivedOrganization = Table(
    "received_organization",
    metadata,
    Column("number", _number(), primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    # In one case, for comparison.
    Column("folded", Text, nullable=False),
    Column("reports", BigInteger, nullable=False),
)

#: Policies in TLS reports.
receivedPolicy = Table(
    "received_tls_policy",
    metadata,
    Column("domain", nameType(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("report", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("organization", BigInteger, nullable=False),
    Column("policy_type", Text, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    # As in L{receivedDomain}.
    Column("has_failures", Boolean, nullable=False),
    # JSON: strings, MX hosts, failures.
    Column("content", Text, nullable=False),
)

#: Failed sessions in TLS reports, by cause; C{cause} is a digest of the columns that
#: distinguish causes.
receivedFailure = Table(
    "received_tls_failure",
    metadata,
    Column("domain", nameType(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("report", BigInteger, primary_key=True, autoincrement=False),
    Column("cause", LargeBinary, primary_key=True),
    Column("organization", BigInteger, nullable=False),
    Column("policy_type", Text, nullable=False),
    Column("result_type", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("mx_host", Text, nullable=False),
    Column("receiving_ip", Text, nullable=False),
    Column("sessions", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Sums of sessions.
receivedTLSDay = Table(
    "received_tls_day",
    metadata,
    Column("domain", nameType(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("policy_type", nameType(), primary_key=True),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Rows of DMARC reports.
receivedRow = Table(
    "received_dmarc_row",
    metadata,
    Column("report", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("source", Text, nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("detail", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

#: The rest of rows, which many rows share, as JSON.  Kept once for each month, so that
#: nothing refers to those of a month whose reports have expired.
receivedDetail = Table(
    "received_dmarc_detail",
    metadata,
    # moxtls.ledger.received.values.monthOf.
    Column("month", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, primary_key=True),
    Column("content", Text, nullable=False),
    sqlite_with_rowid=False,
)

#: Sums of messages by outcome.
receivedDMARCDay = Table(
    "received_dmarc_day",
    metadata,
    Column("domain", nameType(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("outcome", Integer, primary_key=True, autoincrement=False),
    Column("messages", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Sums of messages by network, authenticated domain and outcome; C{key} is a digest of
#: these, as numbers are added up in half the time.
receivedSource = Table(
    "received_dmarc_source",
    metadata,
    Column("domain", nameType(), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    # 0, or the number of a report that is stored in several steps, whose sums count
    # once it is complete.
    Column("part", BigInteger, primary_key=True, autoincrement=False),
    Column("network", Text, nullable=False),
    Column("authenticated", Text, nullable=False),
    Column("outcome", Integer, nullable=False),
    # One of the addresses.
    Column("source", Text, nullable=False),
    Column("messages", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: TLS handshakes that failed on listeners.
listenerFailure = Table(
    "listener_failure",
    metadata,
    # The Unix second in which the hour begins.
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("listener", nameType(), primary_key=True),
    Column("reason", nameType(), primary_key=True),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Certificates that listeners began to use.
listenerCertificate = Table(
    "listener_certificate",
    metadata,
    Column("listener", nameType(), primary_key=True),
    Column("since", Double, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    # A JSON list.
    Column("names", Text, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("not_after", Double, nullable=False),
    sqlite_with_rowid=False,
)
