# -*- test-case-name: tests.queue.test_spool -*-
"""
The message files of a spool.

A file written within a transaction of the index is kept only if that is committed; a
file removed within one is unlinked after the commit.  Every method blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from moxtls.queue.dsn import MAX_HEADER

#: Age in seconds of a file without a row in the index from which on it counts as left
#: behind by a process that died: others add the row at once.
STALE_AFTER = 15 * 60


class MessageFiles:
    """
    A directory of message files.

    A file is written under a temporary name, and renamed once it is complete and on
    disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written: list[str] = []
        self._removed: list[str] = []
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, messageID: str) -> Path:
        return self._root / messageID

    def header(self, messageID: str) -> bytes:
        """
        The first L{MAX_HEADER} bytes of a message; empty if it can't be read.
        """
        try:
            with self.path(messageID).open("rb") as file:
                return file.read(MAX_HEADER)
        except OSError:
            return b""

    def fault(self, messageID: str, size: int) -> str:
        """
        Describe the damage to the file of a message of C{size} octets.  Only the length
        is checked: after a crash, a file whose contents weren't written is too short.

        @return: Empty if there is none.
        """
        try:
            found = os.stat(f"{self._root}/{messageID}").st_size
        except OSError as error:
            return error.strerror or str(error)
        return "" if found == size else f"{found} octets instead of {size}"

    def write(self, messageID: str, chunks: Iterable[bytes]) -> int:
        """
        Write a file to the disk.

        @return: The size in octets.

        @raise Exception: As C{chunks}; nothing is written then.
        """
        temporary = self._root / f".{messageID}"
        try:
            with open(temporary, "xb", opener=_private) as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            os.rename(temporary, self.path(messageID))
        except Exception:
            temporary.unlink(missing_ok=True)
            raise
        self._written.append(messageID)
        return size

    def remove(self, messageID: str) -> None:
        self._removed.append(messageID)

    def savepoint(self) -> tuple[int, int]:
        """
        A point for L{rollbackTo}.
        """
        return len(self._written), len(self._removed)

    def rollbackTo(self, savepoint: tuple[int, int]) -> None:
        """
        Undo the writes and removals after C{savepoint}.
        """
        written, removed = savepoint
        del self._removed[removed:]
        for messageID in self._written[written:]:
            self._unlink(messageID)
        del self._written[written:]

    def sync(self) -> None:
        """
        Write the names of the new files to the disk.
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
        Unlink the removed files: the index no longer refers to them.
        """
        self._written.clear()
        for messageID in self._removed:
            self._unlink(messageID)
        self._removed.clear()

    def uncertain(self) -> None:
        """
        Keep all files: the index may be on disk or not.  L{stale} finds unneeded files
        later.
        """
        self._written.clear()
        self._removed.clear()

    def stale(self, now: float) -> list[str]:
        """
        Names of files that are old enough to be left behind, unless the index refers to
        them.
        """
        found = []
        with os.scandir(self._root) as entries:
            for entry in entries:
                # Others are removed meanwhile.
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < now - STALE_AFTER:
                        found.append(entry.name)
        return found

    def _unlink(self, name: str) -> None:
        # A file that remains does no harm: it is found as stale later.
        with suppress(OSError):
            os.unlink(f"{self._root}/{name}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
