"""
Tests for L{moxtls.mailbox.maildir} and L{moxtls.mailbox.executor}.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from threading import Event
from typing import ClassVar
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from moxtls.interfaces import IMailbox
from moxtls.mailbox import executor
from moxtls.mailbox.executor import ThreadWriter, WriterClosed
from moxtls.mailbox.maildir import MailStore
from moxtls.mailbox.names import HOST_ACCOUNT, MailboxFull
from moxtls.mailbox.write import MaildirWrite
from tests import MAX_WAIT
from tests.queue.killing import quickDirectory


class StoreCase(TestCase):
    """
    A store in a folder.
    """

    timeout = MAX_WAIT
    quotas: ClassVar = {"anna": 0, "bob": 1000}

    def makeStore(self, threaded: bool) -> MailStore:
        self.root = quickDirectory(self)
        numbers = count(1)
        assert IReactorFromThreads.providedBy(reactor)
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        return MailStore(
            self.clock,
            self.root / "mail",
            self.root / "accounts",
            self.quotas,
            "mx.example",
            lambda: f"id{next(numbers)}",
            ThreadWriter(reactor) if threaded else None,
        )

    def sizes(self, place: str) -> list[int]:
        return sorted(each.stat().st_size for each in self.root.glob(place))


class MailStoreTests(StoreCase):
    """
    Tests for L{MailStore}.
    """

    def test_places(self) -> None:
        """
        Each account has a Maildir of its name, and the host its own; nobody
        else has any.
        """
        store = self.makeStore(threaded=False)
        for account in (HOST_ACCOUNT, "anna"):
            mailbox = store.mailboxOf(account)
            verifyObject(IMailbox, mailbox)
            self.successResultOf(mailbox.deliver("Inbox", [b"x"]))
            self.assertTrue(self.successResultOf(mailbox.hasRoom(2**40)))
        self.assertEqual(self.sizes("mail/new/*"), [1])
        self.assertEqual(self.sizes("accounts/anna/new/*"), [1])
        self.assertRaises(KeyError, store.mailboxOf, "carol")

    async def test_together(self) -> None:
        """
        Many at a time are all there once they are acknowledged.
        """
        store = self.makeStore(threaded=True)
        mailboxes = [store.mailboxOf(each) for each in ("anna", HOST_ACCOUNT)]
        await gatherResults(
            [
                mailbox.deliver("a/b", [b"x" * size])
                for size in range(100)
                for mailbox in mailboxes
            ]
        )
        self.assertEqual(self.sizes("accounts/anna/.a.b/new/*"), [*range(100)])
        self.assertEqual(self.sizes("mail/.a.b/new/*"), [*range(100)])
        await store.stop()

    async def test_quota(self) -> None:
        """
        Of many at a time, as many are stored as there is room for, and the
        others fail for good; what is used is kept for other programs.
        """
        store = self.makeStore(threaded=True)
        bob = store.mailboxOf("bob")
        self.assertTrue(await bob.hasRoom(1000))
        self.assertFalse(await bob.hasRoom(1001))
        deliveries = [bob.deliver("Inbox", [b"x" * 300]) for _ in range(5)]
        full = 0
        for each in deliveries:
            try:
                await each
            except MailboxFull:
                full += 1
        self.assertEqual(full, 2)
        self.assertEqual(self.sizes("accounts/bob/new/*"), [300] * 3)
        self.assertEqual(self.sizes("accounts/bob/tmp/*"), [])
        self.assertTrue(await bob.hasRoom(100))
        self.assertFalse(await bob.hasRoom(101))
        size = (self.root / "accounts/bob/maildirsize").read_bytes()
        self.assertTrue(size.startswith(b"1000S\n"), size)
        await store.stop()

    async def test_sweep(self) -> None:
        """
        What died long ago is gone after a start, and a folder that can't be
        read is only logged.
        """
        store = self.makeStore(threaded=True)
        old = self.root / "accounts/anna/tmp/old"
        old.parent.mkdir(parents=True)
        old.touch()
        os.utime(old, (0, 0))
        await store.sweep()
        self.assertFalse(old.exists())
        (self.root / "mail").write_bytes(b"in the way")
        await store.sweep()
        self.assertEqual(len(self.flushLoggedErrors(NotADirectoryError)), 1)
        await store.stop()


class Slow(Sequence[bytes]):
    """
    A message that comes when it is told to.
    """

    def __init__(self) -> None:
        self.begun = Event()
        self.go = Event()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: object) -> bytes:  # type: ignore[override]
        if index != 0:
            raise IndexError
        self.begun.set()
        self.go.wait(MAX_WAIT)
        return b"slow"


class DeskTests(StoreCase):
    """
    Tests for L{ThreadWriter}.
    """

    def setUp(self) -> None:
        self.root = quickDirectory(self)
        assert IReactorFromThreads.providedBy(reactor)
        self.desk = ThreadWriter(reactor, most=2)
        self.addCleanup(self.desk.stop)

    def letter(self, message: Sequence[bytes], name: str) -> MaildirWrite:
        return MaildirWrite(self.root, (), message, False, name, 0, 0)

    async def test_bounded(self) -> None:
        """
        While the disk stands still no more than so many wait for it; the
        others are to come back.
        """
        slow = Slow()
        first = self.desk.post(self.letter(slow, "first"))
        slow.begun.wait(MAX_WAIT)
        more = [self.desk.post(self.letter([b"x"], f"{each}")) for each in range(3)]
        with self.assertRaises(WriterClosed):
            await more.pop()
        slow.go.set()
        await gatherResults([first, *more])
        self.assertEqual(self.sizes("new/*"), [1, 1, 4])

    async def test_stop(self) -> None:
        """
        What was taken before is answered; after that, nothing is taken.
        """
        slow = Slow()
        first = self.desk.post(self.letter(slow, "first"))
        stopped = self.desk.stop()
        slow.go.set()
        await stopped
        self.successResultOf(first)
        with self.assertRaises(WriterClosed):
            await self.desk.post(self.letter([b"x"], "late"))
        with self.assertRaises(WriterClosed):
            await self.desk.run(lambda: 1)

    async def test_fails(self) -> None:
        """
        An errand that fails says so; a letter that nobody waits for any more
        is stored nevertheless.
        """
        with self.assertRaises(ZeroDivisionError):
            await self.desk.run(lambda: 1 // 0)
        cancelled = self.desk.post(self.letter([b"x"], "a"))
        cancelled.addErrback(lambda failure: None)
        cancelled.cancel()
        await self.desk.post(self.letter([b"x"], "b"))
        self.assertEqual(self.sizes("new/*"), [1, 1])

    async def test_mistake(self) -> None:
        """
        Whatever goes wrong with letters, their senders hear of it, and the next
        ones are stored.
        """
        wrong = patch.object(executor, "post", side_effect=ZeroDivisionError)
        with wrong, self.assertRaises(ZeroDivisionError):
            await self.desk.post(self.letter([b"x"], "a"))
        await self.desk.post(self.letter([b"x"], "b"))
        self.assertEqual(self.sizes("new/*"), [1])


class DirectDeskTests(SynchronousTestCase):
    """
    Tests for L{moxtls.mailbox.executor.DirectDesk}.
    """

    def test_atOnce(self) -> None:
        """
        Everything is done, or has failed, at once.
        """
        root = quickDirectory(self)
        store = MailStore(
            Clock(), root / "m", root / "a", {"bob": 2}, "mx.example", lambda: "id"
        )
        bob = store.mailboxOf("bob")
        self.successResultOf(bob.deliver("Inbox", [b"x"]))
        self.failureResultOf(bob.deliver("Inbox", [b"xx"]), MailboxFull)
        self.assertFalse(self.successResultOf(bob.hasRoom(3)))
        self.successResultOf(store.stop())
        self.assertEqual([*Path(root).glob("a/bob/tmp/*")], [])
