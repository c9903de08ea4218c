# -*- test-case-name: tests.ledger -*-
"""
The tables of the ledger, as they are after the latest migration, and the SQL that the
stores share: upserts of many rows, and digests as keys.  No I/O.

Keys that could be long are replaced by digests: PostgreSQL's indexes accept no values
beyond 2.7 kB, and short keys of one size are faster everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine


def nameType() -> TypeEngine[str]:
    """
    A text column sorted by octets on every database, independent of its locale: for
    domains in A-labels and other sort keys.
    """
    return Text().with_variant(Text(collation="C"), "postgresql")


metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})

#: The identifier of the ledger: one row, inserted by the migration.
ledgerIdentity = Table(
    "ledger_identity",
    metadata,
    Column("identifier", Text, primary_key=True),
    sqlite_with_rowid=False,
)

#: Numbers of sessions per day, policy domain, recipient domain, kind of policy domain
#: and policy; C{key} is a digest of these.
tlsResult = Table(
    "tls_result",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("day", Date, nullable=False),
    Column("policy_domain", nameType(), nullable=False),
    Column("recipient_domain", nameType(), nullable=False),
    Column("is_host", Boolean, nullable=False),
    Column("policy_type", Text, nullable=False),
    # JSON lists of strings.
    Column("policy_strings", Text, nullable=False),
    Column("policy_mx_hosts", Text, nullable=False),
    Column("send_report", Boolean, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("told_recipient", Boolean, nullable=False),
    Column("told_host", Boolean, nullable=False),
    Column("told_destinations", Text, nullable=False),
    # The second in which the period was closed early; else 0.
    Column("until", BigInteger, nullable=False, server_default=text("0")),
    sqlite_with_rowid=False,
)
# Each serves one phase of reporting: pages in this order without a sort, and the
# results of one period.
Index(
    "ix_tls_result_policy_domain",
    tlsResult.c.day,
    tlsResult.c.policy_domain,
    tlsResult.c.recipient_domain,
)
Index(
    "ix_tls_result_recipient_domain",
    tlsResult.c.day,
    tlsResult.c.recipient_domain,
    tlsResult.c.policy_domain,
)
# Partial, as few periods are closed early.
Index(
    "ix_tls_result_until",
    tlsResult.c.until,
    sqlite_where=text("until > 0"),
    postgresql_where=text("until > 0"),
)

#: Numbers of sessions per failure of a L{tlsResult}; C{digest} is a digest of all
#: columns that distinguish failures.
tlsFailure = Table(
    "tls_failure",
    metadata,
    Column("result_key", LargeBinary, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("result_type", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("sending_ip", Text, nullable=False),
    Column("mx_hostname", Text, nullable=False),
    Column("mx_helo", Text, nullable=False),
    Column("receiving_ip", Text, nullable=False),
    Column("additional", Text, nullable=False),
    Column("sessions", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Outgoing reports; C{digest} is a digest of kind, phase, domain, span and destination,
#: so that each report is stored once.
outgoingReport = Table(
    "outgoing_report",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("domain", nameType(), nullable=False),
    Column("span_start", BigInteger, nullable=False),
    Column("span_end", BigInteger, nullable=False),
    Column("destination", nameType(), nullable=False),
    Column("phase", Integer, nullable=False),
    Column("report_id", Text, nullable=False),
    Column("sender", Text, nullable=False),
    # The sender in lower case; NULL if there is none.
    Column("sender_key", Text, nullable=True),
    Column("message", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("composed", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("updated", Double, nullable=False),
    Column("detail", Text, nullable=False),
    Column("part", Text, nullable=False, server_default=text("''")),
)
Index("ix_outgoing_report_sender_key", outgoingReport.c.sender_key, unique=True)
Index(
    "ix_outgoing_report_state",
    outgoingReport.c.kind,
    outgoingReport.c.state,
    outgoingReport.c.composed,
)
Index("ix_outgoing_report_composed", outgoingReport.c.composed)

#: Destinations that get no reports; C{digest} is a digest of destination and kind.
suppression = Table(
    "suppression",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("destination", nameType(), nullable=False),
    # Empty for all kinds.
    Column("kind", nameType(), nullable=False),
    Column("until", Double, nullable=False),
    Column("created", Double, nullable=False),
    Column("comment", Text, nullable=False),
    Column("failures", Integer, nullable=False),
)

#: Numbers of messages evaluated by DMARC in an hour, per policy domain and policy;
#: C{part} is a digest of C{published} and C{hours}.
dmarcTally = Table(
    "dmarc_tally",
    metadata,
    Column("policy_domain", nameType(), primary_key=True),
    Column("part", nameType(), primary_key=True),
    # The Unix second in which the hour begins.
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    # The reporting interval.
    Column("hours", Integer, nullable=False),
    # JSON.
    Column("published", Text, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("wanted", BigInteger, nullable=False),
    Column("sendable", Boolean, nullable=False),
    # A set, as bits: moxtls.ledger.evaluationcounters.BITS.
    Column("dispositions", Integer, nullable=False),
    # The approximate number of rows, and of messages for which there was no row.
    Column("kept", Integer, nullable=False),
    Column("omitted", BigInteger, nullable=False),
    # As in L{tlsResult}.
    Column("until", BigInteger, nullable=False, server_default=text("0")),
    sqlite_with_rowid=False,
)
Index(
    "ix_dmarc_tally_hour",
    dmarcTally.c.hour,
    dmarcTally.c.policy_domain,
    dmarcTally.c.part,
)

#: Numbers of messages per evaluation of a L{dmarcTally}; C{key} contains the tally's,
#: and sorts like the rows of reports: see L{moxtls.ledger.evaluationcounters}.
dmarcRow = Table(
    "dmarc_row",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("hour", BigInteger, nullable=False),
    Column("optional", Boolean, nullable=False),
    Column("wanted", Boolean, nullable=False),
    # JSON.
    Column("addresses", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("messages", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Seconds in which reporting periods were closed early; C{domain} is empty for those
#: of all domains.
reportClosing = Table(
    "report_closing",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("domain", nameType(), primary_key=True),
    Column("until", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

#: Domains with which an account has corresponded, and the last day, counted from
#: 1970.  In C{domain} the labels are reversed, each followed by a dot: a domain is a
#: prefix of its subdomains.
senderHistory = Table(
    "sender_history",
    metadata,
    Column("account", nameType(), primary_key=True),
    Column("domain", nameType(), primary_key=True),
    Column("sign", nameType(), primary_key=True),
    Column("day", Integer, nullable=False),
    sqlite_with_rowid=False,
)
Index("ix_sender_history_domain", senderHistory.c.domain)

#: Cached MTA-STS policies; a NULL C{mode} stands for a failed fetch.
stsPolicy = Table(
    "mta_sts_policy",
    metadata,
    Column("domain", nameType(), primary_key=True),
    Column("mode", Text, nullable=True),
    Column("max_age", BigInteger, nullable=False),
    # JSON lists of strings.
    Column("mx", Text, nullable=False),
    Column("lines", Text, nullable=False),
    Column("record_id", Text, nullable=False),
    Column("inserted", Double, nullable=False),
    Column("fetched", Double, nullable=False),
    Column("valid_end", Double, nullable=False),
    Column("last_use", Double, nullable=False),
)

#: Leases, by which nodes agree on who does a task.
lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
)


T = TypeVar("T")

#: Keys per query; SQLite takes 32 766 parameters, PostgreSQL 65 535.
MAX_KEYS = 1000
#: Octets: long enough to make finding a collision infeasible.
DIGEST_SIZE = 24

Insert = sqlite.Insert | postgresql.Insert
Columns = ReadOnlyColumnCollection[str, Any]
Row = tuple[object, ...]


class BulkInsert:
    """
    Inserts rows into a table.

    The statement is compiled once for each kind of database, and the driver is
    given the rows as they are: half of SQLAlchemy's time for a row goes into
    parameters.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._compiled: dict[str, str] = {}

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """
        @param rows: Values of all columns, in their order, as the driver takes
            them.  Nodes that write several rows have to do so in the same order,
            or they deadlock.
        """
        if rows:
            dialect = connection.dialect
            statement = self._compiled.get(dialect.name)
            if statement is None:
                statement = self._compiled[dialect.name] = self._compile(dialect)
            connection.exec_driver_sql(statement, list(rows))

    def _compile(self, dialect: Dialect) -> str:
        statement = self._statement(insertInto(self._table, dialect.name))
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        columns = [column.name for column in self._table.columns]
        assert compiled.positiontup == columns, compiled.positiontup
        return str(compiled)

    def _statement(self, insert: Insert) -> Insert:
        return insert


