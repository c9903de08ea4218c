"""
Tests for L{moxtls.store.ledger}: the contracts, on each database.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from moxtls.store.ledger import Ledger
from moxtls.store.tables import metadata
from tests.postgres import clear, emptyDatabase
from tests.store.contracts import (
    ArchiveContract,
    Contract,
    LeaseContract,
    OutcomeContract,
    PolicyContract,
    Stores,
    SuppressionContract,
)
from tests.store.evaluationcontracts import EvaluationContract, HistoryContract


@lru_cache(maxsize=1)
def sharedURL() -> str:
    """
    A PostgreSQL database with the ledger's tables.
    """
    url = emptyDatabase()
    Ledger(None, url).stop()
    return url


def emptied() -> str:
    """
    The URL of an empty ledger on PostgreSQL.
    """
    clear(sharedURL(), *metadata.tables)
    return sharedURL()


@lru_cache(maxsize=1)
def emptyFile() -> bytes:
    """
    A SQLite database with the ledger's tables.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger"
        Ledger(None, f"sqlite:///{path}").stop()
        return path.read_bytes()


class OnSQLite(Contract):
    """
    A new file for each test.
    """

    def makeLedger(self) -> Stores:
        path = Path(self.mktemp())
        path.write_bytes(emptyFile())
        ledger = Ledger(None, f"sqlite:///{path}")
        self.addCleanup(ledger.stop)
        return ledger


class OnPostgres(Contract):
    """
    One database, emptied before each test.
    """

    def makeLedger(self) -> Stores:
        ledger = Ledger(None, emptied())
        self.addCleanup(ledger.stop)
        return ledger


class SQLiteOutcomeTests(OnSQLite, OutcomeContract, SynchronousTestCase):
    """
    Outcomes in SQLite.
    """


class SQLiteArchiveTests(OnSQLite, ArchiveContract, SynchronousTestCase):
    """
    Reports in SQLite.
    """


class SQLiteSuppressionTests(OnSQLite, SuppressionContract, SynchronousTestCase):
    """
    Suppressions in SQLite.
    """


class SQLitePolicyTests(OnSQLite, PolicyContract, SynchronousTestCase):
    """
    Policies in SQLite.
    """


class SQLiteLeaseTests(OnSQLite, LeaseContract, SynchronousTestCase):
    """
    Leases in SQLite.
    """


class PostgresOutcomeTests(OnPostgres, OutcomeContract, SynchronousTestCase):
    """
    Outcomes in PostgreSQL.
    """


class PostgresArchiveTests(OnPostgres, ArchiveContract, SynchronousTestCase):
    """
    Reports in PostgreSQL.
    """


class PostgresSuppressionTests(OnPostgres, SuppressionContract, SynchronousTestCase):
    """
    Suppressions in PostgreSQL.
    """


class PostgresPolicyTests(OnPostgres, PolicyContract, SynchronousTestCase):
    """
    Policies in PostgreSQL.
    """


class PostgresLeaseTests(OnPostgres, LeaseContract, SynchronousTestCase):
    """
    Leases in PostgreSQL.
    """


class SQLiteEvaluationTests(OnSQLite, EvaluationContract, SynchronousTestCase):
    """
    Evaluations in SQLite.
    """


class SQLiteHistoryTests(OnSQLite, HistoryContract, SynchronousTestCase):
    """
    Who knows whom, in SQLite.
    """


class PostgresEvaluationTests(OnPostgres, EvaluationContract, SynchronousTestCase):
    """
    Evaluations in PostgreSQL.
    """


class PostgresHistoryTests(OnPostgres, HistoryContract, SynchronousTestCase):
    """
    Who knows whom, in PostgreSQL.
    """
