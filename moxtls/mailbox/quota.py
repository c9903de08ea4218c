# -*- test-case-name: tests.mailbox.test_quota -*-
"""
Quotas of Maildir++: the usage in C{maildirsize}, which other programs that write to the
same Maildir read and update too.

The first line of C{maildirsize} is the quota, such as C{1000000S}; each of the others
is a change of the number of octets and of messages.
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
#: Maildir++: a file of this size is replaced by a new count.
MAX_FILE_SIZE = 5120
#: Maildir++: seconds after which the messages are counted again before one is refused
#: because of the file.
MAX_COUNT_AGE = 15 * 60

_LINE = re.compile(rb" *(-?[0-9]{1,18}) +(-?[0-9]{1,18}) *\Z")
_SIZE = re.compile(r",S=([0-9]{1,18})(?:[,:]|\Z)")


@dataclass(frozen=True, slots=True)
class MaildirSize:
    """
    The content of C{maildirsize}.

    @ivar fresh: True if nothing was added since the messages were counted.
    """

    octets: int
    messages: int
    fresh: bool = False


def parseMaildirSize(content: bytes, limit: int) -> MaildirSize | None:
    """
    Parse C{maildirsize}.

    @param limit: The quota in octets.

    @return: C{None} if the file is for another quota, or invalid.
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
    The usage of an account's quota, during one batch of messages.
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

        @raise MailboxFull: It exceeds the quota.
        """
        if not self.has(size):
            raise MailboxFull(f"{self._root.name}: its {self._limit} bytes are used")
        self._taken.append(size)

    def has(self, size: int) -> bool:
        """
        True if a message of C{size} octets fits the quota.
        """
        if not self._limit or size <= self._left():
            return True
        if self._usage is not None and self._isSure(self._usage):
            return False
        self._usage = self._counted()
        return size <= self._left()

    def giveBack(self, size: int) -> None:
        """
        Stop counting a message that isn't stored after all.
        """
        self._taken.remove(size)

    def write(self) -> None:
        """
        Add the counted messages to the file.  To be called before they are stored: a
        usage that is too high is corrected by a new count, one that is too low isn't.
        """
        line = b"%d %d\n" % (sum(self._taken), len(self._taken))
        isAny = bool(self._taken)
        self._taken.clear()
        # Without a quota here, another program may have one.
        with suppress(FileNotFoundError, NotRegularFile):
            if isAny:
                self._append(line)

    def _append(self, line: bytes) -> None:
        descriptor = openRegular(self._root / FILE, os.O_WRONLY | os.O_APPEND)
        try:
            # One system call: other programs append as well.
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
            # A file that is too large, or none, is replaced by a new count.
            if isinstance(error, NotRegularFile) or error.errno == errno.EFBIG:
                return None
            raise
        return parseMaildirSize(content, self._limit)

    def _isSure(self, usage: MaildirSize) -> bool:
        try:
            age = self._now - os.lstat(self._root / FILE).st_mtime
        except FileNotFoundError:
            return False
        # A time in the future shows that the clock was set back.
        return usage.fresh and 0 <= age < MAX_COUNT_AGE

    def _counted(self) -> MaildirSize:
        sizes = list(_sizes(self._root))
        usage = MaildirSize(sum(sizes), len(sizes), True)
        temporary = self._root / f"{FILE}.{os.getpid()}"
        content = b"%dS\n%d %d\n" % (self._limit, usage.octets, usage.messages)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._root.mkdir(0o700, parents=True, exist_ok=True)
        # Left by a process that died, or created by an attacker as a link.
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(os.open(temporary, flags, FILE_MODE), "wb") as file:
            file.write(content)
        os.rename(temporary, self._root / FILE)
        return usage


def _sizes(root: Path) -> Iterator[int]:
    """
    The sizes of all messages in all mailboxes, including deleted ones, which take as
    much space.
    """
    for folder in foldersOf(root):
        for name in ("new", "cur"):
            with suppress(FileNotFoundError), os.scandir(folder / name) as entries:
                yield from map(_size, entries)


def _size(entry: os.DirEntry[str]) -> int:
    named = _SIZE.search(entry.name)
    if named:
        return int(named[1])
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0  # It was moved in between.
