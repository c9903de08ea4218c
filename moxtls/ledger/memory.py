# -*- test-case-name: tests.ledger.test_memory -*-
"""
A ledger in memory, for tests, for embedding, and for commands that run without a
ledger: L{moxtls.ledger.ledger} on one connection to an in-memory SQLite database.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Engine, StaticPool, create_engine
from sqlalchemy.engine import make_url

from moxtls.ledger.database import Database, beginWith, migrate
from moxtls.ledger.ledger import Ledger

_URL = "sqlite+pysqlite://"

# Copies of the template are different ledgers.
_NEW_IDENTIFIER = "UPDATE ledger_identity SET identifier = lower(hex(randomblob(16)))"


class MemoryLedger(Ledger):
    """
    All stores in one in-memory database, which is lost when the process ends.

    Every operation is done, and its C{Deferred} fired, by the time the call
    returns.  All calls have to come from the thread that made the ledger.
    """

    def __init__(self) -> None:
        self._openStores(MemoryDatabase(_emptyLedger()))


class MemoryDatabase(Database):
    """
    An in-memory SQLite database on one connection.
    """

    def __init__(self, content: bytes = b"") -> None:
        """
        @param content: A serialized database to begin with.
        """
        self._setURL(make_url(_URL))
        self.writer = self.reader = _engine(content)

    def serialize(self) -> bytes:
        """
        The content of the database, for L{MemoryDatabase}.
        """
        with self.writer.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            return driver.serialize()


@lru_cache(maxsize=1)
def _emptyLedger() -> bytes:
    """
    An empty ledger, serialized: a copy takes much less time than the migrations.
    """
    database = MemoryDatabase()
    migrate(database)
    content = database.serialize()
    database.dispose()
    return content


@lru_cache(maxsize=1)
def _shared() -> tuple[Dialect, dict[Any, Any]]:
    """
    The dialect of all in-memory ledgers, and their cache of compiled statements:
    compiling a statement takes SQLAlchemy longer than running it takes SQLite.
    """
    return create_engine(_URL).dialect, {}


def _engine(content: bytes) -> Engine:
    def connect() -> Any:
        # SQLAlchemy begins transactions, not Python's module.
        connection = sqlite3.connect(":memory:", isolation_level=None)
        if content:
            connection.deserialize(content)
            connection.execute(_NEW_IDENTIFIER)
        return connection

    dialect, compiled = _shared()
    engine = Engine(StaticPool(connect, dialect=dialect), dialect, make_url(_URL))
    engine = engine.execution_options(compiled_cache=compiled)
    beginWith(engine, "BEGIN")
    return engine
