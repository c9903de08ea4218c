"""
The first tables: outcomes of TLS, reports, suppressions, policies, leases.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """
    Apply the migration in the transaction that is open.
    """
    _outcomes()
    _reports()
    _rest()


def _name() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _outcomes() -> None:
    op.create_table(
        "tls_result",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("policy_domain", _name(), nullable=False),
        sa.Column("recipient_domain", _name(), nullable=False),
        sa.Column("is_host", sa.Boolean, nullable=False),
        sa.Column("policy_type", sa.Text, nullable=False),
        sa.Column("policy_strings", sa.Text, nullable=False),
        sa.Column("policy_mx_hosts", sa.Text, nullable=False),
        sa.Column("send_report", sa.Boolean, nullable=False),
        sa.Column("succeeded", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("told_recipient", sa.Boolean, nullable=False),
        sa.Column("told_host", sa.Boolean, nullable=False),
        sa.Column("told_destinations", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_tls_result"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_tls_result_policy_domain",
        "tls_result",
        ["day", "policy_domain", "recipient_domain"],
    )
    op.create_index(
        "ix_tls_result_recipient_domain",
        "tls_result",
        ["day", "recipient_domain", "policy_domain"],
    )
    op.create_table(
        "tls_failure",
        sa.Column("result_key", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("result_type", sa.Text, nullable=False),
        sa.Column("reason_code", sa.Text, nullable=False),
        sa.Column("sending_ip", sa.Text, nullable=False),
        sa.Column("mx_hostname", sa.Text, nullable=False),
        sa.Column("mx_helo", sa.Text, nullable=False),
        sa.Column("receiving_ip", sa.Text, nullable=False),
        sa.Column("additional", sa.Text, nullable=False),
        sa.Column("sessions", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("result_key", "digest", name="pk_tls_failure"),
        sqlite_with_rowid=False,
    )


def _reports() -> None:
    op.create_table(
        "outgoing_report",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("domain", _name(), nullable=False),
        sa.Column("span_start", sa.BigInteger, nullable=False),
        sa.Column("span_end", sa.BigInteger, nullable=False),
        sa.Column("destination", _name(), nullable=False),
        sa.Column("phase", sa.Integer, nullable=False),
        sa.Column("report_id", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("sender_key", sa.Text, nullable=True),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("composed", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_outgoing_report"),
    )
    op.create_index(
        "ix_outgoing_report_sender_key", "outgoing_report", ["sender_key"], unique=True
    )
    op.create_index(
        "ix_outgoing_report_state", "outgoing_report", ["kind", "state", "composed"]
    )
    op.create_index("ix_outgoing_report_composed", "outgoing_report", ["composed"])
    op.create_table(
        "suppression",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("destination", _name(), nullable=False),
        sa.Column("kind", _name(), nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_suppression"),
    )


def _rest() -> None:
    op.create_table(
        "mta_sts_policy",
        sa.Column("domain", _name(), nullable=False),
        sa.Column("mode", sa.Text, nullable=True),
        sa.Column("max_age", sa.BigInteger, nullable=False),
        sa.Column("mx", sa.Text, nullable=False),
        sa.Column("lines", sa.Text, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("inserted", sa.Double, nullable=False),
        sa.Column("fetched", sa.Double, nullable=False),
        sa.Column("valid_end", sa.Double, nullable=False),
        sa.Column("last_use", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("domain", name="pk_mta_sts_policy"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
