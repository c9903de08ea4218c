# -*- test-case-name: tests.queue.test_spool -*-
"""
The messages of a spool as files, one each, in a directory of their own.

What is written within a transaction of the index stays only if that is
committed; what is removed within one goes only after that.  Every method
blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from moxtls.queue.dsn import MAX_HEADER

#: Seconds after which a file nobody refers to was left behind by a process
#: that died: one that lives refers to it at once.
STALE_AFTER = 15 * 60


class MessageFiles:
    """
    A directory of messages.

    A file is written beside the others, under a name that is no message's,
    and renamed once it is whole and on the disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written: list[str] = []
        self._doomed: list[str] = []
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, messageID: str) -> Path:
        return self._root / messageID

    def header(self, messageID: str) -> bytes:
        """
        The start of a message, with its header as far as it matters; empty
        if it can't be read.
        """
        try:
            with self.path(messageID).open("rb") as file:
                return file.read(MAX_HEADER)
        except OSError:
            return b""

    def fault(self, messageID: str, size: int) -> str:
        """
        What is wrong with the file of a message that had C{size} octets;
        empty if nothing is.  The length is what tells: a file that was written
        before a crash, and whose contents weren't, is too short.
        """
        try:
            found = self.path(messageID).stat().st_size
        except OSError as error:
            return error.strerror or str(error)
        return "" if found == size else f"{found} octets instead of {size}"

    def write(self, messageID: str, chunks: Iterable[bytes]) -> int:
        """
        @return: The size.

        @raise Exception: What C{chunks} raises; nothing is written then.
        """
        unfinished = self._root / f".{messageID}"
        try:
            with open(unfinished, "xb", opener=_private) as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            os.rename(unfinished, self.path(messageID))
        except Exception:
            unfinished.unlink(missing_ok=True)
            raise
        self._written.append(messageID)
        return size

    def remove(self, messageID: str) -> None:
        self._doomed.append(messageID)

    def mark(self) -> tuple[int, int]:
        """
        A point to go back to.
        """
        return len(self._written), len(self._doomed)

    def backTo(self, mark: tuple[int, int]) -> None:
        """
        Undo what came after C{mark}.
        """
        written, doomed = mark
        del self._doomed[doomed:]
        for messageID in self._written[written:]:
            self._unlink(messageID)
        del self._written[written:]

    def sync(self) -> None:
        """
        Make the names of the new files survive a power cut.
        """
        if not self._written:
            return
        directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def committed(self) -> None:
        """
        The index is on disk: now nothing refers to what was removed.
        """
        self._written.clear()
        for messageID in self._doomed:
            self._unlink(messageID)
        self._doomed.clear()

    def uncertain(self) -> None:
        """
        The index may be on disk or not: what isn't needed is found by
        L{abandoned}, later.
        """
        self._written.clear()
        self._doomed.clear()

    def abandoned(self, now: float) -> list[str]:
        """
        Names of files old enough to be left-overs, if nothing refers to them.
        """
        with os.scandir(self._root) as entries:
            return [
                entry.name
                for entry in entries
                if entry.stat().st_mtime < now - STALE_AFTER
            ]

    def _unlink(self, name: str) -> None:
        # It is only untidy if this fails, and is tried again at the next start.
        with suppress(OSError):
            os.unlink(self._root / name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
