# -*- test-case-name: tests.store.test_migrations -*-
"""
Brings the tables of a ledger up to date.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from moxtls.store.database import (
    Database,
    LedgerMissing,
    LedgerUnavailable,
    sqliteFile,
)

#: For PostgreSQL's advisory locks: the octets of "moxtls".
ADVISORY_LOCK = int.from_bytes(b"moxtls")


def migrate(database: Database, make: bool = True) -> None:
    """
    Apply what migrations there are, in one transaction; nodes that start at
    the same time do it one after the other.

    @param make: Make the tables if there are none.

    @raise LedgerUnavailable: The database can't be reached or written, or was
        made by a later version.
    @raise LedgerMissing: There are no tables, and C{make} is false.
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
        heads = set(ScriptDirectory.from_config(config).get_heads())
        present = _present(database, connection)
        if not present and not make:
            raise LedgerMissing(database.name)
        if present != heads:
            command.upgrade(config, "head")
        transaction.commit()


def examine(url: str) -> None:
    """
    See whether a ledger could be opened; nothing is made or changed.

    @raise LedgerUnavailable: It couldn't.
    """
    path = sqliteFile(url)
    if path is None:
        database = Database(url)
        with database.opening(), database.reader.connect() as connection:
            _present(database, connection)
        database.dispose()
    elif path.exists():
        _examineFile(Database(url, readOnly=True), path)
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        reason = os.strerror(errno.EACCES if path.parent.is_dir() else errno.ENOENT)
        raise LedgerUnavailable(f"ledger {url}: {reason}")


def _examineFile(database: Database, path: Path) -> None:
    with database.opening():
        if not os.access(path, os.R_OK | os.W_OK):
            raise database.unavailable("attempt to write a readonly database")
        with database.reader.connect() as connection:
            _present(database, connection)
    database.dispose()


def _present(database: Database, connection: Connection) -> set[str]:
    """
    The revisions that a ledger has.

    @raise LedgerUnavailable: A later version made it.
    """
    script = ScriptDirectory.from_config(configuration(connection))
    present = set(MigrationContext.configure(connection).get_current_heads())
    unknown = present - {each.revision for each in script.walk_revisions()}
    if unknown:
        raise database.unavailable(
            f"revision {min(unknown)} was made by a later version of moxtls"
        )
    return present


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
