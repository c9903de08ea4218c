"""
Tests for L{moxtls.mailbox.maildir}.
"""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from twisted.internet.task import Clock

from moxtls.interfaces import IMailbox
from moxtls.mailbox.maildir import Maildir
from tests.mailbox import mailboxes


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
                ".a.b/cur/1800000000.id1.mx.example,S=3:2,S",
                ".a.b/maildirfolder",
                "new/1800000000.id2.mx.example,S=2",
            ],
        )
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o700)
        self.assertEqual((self.root / self.files()[0]).stat().st_mode & 0o777, 0o600)

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
