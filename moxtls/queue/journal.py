# -*- test-case-name: tests.queue.test_journal -*-
"""
The journal of a spool: keeps the results of delivery attempts in progress until the
index takes them over, many at a time.

Writing to it takes microseconds, as that doesn't wait for the disk.  A process that is
killed has lost nothing that was written; a power cut may lose the latest lines.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

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
        """
        self._paths = [root / name for name in NAMES]
        self._files: list[int] = []
        try:
            for path in self._paths:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._files.append(os.open(path, flags, 0o600))
            fcntl.flock(self._files[0], fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            self.close()
            raise
        self._current, self._earlier = self._files
        self._isTakingOver = False

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
        Everything in it, also a last line that was cut off.
        """
        data = b"".join(path.read_bytes() for path in self._paths)
        return data.decode("ascii", "replace").splitlines()

    def beginTakeover(self) -> None:
        """
        Keep what there is apart from lines that are added from now on, unless the
        takeover before wasn't completed.
        """
        if not self._isTakingOver:
            self._isTakingOver = True
            self._current, self._earlier = self._earlier, self._current

    def takenOver(self) -> None:
        """
        Delete the lines from before L{beginTakeover}: the index has them on disk.
        """
        os.ftruncate(self._earlier, 0)
        self._isTakingOver = False

    def clear(self) -> None:
        """
        Delete all lines.
        """
        for file in self._files:
            os.ftruncate(file, 0)
