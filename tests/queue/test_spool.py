"""
Tests for L{moxtls.queue.spool}, L{moxtls.queue.index}, L{moxtls.queue.files} and
L{moxtls.queue.executor}.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from moxtls.dates import DAY
from moxtls.queue.dsn import headerOf
from moxtls.queue.executor import (
    InlineSpoolExecutor,
    QueueClient,
    SpoolClosed,
    ThreadedSpoolExecutor,
)
from moxtls.queue.schedule import RetrySchedule
from moxtls.queue.settle import Settlement
from moxtls.queue.spool import KEY_LIFETIME, Spool, SpoolUnusable
from moxtls.queue.types import DeliveryStatus, Envelope, Result
from tests import MAX_WAIT
from tests.queue.killing import killedAt, quickDirectory, traceSQL

ENVELOPE = Envelope("us@here.example", ("you@there.example",))


def failing(spool: Spool) -> int:
    """
    An operation that fails.
    """
    raise ZeroDivisionError


class InlineSpoolExecutorTests(SynchronousTestCase):
    """
    Tests for L{InlineSpoolExecutor}.
    """

    def test_run(self) -> None:
        """
        The Deferred of an operation has fired or failed already.
        """
        spool = InlineSpoolExecutor(Path(self.mktemp()))
        self.failureResultOf(spool.run(lambda spool: 1), SpoolClosed)
        spool.open()
        self.assertEqual(self.successResultOf(spool.run(lambda spool: 1)), 1)
        self.failureResultOf(spool.run(failing), ZeroDivisionError)
        self.assertEqual(self.successResultOf(spool.read(lambda spool: 1)), 1)
        self.failureResultOf(spool.read(failing), ZeroDivisionError)
        self.successResultOf(spool.close())
        self.failureResultOf(spool.run(lambda spool: 1), SpoolClosed)


class ThreadedSpoolExecutorTests(TestCase):
    """
    Tests for L{ThreadedSpoolExecutor}, with a real thread.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        assert IReactorFromThreads.providedBy(reactor)
        self.spool = ThreadedSpoolExecutor(reactor, self.root)
        self.spool.open(delivering=True)
        self.addCleanup(self.spool.close)

    async def test_concurrentSubmissions(self) -> None:
        """
        Concurrent submissions have ids of their own and are all stored once
        acknowledged.
        """
        numbers = count(1)
        queue = QueueClient(Clock(), self.spool, lambda: f"m{next(numbers)}")
        found = await gatherResults(
            [queue.submit(ENVELOPE, [b"x" * n]) for n in range(250)]
        )
        self.assertEqual(len(set(found)), 250)
        messages = Spool(self.root).index.messages()
        self.assertEqual([each.messageID for each in messages], found)
        self.assertEqual(
            [each.path.stat().st_size for each in messages], list(range(250))
        )

    async def test_fails(self) -> None:
        """
        The Deferred of a failing operation fails; other operations are not affected.
        """
        bad = self.spool.run(failing)
        good = self.spool.run(lambda spool: 1)
        with self.assertRaises(ZeroDivisionError):
            await bad
        self.assertEqual(await good, 1)

    async def test_cancelled(self) -> None:
        """
        Cancelling the Deferred doesn't cancel the operation.
        """
        done: list[int] = []
        result: Deferred[None] = self.spool.run(lambda spool: done.append(1))
        result.addErrback(lambda failure: None)
        result.cancel()
        await self.spool.close()
        self.assertEqual(done, [1])

    async def test_readDuringWrite(self) -> None:
        """
        A long read doesn't block writes, and a later read sees everything acknowledged
        before it.
        """
        written = threading.Event()

        def slowly(spool: Spool) -> bool:
            return written.wait(MAX_WAIT)

        reading = self.spool.read(slowly)
        queue = QueueClient(Clock(), self.spool, lambda: "m1")
        await queue.submit(ENVELOPE, [b"x"])
        written.set()
        self.assertTrue(await reading)
        (message,) = await queue.messages()
        self.assertEqual(message.messageID, "m1")

    async def test_readFails(self) -> None:
        """
        The Deferred of a failing read fails.
        """
        with self.assertRaises(ZeroDivisionError):
            await self.spool.read(failing)

    async def test_close(self) -> None:
        """
        Operations submitted before closing are done; later ones fail.
        """
        last = self.spool.run(lambda spool: 1)
        await self.spool.close()
        self.assertEqual(self.successResultOf(last), 1)
        with self.assertRaises(SpoolClosed):
            await self.spool.run(lambda spool: 1)

    def test_claimed(self) -> None:
        """
        A second executor that is to deliver can't open the same spool.
        """
        other = InlineSpoolExecutor(self.root)
        self.assertRaises(SpoolUnusable, other.open, delivering=True)


