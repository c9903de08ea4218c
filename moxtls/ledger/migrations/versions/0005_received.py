"""
Tables of received reports, and of TLS events of listeners.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """
    Apply the migration in the transaction that is open.
    """
    _reports()
    _raw()
    _domains()
    _tls()
    _dmarc()
    _listeners()


def _name() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _number() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _reports() -> None:
    op.create_table(
        "received_sequence",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_received_sequence"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "received_report",
        sa.Column("number", _number(), nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("identity", sa.LargeBinary, nullable=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("organization", sa.Text, nullable=False),
        sa.Column("contact", sa.Text, nullable=False),
        sa.Column("report_id", sa.Text, nullable=False),
        sa.Column("period_start", sa.BigInteger, nullable=False),
        sa.Column("period_end", sa.BigInteger, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("domains", sa.Text, nullable=False),
        sa.Column("published", sa.Text, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("authentication", sa.Text, nullable=False),
        sa.Column("received", sa.Double, nullable=False),
        sa.Column("refused", sa.Text, nullable=False),
        sa.Column("is_variant", sa.Boolean, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("row_count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_received_report"),
    )
    op.create_index(
        "ix_received_report_identity",
        "received_report",
        ["identity", "content"],
        unique=True,
    )
    op.create_index(
        "ix_received_report_state",
        "received_report",
        ["state", "number"],
        sqlite_where=sa.text("state > 0"),
        postgresql_where=sa.text("state > 0"),
    )


def _raw() -> None:
    op.create_table(
        "received_raw",
        sa.Column("report", _number(), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("report", name="pk_received_raw"),
    )


def _domains() -> None:
    op.create_table(
        "received_domain",
        sa.Column("refused", sa.Boolean, nullable=False),
        sa.Column("domain", _name(), nullable=False),
        sa.Column("report", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("organization", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("has_failures", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint(
            "refused", "domain", "report", name="pk_received_domain"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_received_domain_day",
        "received_domain",
        [
            "kind",
            "domain",
            "day",
            "report",
            "refused",
            "organization",
            "failed",
            "total",
            "has_failures",
        ],
    )
    op.create_table(
        "received_organization",
        sa.Column("number", _number(), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("folded", sa.Text, nullable=False),
        sa.Column("reports", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_received_organization"),
    )


def _tls() -> None:
    op.create_table(
        "received_tls_policy",
        sa.Column("domain", _name(), nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("report", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("organization", sa.BigInteger, nullable=False),
        sa.Column("policy_type", sa.Text, nullable=False),
        sa.Column("succeeded", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("has_failures", sa.Boolean, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint(
            "domain", "day", "report", "position", name="pk_received_tls_policy"
        ),
    )
    op.create_table(
        "received_tls_failure",
        sa.Column("domain", _name(), nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("report", sa.BigInteger, nullable=False),
        sa.Column("cause", sa.LargeBinary, nullable=False),
        sa.Column("organization", sa.BigInteger, nullable=False),
        sa.Column("policy_type", sa.Text, nullable=False),
        sa.Column("result_type", sa.Text, nullable=False),
        sa.Column("reason_code", sa.Text, nullable=False),
        sa.Column("mx_host", sa.Text, nullable=False),
        sa.Column("receiving_ip", sa.Text, nullable=False),
        sa.Column("sessions", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "domain", "day", "report", "cause", name="pk_received_tls_failure"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "received_tls_day",
        sa.Column("domain", _name(), nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("policy_type", _name(), nullable=False),
        sa.Column("succeeded", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "domain", "day", "policy_type", name="pk_received_tls_day"
        ),
        sqlite_with_rowid=False,
    )


def _dmarc() -> None:
    op.create_table(
        "received_dmarc_row",
        sa.Column("report", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("outcome", sa.Integer, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("report", "position", name="pk_received_dmarc_row"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "received_dmarc_detail",
        sa.Column("month", sa.Integer, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("month", "digest", name="pk_received_dmarc_detail"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "received_dmarc_day",
        sa.Column("domain", _name(), nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Integer, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "domain", "day", "outcome", name="pk_received_dmarc_day"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "received_dmarc_source",
        sa.Column("domain", _name(), nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("key", sa.BigInteger, nullable=False),
        sa.Column("part", sa.BigInteger, nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("authenticated", sa.Text, nullable=False),
        sa.Column("outcome", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "domain", "day", "key", "part", name="pk_received_dmarc_source"
        ),
        sqlite_with_rowid=False,
    )


def _listeners() -> None:
    op.create_table(
        "listener_failure",
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("listener", _name(), nullable=False),
        sa.Column("reason", _name(), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "hour", "listener", "reason", name="pk_listener_failure"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "listener_certificate",
        sa.Column("listener", _name(), nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("not_after", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("listener", "since", name="pk_listener_certificate"),
        sqlite_with_rowid=False,
    )
