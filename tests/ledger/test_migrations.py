"""
Tests for L{moxtls.ledger.database} and L{moxtls.ledger.tables}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event, text
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR
from moxtls.domain import Domain
from moxtls.ledger.database import Database, LedgerUnavailable, alembicConfig, migrate
from moxtls.ledger.evaluationcounters import endOfPrefix, keyAfter, keyPrefix
from moxtls.ledger.evaluations import (
    FIRST,
    NEXT,
    REMOVE_PERIOD,
    REMOVE_ROWS,
    ROWS,
    ROWS_OF_TALLY,
)
from moxtls.ledger.ledger import Ledger
from moxtls.ledger.reports import PHASES
from moxtls.ledger.stores import KNOWN_TO_ACCOUNT, KNOWN_TO_ANY
from moxtls.ledger.tables import digest, metadata
from moxtls.reporting.types import ReportPeriod
from tests.ledger.contracts import Contract
from tests.ledger.threads import race
from tests.ledger.values import EVALUATION, MONDAY, PUBLISHED, evaluation, report
from tests.postgres import emptyDatabase

#: As the first revision keeps it.
OLD_REPORT = """
    INSERT INTO outgoing_report VALUES (
        :digest, 'tls', 'example.org', 1795392000, 1795478400,
        'mailto:tlsrpt@example.org', 0, '2026-11-23.example.org@example.com',
        :sender, lower(:sender), :message, 'application/tlsrpt+gzip', 1000,
        'composed', '', 0, ''
    )
"""
#: Statements that may read no more than a range of an index.
RANGES = (
    FIRST,
    NEXT,
    ROWS,
    ROWS_OF_TALLY,
    REMOVE_PERIOD,
    REMOVE_ROWS,
    KNOWN_TO_ACCOUNT,
    KNOWN_TO_ANY,
)


class MigrationContract(Contract):
    """
    Migrations, on any database.
    """

    def makeURL(self) -> str:
        """
        The URL of an empty database.
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
        All migrations, from an empty database, make exactly the tables of the code.
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
        self.assertEqual(second.identifier, first.identifier)
        self.assertFalse(self.got(second.leases.acquire("a", "c", 10, 0)))
        self.got(second.stop())

    def test_anew(self) -> None:
        """
        A ledger that is made anew has another identifier, of letters and
        digits, as reports from it are other reports (RFC 9990 3.5.1).
        """
        found = set()
        for url in (self.url, self.makeURL()):
            ledger = Ledger(None, url)
            found.add(ledger.identifier)
            self.assertRegex(ledger.identifier, r"\A[0-9a-z]{32}\Z")
            self.got(ledger.stop())
        self.assertEqual(len(found), 2)

    def test_atOnce(self) -> None:
        """
        Nodes can start at the same time.
        """
        opening: list[Callable[[], Ledger]] = [partial(Ledger, None, self.url)] * 4
        ledgers = race(opening)
        self.assertEqual(len({ledger.identifier for ledger in ledgers}), 1)
        for ledger in ledgers:
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
        A failed migration is rolled back.
        """
        database = self.open()
        with database.writer.begin() as connection:
            connection.execute(text("CREATE TABLE lease (name TEXT)"))
        self.assertRaises(LedgerUnavailable, migrate, database)
        with database.writer.begin() as connection:
            connection.execute(text("DROP TABLE lease"))
        migrate(database)

    def test_fromTheFirst(self) -> None:
        """
        A ledger of the first revision keeps its contents through all migrations:
        archived reports are found by their keys.
        """
        one = report()
        key = digest(str(one.key))
        database = self.open()
        with database.writer.begin() as connection:
            command.upgrade(alembicConfig(connection), "0001")
            connection.execute(
                text(OLD_REPORT),
                {"digest": key, "sender": one.sender, "message": one.message},
            )
            connection.execute(text("INSERT INTO lease VALUES ('a', 'b', 10)"))
        database.dispose()
        ledger = Ledger(None, self.url)
        self.addCleanup(ledger.stop)
        self.assertEqual(self.got(ledger.archive.find(str(one.key))), one)
        self.assertFalse(self.got(ledger.leases.acquire("a", "c", 10, 0)))
        self.got(ledger.evaluations.record(0, EVALUATION))
        (period,) = self.got(ledger.evaluations.periods(DAY, None, 9))
        part = replace(one, key=replace(one.key, part="x"), sender="x@example.com")
        settled = ledger.evaluations.settle(period, (), (one, part))
        self.assertEqual(self.got(settled), 1)
        self.assertEqual(self.got(ledger.archive.find(str(part.key))), part)


class Plans(Contract):
    """
    Query plans, for a ledger that has some rows.
    """

    def setUp(self) -> None:
        pass

    def fill(self, url: str) -> ReportPeriod:
        """
        Make a ledger with some rows.

        @return: The period of the rows.
        """
        ledger = Ledger(None, url)
        for domain in ("example.net", "example.org"):
            published = replace(PUBLISHED, domain=Domain(domain))
            for number in range(40):
                one = evaluation(number, published)
                self.got(ledger.evaluations.record(number * HOUR, one))
        periods = self.got(ledger.evaluations.periods(2 * DAY, None, 9))
        self.got(ledger.history.sent("mjl", Domain("a.example.org"), 0))
        self.got(ledger.stop())
        return periods[-1]

    def plans(
        self, connection: Connection, period: ReportPeriod, explain: str
    ) -> list[list[str]]:
        """
        The query plan of each of L{RANGES}.
        """
        place = keyPrefix(period.domain.ascii, period.part)
        given = {
            "first": keyAfter(place),
            "last": endOfPrefix(place),
            "end": period.end,
            "hour": 0,
            "hours": [0, HOUR],
            "limit": 9,
            "before": 2 * DAY,
            "domain": period.domain.ascii,
            "part": period.part,
            "account": "mjl",
        }
        sent: list[tuple[str, tuple[object, ...]]] = []

        def note(
            _c: object, _r: object, sql: str, values: tuple[object, ...], *_: object
        ) -> None:
            sent.append((sql, values))

        # The transaction begins now, not in between.
        connection.execute(text("SELECT 1"))
        event.listen(connection, "before_cursor_execute", note)
        for statement in RANGES:
            names = statement.compile().params
            wanted = {name: value for name, value in given.items() if name in names}
            if statement in (KNOWN_TO_ACCOUNT, KNOWN_TO_ANY):
                wanted |= {"first": "org.example.", "end": "org.example/"}
            connection.execute(statement, wanted)
        event.remove(connection, "before_cursor_execute", note)
        return [
            [str(step) for step in connection.exec_driver_sql(explain + sql, values)]
            for sql, values in sent
        ]


class SQLiteMigrationTests(MigrationContract, SynchronousTestCase):
    """
    Migrations on SQLite.
    """

    def makeURL(self) -> str:
        # Names with a percent sign are special to Alembic's configuration.
        return f"sqlite:///{Path(self.mktemp())}%s"

    def test_indexed(self) -> None:
        """
        Periods are paged through along an index, never sorted.
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


