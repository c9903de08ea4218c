# -*- test-case-name: tests.ledger.test_ledger -*-
"""
The ledger: the stores of L{moxtls.interfaces} in a database that nodes can share,
and leases, by which nodes agree on who does a task.
"""

from __future__ import annotations

from sqlalchemy import select
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from moxtls.ledger.database import Database, migrate
from moxtls.ledger.evaluations import EvaluationStore
from moxtls.ledger.groupcommit import makeReader, makeWriter
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
