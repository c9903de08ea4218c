# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Files and folders of the Maildir++ format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moxtls.regularfiles import NotRegularFile, openRegular

FOLDER_MODE = 0o700
FILE_MODE = 0o600
#: Seconds after which a file in C{tmp} counts as abandoned (Maildir format).
STALE_AFTER = 36 * 3600

_sync = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True)
class TempFile:
    """
    A message file under C{tmp}, which readers ignore.

    @ivar size: Octets of the file.
    @ivar virtualSize: As IMAP counts it (RFC 9051 2.3.4): a line ends with
        two octets, however it is stored.
    """

    path: str
    descriptor: int
    size: int = 0
    virtualSize: int = 0

    @classmethod
    def begin(cls, path: str) -> TempFile:
        """
        Create the file.

        @raise OSError: A file of that name exists, or can't be created.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        return cls(path, os.open(path, flags, FILE_MODE))

    def write(self, message: Sequence[bytes]) -> None:
        """
        Write a message, and have the system start writing it to the disk, so that the
        files of a batch are written together.

        @raise OSError: The disk is full, or C{message} can't be read.
        """
        last = b""
        for chunk in message:
            self._put(chunk)
            self.size += len(chunk)
            self.virtualSize += len(chunk) + _bareLineFeeds(chunk)
            if last == b"\r" and chunk[:1] == b"\n":
                self.virtualSize -= 1
            last = chunk[-1:] or last
        if hasattr(os, "posix_fadvise"):
            # Apart from its advice about memory, it starts writing dirty pages.
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """
        Wait until the file is on disk.
        """
        _sync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1

    def drop(self) -> None:
        """
        Close and remove the file.
        """
        if self.descriptor >= 0:
            self.close()
        with suppress(OSError):
            os.unlink(self.path)

    def _put(self, chunk: bytes) -> None:
        # As few system calls as possible: each one waits for the interpreter lock.
        while chunk:
            chunk = chunk[os.write(self.descriptor, chunk) :]


def _bareLineFeeds(chunk: bytes) -> int:
    # Most messages have none, and this test is faster than counting.
    if chunk.replace(b"\n", b"").replace(b"\r", b"\r\n") == chunk:
        return 0
    return chunk.count(b"\n") - chunk.count(b"\r\n")


def makeFolder(root: Path, parts: tuple[str, ...]) -> Path:
    """
    The folder of a mailbox, which is created durably if it doesn't exist.

    @param parts: The parts of the mailbox's name; none for the inbox.
    """
    folder = root / ".".join(("", *parts)) if parts else root
    if (folder / "cur").is_dir():
        return folder
    _makeRoot(root)
    for each in (folder, folder / "tmp", folder / "new"):
        each.mkdir(FOLDER_MODE, exist_ok=True)
    if parts:
        # Maildir++: marks a folder within a Maildir.
        with suppress(NotRegularFile):
            mark = folder / "maildirfolder"
            os.close(openRegular(mark, os.O_WRONLY | os.O_CREAT, FILE_MODE))
    # C{cur} comes last: its existence shows that the folder is complete.
    (folder / "cur").mkdir(FOLDER_MODE, exist_ok=True)
    syncFolder(folder)
    syncFolder(folder.parent)
    return folder


def _makeRoot(root: Path) -> None:
    missing = [root, *root.parents]
    while missing and missing[-1].exists():
        missing.pop()
    for each in reversed(missing):
        each.mkdir(FOLDER_MODE, exist_ok=True)
        syncFolder(each.parent)


def syncFolder(folder: str | Path) -> None:
    """
    Write a folder to the disk, with the names of its files.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def foldersOf(root: Path) -> Iterator[Path]:
    """
    The folders of all mailboxes in a Maildir++, the inbox first.
    """
    yield root
    with suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield root / entry.name


def removeStaleTemp(root: Path, now: float) -> int:
    """
    Remove abandoned files in the C{tmp} folders of a Maildir++.

    @param now: Unix seconds.

    @return: The number of removed files.
    """
    count = 0
    for folder in foldersOf(root):
        with suppress(FileNotFoundError), os.scandir(folder / "tmp") as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if max(status.st_atime, status.st_mtime) < now - STALE_AFTER:
                        os.unlink(entry.path)
                        count += 1
    return count
