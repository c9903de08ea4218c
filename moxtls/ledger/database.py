# -*- test-case-name: tests.ledger.test_database -*-
"""
Connections to the database of a ledger, their errors, and migrations of its tables.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from moxtls.interfaces import StoreUnavailable
from moxtls.sqlitefile import makePrivate, readOnly

#: Seconds to wait for another process that writes to the same file.
SQLITE_BUSY_TIMEOUT = 10
#: Pages in the write-ahead log before a checkpoint: the default, 1000, makes a busy
#: writer do one several times a second.
SQLITE_CHECKPOINT = 4000
#: Attempts to switch to WAL mode, a tenth of a second apart.
MAX_WAL_ATTEMPTS = 50
#: Kilobytes of page cache: enough for the counters of a busy day, so that updates
#: don't read from disk.
SQLITE_CACHE = 32_000
#: Timeouts for connecting to a server (seconds) and for a dead connection
#: (tcp_user_timeout in milliseconds).
POSTGRES_OPTIONS = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "moxtls",
}
#: Limits on statements and locks, so that none blocks the ledger forever.
POSTGRES_SETTINGS = ("SET statement_timeout = '60s'", "SET lock_timeout = '10s'")

#: https://www.postgresql.org/docs/current/errcodes-appendix.html:
#: serialization_failure, deadlock_detected, lock_not_available.
_TRANSIENT_STATES = frozenset({"40001", "40P01", "55P03"})
_TRANSIENT_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}


class LedgerUnavailable(StoreUnavailable):
    """
    The ledger can't be opened, reached or written now.

    @ivar args: One line with the URL of the ledger and the error.
    """


class LedgerMissing(Exception):
    """
    The ledger doesn't exist, and creating it wasn't requested.
    """


class Database:
    """
    The database of a ledger.

    @ivar name: Its URL without secrets.
    @ivar writer: One connection, for transactions that write.
    @ivar reader: Connections whose transactions see one snapshot.
    """

    def __init__(self, url: str, readOnly: bool = False, make: bool = True) -> None:
        """
        @param url: C{sqlite:///relative}, C{sqlite:////absolute} or
            C{postgresql://user:password@host/name}.
        @param readOnly: Open an SQLite file for reading, without creating files
            beside it.
        @param make: Create an SQLite file that doesn't exist.

        @raise LedgerUnavailable: The URL is invalid, or of an unknown kind.
        @raise LedgerMissing: The file doesn't exist, and C{make} is false.
        """
        parsed = _parse(url)
        self._setURL(parsed)
        if self.isSQLite and not make and not _isFile(parsed):
            raise LedgerMissing(self.name)
        with self.opening():
            if not self.isSQLite:
                self.writer, self.reader = _postgresEngines(parsed)
            elif readOnly:
                self.writer = self.reader = _readOnlyEngine(Path(parsed.database or ""))
            else:
                makePrivate(Path(parsed.database or ""))
                self.writer, self.reader = _sqliteEngines(parsed)

    def _setURL(self, url: URL) -> None:
        backend = url.get_backend_name()
        self.name = url.set(
            drivername=backend, password=None, query={}
        ).render_as_string()
        self._secrets = [url.password, *map(str, url.query.values())]
        self.isSQLite = backend == "sqlite"

    @contextmanager
    def opening(self) -> Iterator[None]:
        """
        Convert errors of the database to L{LedgerUnavailable}.
        """
        try:
            yield
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise self.unavailable(error) from None

    def unavailable(self, error: BaseException | str) -> LedgerUnavailable:
        """
        Make an exception that explains C{error} in one line, without secrets.
        """
        cause = getattr(error, "orig", None) or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        text = "; ".join(line.strip() for line in lines)
        for secret in self._secrets:
            text = text.replace(secret, "***") if secret else text
        return LedgerUnavailable(f"ledger {self.name}: {text}")

    def explain(self, error: SQLAlchemyError) -> Exception:
        """
        Convert an error that is a condition of the database to L{LedgerUnavailable};
        errors of a statement are returned unchanged.
        """
        if isinstance(error, OperationalError | InterfaceError) or isDisconnected(
            error
        ):
            return self.unavailable(error)
        return error

    def dispose(self) -> None:
        """
        Close all connections.
        """
        self.writer.dispose()
        self.reader.dispose()


def isDisconnected(error: SQLAlchemyError) -> bool:
    """
    True if the error closed the connection.
    """
    return isinstance(error, DBAPIError) and error.connection_invalidated


def isTransient(error: SQLAlchemyError) -> bool:
    """
    True if a retry of the transaction may succeed.  Not for use after a failed commit
    on a broken connection, whose result is unknown.
    """
    if isDisconnected(error):
        return True
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.OperationalError):
        # The low byte is the primary result code.
        return cause.sqlite_errorcode & 0xFF in _TRANSIENT_CODES
    return getattr(cause, "sqlstate", None) in _TRANSIENT_STATES


def _parse(text: str) -> URL:
    scheme = text.partition(":")[0].partition("+")[0]
    try:
        url = make_url(text)
        driver = _DRIVERS[url.get_backend_name()]
    except (ArgumentError, KeyError, ValueError):
        known = "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
        raise LedgerUnavailable(
            f"ledger {scheme[:20]!r}: the URL has to be {known}"
        ) from None
    if driver.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise LedgerUnavailable("ledger sqlite: the URL names no file") from None
    return url.set(drivername=driver)


def sqliteFile(url: str) -> Path | None:
    """
    The file of an SQLite ledger; C{None} for PostgreSQL.

    @raise LedgerUnavailable: The URL is invalid, or of an unknown kind.
    """
    parsed = _parse(url)
    isFile = parsed.get_backend_name() == "sqlite"
    return Path(parsed.database or "") if isFile else None


def _readOnlyEngine(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        try:
            connection = readOnly(path)
        except sqlite3.Error as error:
            raise OperationalError(None, None, error) from None
        # For a file that doesn't exist, an empty database.
        return sqlite3.connect(":memory:") if connection is None else connection

    return create_engine("sqlite+pysqlite://", creator=connect)


def _isFile(url: URL) -> bool:
    # SQLite reports other errors.
    try:
        os.stat(str(url.database))
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def _sqliteEngines(url: URL) -> tuple[Engine, Engine]:
    writer = create_engine(
        url,
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT},
    )
    reader = create_engine(
        url, hide_parameters=True, connect_args={"timeout": SQLITE_BUSY_TIMEOUT}
    )
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
        event.listen(engine, "connect", _setUpSQLite)
        # A transaction that begins as a reader would fail, rather than wait, when it
        # writes after another one did.
        beginWith(engine, begin)
    _useWAL(writer)
    return writer, reader


def _setUpSQLite(connection: DBAPIConnection, _: object) -> None:
    # SQLAlchemy begins transactions, not Python's module.
    connection.isolation_level = None
    _execute(
        connection,
        # Committed data survives a power failure.
        "PRAGMA synchronous = FULL",
        f"PRAGMA cache_size = -{SQLITE_CACHE}",
        f"PRAGMA wal_autocheckpoint = {SQLITE_CHECKPOINT}",
    )


def _execute(connection: DBAPIConnection, *statements: str) -> None:
    cursor = connection.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
    except Exception as error:
        # SQLAlchemy doesn't translate errors in its events.
        raise OperationalError(None, None, error) from None
    finally:
        cursor.close()


def beginWith(engine: Engine, statement: str) -> None:
    """
    Have transactions on C{engine} begin with C{statement}.
    """

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    event.listen(engine, "begin", begin)


def _useWAL(engine: Engine) -> None:
    """
    Switch the file to WAL mode, in which readers don't wait for the writer.  The mode
    is stored in the file.
    """
    for attempt in range(MAX_WAL_ATTEMPTS):
        try:
            with engine.connect() as connection:
                # Not possible within a transaction.
                return _execute(connection.connection, "PRAGMA journal_mode = WAL")
        except OperationalError as error:
            # The busy timeout doesn't apply while another process does the same.
            if attempt == MAX_WAL_ATTEMPTS - 1 or not isTransient(error):
                raise
            sleep(0.1)


def _postgresEngines(url: URL) -> tuple[Engine, Engine]:
    options = {
        name: value for name, value in POSTGRES_OPTIONS.items() if name not in url.query
    }
    writer = create_engine(
        url,
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        # Parameters by position, as on SQLite: see moxtls.ledger.groupcommit.
        paramstyle="format",
        connect_args=options,
    )
    reader = create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args=options,
        isolation_level="REPEATABLE READ",
    )
    for engine in (writer, reader):
        event.listen(engine, "connect", _setUpPostgres)
    return writer, reader


def _setUpPostgres(connection: DBAPIConnection, _: object) -> None:
    _execute(connection, *POSTGRES_SETTINGS)
    connection.commit()


#: For PostgreSQL's advisory locks: the octets of "moxtls".
ADVISORY_LOCK = int.from_bytes(b"moxtls")


def migrate(database: Database, make: bool = True) -> None:
    """
    Apply pending migrations in one transaction; nodes that start at the same time
    take turns.

    @param make: Create the tables if there are none.

    @raise LedgerUnavailable: The database can't be reached or written, or was made by
        a later version.
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
        config = alembicConfig(connection)
        heads = set(ScriptDirectory.from_config(config).get_heads())
        present = _revisions(database, connection)
        if not present and not make:
            raise LedgerMissing(database.name)
        if present != heads:
            command.upgrade(config, "head")
        transaction.commit()


def checkLedger(url: str) -> None:
    """
    Check that a ledger could be opened, without creating or changing anything.

    @raise LedgerUnavailable: It could not.
    """
    path = sqliteFile(url)
    if path is None:
        database = Database(url)
        with database.opening(), database.reader.connect() as connection:
            _revisions(database, connection)
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
            _revisions(database, connection)
    database.dispose()


def _revisions(database: Database, connection: Connection) -> set[str]:
    """
    The revisions of a ledger's tables.

    @raise LedgerUnavailable: A later version made it.
    """
    script = ScriptDirectory.from_config(alembicConfig(connection))
    present = set(MigrationContext.configure(connection).get_current_heads())
    unknown = present - {each.revision for each in script.walk_revisions()}
    if unknown:
        raise database.unavailable(
            f"revision {min(unknown)} was made by a later version of moxtls"
        )
    return present


def alembicConfig(connection: Connection) -> Config:
    """
    The configuration for Alembic's commands, run in a transaction of C{connection}.
    """
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    # Alembic interpolates values.
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
