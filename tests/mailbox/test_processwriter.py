"""
Tests for L{moxtls.mailbox.maildir.ProcessWriter}, with real processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import cast
from unittest.mock import patch

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from moxtls.mailbox.maildir import InlineWriter, ProcessWriter, WriterClosed
from moxtls.mailbox.names import MailboxFull
from moxtls.mailbox.write import MaildirWrite
from moxtls.message.spooled import MAX_IN_MEMORY, SpooledMessage
from moxtls.workers import process
from moxtls.workers.process import MAX_MESSAGE_SIZE, IWorkerReactor, Worker, WorkerLost
from tests import MAX_WAIT
from tests.queue.killing import quickDirectory
from tests.workers.calls import die, pid

reactor = cast(IWorkerReactor, installed)


class CountingWriter(InlineWriter):
    """
    Counts the batches that it writes itself.
    """

    written = 0

    def write(self, message: MaildirWrite) -> Deferred[None]:
        self.written += 1
        return super().write(message)


class ProcessWriterTests(TestCase):
    """
    Tests for L{ProcessWriter}.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.root = quickDirectory(self)
        self.worker = Worker(reactor, "tests")
        self.fallback = CountingWriter()
        self.writer = ProcessWriter(self.worker, self.fallback)
        self.addCleanup(self.writer.stop)

    def write(
        self, message: Sequence[bytes], name: str, quota: int = 0
    ) -> Deferred[None]:
        return self.writer.write(
            MaildirWrite(self.root, (), message, False, name, quota, 1000)
        )

    def stored(self) -> list[bytes]:
        return sorted(each.read_bytes() for each in self.root.glob("new/*"))

    async def test_elsewhere(self) -> None:
        """
        Messages are written by another process, and durable when confirmed.
        """
        await gatherResults(
            [self.write([b"a", b"%03d" % each], f"{each}") for each in range(300)]
        )
        self.assertEqual(self.stored(), [b"a%03d" % each for each in range(300)])
        self.assertEqual(self.fallback.written, 0)

    async def test_large(self) -> None:
        """
        Large messages and messages in files are written by this process.
        """
        spooled = SpooledMessage(self.root)
        spooled.write(b"x" * (MAX_IN_MEMORY + 1))
        self.addCleanup(spooled.close)
        await self.write(spooled.chunks(b"y"), "file")
        await self.write([b"z" * (MAX_MESSAGE_SIZE + 1)], "large")
        self.assertEqual(self.fallback.written, 2)
        sizes = [len(each) for each in self.stored()]
        self.assertEqual(sizes, [MAX_IN_MEMORY + 2, MAX_MESSAGE_SIZE + 1])

    async def test_errors(self) -> None:
        """
        Why a message can't be stored is known here as well as there, and doesn't
        keep others from it.
        """
        posted = [self.write([b"x" * 60], f"{each}", 100) for each in range(2)]
        await posted[0]
        with self.assertRaises(MailboxFull):
            await posted[1]
        with self.assertRaises(FileExistsError):
            (self.root / "tmp" / "taken").touch()
            await self.write([b"x"], "taken")
        self.assertEqual(len(self.stored()), 1)

    async def test_lost(self) -> None:
        """
        If the worker process is killed, its messages fail; the next one writes later
        ones.
        """
        await self.worker.call(pid, None)
        with capturedLogs():
            self.worker.call(die, None).addErrback(lambda _: None)
            with self.assertRaises(WorkerLost):
                await self.write([b"lost"], "a")
            await self.write([b"there"], "b")
        self.assertEqual(self.stored(), [b"there"])

    async def test_without(self) -> None:
        """
        Without a worker process, this process writes messages.
        """
        command = (sys.executable, "-c", "raise SystemExit(3)")
        with capturedLogs(), patch.object(process, "_COMMAND", command):
            await gatherResults([self.write([b"x"], f"{each}") for each in range(9)])
            await self.write([b"y"], "later")
        self.assertEqual(self.fallback.written, 10)
        self.assertEqual(self.stored(), [b"x"] * 9 + [b"y"])

    async def test_stop(self) -> None:
        """
        Messages accepted before are stored; after that, none are accepted.
        """
        posted = [self.write([b"x"], f"{each}") for each in range(500)]
        await self.writer.stop()
        for each in posted:
            self.successResultOf(each)
        with self.assertRaises(WriterClosed):
            await self.write([b"x"], "late")


class BoundTests(SynchronousTestCase):
    """
    The limit on waiting messages.
    """

    def test_bounded(self) -> None:
        """
        While the disk is blocked the number of waiting messages is limited; the
        others fail temporarily.
        """

        class Stuck:
            def call(self, function: object, argument: object) -> Deferred[None]:
                return Deferred()

        writer = ProcessWriter(cast(Worker, Stuck()), InlineWriter(), maxWaiting=3)
        write = MaildirWrite(quickDirectory(self), (), [b"x"], False, "a", 0, 0)
        outcomes = [writer.write(write) for _ in range(6)]
        self.failureResultOf(outcomes.pop(), WriterClosed)
        for each in outcomes:
            self.assertNoResult(each)
