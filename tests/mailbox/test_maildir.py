"""
Tests for L{moxtls.mailbox.maildir}.
"""

from __future__ import annotations

import errno
import mailbox
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import time
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.interfaces import IMailbox
from moxtls.mailbox import files as folders
from moxtls.mailbox import write as writing
from moxtls.mailbox.files import removeStaleTemp
from moxtls.mailbox.maildir import Maildir
from moxtls.mailbox.quota import QuotaUsage
from moxtls.mailbox.write import MaildirWrite, writeBatch
from tests.mailbox import mailboxes
from tests.queue.killing import killedAt, quickDirectory


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
        What is on disk.
        """
        found = (each for each in self.root.rglob("*") if each.is_file())
        return sorted(str(each.relative_to(self.root)) for each in found)

    def test_places(self) -> None:
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
        What IMAP counts is in the name too, wherever chunks end (RFC 9051
        2.3.4): bare line feeds count twice.
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
        What can't be written whole leaves nothing behind.
        """
        torn = TornList([b"half", b"half"])
        self.failureResultOf(self.mailbox.deliver("Inbox", torn), OSError)
        self.assertEqual(self.files(), [])

    def test_noRoom(self) -> None:
        """
        A disk that takes nothing is a failure, not an exception.
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

        synced = patch.object(folders, "_sync", lambda file: steps.append("file"))
        with noting("rename"), noting("fsync"), synced:
            self.successResultOf(self.mailbox.deliver("Inbox", (b"x",)))
        self.assertEqual(steps, ["file", "rename", "fsync"])

    def test_oneByOne(self) -> None:
        """
        In a group, one that fails takes no other with it.
        """
        letters = [
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
            [type(each) for each in writeBatch([*letters, taken])],
            [type(None), OSError, type(None), FileExistsError],
        )
        self.assertEqual(
            self.files(), [".x/maildirfolder", ".x/new/id2,S=1,W=1", "new/id0,S=1,W=1"]
        )

    def test_unsynced(self) -> None:
        """
        What the disk doesn't take isn't there; where it doesn't take the
        folder, nothing is acknowledged.
        """
        for name, left in (("_sync", []), ("syncFolder", ["new/b,S=1,W=1"])):
            self.successResultOf(self.mailbox.deliver("x", (b"made",)))
            letter = MaildirWrite(self.root, (), [b"x"], False, "b", 0, 0)
            writeBatch([MaildirWrite(self.root, (), [], False, name, 0, 0)])
            before = self.files()
            where = folders if name == "_sync" else writing
            with patch.object(where, name, side_effect=OSError(5, "bad disk")):
                [error] = writeBatch([letter])
            self.assertIsInstance(error, OSError)
            self.assertEqual(sorted(set(self.files()) - set(before)), left)


class CountTests(SynchronousTestCase):
    """
    What is written down of quotas with a group of letters.
    """

    def test_uncounted(self) -> None:
        """
        Where a letter can't be counted, it isn't stored and leaves nothing
        behind; those to others are.
        """
        root = quickDirectory(self)
        full, other = root / "full", root / "other"
        letters = [
            MaildirWrite(each, (), [b"x"], False, f"{number}", 100, time())
            for number, each in enumerate((full, other, full))
        ]
        write = QuotaUsage._append

        def noRoom(allowance: QuotaUsage, line: bytes) -> None:
            if allowance._root == full:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(allowance, line)

        descriptors = len(os.listdir("/dev/fd"))
        with patch.object(QuotaUsage, "_append", noRoom):
            errors = writeBatch(letters)
        self.assertEqual([each is None for each in errors], [False, True, False])
        self.assertEqual(len(os.listdir("/dev/fd")), descriptors)
        self.assertEqual([*full.glob("tmp/*"), *full.glob("new/*")], [])
        self.assertEqual(len([*other.glob("new/*")]), 1)


class KilledTests(SynchronousTestCase):
    """
    Tests for what is left of deliveries when the process dies.
    """

    def test_anywhere(self) -> None:
        """
        At whatever step it dies, whole messages are left or none, nothing
        stands in the way of the next, and leftovers go when they are old.
        """
        root = quickDirectory(self)
        body = b"x" * 100
        letters = [
            MaildirWrite(root / "mail", parts, [body], False, f"id{number}", 10_000, 0)
            for number, parts in enumerate([(), ("a", "b")])
        ]
        for step in count():
            died = killedAt(step, lambda: writeBatch(letters))
            found = [*(root / "mail").glob("**/new/*")]
            self.assertTrue(all(each.read_bytes() == body for each in found), step)
            again = replace(letters[0], unique="again")
            self.assertEqual(writeBatch([again]), [None])
            self.assertEqual(len([*(root / "mail").glob("new/again*")]), 1)
            removeStaleTemp(root / "mail", time() + 37 * 3600)
            self.assertEqual([*(root / "mail").glob("**/tmp/*")], [])
            shutil.rmtree(root / "mail")
            if not died:
                break
        self.assertGreater(step, 8)


class SweepTests(SynchronousTestCase):
    """
    Tests for L{removeStaleTemp}.
    """

    def test_old(self) -> None:
        """
        As the Maildir format has it, what lay in C{tmp} for 36 hours goes, and
        nothing else.
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
