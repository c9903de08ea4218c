"""
Tests for L{moxtls.store.migrate} and L{moxtls.store.tables}.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from twisted.trial.unittest import SynchronousTestCase

from moxtls.store.database import Database, LedgerUnavailable
from moxtls.store.ledger import Ledger
from moxtls.store.migrate import migrate
from moxtls.store.phases import PHASES
from moxtls.store.tables import metadata
from tests.postgres import emptyDatabase
from tests.store.contracts import Contract
from tests.store.threads import race
from tests.store.values import MONDAY


class MigrationContract(Contract):
    """
    Migrations, on any database.
    """

    def makeURL(self) -> str:
        """
        Of an empty database.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        self.url = self.makeURL()

    def open(self) -> Database:
        database = Database(self.url)
        self.addCleanup(database.dispose)
        return database

    def test_fromNothing(self) -> None:
        """
        All migrations, applied to nothing, make exactly the tables that the
        code knows.
        """
        database = self.open()
        migrate(database)
        with database.reader.begin() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_server_default": True}
            )
            self.assertEqual(compare_metadata(context, metadata), [])

    def test_again(self) -> None:
        """
        A ledger that is up to date is left as it is.
        """
        first = Ledger(None, self.url)
        self.got(first.leases.acquire("a", "b", 10, 0))
        self.got(first.stop())
        second = Ledger(None, self.url)
        self.assertFalse(self.got(second.leases.acquire("a", "c", 10, 0)))
        self.got(second.stop())

    def test_atOnce(self) -> None:
        """
        Nodes that start at the same time don't get in each other's way.
        """
        opening: list[Callable[[], Ledger]] = [partial(Ledger, None, self.url)] * 4
        for ledger in race(opening):
            self.got(ledger.stop())

    def test_fromTheFuture(self) -> None:
        """
        A ledger of a later version isn't touched.
        """
        database = self.open()
        migrate(database)
        with database.writer.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        error = self.assertRaises(LedgerUnavailable, Ledger, None, self.url)
        self.assertIn("9999 was made by a later version", str(error))

    def test_allOrNothing(self) -> None:
        """
        If a migration fails, nothing of it stays.
        """
        database = self.open()
        with database.writer.begin() as connection:
            connection.execute(text("CREATE TABLE lease (name TEXT)"))
        self.assertRaises(LedgerUnavailable, migrate, database)
        with database.writer.begin() as connection:
            connection.execute(text("DROP TABLE lease"))
        migrate(database)


class SQLiteMigrationTests(MigrationContract, SynchronousTestCase):
    """
    Migrations on SQLite.
    """

    def makeURL(self) -> str:
        # Names with a percent sign are special to Alembic's configuration.
        return f"sqlite:///{Path(self.mktemp())}%s"

    def test_indexed(self) -> None:
        """
        Subjects are paged through along an index, never sorted.
        """
        database = self.open()
        migrate(database)
        given = {"before": MONDAY, "limit": 9, "day": MONDAY, "domain": "a"}
        for query in (query for phase in PHASES for query in (phase.first, phase.next)):
            compiled = query.compile(database.reader)
            names = compiled.positiontup or ()
            with database.reader.begin() as connection:
                plan = connection.exec_driver_sql(
                    f"EXPLAIN QUERY PLAN {compiled}",
                    tuple(str({**compiled.params, **given}[name]) for name in names),
                ).all()
            steps = [str(step[3]) for step in plan]
            self.assertIn("USING INDEX", steps[0])
            self.assertNotIn("TEMP B-TREE", "".join(steps))


class PostgresMigrationTests(MigrationContract, SynchronousTestCase):
    """
    Migrations on PostgreSQL.
    """

    def makeURL(self) -> str:
        return emptyDatabase()
