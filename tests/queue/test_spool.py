"""
Tests for L{moxtls.queue.spool}.

Tests for L{moxtls.queue.spool}, its index and its bodies.
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


def broken(spool: Spool) -> int:
    """
    An operation that fails.
    """
    raise ZeroDivisionError


class DirectSpoolTests(SynchronousTestCase):
    """
    Tests for L{InlineSpoolExecutor}.
    """

    def test_run(self) -> None:
        """
        An operation is done at once, or has failed at once.
        """
        spool = InlineSpoolExecutor(Path(self.mktemp()))
        self.failureResultOf(spool.run(lambda spool: 1), SpoolClosed)
        spool.open()
        self.assertEqual(self.successResultOf(spool.run(lambda spool: 1)), 1)
        self.failureResultOf(spool.run(broken), ZeroDivisionError)
        self.assertEqual(self.successResultOf(spool.read(lambda spool: 1)), 1)
        self.failureResultOf(spool.read(broken), ZeroDivisionError)
        self.successResultOf(spool.close())
        self.failureResultOf(spool.run(lambda spool: 1), SpoolClosed)


class ThreadedSpoolTests(TestCase):
    """
    Tests for L{ThreadedSpoolExecutor}, whose thread is real.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        assert IReactorFromThreads.providedBy(reactor)
        self.spool = ThreadedSpoolExecutor(reactor, self.root)
        self.spool.open(delivering=True)
        self.addCleanup(self.spool.close)

    async def test_together(self) -> None:
        """
        Submissions at the same time are all there once they are acknowledged,
        each with an id of its own.
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
        An operation that fails says so, and takes no other with it.
        """
        bad = self.spool.run(broken)
        good = self.spool.run(lambda spool: 1)
        with self.assertRaises(ZeroDivisionError):
            await bad
        self.assertEqual(await good, 1)

    async def test_cancelled(self) -> None:
        """
        A cancelled operation is done nevertheless.
        """
        done: list[int] = []
        result: Deferred[None] = self.spool.run(lambda spool: done.append(1))
        result.addErrback(lambda failure: None)
        result.cancel()
        await self.spool.close()
        self.assertEqual(done, [1])

    async def test_read(self) -> None:
        """
        What only reads holds up nobody who writes, and sees all that was
        acknowledged before.
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
        Reading that fails says so.
        """
        with self.assertRaises(ZeroDivisionError):
            await self.spool.read(broken)

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
        Another that is to deliver doesn't open.
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
        A message is a file, as it was given, that only we may read.
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

    def test_oneDelivers(self) -> None:
        """
        Only one process delivers; the other is told in one line.
        """
        self.spool.claim()
        error = self.assertRaises(SpoolUnusable, self.opened().claim)
        self.assertEqual(
            str(error), f"spool {self.root}: another process delivers from it"
        )
        self.spool.close()
        again = self.opened()
        again.claim()

    def test_unusable(self) -> None:
        """
        A file that is no index is reported as what the operator has to see
        to.
        """
        root = Path(self.mktemp())
        root.mkdir()
        (root / "index.sqlite").write_bytes(b"something else" * 100)
        error = self.assertRaises(SpoolUnusable, Spool, root)
        self.assertIn("not a database", str(error))

    def test_later(self) -> None:
        """
        A spool of a later version is left alone.
        """
        self.spool.perform([lambda spool: None])
        database = sqlite3.connect(self.root / "index.sqlite")
        self.addCleanup(database.close)
        database.execute("PRAGMA user_version = 99")
        self.assertIn("version 99", str(self.assertRaises(SpoolUnusable, self.opened)))

    def test_earlier(self) -> None:
        """
        A spool of the first version keeps what is in it, and takes on what is
        new.
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

    def test_failureUndoesItself(self) -> None:
        """
        An operation that fails undoes what it did, file and all, and nothing
        else.
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
        If nothing can be written, nothing is half there, and it goes on when
        there is room.
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

    def test_readingBesideWriting(self) -> None:
        """
        Reading and writing in several processes don't wait for each other,
        and who reads sees no more than what there was when it began.
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

    def test_readingChangesNothing(self) -> None:
        """
        Reading operations can't write.
        """
        self.submit("m1")
        with self.assertRaises(sqlite3.OperationalError):
            self.spool.read(lambda spool: spool.index.remove("m1", NOW))
        self.submit("m2")
        self.assertEqual(len(self.spool.index.messages()), 2)

    def test_removed(self) -> None:
        """
        The file of a message that is removed goes with it.
        """
        self.submit("m1")
        self.spool.perform([lambda spool: ignore(spool.index.remove("m1", NOW))])
        self.assertEqual(self.names(), set())

    def test_tidy(self) -> None:
        """
        Files that nobody refers to go, unless they are so new that somebody
        may be about to.
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

    def test_keysAreForgotten(self) -> None:
        """
        A key is known as long as its message is there, and for sixty days
        after that.
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

    def test_lookingDoesNotScan(self) -> None:
        """
        A look for what is due goes by an index, however much is waiting.
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
    A process that uses a spool is killed at each step it takes on disk.
    """

    def everyStep(
        self, work: Callable[[Path], None], check: Callable[[Path], None]
    ) -> int:
        """
        @return: How many steps there were.
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
        What was acknowledged is there; what wasn't is wholly there or not at
        all; a key is there once, however often it was submitted; nothing is
        left of the rest.
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
        # The keyed one again, as somebody would who never heard of it.
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
        A recipient is failed and its DSN queued, or neither; there never are
        two.
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
    An operation returns nothing.
    """


def submitOne(spool: Spool, messageID: str, key: str = "") -> str:
    envelope = Envelope("us@c.example", ("a@b.example", "b@c.example"), key=key)
    return spool.submit(messageID, envelope, BODY, NOW)


def acknowledge(root: Path, messageID: str) -> None:
    (root / f"ack-{messageID}").touch()


def submitSome(root: Path) -> None:
    """
    Three submissions: a keyed one and its repetition, and a pair.
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
    A submission, and the attempt that fails for its recipients.
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
