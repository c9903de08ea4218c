# -*- test-case-name: tests.mailbox.test_quota -*-
"""
How much of a quota is used, in the file that Maildir++ has for it: other
programs that write to the same Maildir read and write it too.

The first line of C{maildirsize} is the quota, such as C{1000000S}; each of the
others says by how many octets and messages there are more, or fewer.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moxtls.mailbox.files import FILE_MODE, foldersOf
from moxtls.mailbox.names import MailboxFull
from moxtls.regularfiles import NotRegularFile, openRegular, readRegular

FILE = "maildirsize"
#: Maildir++: from this size on, it is counted anew and begun again.
MAX_FILE_SIZE = 5120
#: Maildir++: before a message is refused because of what the file says, it is
#: counted anew, unless that was done within so many seconds.
TRUSTED = 15 * 60

_LINE = re.compile(rb" *(-?[0-9]{1,18}) +(-?[0-9]{1,18}) *\Z")
_SIZE = re.compile(r",S=([0-9]{1,18})(?:[,:]|\Z)")


@dataclass(frozen=True, slots=True)
class MaildirSize:
    """
    @ivar fresh: Whether nothing was added since all was counted.
    """

    octets: int
    messages: int
    fresh: bool = False


def parseMaildirSize(content: bytes, limit: int) -> MaildirSize | None:
    """
    @param limit: The quota that the file is to be about.

    @return: C{None} if the file is about another one, or can't be used.
    """
    head, *lines = content.split(b"\n")
    if head != b"%dS" % limit or not lines or lines.pop():
        return None
    found = [_LINE.match(line) for line in lines]
    pairs = [(int(each[1]), int(each[2])) for each in found if each]
    if not pairs or len(pairs) < len(lines):
        return None
    octets, messages = (sum(column) for column in zip(*pairs, strict=True))
    return MaildirSize(octets, messages, len(pairs) == 1)


class QuotaUsage:
    """
    What an account may still store.  For one group of messages.
    """

    def __init__(self, root: Path, limit: int, now: float) -> None:
        """
        @param limit: Octets; 0 for any number.
        @param now: Unix seconds.
        """
        self._root = root
        self._limit = limit
        self._now = now
        self._taken: list[int] = []
        self._usage: MaildirSize | None = None

    def take(self, size: int) -> None:
        """
        Count a message that is about to be stored.

        @raise MailboxFull: There is no room for it.
        """
        if not self.has(size):
            raise MailboxFull(f"{self._root.name}: its {self._limit} bytes are used")
        self._taken.append(size)

    def has(self, size: int) -> bool:
        """
        Whether there is room for one more.
        """
        if not self._limit or size <= self._left():
            return True
        if self._usage is not None and self._isSure(self._usage):
            return False
        self._usage = self._counted()
        return size <= self._left()

    def giveBack(self, size: int) -> None:
        """
        A message that was counted won't be stored after all.
        """
        self._taken.remove(size)

    def write(self) -> None:
        """
        Write down what was taken: before it is stored, as too little room is
        noticed and counted anew, and too much is not.
        """
        line = b"%d %d\n" % (sum(self._taken), len(self._taken))
        isAny = bool(self._taken)
        self._taken.clear()
        # Without a quota of ours there may still be somebody else's.
        with suppress(FileNotFoundError, NotRegularFile):
            if isAny:
                self._append(line)

    def _append(self, line: bytes) -> None:
        descriptor = openRegular(self._root / FILE, os.O_WRONLY | os.O_APPEND)
        try:
            # In one piece: others append as well.
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _left(self) -> int:
        if self._usage is None:
            self._usage = self._read() or self._counted()
        return self._limit - self._usage.octets - sum(self._taken)

    def _read(self) -> MaildirSize | None:
        try:
            content = readRegular(self._root / FILE, MAX_FILE_SIZE - 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            # What is too large or no file is counted anew, and replaced.
            if isinstance(error, NotRegularFile) or error.errno == errno.EFBIG:
                return None
            raise
        return parseMaildirSize(content, self._limit)

    def _isSure(self, usage: MaildirSize) -> bool:
        try:
            age = self._now - os.lstat(self._root / FILE).st_mtime
        except FileNotFoundError:
            return False
        # One from the future is of a clock that was set back since.
        return usage.fresh and 0 <= age < TRUSTED

    def _counted(self) -> MaildirSize:
        sizes = list(_sizes(self._root))
        usage = MaildirSize(sum(sizes), len(sizes), True)
        temporary = self._root / f"{FILE}.{os.getpid()}"
        content = b"%dS\n%d %d\n" % (self._limit, usage.octets, usage.messages)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._root.mkdir(0o700, parents=True, exist_ok=True)
        # Of a process that died, or put there by somebody else: not to be followed.
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(os.open(temporary, flags, FILE_MODE), "wb") as file:
            file.write(content)
        os.rename(temporary, self._root / FILE)
        return usage


def _sizes(root: Path) -> Iterator[int]:
    """
    Of all messages in all mailboxes, also of those in the trash: they take as
    much room.
    """
    for folder in foldersOf(root):
        for name in ("new", "cur"):
            with suppress(FileNotFoundError), os.scandir(folder / name) as entries:
                yield from map(_size, entries)


def _size(entry: os.DirEntry[str]) -> int:
    said = _SIZE.search(entry.name)
    if said:
        return int(said[1])
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0  # It was moved meanwhile.
