"""
Alembic's entry: runs migrations on the connection it is given, within the
transaction that is open there.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from moxtls.ledger.tables import metadata


def run(connection: Connection) -> None:
    """
    Apply what L{moxtls.ledger.database} asked for.
    """
    # SQLite can undo changes of tables, too, which Alembic doesn't expect.
    context.configure(
        connection=connection, target_metadata=metadata, transactional_ddl=True
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
