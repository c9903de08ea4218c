# -*- test-case-name: tests.store.test_migrations -*-
"""
Brings the tables of a ledger up to date.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from moxtls.store.database import Database

#: For PostgreSQL's advisory locks: the octets of "moxtls".
ADVISORY_LOCK = int.from_bytes(b"moxtls")


def migrate(database: Database) -> None:
    """
    Apply what migrations there are, in one transaction; nodes that start at
    the same time do it one after the other.

    @raise LedgerUnavailable: The database can't be reached or written, or was
        made by a later version.
    """
    with database.opening(), database.writer.connect() as connection:
        transaction = connection.begin()
        if not database.isSQLite:
            # SQLite's transactions are exclusive by themselves.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            lock = text("SELECT pg_advisory_xact_lock(:lock)")
            connection.execute(lock, {"lock": ADVISORY_LOCK})
        config = configuration(connection)
        script = ScriptDirectory.from_config(config)
        heads = set(script.get_heads())
        present = set(MigrationContext.configure(connection).get_current_heads())
        unknown = present - {each.revision for each in script.walk_revisions()}
        if unknown:
            raise database.unavailable(
                f"revision {min(unknown)} was made by a later version of moxtls"
            )
        if present != heads:
            command.upgrade(config, "head")
        transaction.commit()


def configuration(connection: Connection) -> Config:
    """
    For Alembic's commands, to be run within a transaction of C{connection}.
    """
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    # The values are interpolated.
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
