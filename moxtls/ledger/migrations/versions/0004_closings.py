"""
Early ends of reporting periods: results recorded before and after are kept apart.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """
    Apply the migration in the transaction that is open.
    """
    for table in ("tls_result", "dmarc_tally"):
        zero = sa.text("0")
        column = sa.Column("until", sa.BigInteger, nullable=False, server_default=zero)
        op.add_column(table, column)
    closed = sa.text("until > 0")
    op.create_index(
        "ix_tls_result_until",
        "tls_result",
        ["until"],
        sqlite_where=closed,
        postgresql_where=closed,
    )
    op.create_table(
        "report_closing",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("domain", _name(), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "domain", "until", name="pk_report_closing"),
        sqlite_with_rowid=False,
    )


def _name() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
