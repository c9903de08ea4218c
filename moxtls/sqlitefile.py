# -*- test-case-name: tests.test_sqlitefile -*-
"""
SQLite's files: made for their owner alone, and read without a trace.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote


def makePrivate(path: Path) -> None:
    """
    Make the file of a database if it isn't there, readable for its owner only,
    whatever the umask and the folder's mode.  SQLite gives the same mode to the
    files that it puts beside it, the log and the index of the log.

    @raise OSError: It can't be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        for each in (path, *(path.with_name(path.name + end) for end in _BESIDE)):
            _closeToOthers(each)
        return
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


#: What SQLite keeps beside a database in WAL mode.
_BESIDE = ("-wal", "-shm")


def _closeToOthers(path: Path) -> None:
    """
    An earlier version left files to the umask.  Whoever isn't the owner may still
    be able to use one.
    """
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            path.chmod(mode & 0o700)


def readOnly(path: Path) -> sqlite3.Connection | None:
    """
    Open a database to look at it.  Nothing is made beside it, not even for as long
    as that takes: files of another user would be in the way of its owner.

    @return: C{None} if that isn't possible now, as whoever had it open was killed.

    @raise sqlite3.Error: It can't be opened.
    """
    name = quote(str(path.absolute()))
    log, index = (path.with_name(path.name + end) for end in _BESIDE)
    if not log.exists():
        # Nobody has it open, and whatever was committed is in the file.
        return sqlite3.connect(f"file:{name}?immutable=1", uri=True)
    if not index.exists():
        return None
    return sqlite3.connect(f"file:{name}?mode=ro", uri=True)
