"""
Tests for L{moxtls.ledger.groupcommit}.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.ledger.database import Database, LedgerUnavailable
from moxtls.ledger.groupcommit import (
    MAX_ATTEMPTS,
    GroupCommitWriter,
    makeReader,
    makeWriter,
)
from moxtls.ledger.ledger import Ledger
from tests import MAX_WAIT
from tests.ledger.threads import Inbox
from tests.ledger.values import MONDAY, bad
from tests.postgres import emptyDatabase, kick, renamed


class _Writing(SynchronousTestCase):
    """
    A writer of a database with a table of words.
    """

    def makeURL(self) -> str:
        return f"sqlite:///{Path(self.mktemp())}"

    def setUp(self) -> None:
        self.inbox = Inbox()
        self.url = self.makeURL()
        self.database = Database(self.url)
        self.addCleanup(self.database.dispose)
        self.commits = 0
        with self.database.writer.begin() as connection:
            connection.execute(text("CREATE TABLE word (word TEXT PRIMARY KEY)"))
        event.listen(self.database.writer, "commit", self.committed)
        self.writer = makeWriter(self.inbox, self.database)
        self.addCleanup(lambda: self.inbox.waitFor(self.writer.stop()))
        self.gate = Event()
        self.addCleanup(self.gate.set)

    def committed(self, connection: Connection) -> None:
        self.commits += 1

    def occupy(self) -> None:
        """
        Make the writer busy until the gate is opened.
        """
        entered = Event()

        def wait(connection: Connection) -> None:
            entered.set()
            self.gate.wait(MAX_WAIT)

        self.writer.run(wait)
        self.assertTrue(entered.wait(MAX_WAIT))

    def store(
        self, word: str, writer: GroupCommitWriter | None = None
    ) -> Deferred[str]:
        def store(connection: Connection) -> str:
            connection.execute(text("INSERT INTO word VALUES (:word)"), {"word": word})
            return word

        return (writer or self.writer).run(store)

    def words(self) -> set[str]:
        """
        The rows that another connection sees.
        """
        other = Database(self.url)
        with other.reader.begin() as connection:
            words = set(connection.scalars(text("SELECT word FROM word")))
        other.dispose()
        return words


class GroupTests(_Writing):
    """
    Operations that wait are committed together.
    """

    def test_oneCommit(self) -> None:
        """
        All waiting operations share one transaction, and each Deferred fires after
        its commit.
        """
        self.occupy()
        stored = [self.store(word) for word in "abcdefgh"]
        self.gate.set()
        self.assertEqual(self.inbox.waitFor(stored[0]), "a")
        self.assertEqual(self.words(), {*"abcdefgh"})
        self.assertEqual(
            [self.inbox.waitFor(each) for each in stored[1:]], [*"bcdefgh"]
        )
        self.assertEqual(self.commits, 2)

    def test_order(self) -> None:
        """
        Operations are performed in order; adjacent ones of the same kind are
        performed together.
        """
        seen: list[object] = []

        def performAll(connection: Connection, items: Sequence[int]) -> Sequence[int]:
            seen.append(list(items))
            return [item * 2 for item in items]

        self.occupy()
        first, second = self.writer.add(performAll, 1), self.writer.add(performAll, 2)
        self.writer.run(lambda connection: seen.append("between"))
        third = self.writer.add(performAll, 3)
        self.gate.set()
        self.assertEqual(self.inbox.waitFor(third), 6)
        self.assertEqual(seen, [[1, 2], "between", [3]])
        self.assertEqual(self.successResultOf(first), 2)
        self.assertEqual(self.successResultOf(second), 4)

    def test_oneFails(self) -> None:
        """
        A failing operation fails its own Deferred; the others of its group are
        performed all the same, once.
        """
        self.occupy()
        before = self.store("a")
        double = self.store("a")
        broken = self.writer.run(lambda connection: int("nothing"))
        after = self.store("b")
        self.gate.set()
        self.assertEqual(self.inbox.waitFor(after), "b")
        self.assertEqual(self.successResultOf(before), "a")
        self.failureResultOf(double, IntegrityError)
        self.failureResultOf(broken, ValueError)
        self.assertEqual(self.words(), {"a", "b"})

    def test_rolledBack(self) -> None:
        """
        An operation that fails halfway is rolled back.
        """

        def halfway(connection: Connection) -> None:
            connection.execute(text("INSERT INTO word VALUES ('half')"))
            raise ValueError

        self.assertRaises(ValueError, self.inbox.waitFor, self.writer.run(halfway))
        self.assertEqual(self.words(), set())

    def test_inline(self) -> None:
        """
        Without a reactor each operation is a transaction of its own, done by
        the time the call returns.
        """
        self.inbox.waitFor(self.writer.stop())
        writer = makeWriter(None, self.database)
        self.assertEqual(self.successResultOf(self.store("a", writer)), "a")
        self.failureResultOf(self.store("a", writer), IntegrityError)
        self.assertEqual(self.words(), {"a"})

    def test_reader(self) -> None:
        """
        Readers don't wait for a writer, and see committed data.
        """
        self.inbox.waitFor(self.store("a"))
        self.occupy()
        reader = makeReader(self.inbox, self.database)
        found = reader.run(
            lambda connection: list(connection.scalars(text("SELECT word FROM word")))
        )
        self.assertEqual(self.inbox.waitFor(found), ["a"])
        self.inbox.waitFor(reader.stop())


class BusyTests(_Writing):
    """
    Tests with other writers.
    """

    def refused(self, times: int, code: int) -> Deferred[int]:
        """
        An operation that the database refuses some times.
        """
        calls: list[Connection] = []

        def job(connection: Connection) -> int:
            connection.execute(text("INSERT INTO word VALUES ('a')"))
            calls.append(connection)
            if len(calls) <= times:
                error = sqlite3.OperationalError("refused")
                error.sqlite_errorcode = code
                raise OperationalError("", None, error)
            return len(calls)

        return self.writer.run(job)

    def test_again(self) -> None:
        """
        An operation that conflicted with another writer is retried in a new
        transaction.
        """
        deferred = self.refused(2, sqlite3.SQLITE_BUSY)
        self.assertEqual(self.inbox.waitFor(deferred), 3)
        self.assertEqual(self.words(), {"a"})

    def test_notForEver(self) -> None:
        """
        After some attempts it is given up.
        """
        deferred = self.refused(MAX_ATTEMPTS, sqlite3.SQLITE_BUSY)
        self.assertRaises(LedgerUnavailable, self.inbox.waitFor, deferred)

    def test_notInVain(self) -> None:
        """
        A full disk isn't tried again.
        """
        deferred = self.refused(1, sqlite3.SQLITE_FULL)
        self.assertRaises(LedgerUnavailable, self.inbox.waitFor, deferred)
        self.assertEqual(self.words(), set())


class LostConnectionTests(_Writing):
    """
    Tests with a server that restarts.
    """

    def makeURL(self) -> str:
        return emptyDatabase()

    def test_idle(self) -> None:
        """
        A connection lost between two groups is replaced without errors.
        """
        self.inbox.waitFor(self.store("a"))
        kick(self.url)
        self.assertEqual(self.inbox.waitFor(self.store("b")), "b")

    def test_busy(self) -> None:
        """
        A transaction that was cut off before its commit is done again.
        """
        calls = []

        def job(connection: Connection) -> int:
            connection.execute(text("INSERT INTO word VALUES ('a')"))
            calls.append(connection)
            if len(calls) == 1:
                kick(self.url)
            connection.execute(text("INSERT INTO word VALUES ('b')"))
            return len(calls)

        self.assertEqual(self.inbox.waitFor(self.writer.run(job)), 2)
        self.assertEqual(self.words(), {"a", "b"})

    def test_gone(self) -> None:
        """
        Without a database, operations fail; once it is back it is used again.
        """
        self.inbox.waitFor(self.store("a"))
        with renamed(self.url):
            for word in "bc":
                deferred = self.store(word)
                self.assertRaises(LedgerUnavailable, self.inbox.waitFor, deferred)
        self.assertEqual(self.inbox.waitFor(self.store("d")), "d")
        self.assertEqual(self.words(), {"a", "d"})

    def test_goneForGroups(self) -> None:
        """
        Operations of a group don't wait for retries of others.
        """
        self.occupy()
        deferreds = [self.store(word) for word in "abcdefghijkl"]
        with renamed(self.url):
            self.gate.set()
            for each in deferreds:
                self.assertRaises(LedgerUnavailable, self.inbox.waitFor, each)


class DurabilityTests(SynchronousTestCase):
    """
    Acknowledged operations are on disk.
    """

    def test_acknowledged(self) -> None:
        """
        The files as they are when the Deferred fires, copied as a crash would
        leave them, have the outcome in them.
        """
        inbox = Inbox()
        here, there = Path(self.mktemp()), Path(self.mktemp())
        here.mkdir()
        ledger = Ledger(inbox, f"sqlite:///{here / 'ledger'}")
        inbox.waitFor(ledger.outcomes.record(MONDAY, bad()))
        shutil.copytree(here, there)
        inbox.waitFor(ledger.stop())
        copy = Ledger(None, f"sqlite:///{there / 'ledger'}")
        self.addCleanup(copy.stop)
        self.assertEqual(len(self.successResultOf(copy.outcomes.results())), 2)

    def test_settings(self) -> None:
        """
        SQLite waits for the disk at each commit, and readers not for writers.
        """
        database = Database(f"sqlite:///{Path(self.mktemp())}")
        self.addCleanup(database.dispose)
        with database.writer.begin() as connection:
            ask = connection.exec_driver_sql
            self.assertEqual(ask("PRAGMA synchronous").scalar(), 2)
            self.assertEqual(ask("PRAGMA journal_mode").scalar(), "wal")

    def test_stop(self) -> None:
        """
        Operations accepted before C{stop} are committed when it fires.
        """
        inbox = Inbox()
        url = f"sqlite:///{Path(self.mktemp())}"
        ledger = Ledger(inbox, url)
        recorded = [ledger.outcomes.record(MONDAY, bad()) for _ in range(500)]
        inbox.waitFor(ledger.stop())
        for each in recorded:
            self.successResultOf(each)
        self.failureResultOf(ledger.outcomes.record(MONDAY, bad()), LedgerUnavailable)
        self.failureResultOf(ledger.outcomes.results(), LedgerUnavailable)
        again = Ledger(None, url)
        self.addCleanup(again.stop)
        own = self.successResultOf(again.outcomes.results())[0]
        self.assertEqual(own.tallies[0].failed, 500)
