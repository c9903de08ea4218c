# -*- test-case-name: tests.test_sqlitefile -*-
"""
SQLite database files: created with private permissions, and read without side effects.
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
    Create a database file if it doesn't exist, readable for its owner only, whatever
    the umask and the directory's mode.  SQLite gives the same mode to the write-ahead
    log and its index.

    @raise OSError: It can't be created.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        for each in (path, *(path.with_name(path.name + end) for end in _LOG_SUFFIXES)):
            _removeOthersAccess(each)
        return
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


#: Suffixes of the write-ahead log and its index.
_LOG_SUFFIXES = ("-wal", "-shm")


def _removeOthersAccess(path: Path) -> None:
    """
    Remove the permissions of group and others: an earlier version created files with
    the umask's mode.  Fails silently for a user that isn't the owner.
    """
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            path.chmod(mode & 0o700)


def readOnly(path: Path) -> sqlite3.Connection | None:
    """
    Open a database for reading.  No files are created beside it, not even temporarily:
    files of another user would prevent its owner from opening it.

    @return: C{None} if that isn't possible now, as a process that had it open was
        killed.

    @raise sqlite3.Error: It can't be opened.
    """
    name = quote(str(path.absolute()))
    log, index = (path.with_name(path.name + end) for end in _LOG_SUFFIXES)
    if not log.exists():
        # No process has it open, and the file contains all commits.
        return sqlite3.connect(f"file:{name}?immutable=1", uri=True)
    if not index.exists():
        return None
    return sqlite3.connect(f"file:{name}?mode=ro", uri=True)