BODY = [b"Subject: a\r\n\r\n", b"hello\r\n"]
NOW = 1_800_000_000.0


class SpoolTests(SynchronousTestCase):
    """
    Tests for L{Spool}.
    """

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.spool = self.opened()

    def opened(self) -> Spool:
        spool = Spool(self.root)
        self.addCleanup(spool.close)
        return spool

    def submit(self, messageID: str, key: str = "", to: str = "a@b.example") -> None:
        envelope = Envelope("us@c.example", (to,), key=key)
        failures = self.spool.perform(
            [lambda spool: ignore(spool.submit(messageID, envelope, BODY, NOW))]
        )
        self.assertEqual(failures, [None])

    def names(self) -> set[str]:
        return set(os.listdir(self.root / "messages"))

    def test_body(self) -> None:
        """
        A message is stored unchanged in a file that only the owner can read.
        """
        self.submit("m1")
        (message,) = self.spool.index.messages()
        self.assertEqual(message.path.read_bytes(), b"".join(BODY))
        self.assertEqual(message.path.stat().st_mode & 0o777, 0o600)

    def test_twoProcesses(self) -> None:
        """
        Messages submitted by one process are visible to another.
        """
        other = self.opened()
        self.submit("m1")
        self.assertEqual(len(other.index.messages()), 1)

    def test_claim(self) -> None:
        """
        Only one process at a time delivers from a spool; another gets an error.
        """
        self.spool.claim()
        error = self.assertRaises(SpoolUnusable, self.opened().claim)
        self.assertEqual(
            str(error), f"spool {self.root}: another process delivers from it"
        )
        self.spool.close()
        again = self.opened()
        again.claim()

    def test_noDatabase(self) -> None:
        """
        An index file that is no database is an error for the operator.
        """
        root = Path(self.mktemp())
        root.mkdir()
        (root / "index.sqlite").write_bytes(b"something else" * 100)
        error = self.assertRaises(SpoolUnusable, Spool, root)
        self.assertIn("not a database", str(error))

    def test_laterVersion(self) -> None:
        """
        A spool of a later version is not opened.
        """
        self.spool.perform([lambda spool: None])
        database = sqlite3.connect(self.root / "index.sqlite")
        self.addCleanup(database.close)
        database.execute("PRAGMA user_version = 99")
        self.assertIn("version 99", str(self.assertRaises(SpoolUnusable, self.opened)))

    def test_firstVersion(self) -> None:
        """
        A spool of the first version is upgraded and keeps its messages.
        """
        self.submit("m1")
        self.spool.close()
        database = sqlite3.connect(self.root / "index.sqlite")
        self.addCleanup(database.close)
        for table, column in (
            ("message", "response"),
            ("message", "noticed"),
            ("recipient", "stored"),
        ):
            database.execute("DROP INDEX IF EXISTS messageUnnoticed")
            database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for index in ("messageQueued", "messageBrief", "recipientNew"):
            database.execute(f"DROP INDEX {index}")
        database.executescript(
            "DROP TABLE lane;"
            "CREATE TABLE lane (destination TEXT PRIMARY KEY, due REAL NOT NULL);"
            "INSERT INTO lane SELECT destination, due FROM recipient;"
            "PRAGMA user_version = 1;"
        )
        database.close()
        spool = self.opened()
        (message,) = spool.index.messages()
        self.assertFalse(message.envelope.response)
        self.assertEqual(spool.index.dueDestinations(NOW, 5), [("b.example", 0)])
        new = self.root.with_name("new")
        Spool(new).close()
        self.assertEqual(tables(self.root), tables(new))

    def test_rollback(self) -> None:
        """
        A failing operation is rolled back with its files; other operations of the same
        transaction are kept.
        """

        def bad(spool: Spool) -> None:
            spool.submit("m2", Envelope("", ("a@b.example",)), BODY, NOW)
            raise KeyError("oops")

        good = Envelope("", ("a@b.example",))
        outcomes = self.spool.perform(
            [
                lambda spool: ignore(spool.submit("m1", good, BODY, NOW)),
                bad,
                lambda spool: ignore(spool.submit("m3", good, BODY, NOW)),
            ]
        )
        failed = outcomes[1]
        assert failed is not None
        self.assertIsInstance(failed, KeyError)
        self.assertEqual((outcomes[0], outcomes[2]), (None, None))
        self.assertEqual([m.messageID for m in self.spool.index.messages()],
                         ["m1", "m3"])  # fmt: skip
        self.assertEqual(self.names(), {"m1", "m3"})

    def test_fullDisk(self) -> None:
        """
        A submission fails without a trace when the disk is full, and succeeds later.
        """
        envelope = Envelope("", ("a@b.example",))
        with patch("moxtls.queue.files.os.fsync", side_effect=OSError(28, "full")):
            (failure,) = self.spool.perform(
                [lambda spool: ignore(spool.submit("m1", envelope, BODY, NOW))]
            )
        assert failure is not None
        self.assertIsInstance(failure, OSError)
        self.assertEqual(self.names(), set())
        self.submit("m1")
        self.assertEqual(self.names(), {"m1"})

    def test_concurrentProcesses(self) -> None:
        """
        Reads and writes of several processes don't block each other, and a read sees
        the state at its beginning.
        """
        self.submit("m1")

        def readMeanwhile(spool: Spool) -> None:
            found = self.spool.read(lambda spool: spool.index.messages())
            self.assertEqual([each.messageID for each in found], ["m1"])
            spool.submit("m2", Envelope("", ("a@b.example",)), BODY, NOW)

        def writeMeanwhile(spool: Spool) -> int:
            before = spool.index.messages()
            self.assertEqual(writer.perform([readMeanwhile]), [None])
            self.assertEqual(spool.index.messages(), before)
            return len(before)

        with patch("moxtls.queue.spool.BUSY_TIMEOUT", 0):
            reader, writer = self.opened(), self.opened()
        self.assertEqual(reader.read(writeMeanwhile), 1)
        self.assertEqual(len(self.spool.read(lambda spool: spool.index.messages())), 2)

    def test_readOnly(self) -> None:
        """
        Read operations can't write.
        """
        self.submit("m1")
        with self.assertRaises(sqlite3.OperationalError):
            self.spool.read(lambda spool: spool.index.remove("m1", NOW))
        self.submit("m2")
        self.assertEqual(len(self.spool.index.messages()), 2)

    def test_removed(self) -> None:
        """
        Removing a message removes its file.
        """
        self.submit("m1")
        self.spool.perform([lambda spool: ignore(spool.index.remove("m1", NOW))])
        self.assertEqual(self.names(), set())

    def test_staleFiles(self) -> None:
        """
        Files without a message are stale, except new ones, whose submission may not be
        finished.
        """
        self.submit("m1")
        for name in ("old", ".half", "new"):
            (self.root / "messages" / name).write_bytes(b"x")
        written = (self.root / "messages" / "new").stat().st_mtime
        for name in ("m1", "old", ".half"):
            os.utime(self.root / "messages" / name, (0, written - 1000))
        found = self.spool.read(lambda spool: spool.staleFiles(written))
        self.assertEqual(set(found), {"old", ".half"})
        self.spool.perform([lambda spool: spool.removeFiles([*found, "m1"])])
        self.assertEqual(self.names(), {"m1", "new"})

    def test_keyLifetime(self) -> None:
        """
        A key is known while its message is queued and sixty days longer.
        """
        self.submit("m1", key="k")
        gone = NOW + 100 * DAY
        self.forget(gone)
        self.assertEqual(self.spool.index.known("k"), "m1")
        self.spool.perform([lambda spool: ignore(spool.index.remove("m1", gone))])
        self.forget(gone + KEY_LIFETIME)
        self.assertEqual(self.spool.index.known("k"), "m1")
        self.forget(gone + KEY_LIFETIME + 1)
        self.assertEqual(self.spool.index.known("k"), None)

    def forget(self, now: float) -> None:
        self.assertEqual(
            self.spool.perform([lambda spool: spool.forgetKeys(now)]), [None]
        )

    def test_queriesUseIndexes(self) -> None:
        """
        Every periodic query uses an index instead of scanning a table.
        """
        statements: list[str] = []
        with traceSQL(statements.append):
            spool = self.opened()
        self.submit("m1")
        statements.clear()
        spool.index.dueDestinations(NOW, 5)
        spool.index.dueDestinations(NOW, 5, newest=True)
        list(spool.index.due("b.example", NOW))
        list(spool.index.due("b.example", NOW, newest=True))
        spool.index.withUnreported(True, 0, 5)
        spool.index.delayed(NOW - 1, 5)
        spool.index.aged(NOW - 1, True, 5)
        spool.index.aged(NOW - 1, False, 5)
        indexes = (
            "laneTurn",
            "laneNewest",
            "recipientDue",
            "recipientNew",
            "recipientUntold",
            "messageUnnoticed",
            "messageBrief",
            "messageQueued",
        )
        self.assertEqual(len(statements), len(indexes))
        database = sqlite3.connect(self.root / "index.sqlite")
        self.addCleanup(database.close)
        for statement, index in zip(statements, indexes, strict=True):
            plan = database.execute("EXPLAIN QUERY PLAN " + statement).fetchall()
            steps = " ".join(row[3] for row in plan)
            self.assertIn(index, steps)
            self.assertNotIn("SCAN", steps)
            self.assertNotIn("B-TREE FOR ORDER", steps)


