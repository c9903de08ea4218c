"""
Tests for L{moxtls.ledger.received}: the contracts of the stores, on each database and
in memory; several nodes; crashes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, text
from twisted.trial.unittest import SynchronousTestCase

from moxtls.ledger.database import Database, LedgerUnavailable, migrate
from moxtls.ledger.ledger import Ledger, MemoryDatabase, MemoryLedger
from moxtls.ledger.received import questions
from moxtls.ledger.received.writing import (
    addAll,
    addBlocks,
    beginReport,
    completeReport,
)
from moxtls.ledger.tables import metadata
from moxtls.received.types import (
    AddResult,
    ReceivedKind,
    ReportFilter,
    RowOutcome,
    StoredDMARCRow,
)
from tests.ledger.contracts import Contract, Stores
from tests.ledger.received.contracts import (
    MANY,
    DMARCContract,
    ReceivedBase,
    ReceivedContract,
    TLSContract,
)
from tests.ledger.received.listenercontracts import HistoryOfListenersContract
from tests.ledger.received.retentioncontracts import ExpiryContract, RefusedContract
from tests.ledger.received.values import (
    HTTPS,
    MAIL,
    MONDAY,
    ORG,
    PASSED,
    Row,
    accepted,
    dmarc,
    policy,
    refused,
    tls,
)
from tests.ledger.test_ledger import OnPostgres, OnSQLite, emptied, sharedURL
from tests.ledger.test_sharing import NODES, Sharing
from tests.ledger.threads import Inbox

#: Adds a large report, and waits after some steps; the argument is the ledger's URL.
CRASH = """
import sys, time
from moxtls.ledger.received import writing
from moxtls.ledger.ledger import Ledger
from tests.ledger.received.test_store import LARGE
from tests.ledger.received.values import accepted

write, left = writing.Batch.write, [3]

def slowly(self, connection):
    left[0] -= 1
    if left[0] < 0:
        print("now", flush=True)
        time.sleep(1000)
    write(self, connection)

