"""
Tests for L{moxtls.sqlitefile}.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.sqlitefile import makePrivate, readOnly
from tests.queue.killing import quickDirectory


class FileCase(SynchronousTestCase):
    """
    A database in a folder.
    """

    def setUp(self) -> None:
        self.folder = quickDirectory(self)
        self.path = self.folder / "a b?.sqlite"

    def open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        return connection

    def filled(self) -> sqlite3.Connection:
        connection = self.open()
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        return connection

    def files(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def modes(self) -> set[int]:
        return {each.stat().st_mode & 0o777 for each in self.folder.iterdir()}


class MakePrivateTests(FileCase):
    """
    Tests for L{makePrivate}.
    """

    def test_made(self) -> None:
        """
        The database and its journals are private, whatever the umask.
        """
        for umask in (0o000, 0o022, 0o077, 0o777):
            before = os.umask(umask)
            try:
                makePrivate(self.path)
                with closing(self.filled()):
                    self.assertEqual(len(self.files()), 3)
                    self.assertEqual(self.modes(), {0o600}, oct(umask))
            finally:
                os.umask(before)
            self.path.unlink()

    def test_there(self) -> None:
        """
        A file that an earlier version created with the umask's permissions becomes
        private, and keeps its content.
        """
        with closing(self.filled()):
            for each in self.folder.iterdir():
                each.chmod(0o644)
            makePrivate(self.path)
            self.assertEqual(len(self.files()), 3)
            self.assertEqual(self.modes(), {0o600})
        with closing(self.open()) as connection:
            self.assertEqual(connection.execute("SELECT x FROM t").fetchall(), [(1,)])

    def test_impossible(self) -> None:
        """
        A file that can't be created is an error.
        """
        self.assertRaises(OSError, makePrivate, Path(self.folder / "no" / "x"))


class ReadOnlyTests(FileCase):
    """
    Tests for L{readOnly}.
    """

    def rows(self) -> list[tuple[int]]:
        connection = readOnly(self.path)
        assert connection is not None
        with closing(connection):
            self.assertRaises(
                sqlite3.Error, connection.execute, "INSERT INTO t VALUES (2)"
            )
            return connection.execute("SELECT x FROM t").fetchall()

    def test_closed(self) -> None:
        """
        No file is created beside a closed database.
        """
        self.filled().close()
        self.assertEqual(self.rows(), [(1,)])
        self.assertEqual(self.files(), [self.path.name])

    def test_open(self) -> None:
        """
        Committed data is read while another process has the database open.
        """
        with closing(self.filled()):
            self.assertEqual(self.rows(), [(1,)])

    def test_killed(self) -> None:
        """
        A database with a journal left by a killed process can't be read without
        creating a file, and isn't.
        """
        self.filled().close()
        self.path.with_name(self.path.name + "-wal").write_bytes(b"x")
        before = self.files()
        self.assertIsNone(readOnly(self.path))
        self.assertEqual(self.files(), before)
