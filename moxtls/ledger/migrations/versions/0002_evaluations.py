"""
Tables of DMARC evaluations, a part that distinguishes reports by policy, and the sender
history of accounts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """
    Apply the migration in the transaction that is open.
    """
    op.add_column(
        "outgoing_report",
        sa.Column("part", sa.Text, nullable=False, server_default=sa.text("''")),
    )
    _evaluations()
    _history()


def _name() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _evaluations() -> None:
    op.create_table(
        "dmarc_tally",
        sa.Column("policy_domain", _name(), nullable=False),
        sa.Column("part", _name(), nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("hours", sa.Integer, nullable=False),
        sa.Column("published", sa.Text, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("wanted", sa.BigInteger, nullable=False),
        sa.Column("sendable", sa.Boolean, nullable=False),
        sa.Column("dispositions", sa.Integer, nullable=False),
        sa.Column("kept", sa.Integer, nullable=False),
        sa.Column("omitted", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("policy_domain", "part", "hour", name="pk_dmarc_tally"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_dmarc_tally_hour", "dmarc_tally", ["hour", "policy_domain", "part"]
    )
    op.create_table(
        "dmarc_row",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("optional", sa.Boolean, nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False),
        sa.Column("addresses", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_dmarc_row"),
        sqlite_with_rowid=False,
    )


def _history() -> None:
    op.create_table(
        "sender_history",
        sa.Column("account", _name(), nullable=False),
        sa.Column("domain", _name(), nullable=False),
        sa.Column("sign", _name(), nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("account", "domain", "sign", name="pk_sender_history"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_sender_history_domain", "sender_history", ["domain"])
