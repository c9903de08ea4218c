"""
Tests for L{moxtls.ledger.ledger}: the contracts, on each database and in memory.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY
from moxtls.domain import Domain
from moxtls.ledger import bounds, evaluationcounters, stores
from moxtls.ledger.ledger import Ledger, MemoryLedger
from moxtls.ledger.tables import ledgerIdentity, metadata
from tests.ledger.contracts import (
    ArchiveContract,
    Contract,
    LeaseContract,
    OutcomeContract,
    PolicyContract,
    Stores,
    SuppressionContract,
)
from tests.ledger.evaluationcontracts import EvaluationContract, HistoryContract
from tests.ledger.values import MIDNIGHT, evaluation
from tests.postgres import clear, emptyDatabase

#: When what was evaluated at midnight is due.
DUE = MIDNIGHT + DAY


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
    clear(sharedURL(), *(set(metadata.tables) - {ledgerIdentity.name}))
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
        self.url = f"sqlite:///{path}"
        ledger = Ledger(None, self.url)
        self.addCleanup(ledger.stop)
        return ledger


class OnPostgres(Contract):
    """
    A PostgreSQL database, emptied before each test.
    """

    def makeLedger(self) -> Stores:
        ledger = Ledger(None, emptied())
        self.addCleanup(ledger.stop)
        return ledger


class RoomContract(Contract):
    """
    The limit on rows per domain and hour, independent of the cache.
    """

    def again(self) -> Ledger:
        """
        The ledger, opened once more.
        """
        raise NotImplementedError

    def record(self, ledger: Stores, *numbers: int) -> None:
        for number in numbers:
            self.got(ledger.evaluations.record(MIDNIGHT, evaluation(number)))

    def summary(self) -> tuple[int, int, int]:
        """
        Messages, rows, and messages omitted.
        """
        (period,) = self.got(self.ledger.evaluations.periods(DUE, None, 9))
        summary = self.got(self.ledger.evaluations.summary(period))
        assert summary is not None
        return summary.messages, summary.rows, summary.omitted

    def test_restart(self) -> None:
        """
        Rows stored by an earlier process count, and are added to.
        """
        self.patch(bounds, "MAX_ROWS", 3)
        self.record(self.ledger, 1, 2)
        later = self.again()
        self.record(later, 1, 2, 3, 4, 1)
        self.assertEqual(self.summary(), (6, 3, 1))

    def test_forgotten(self) -> None:
        """
        Rows that are no longer cached count.
        """
        self.patch(bounds, "MAX_ROWS", 3)
        self.patch(evaluationcounters, "MAX_KNOWN", 0)
        self.record(self.ledger, 1, 2, 1, 3, 4, 3, 5)
        self.assertEqual(self.summary(), (5, 3, 2))

    def test_remembered(self) -> None:
        """
        The cache of written entries is bounded.
        """
        self.patch(stores, "MAX_KNOWN", 2)
        for number in range(9):
            domain = Domain(f"{number}.example")
            self.got(self.ledger.history.sent("mjl", domain, 0))
        for number in range(9):
            domain = Domain(f"{number}.example")
            self.assertTrue(self.got(self.ledger.history.isKnown("mjl", domain)))


class SQLiteRoomTests(OnSQLite, RoomContract, SynchronousTestCase):
    """
    Room in SQLite.
    """

    def again(self) -> Ledger:
        ledger = Ledger(None, self.url)
        self.addCleanup(ledger.stop)
        return ledger


class PostgresRoomTests(OnPostgres, RoomContract, SynchronousTestCase):
    """
    Room in PostgreSQL.
    """

    def again(self) -> Ledger:
        ledger = Ledger(None, sharedURL())
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
    The sender history in SQLite.
    """


class PostgresEvaluationTests(OnPostgres, EvaluationContract, SynchronousTestCase):
    """
    Evaluations in PostgreSQL.
    """


class PostgresHistoryTests(OnPostgres, HistoryContract, SynchronousTestCase):
    """
    The sender history in PostgreSQL.
    """


class InMemory:
    """
    Makes ledgers in memory.
    """

    def makeLedger(self) -> Stores:
        return MemoryLedger()


class MemoryOutcomeTests(InMemory, OutcomeContract, SynchronousTestCase):
    """
    Outcomes in memory.
    """


class MemoryArchiveTests(InMemory, ArchiveContract, SynchronousTestCase):
    """
    Reports in memory.
    """


class MemorySuppressionTests(InMemory, SuppressionContract, SynchronousTestCase):
    """
    Suppressions in memory.
    """


class MemoryPolicyTests(InMemory, PolicyContract, SynchronousTestCase):
    """
    Policies in memory.
    """


class MemoryLeaseTests(InMemory, LeaseContract, SynchronousTestCase):
    """
    Leases in memory.
    """


class MemoryEvaluationTests(InMemory, EvaluationContract, SynchronousTestCase):
    """
    Evaluations in memory.
    """


class MemoryHistoryTests(InMemory, HistoryContract, SynchronousTestCase):
    """
    The sender history in memory.
    """
