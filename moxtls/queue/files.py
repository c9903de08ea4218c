# -*- test-case-name: tests.queue.test_spool -*-
"""
The files of a spool: those of the messages, and the journal of the latest results.
Every method blocks.

The file of a message that is written within a transaction of the index is kept only if
that is committed; one removed within it is unlinked after the commit.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from moxtls.queue.dsn import MAX_HEADER
from moxtls.regularfiles import openRegular

#: Seconds after which a file without a row in the index counts as left behind by a
#: killed process: otherwise the row is added soon after the file.
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
        Keep all files: the transaction may be on disk or not.  L{stale} finds unneeded
        files later.
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
                # A file may be removed meanwhile.
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


#: Lines are added to one file while the index takes over those of the other one.
NAMES = ("results.0", "results.1")


def isJournal(root: Path) -> bool:
    """
    True if there is a journal in a directory.
    """
    return all((root / name).exists() for name in NAMES)


class ResultJournal:
    """
    The open journal of a spool, for one process at a time.  Every method blocks, but
    never for the disk unless the system has no memory left for unwritten files.
    """

    def __init__(self, root: Path, wait: bool) -> None:
        """
        @param wait: Wait for another process that has it open.

        @raise BlockingIOError: Another process has it open.
        @raise OSError: It can't be opened, or isn't two regular files.
        """
        self._paths = [root / name for name in NAMES]
        self._files: list[int] = []
        try:
            for path in self._paths:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._files.append(openRegular(path, flags))
            fcntl.flock(self._files[0], fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            self.close()
            raise
        self._current, self._earlier = self._files
        self._inCheckpoint = False

    def close(self) -> None:
        for file in self._files:
            os.close(file)

    def add(self, lines: Iterable[str]) -> None:
        """
        Append lines of ASCII.

        @raise OSError: None of them was written.
        """
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        written = os.write(self._current, data)
        if written < len(data):
            size = os.fstat(self._current).st_size
            os.ftruncate(self._current, size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lines(self) -> list[str]:
        """
        All lines, including a truncated last one.
        """
        data = b"".join(path.read_bytes() for path in self._paths)
        return data.decode("ascii", "replace").splitlines()

    def beginCheckpoint(self) -> None:
        """
        Have later lines added to the other file, unless the previous checkpoint wasn't
        completed.
        """
        if not self._inCheckpoint:
            self._inCheckpoint = True
            self._current, self._earlier = self._earlier, self._current

    def endCheckpoint(self) -> None:
        """
        Delete the lines from before L{beginCheckpoint}: the index has them on disk.
        """
        os.ftruncate(self._earlier, 0)
        self._inCheckpoint = False

    def clear(self) -> None:
        """
        Delete all lines.
        """
        for file in self._files:
            os.ftruncate(file, 0)
