# -*- test-case-name: tests.test_regularfiles -*-
"""
Opens files in places where others may write too, without being held up by what they
put there: a named pipe is waited for until somebody opens its other end, and a
device may never end.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotRegularFile(OSError):
    """
    There is something, and it is no regular file, or a link.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(errno.EINVAL, "not a regular file", str(path))


def openRegular(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """
    As C{os.open}, for regular files.

    @raise NotRegularFile: It is something else.
    """
    try:
        # Where a pipe has nobody at its other end, opening it for writing fails
        # with ENXIO then.
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
    The content of a regular file.

    @raise OSError: It can't be read, or is larger than C{maxSize}.
    @raise NotRegularFile: It is something else.
    """
    with open(openRegular(path, os.O_RDONLY), "rb") as file:
        content = file.read(maxSize + 1)
    if len(content) > maxSize:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def checkedFile(path: Path) -> Path:
    """
    For files of the administrator, who may well use links: C{path}, if opening it
    holds up nobody.

    @raise NotRegularFile: It is something else than a file or a folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise NotRegularFile(path)
    return path