class KilledTests(SynchronousTestCase):
    """
    Tests for a process that is killed at each step of its use of a spool.
    """

    def everyStep(
        self, work: Callable[[Path], None], check: Callable[[Path], None]
    ) -> int:
        """
        Kill C{work} at each of its steps in turn, and call C{check} afterwards.

        @return: The number of steps.
        """
        for step in count():
            root = quickDirectory(self)
            Spool(root).close()
            died = killedAt(step, partial(work, root))
            check(root)
            if not died:
                return step
        raise AssertionError

    def test_submissions(self) -> None:
        """
        Acknowledged messages are stored, others completely or not at all; a key is
        stored once, and no file is left without a message.
        """
        self.assertGreater(self.everyStep(submitSome, self.checkSubmissions), 30)

    def checkSubmissions(self, root: Path) -> None:
        spool = Spool(root)
        messages = {m.messageID: m for m in spool.index.messages()}
        acknowledged = [
            name for name in ("m1", "m2", "m3") if (root / f"ack-{name}").exists()
        ]
        self.assertEqual(set(acknowledged) - set(messages), set())
        for message in messages.values():
            self.assertEqual(message.path.read_bytes(), b"".join(BODY))
        keys = [m.envelope.key for m in messages.values() if m.envelope.key]
        self.assertEqual(len(keys), len(set(keys)))
        # A submitter without a reply submits the message again.
        spool.perform([lambda spool: ignore(submitOne(spool, "m4", "k"))])
        keyed = [m for m in spool.index.messages() if m.envelope.key == "k"]
        self.assertEqual(len(keyed), 1)
        (end,) = spool.perform([lambda spool: spool.removeFiles(spool.staleFiles(4e9))])
        self.assertEqual(end, None)
        self.assertEqual(
            set(os.listdir(root / "messages")),
            {m.messageID for m in spool.index.messages()},
        )
        spool.close()

    def test_settling(self) -> None:
        """
        A recipient fails and its DSN is queued in one transaction, once.
        """
        self.assertGreater(self.everyStep(failOne, self.checkSettled), 10)

    def checkSettled(self, root: Path) -> None:
        spool = Spool(root)
        messages = spool.index.messages()
        bounces = [m for m in messages if not m.envelope.sender]
        if (root / "ack-m1").exists():
            originals = [m for m in messages if m.messageID == "m1"]
            self.assertEqual(len(originals) + len(bounces), 1)
        for message in messages:
            self.assertTrue(headerOf(message.path.read_bytes()))
        spool.close()