writing.Batch.write = slowly
Ledger(None, sys.argv[1]).received.add(accepted(LARGE))
"""
LARGE = dmarc(*[Row(messages=n) for n in range(MANY)], rowsOfBlock=1, reportID="large")


class CountsRows(ReceivedBase):
    """
    Looks into the tables.
    """

    url: str

    def leftRows(self) -> dict[str, int]:
        url = self.url.replace("postgresql://", "postgresql+psycopg://", 1)
        engine = create_engine(url)
        with engine.connect() as connection:
            counts = {
                name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar()
                for name in metadata.tables
                if name.startswith("received_") and name != "received_sequence"
            }
        engine.dispose()
        return {name: count for name, count in counts.items() if count}


class CrashContract(CountsRows):
    """
    Reports that were being stored when their node crashed.
    """

    def again(self) -> Ledger:
        """
        The ledger, opened once more.
        """
        ledger = Ledger(None, self.url)
        self.addCleanup(ledger.stop)
        return ledger

    def crash(self) -> None:
        """
        Kill a process that stores L{LARGE}.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", CRASH, self.url],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.addCleanup(process.wait)
        assert process.stdout is not None
        with process.stdout:
            self.assertEqual(process.stdout.readline(), "now\n")
            os.kill(process.pid, signal.SIGKILL)

    def test_killed(self) -> None:
        """
        What was stored of a report by C{kill -9} is neither counted nor listed; it can
        be stored again, once, and what is left is removed.
        """
        self.crash()
        self.assertIn("received_dmarc_row", self.leftRows())
        self.assertEqual(self.listed(refused=None), [])
        self.assertEqual(self.messages(), {})
        self.assertEqual(self.got(self.store.dmarcSources(ORG, 0, 99_999, 9)), ())
        self.assertEqual(self.got(self.store.dmarcRows(ReportFilter(), 9)), ())
        for number in range(5):
            self.assertIsNone(self.got(self.store.get(number)))
            self.assertIsNone(self.got(self.store.raw(number)))
        self.assertEqual(
            self.add(LARGE, LARGE), [AddResult.STORED, AddResult.DUPLICATE]
        )
        self.assertGreater(self.expireAll(None, MONDAY + 1, 2), 3)
        self.consistent(ORG)
        self.assertEqual(self.messages(), {PASSED: sum(range(MANY))})
        self.expireAll(ReceivedKind.DMARC, 99_999, 100)
        self.assertEqual(self.leftRows(), {})

    def begin(self) -> int:
        """
        Store some of L{LARGE}; returns its number.
        """
        database = Database(self.url)
        self.addCleanup(database.dispose)
        with database.writer.begin() as connection:
            number = beginReport(connection, accepted(LARGE))
            assert number is not None
            addBlocks(connection, number, LARGE, LARGE.blocks[:3], 0)
        return number

    def test_removedMeanwhile(self) -> None:
        """
        A report that expires while it is stored isn't completed without its rows.
        """
        number = self.begin()
        self.expireAll(None, MONDAY + 1, 100)
        database = Database(self.url)
        self.addCleanup(database.dispose)
        with database.writer.connect() as connection:
            self.assertRaises(
                LedgerUnavailable, addBlocks, connection, number, LARGE, LARGE.blocks, 3
            )
        with database.writer.connect() as connection:
            self.assertRaises(
                LedgerUnavailable,
                completeReport,
                connection,
                number,
                accepted(LARGE),
                Counter(),
            )
        self.expireAll(ReceivedKind.DMARC, 99_999, 100)
        self.assertEqual(self.leftRows(), {})

    def test_other(self) -> None:
        """
        Another node can store a report that one is storing; then the latter finds a
        duplicate, and its rows are removed.
        """
        number = self.begin()
        self.assertEqual(self.add(accepted(LARGE, HTTPS)), [AddResult.STORED])
        database = Database(self.url)
        self.addCleanup(database.dispose)
        with database.writer.begin() as connection:
            result = completeReport(
                connection, number, accepted(LARGE, MAIL), Counter()
            )
        self.assertEqual(result, AddResult.DUPLICATE)
        self.assertEqual(self.listed()[0].origin, MAIL)
        self.assertGreater(self.expireAll(None, 0, 100), 0)
        self.consistent(ORG)
        self.assertEqual(len(self.listed()), 1)


