# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The ledger: the stores of L{moxtls.interfaces} in a database that nodes can share, or in
memory.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Engine, StaticPool, create_engine, select
from sqlalchemy.engine import make_url
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from moxtls.ledger.database import Database, beginWith, migrate
from moxtls.ledger.evaluations import EvaluationStore
from moxtls.ledger.groupcommit import makeReader, makeWriter
from moxtls.ledger.received.listenerhistory import ListenerHistory
from moxtls.ledger.received.store import ReceivedReportStore
from moxtls.ledger.reports import ReportArchive
from moxtls.ledger.stores import Leases, PolicyStore, SenderHistory, Suppressions
from moxtls.ledger.tables import ledgerIdentity
from moxtls.ledger.tlsresults import OutcomeStore
from moxtls.outages import OutageLog


class Ledger:
    """
    All stores in one database.

    @ivar identifier: Letters and digits, unique to each ledger, and the same for all
        nodes that share it.
    @ivar outcomes: L{IOutcomeStore <moxtls.interfaces.IOutcomeStore>}.
    @ivar evaluations: L{IEvaluationStore <moxtls.interfaces.IEvaluationStore>}.
    @ivar history: L{ISenderHistory <moxtls.interfaces.ISenderHistory>}.
    @ivar policies: L{IPolicyStore <moxtls.interfaces.IPolicyStore>}.
    @ivar archive: L{IReportArchive <moxtls.interfaces.IReportArchive>}.
    @ivar suppressions: L{ISuppressions <moxtls.interfaces.ISuppressions>}.
    @ivar leases: L{ILeases <moxtls.interfaces.ILeases>}.
    @ivar received: L{IReceivedReportStore
        <moxtls.received.interfaces.IReceivedReportStore>}.
    @ivar listenerHistory: L{IListenerHistory
        <moxtls.received.interfaces.IListenerHistory>}.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads | None,
        url: str,
        outages: OutageLog | None = None,
        make: bool = True,
    ) -> None:
        """
        Open the ledger and migrate its tables; blocks on the database.

        @param reactor: C{None} to run every operation, and fire its C{Deferred}, before
            the call returns: for commands and tests.
        @param url: C{sqlite:///relative/path}, C{sqlite:////absolute/path} or
            C{postgresql://user:password@host/name}.
        @param outages: Logs outages of the database.
        @param make: Create the database file and the tables if they don't exist.

        @raise LedgerUnavailable: The database can't be reached or written, or was
            made by a later version.
        @raise LedgerMissing: There is no ledger, and C{make} is false.
        """
        database = Database(url, make=make)
        try:
            migrate(database, make)
            self._openStores(database, reactor, outages)
        except BaseException:
            database.dispose()
            raise

    def _openStores(
        self,
        database: Database,
        reactor: IReactorFromThreads | None = None,
        outages: OutageLog | None = None,
    ) -> None:
        """
        Open the stores in a database whose tables are up to date.
        """
        self._database = database
        self.identifier = _identifier(database)
        self._writer = makeWriter(reactor, database, outages)
        self._reader = makeReader(reactor, database, outages)
        parts = self._writer, self._reader
        self.archive = ReportArchive(*parts)
        self.outcomes = OutcomeStore(*parts, self.archive)
        self.evaluations = EvaluationStore(*parts, self.archive)
        self.history = SenderHistory(*parts)
        self.policies = PolicyStore(*parts)
        self.suppressions = Suppressions(*parts)
        self.leases = Leases(self._writer)
        self.received = ReceivedReportStore(*parts)
        self.listenerHistory = ListenerHistory(*parts)

    def stop(self) -> Deferred[None]:
        """
        Close the ledger.  Fires once all accepted operations are done.
        """

        async def stop() -> None:
            await self._writer.stop()
            await self._reader.stop()
            self._database.dispose()

        return Deferred.fromCoroutine(stop())


def _identifier(database: Database) -> str:
    with database.opening(), database.reader.begin() as connection:
        query = select(ledgerIdentity.c.identifier)
        return str(connection.execute(query).scalar_one())


_URL = "sqlite+pysqlite://"

# Copies of the template are different ledgers.
_NEW_IDENTIFIER = "UPDATE ledger_identity SET identifier = lower(hex(randomblob(16)))"


class MemoryLedger(Ledger):
    """
    All stores in one in-memory database, which is lost when the process ends: for
    tests, for embedding, and for commands that run without a ledger.

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
