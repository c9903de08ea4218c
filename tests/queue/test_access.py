"""
Tests for L{moxtls.queue.spool}.
"""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from moxtls.queue.client import QueueClient
from moxtls.queue.spool import (
    InlineSpoolExecutor,
    Spool,
    SpoolClosed,
    SpoolUnusable,
    ThreadedSpoolExecutor,
)
from moxtls.queue.types import Envelope
from tests import MAX_WAIT

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
        What nobody waits for any more is done nevertheless.
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
        What was begun before closing is done; after that, nothing is.
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
