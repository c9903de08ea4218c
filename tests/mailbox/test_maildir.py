"""
Tests for L{moxtls.mailbox.maildir} and L{moxtls.mailbox.write}.

Tests for L{moxtls.mailbox.maildir}.
"""

from __future__ import annotations

import errno
import mailbox
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event
from time import time
from typing import ClassVar
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from moxtls.interfaces import IMailbox
from moxtls.mailbox import maildir
from moxtls.mailbox import write as writing
from moxtls.mailbox.maildir import Maildir, MailStore, ThreadWriter, WriterClosed
from moxtls.mailbox.names import HOST_ACCOUNT, MailboxFull
from moxtls.mailbox.write import MaildirWrite, QuotaUsage, removeStaleTemp, writeBatch
from tests import MAX_WAIT
from tests.mailbox import mailboxes
from tests.queue.killing import killedAt, quickDirectory


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

    def test_mailboxes(self) -> None:
        """
        Each account has a Maildir of its name, and the host its own; there are no
        others.
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
        Concurrent messages that fit the quota are stored, and the others fail
        permanently; the usage is written for other programs.
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

    async def test_removeStaleTemp(self) -> None:
        """
        Stale temporary files are removed after a start, and an unreadable folder is
        logged.
        """
        store = self.makeStore(threaded=True)
        old = self.root / "accounts/anna/tmp/old"
        old.parent.mkdir(parents=True)
        old.touch()
        os.utime(old, (0, 0))
        await store.removeStaleTemp()
        self.assertFalse(old.exists())
        (self.root / "mail").write_bytes(b"in the way")
        await store.removeStaleTemp()
        self.assertEqual(len(self.flushLoggedErrors(NotADirectoryError)), 1)
        await store.stop()


class Slow(Sequence[bytes]):
    """
    A message whose chunks come when the test lets them.
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


