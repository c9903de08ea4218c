"""
Tests for L{moxtls.mailbox.write}: quotas.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.mailbox.names import MailboxFull
from moxtls.mailbox.write import (
    MAX_FILE_SIZE,
    MaildirSize,
    QuotaUsage,
    parseMaildirSize,
)
from tests.queue.killing import quickDirectory

NOW = 1_800_000_000.0


class ParseTests(SynchronousTestCase):
    """
    Tests for L{parseMaildirSize}.
    """

    def test_files(self) -> None:
        """
        Entries are added up; files for another quota and torn files are invalid.
        """
        for content, expected in [
            (b"100S\n10 1\n", MaildirSize(10, 1, True)),
            (b"100S\n10 1\n20 2\n-5 -1\n", MaildirSize(25, 2)),
            (b"100S\n  10   1 \n", MaildirSize(10, 1, True)),
            (b"100S\n", None),
            (b"100S\n10 1", None),
            (b"100S\n10 1\n2", None),
            (b"100S\nx\n", None),
            (b"100S\n10\n", None),
            (b"200S\n10 1\n", None),
            (b"100S,5C\n10 1\n", None),
            (b"\0\0\0", None),
            (b"", None),
        ]:
            self.assertEqual(parseMaildirSize(content, 100), expected, content)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=50))
    def test_anything(self, content: bytes) -> None:
        """
        Any content after the quota is parsed as numbers, or is invalid.
        """
        found = parseMaildirSize(b"100S\n" + content, 100)
        self.assertIsInstance(found, MaildirSize | None)


class QuotaUsageTests(SynchronousTestCase):
    """
    Tests for L{QuotaUsage}.
    """

    def setUp(self) -> None:
        self.root = quickDirectory(self)
        self.file = self.root / "maildirsize"

    def usage(self, limit: int = 100, now: float = NOW) -> QuotaUsage:
        return QuotaUsage(self.root, limit, now)

    def test_pipe(self) -> None:
        """
        Other kinds of files in place of C{maildirsize} don't block and aren't
        followed: they are replaced if there is a configured quota, and ignored
        otherwise.
        """
        other = self.message("elsewhere", 10)
        for make in (os.mkfifo, lambda path: os.symlink(other, path)):
            make(self.file)
            self.addCleanup(self.file.unlink, missing_ok=True)
            without = self.usage(limit=0)
            without.take(5)
            without.write()
            self.assertFalse(self.file.is_file() and not self.file.is_symlink())
            # The name of what a process of that number has left, too.
            os.symlink(other, self.root / f"maildirsize.{os.getpid()}")
            usage = self.usage()
            usage.take(5)
            usage.write()
            self.assertEqual(self.file.read_bytes(), b"100S\n0 0\n5 1\n")
            self.file.unlink()
        self.assertEqual(other.read_bytes(), b"x" * 10)

    def message(self, path: str, size: int = 0) -> Path:
        """
        A stored message.
        """
        whole = self.root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_bytes(b"x" * size)
        return whole

    def write(self, content: bytes, age: float = 0) -> None:
        self.file.write_bytes(content)
        os.utime(self.file, (NOW - age, NOW - age))

    def test_counted(self) -> None:
        """
        Without the file, all mailboxes are counted, by the sizes in file names if
        present.
        """
        self.message("new/a,S=10,W=12")
        self.message("cur/b,S=20:2,S")
        self.message(".x.y/cur/c:2,ST", 30)
        self.message("tmp/d,S=99")
        self.assertTrue(self.usage().has(40))
        self.assertEqual(self.file.read_bytes(), b"100S\n60 3\n")
        self.assertFalse(self.usage().has(41))
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)

    def test_take(self) -> None:
        """
        Reserved octets count at once, and are written as one line.
        """
        self.write(b"100S\n10 1\n")
        usage = self.usage()
        for size in (30, 20):
            usage.take(size)
        usage.giveBack(20)
        usage.take(25)
        self.assertRaises(MailboxFull, usage.take, 60)
        usage.write()
        usage.write()
        content = self.file.read_bytes()
        self.assertTrue(content.endswith(b"55 2\n"), content)

    def test_recounted(self) -> None:
        """
        Before a message is refused by a C{maildirsize} that is old or written by
        others, messages are recounted.
        """
        self.message("new/a,S=50")
        for content, age in ((b"100S\n50 1\n50 1\n", 0), (b"100S\n99 1\n", 901)):
            self.write(content, age)
            self.assertTrue(self.usage().has(50))
            self.assertEqual(self.file.read_bytes(), b"100S\n50 1\n")
        self.write(b"100S\n99 1\n", 100)
        self.assertFalse(self.usage().has(50))

    def test_anew(self) -> None:
        """
        A file that has grown long, is broken or about another quota is begun
        again.
        """
        self.message("new/a,S=50")
        long = b"100S\n" + b"0 0\n" * (MAX_FILE_SIZE // 4)
        for content in (long, b"garbage", b"7S\n1 1\n"):
            self.write(content)
            self.assertTrue(self.usage().has(1))
            self.assertEqual(self.file.read_bytes(), b"100S\n50 1\n")

    def test_unlimited(self) -> None:
        """
        Without a quota no file is created; an existing one of another program is
        updated.
        """
        for content in (None, b"5S\n1 1\n"):
            if content is not None:
                self.write(content)
            usage = self.usage(0)
            usage.take(2**60)
            usage.write()
            self.assertEqual(self.file.exists(), content is not None)
        self.assertEqual(self.file.read_bytes(), b"5S\n1 1\n%d 1\n" % 2**60)
