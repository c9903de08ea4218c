# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
The files of a Maildir++, as IMAP servers and mail readers know it.
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
#: The Maildir format: what has lain in C{tmp} for longer was given up.
STALE_AFTER = 36 * 3600

_sync = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True)
class TempFile:
    """
    A message under C{tmp}, where nobody looks.

    @ivar size: Of the file.
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
        @raise OSError: There is a file of that name, or there can't be one.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        return cls(path, os.open(path, flags, FILE_MODE))

    def write(self, message: Sequence[bytes]) -> None:
        """
        Write all of it, and have the system begin to bring it to the disk:
        so the files of a group go there together.

        @raise OSError: There is no room, or C{message} can't be read.
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
            # What it says about memory is by the way: dirty pages are written.
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """
        Returns once it is on the disk.
        """
        _sync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1

    def drop(self) -> None:
        """
        Leave nothing behind.
        """
        if self.descriptor >= 0:
            self.close()
        with suppress(OSError):
            os.unlink(self.path)

    def _put(self, chunk: bytes) -> None:
        # With as few system calls as can be: after each, the interpreter's lock
        # has to be waited for.
        while chunk:
            chunk = chunk[os.write(self.descriptor, chunk) :]


def _bareLineFeeds(chunk: bytes) -> int:
    # Mostly there is none, which takes less time to find out than to count.
    if chunk.replace(b"\n", b"").replace(b"\r", b"\r\n") == chunk:
        return 0
    return chunk.count(b"\n") - chunk.count(b"\r\n")


def makeFolder(root: Path, parts: tuple[str, ...]) -> Path:
    """
    The folder of a mailbox, made if need be; it is on the disk then.

    @param parts: Of the mailbox's name; none for the inbox.
    """
    folder = root / ".".join(("", *parts)) if parts else root
    if (folder / "cur").is_dir():
        return folder
    _makeRoot(root)
    for each in (folder, folder / "tmp", folder / "new"):
        each.mkdir(FOLDER_MODE, exist_ok=True)
    if parts:
        # Maildir++: this is a folder, and not somebody's whole mail.
        with suppress(NotRegularFile):
            mark = folder / "maildirfolder"
            os.close(openRegular(mark, os.O_WRONLY | os.O_CREAT, FILE_MODE))
    # It comes last: where it is, all of it is.
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
    Names are safe only when the folder is on the disk as well.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def foldersOf(root: Path) -> Iterator[Path]:
    """
    Of all mailboxes in a Maildir++, the inbox first.
    """
    yield root
    with suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield root / entry.name


def removeStaleTemp(root: Path, now: float) -> int:
    """
    Remove what was begun in a Maildir++ and never finished.

    @param now: Unix seconds.

    @return: How many files went.
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