class InsertMissing(BulkInsert):
    """
    Inserts rows into a table, except those whose primary key exists.
    """

    def _statement(self, insert: Insert) -> Insert:
        return insert.on_conflict_do_nothing(
            index_elements=list(self._table.primary_key)
        )


class Upsert(BulkInsert):
    """
    Inserts rows into a table, or updates those whose primary key exists.
    """

    def __init__(
        self, table: Table, change: Callable[[Columns, Columns], Mapping[str, object]]
    ) -> None:
        """
        @param change: From the columns of the existing row and those of the new
            one, makes the new values of the existing row.
        """
        super().__init__(table)
        self._change = change

    def _statement(self, insert: Insert) -> Insert:
        return insert.on_conflict_do_update(
            index_elements=list(self._table.primary_key),
            set_=self._change(self._table.columns, insert.excluded),
        )


def insertInto(table: Table, dialect: str) -> Insert:
    """
    An INSERT that has an ON CONFLICT clause.

    @param dialect: C{sqlite} or C{postgresql}.
    """
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def replaced(*names: str) -> Callable[[Columns, Columns], Mapping[str, object]]:
    """
    For L{Upsert}: replace the values of the columns C{names}.
    """
    return lambda old, new: {name: new[name] for name in names}


def digest(*texts: str) -> bytes:
    """
    A short key for C{texts}, none of which may contain a NUL.
    """
    joined = "\0".join(texts).encode("utf-8", "replace")
    return blake2b(joined, digest_size=DIGEST_SIZE).digest()


def chunks(keys: Sequence[T]) -> Iterable[Sequence[T]]:
    """
    C{keys}, at most L{MAX_KEYS} at a time.
    """
    for start in range(0, len(keys), MAX_KEYS):
        yield keys[start : start + MAX_KEYS]
