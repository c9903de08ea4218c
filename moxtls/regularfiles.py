# -*- test-case-name: tests.test_regularfiles -*-
"""
Opens regular files only, in directories where other users may create files: opening a
named pipe would block until its other end is opened, and a device may never end.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotRegularFile(OSError):
    """
    A path exists, but isn't a regular file, or is a symbolic link.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(errno.EINVAL, "not a regular file", str(path))


def openRegular(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """
    Open a regular file, as C{os.open}.

    @raise NotRegularFile: It is another kind of file.
    """
    try:
        # With O_NONBLOCK, opening a pipe without a reader for writing fails with ENXIO.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise NotRegularFile(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFile(path)
    return descriptor


def readRegular(path: str | Path, maxSize: int) -> bytes:
    """
    Read a regular file.

    @raise OSError: It can't be read, or is larger than C{maxSize} bytes.
    @raise NotRegularFile: It is another kind of file.
    """
    with open(openRegular(path, os.O_RDONLY), "rb") as file:
        content = file.read(maxSize + 1)
    if len(content) > maxSize:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def checkedFile(path: Path) -> Path:
    """
    Check a file of the operator, which may be a link: opening it must not block.

    @return: C{path}.

    @raise NotRegularFile: It is neither a file nor a directory.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise NotRegularFile(path)
    return path