def tables(root: Path) -> list[str]:
    """
    The names of all tables and indexes of a spool.
    """
    with closing(sqlite3.connect(root / "index.sqlite")) as database:
        return sorted(
            name
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'"
            )
        )


def ignore(result: object) -> None:
    """
    Discard the result of an operation.
    """


def submitOne(spool: Spool, messageID: str, key: str = "") -> str:
    envelope = Envelope("us@c.example", ("a@b.example", "b@c.example"), key=key)
    return spool.submit(messageID, envelope, BODY, NOW)


def acknowledge(root: Path, messageID: str) -> None:
    (root / f"ack-{messageID}").touch()


def submitSome(root: Path) -> None:
    """
    Submit a message with a key, the same again, and two others together.
    """
    spool = Spool(root)
    spool.perform([lambda spool: ignore(submitOne(spool, "m1", "k"))])
    acknowledge(root, "m1")
    spool.perform([lambda spool: ignore(submitOne(spool, "m1again", "k"))])
    spool.perform(
        [
            lambda spool: ignore(submitOne(spool, "m2")),
            lambda spool: ignore(submitOne(spool, "m3")),
        ]
    )
    acknowledge(root, "m2")
    acknowledge(root, "m3")


def failOne(root: Path) -> None:
    """
    Submit a message and settle a permanent failure of its recipients.
    """
    spool = Spool(root)
    spool.perform([lambda spool: ignore(submitOne(spool, "m1"))])
    acknowledge(root, "m1")
    (message,) = spool.index.messages()
    steps = [
        RetrySchedule().decide(
            replace(message, recipients=(recipient,)),
            Result("m1", recipient.recipient, DeliveryStatus.PERMANENT, "5.1.1"),
            NOW,
            0.5,
        )
        for recipient in message.recipients
    ]
    names = (f"n{number}" for number in count())
    notices = Settlement("mx.c.example", lambda: next(names))
    spool.perform([lambda spool: notices.settle(spool, steps, frozenset(), NOW)])
