"""
An identifier of the ledger, which makes report identifiers unique across ledgers.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

#: Octets, enough to be unique.
SIZE = 16


def upgrade() -> None:
    """
    Apply the migration in the transaction that is open.
    """
    table = op.create_table(
        "ledger_identity",
        sa.Column("identifier", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("identifier", name="pk_ledger_identity"),
        sqlite_with_rowid=False,
    )
    op.bulk_insert(table, [{"identifier": secrets.token_hex(SIZE)}])