class SQLitePlanTests(Plans, SynchronousTestCase):
    """
    Query plans of SQLite.
    """

    def test_ranges(self) -> None:
        """
        Pages of a report, due periods, and removals are ranges of indexes, without
        sorting.
        """
        url = f"sqlite:///{Path(self.mktemp())}"
        period = self.fill(url)
        database = Database(url)
        self.addCleanup(database.dispose)
        with database.writer.connect() as connection:
            for steps in self.plans(connection, period, "EXPLAIN QUERY PLAN "):
                plan = "; ".join(steps)
                self.assertNotIn("TEMP B-TREE", plan)
                # The first page begins at the beginning.
                self.assertRegex(
                    plan, "SEARCH .* USING |^[^;]*'SCAN dmarc_tally'[^;]*$"
                )


class PostgresPlanTests(Plans, SynchronousTestCase):
    """
    Query plans of PostgreSQL.
    """

    def test_ranges(self) -> None:
        """
        Queries over ranges use the indexes too.
        """
        url = emptyDatabase()
        period = self.fill(url)
        database = Database(url)
        self.addCleanup(database.dispose)
        with database.writer.connect() as connection:
            # With few rows, the planner prefers a scan.
            connection.execute(text("SET enable_seqscan = off"))
            connection.execute(text("SET enable_bitmapscan = off"))
            for steps in self.plans(connection, period, "EXPLAIN "):
                plan = "; ".join(steps)
                self.assertNotIn("Sort", plan)
                self.assertNotIn("Seq Scan", plan)
                self.assertRegex(plan, "Index (Only )?Scan")


class PostgresMigrationTests(MigrationContract, SynchronousTestCase):
    """
    Migrations on PostgreSQL.
    """

    def makeURL(self) -> str:
        return emptyDatabase()