class SharedReceivedContract(Sharing):
    """
    Several nodes add reports.
    """

    def test_once(self) -> None:
        """
        A report that all nodes add at once is stored and counted once.
        """
        reports = [dmarc(Row(messages=7), reportID=str(n)) for n in range(40)]
        reports.append(LARGE)

        def add(inbox: Inbox, ledger: Ledger, name: str) -> list[AddResult]:
            added = [ledger.received.add(accepted(each)) for each in reports]
            return [inbox.waitFor(each) for each in added]

        results = self.all(add)
        for several in zip(*results, strict=True):
            self.assertEqual(sorted(several), ["duplicate"] * (NODES - 1) + ["stored"])
        inbox, ledger = self.nodes[0]
        listed = inbox.waitFor(ledger.received.reports(ReportFilter(), 1000))
        self.assertEqual(len(listed), 41)
        (day,) = inbox.waitFor(ledger.received.dmarcDays(ORG, 0, 99_999))
        self.assertEqual(day.messages, 40 * 7 + sum(range(MANY)))

    def test_upgradeAtOnce(self) -> None:
        """
        A duplicate in the same transaction upgrades the origin, too.
        """
        inbox, ledger = self.nodes[0]
        several = [
            ledger.received.add(accepted(dmarc(), origin))
            for origin in (HTTPS, HTTPS, MAIL, HTTPS)
        ]
        results = [inbox.waitFor(each) for each in several]
        self.assertEqual(results, ["stored"] + ["duplicate"] * 3)
        (one,) = inbox.waitFor(ledger.received.reports(ReportFilter(), 9))
        self.assertEqual(one.origin, MAIL)

    def test_variants(self) -> None:
        """
        Of different reports of one identity, all but one are marked.
        """

        def add(inbox: Inbox, ledger: Ledger, name: str) -> AddResult:
            report = dmarc(Row(messages=int(name) + 1))
            return inbox.waitFor(ledger.received.add(accepted(report)))

        self.assertEqual(sorted(self.all(add)), ["stored"] + ["variant"] * (NODES - 1))
        inbox, ledger = self.nodes[0]
        listed = inbox.waitFor(ledger.received.reports(ReportFilter(), 1000))
        self.assertEqual([each.isVariant for each in listed][-1], False)
        self.assertEqual(sum(each.isVariant for each in listed), NODES - 1)

    def test_together(self) -> None:
        """
        Adding, refusing and expiring at once lose nothing, and leave sums that agree
        with the rows.
        """

        def work(inbox: Inbox, ledger: Ledger, name: str) -> None:
            store = ledger.received
            for number in range(20):
                one = dmarc(Row(messages=2), reportID=f"{name}.{number}")
                old = replace(one, start=0, end=86399)
                inbox.waitFor(store.add(accepted(one)))
                inbox.waitFor(store.add(accepted(old)))
                inbox.waitFor(store.refuse(refused(report=one)))
                if name == "0":
                    inbox.waitFor(store.expire(ReceivedKind.DMARC, 1, 10))

        self.all(work)
        inbox, ledger = self.nodes[0]
        store = ledger.received
        while inbox.waitFor(store.expire(ReceivedKind.DMARC, 1, 10)):
            pass
        (day,) = inbox.waitFor(store.dmarcDays(ORG, 0, 99_999))
        self.assertEqual((day.day, day.messages), (MONDAY, NODES * 20 * 2))
        listed = inbox.waitFor(store.reports(ReportFilter(refused=None), 1000))
        self.assertEqual(len({each.number for each in listed}), NODES * 20 * 2)


class PlanTests(SynchronousTestCase):
    """
    Query plans of SQLite.
    """

    def test_ranges(self) -> None:
        """
        Every answer comes from ranges of indexes; only the names of organizations are
        searched.
        """
        database = MemoryDatabase()
        self.addCleanup(database.dispose)
        migrate(database)
        every = ORG, 0, 99_999
        full = ReportFilter(None, ORG, "google", 0, 99_999, True)
        row = StoredDMARCRow(1, "", ORG, 1, "", RowOutcome(0), 1, "")
        with database.reader.connect() as connection:
            failing = tls(policy(failures={"certificate-expired": 1}))
            addAll(connection, [accepted(failing)])
            asked = self.asked(connection)
            questions.domains(connection, 0, 9)
            questions.raw(connection, 1)
            questions.storedReports(connection, [1, 2])
            questions.tlsDays(connection, *every)
            questions.dmarcDays(connection, *every)
            questions.tlsFailures(connection, *every, 9)
            questions.dmarcSources(connection, *every, 9)
            questions.reporters(connection, ReceivedKind.DMARC, *every, 9)
            for filter in (ReportFilter(refused=None), full):
                questions.reports(connection, filter, 9, 5)
                questions.dmarcRows(connection, filter, 9, row)
            questions.tlsRows(connection, full, 9, None)
            plans = [
                str(step[3])
                for sql, values in list(asked)
                for step in connection.exec_driver_sql(
                    "EXPLAIN QUERY PLAN " + sql, values
                )
            ]
        searches = [each for each in plans if each.startswith("SEARCH")]
        self.assertGreater(len(searches), 25)
        scans = {
            each for each in plans if re.match("SCAN (received|other|result)", each)
        }
        self.assertEqual(scans, {"SCAN received_organization"})

    def asked(self, connection: Connection) -> list[tuple[str, tuple[object, ...]]]:
        """
        A list to which the statements that are executed from now on are added.
        """
        sent: list[tuple[str, tuple[object, ...]]] = []

        def note(
            _c: object, _r: object, sql: str, values: tuple[object, ...], *_: object
        ) -> None:
            sent.append((sql, values))

        event.listen(connection, "before_cursor_execute", note)
        return sent