class ThreadWriterTests(StoreCase):
    """
    Tests for L{ThreadWriter}.
    """

    def setUp(self) -> None:
        self.root = quickDirectory(self)
        assert IReactorFromThreads.providedBy(reactor)
        self.writer = ThreadWriter(reactor, maxWaiting=2)
        self.addCleanup(self.writer.stop)

    def maildirWrite(self, message: Sequence[bytes], name: str) -> MaildirWrite:
        return MaildirWrite(self.root, (), message, False, name, 0, 0)

    async def test_bounded(self) -> None:
        """
        While the disk is blocked the number of waiting messages is limited; the
        others fail temporarily.
        """
        slow = Slow()
        first = self.writer.write(self.maildirWrite(slow, "first"))
        slow.begun.wait(MAX_WAIT)
        more = [
            self.writer.write(self.maildirWrite([b"x"], f"{each}")) for each in range(3)
        ]
        with self.assertRaises(WriterClosed):
            await more.pop()
        slow.go.set()
        await gatherResults([first, *more])
        self.assertEqual(self.sizes("new/*"), [1, 1, 4])

    async def test_stop(self) -> None:
        """
        Messages accepted before are stored; after that, none are accepted.
        """
        slow = Slow()
        first = self.writer.write(self.maildirWrite(slow, "first"))
        stopped = self.writer.stop()
        slow.go.set()
        await stopped
        self.successResultOf(first)
        with self.assertRaises(WriterClosed):
            await self.writer.write(self.maildirWrite([b"x"], "late"))
        with self.assertRaises(WriterClosed):
            await self.writer.run(lambda: 1)

    async def test_fails(self) -> None:
        """
        A failed operation fails its Deferred; a cancelled message is stored
        nevertheless.
        """
        with self.assertRaises(ZeroDivisionError):
            await self.writer.run(lambda: 1 // 0)
        cancelled = self.writer.write(self.maildirWrite([b"x"], "a"))
        cancelled.addErrback(lambda failure: None)
        cancelled.cancel()
        await self.writer.write(self.maildirWrite([b"x"], "b"))
        self.assertEqual(self.sizes("new/*"), [1, 1])

    async def test_mistake(self) -> None:
        """
        After any internal error the affected messages fail, and the next ones are
        stored.
        """
        wrong = patch.object(maildir, "writeBatch", side_effect=ZeroDivisionError)
        with wrong, self.assertRaises(ZeroDivisionError):
            await self.writer.write(self.maildirWrite([b"x"], "a"))
        await self.writer.write(self.maildirWrite([b"x"], "b"))
        self.assertEqual(self.sizes("new/*"), [1])


class InlineWriterTests(SynchronousTestCase):
    """
    Tests for L{moxtls.mailbox.maildir.InlineWriter}.
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


class TornList(list[bytes]):
    """
    A message that can't be read to its end.
    """

    def __iter__(self) -> Iterator[bytes]:
        yield b"half"
        raise OSError("torn")


class MaildirTests(mailboxes.MailboxMixin):
    """
    Tests for L{Maildir}, with the standard library as reader.
    """

    def makeMailbox(self) -> IMailbox:
        clock = Clock()
        clock.advance(1_800_000_000)
        self.root = Path(self.mktemp()) / "Mail"
        numbers = count(1)
        return Maildir(clock, self.root, "mx.example", lambda: f"id{next(numbers)}")

    def contents(self, *parts: str) -> list[tuple[bytes, bool]]:
        reader: mailbox.Maildir = mailbox.Maildir(self.root, create=False)
        if parts:
            reader = reader.get_folder(".".join(parts))
        return [
            (self.raw(reader, key), "S" in message.get_flags())
            for key, message in reader.items()
        ]

    def raw(self, reader: mailbox.Maildir, key: str) -> bytes:
        """
        The file as it is: the reader would convert line ends.
        """
        with reader.get_file(key) as file:
            return bytes(file.read())

    def files(self) -> list[str]:
        """
        The files on disk.
        """
        found = (each for each in self.root.rglob("*") if each.is_file())
        return sorted(str(each.relative_to(self.root)) for each in found)

    def test_mailboxes(self) -> None:
        """
        Seen ones are in C{cur} with a flag, others in C{new}; mailboxes are
        folders as Maildir++ has them.
        """
        self.successResultOf(self.mailbox.deliver("a/b", (b"12", b"3"), True))
        self.successResultOf(self.mailbox.deliver("Inbox", (b"12",)))
        self.assertEqual(
            self.files(),
            [
                ".a.b/cur/1800000000.id1.mx.example,S=3,W=3:2,S",
                ".a.b/maildirfolder",
                "new/1800000000.id2.mx.example,S=2,W=2",
            ],
        )
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o700)
        self.assertEqual((self.root / self.files()[0]).stat().st_mode & 0o777, 0o600)

    def test_virtualSize(self) -> None:
        """
        The name has the size as IMAP counts it, wherever chunks end (RFC 9051 2.3.4):
        bare line feeds count twice.
        """
        for chunks, said in [
            ((b"a\r", b"\nb\r\n"), "S=6,W=6"),
            ((b"a\n", b"\n", b"b\r\n"), "S=6,W=8"),
            ((b"\r", b"", b"\n", b"\n"), "S=3,W=4"),
        ]:
            self.successResultOf(self.mailbox.deliver("Inbox", chunks))
            self.assertIn(said, {each.partition(",")[2] for each in self.files()})

    def test_torn(self) -> None:
        """
        A message that can't be written completely leaves no file.
        """
        torn = TornList([b"half", b"half"])
        self.failureResultOf(self.mailbox.deliver("Inbox", torn), OSError)
        self.assertEqual(self.files(), [])

    def test_noRoom(self) -> None:
        """
        A full disk is a failure, not an exception.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.write_bytes(b"in the way")
        self.failureResultOf(self.mailbox.deliver("Inbox", (b"x",)), OSError)

    def test_safe(self) -> None:
        """
        Name and content are on the disk before it is acknowledged: the file
        first, then the folder that it is moved to.
        """
        self.successResultOf(self.mailbox.deliver("Inbox", (b"x",)))
        steps: list[str] = []

        def noting(name: str) -> AbstractContextManager[object]:
            real = getattr(os, name)

            def noted(*arguments: object) -> object:
                steps.append(name)
                return real(*arguments)

            return patch.object(os, name, noted)

        synced = patch.object(writing, "_sync", lambda file: steps.append("file"))
        with noting("rename"), noting("fsync"), synced:
            self.successResultOf(self.mailbox.deliver("Inbox", (b"x",)))
        self.assertEqual(steps, ["file", "rename", "fsync"])

    def test_oneByOne(self) -> None:
        """
        In a group, a failing message doesn't affect the others.
        """
        messages = [
            MaildirWrite(self.root, parts, message, False, f"id{number}", 0, 0)
            for number, (parts, message) in enumerate(
                [
                    ((), [b"a"]),
                    ((), TornList([b"half"])),
                    (("x",), [b"b"]),
                ]
            )
        ]
        taken = MaildirWrite(self.root, (), [b"again"], False, "id0", 0, 0)
        self.assertEqual(
            [type(each) for each in writeBatch([*messages, taken])],
            [type(None), OSError, type(None), FileExistsError],
        )
        self.assertEqual(
            self.files(), [".x/maildirfolder", ".x/new/id2,S=1,W=1", "new/id0,S=1,W=1"]
        )

    def test_unsynced(self) -> None:
        """
        A message that can't be synced isn't there; if the folder can't be synced, no
        message is acknowledged.
        """
        for name, left in (("_sync", []), ("syncFolder", ["new/b,S=1,W=1"])):
            self.successResultOf(self.mailbox.deliver("x", (b"made",)))
            write = MaildirWrite(self.root, (), [b"x"], False, "b", 0, 0)
            writeBatch([MaildirWrite(self.root, (), [], False, name, 0, 0)])
            before = self.files()
            with patch.object(writing, name, side_effect=OSError(5, "bad disk")):
                [error] = writeBatch([write])
            self.assertIsInstance(error, OSError)
            self.assertEqual(sorted(set(self.files()) - set(before)), left)


class CountTests(SynchronousTestCase):
    """
    The recorded usage of quotas after a batch.
    """

    def test_uncounted(self) -> None:
        """
        If usage can't be recorded, the message isn't stored and leaves no file;
        messages to other accounts are stored.
        """
        root = quickDirectory(self)
        full, other = root / "full", root / "other"
        messages = [
            MaildirWrite(each, (), [b"x"], False, f"{number}", 100, time())
            for number, each in enumerate((full, other, full))
        ]
        write = QuotaUsage._append

        def noRoom(usage: QuotaUsage, line: bytes) -> None:
            if usage._root == full:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(usage, line)

        descriptors = len(os.listdir("/dev/fd"))
        with patch.object(QuotaUsage, "_append", noRoom):
            errors = writeBatch(messages)
        self.assertEqual([each is None for each in errors], [False, True, False])
        self.assertEqual(len(os.listdir("/dev/fd")), descriptors)
        self.assertEqual([*full.glob("tmp/*"), *full.glob("new/*")], [])
        self.assertEqual(len([*other.glob("new/*")]), 1)


class KilledTests(SynchronousTestCase):
    """
    Tests for files left by a process that was killed.
    """

    def test_anywhere(self) -> None:
        """
        At whatever step the process is killed, there are whole messages or none,
        later deliveries succeed, and stale files are removed.
        """
        root = quickDirectory(self)
        body = b"x" * 100
        messages = [
            MaildirWrite(root / "mail", parts, [body], False, f"id{number}", 10_000, 0)
            for number, parts in enumerate([(), ("a", "b")])
        ]
        for step in count():
            died = killedAt(step, lambda: writeBatch(messages))
            found = [*(root / "mail").glob("**/new/*")]
            self.assertTrue(all(each.read_bytes() == body for each in found), step)
            again = replace(messages[0], unique="again")
            self.assertEqual(writeBatch([again]), [None])
            self.assertEqual(len([*(root / "mail").glob("new/again*")]), 1)
            removeStaleTemp(root / "mail", time() + 37 * 3600)
            self.assertEqual([*(root / "mail").glob("**/tmp/*")], [])
            shutil.rmtree(root / "mail")
            if not died:
                break
        self.assertGreater(step, 8)


class RemoveStaleTempTests(SynchronousTestCase):
    """
    Tests for L{removeStaleTemp}.
    """

    def test_old(self) -> None:
        """
        Files in C{tmp} older than 36 hours are removed, as the Maildir format has it,
        and no others.
        """
        root = quickDirectory(self)
        now = 1_800_000_000.0
        for folder in ("", ".a"):
            for name, age in (("old", 36 * 3600 + 1), ("new", 36 * 3600 - 1)):
                for place in ("tmp", "cur"):
                    path = root / folder / place / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                    os.utime(path, (now - age, now - age))
        self.assertEqual(removeStaleTemp(root, now), 2)
        self.assertEqual(
            sorted(str(each.relative_to(root)) for each in root.glob("**/tmp/*")),
            [".a/tmp/new", "tmp/new"],
        )
        self.assertEqual(len([*root.glob("**/cur/*")]), 4)
        self.assertEqual(removeStaleTemp(root / "none", now), 0)