class OnPostgresAt(OnPostgres):
    """
    A PostgreSQL database with a known URL.
    """

    def makeLedger(self) -> Stores:
        ledger = super().makeLedger()
        self.url = sharedURL()
        return ledger


class InMemory(Contract):
    """
    Makes ledgers in memory.
    """

    def makeLedger(self) -> Stores:
        self.memory = MemoryLedger()
        return self.memory


class SQLiteReceivedTests(OnSQLite, ReceivedContract, SynchronousTestCase):
    """
    Received reports in SQLite.
    """


class PostgresReceivedTests(OnPostgres, ReceivedContract, SynchronousTestCase):
    """
    Received reports in PostgreSQL.
    """


class MemoryReceivedTests(InMemory, ReceivedContract, SynchronousTestCase):
    """
    Received reports in memory.
    """


class SQLiteDMARCTests(OnSQLite, DMARCContract, SynchronousTestCase):
    """
    DMARC reports in SQLite.
    """


class PostgresDMARCTests(OnPostgres, DMARCContract, SynchronousTestCase):
    """
    DMARC reports in PostgreSQL.
    """


class MemoryDMARCTests(InMemory, DMARCContract, SynchronousTestCase):
    """
    DMARC reports in memory.
    """


class SQLiteTLSTests(OnSQLite, TLSContract, SynchronousTestCase):
    """
    TLS reports in SQLite.
    """


class PostgresTLSTests(OnPostgres, TLSContract, SynchronousTestCase):
    """
    TLS reports in PostgreSQL.
    """


class MemoryTLSTests(InMemory, TLSContract, SynchronousTestCase):
    """
    TLS reports in memory.
    """


class SQLiteRefusedTests(OnSQLite, RefusedContract, SynchronousTestCase):
    """
    Refused reports in SQLite.
    """


class PostgresRefusedTests(OnPostgres, RefusedContract, SynchronousTestCase):
    """
    Refused reports in PostgreSQL.
    """


class MemoryRefusedTests(InMemory, RefusedContract, SynchronousTestCase):
    """
    Refused reports in memory.
    """


class SQLiteExpiryTests(OnSQLite, CountsRows, ExpiryContract, SynchronousTestCase):
    """
    Expiry in SQLite.
    """


class PostgresExpiryTests(
    OnPostgresAt, CountsRows, ExpiryContract, SynchronousTestCase
):
    """
    Expiry in PostgreSQL.
    """


class SQLiteCrashTests(OnSQLite, CrashContract, SynchronousTestCase):
    """
    Crashes of a node with SQLite.
    """


class PostgresCrashTests(OnPostgresAt, CrashContract, SynchronousTestCase):
    """
    Crashes of a node with PostgreSQL.
    """


class SQLiteSharedTests(SharedReceivedContract, SynchronousTestCase):
    """
    Several processes on one host.
    """

    def makeURL(self) -> str:
        return f"sqlite:///{Path(self.mktemp())}"


class PostgresSharedTests(SharedReceivedContract, SynchronousTestCase):
    """
    Several hosts.
    """

    def makeURL(self) -> str:
        return emptied()


class SQLiteListenerTests(OnSQLite, HistoryOfListenersContract, SynchronousTestCase):
    """
    The history of listeners in SQLite.
    """


class PostgresListenerTests(
    OnPostgres, HistoryOfListenersContract, SynchronousTestCase
):
    """
    The history of listeners in PostgreSQL.
    """


class MemoryListenerTests(InMemory, HistoryOfListenersContract, SynchronousTestCase):
    """
    The history of listeners in memory.
    """
