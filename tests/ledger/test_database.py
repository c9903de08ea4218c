"""
Tests for L{moxtls.ledger.database}.
"""

from __future__ import annotations

import traceback
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.ledger.database import LedgerUnavailable
from moxtls.ledger.ledger import Ledger
from tests.postgres import serverURL

SECRET = "s3cr3t-w0rd"


class UnavailableTests(SynchronousTestCase):
    """
    Error messages for a ledger that can't be opened.
    """

    def refused(self, url: str) -> str:
        """
        The error of opening C{url}: one line, without secrets.
        """
        error = self.assertRaises(LedgerUnavailable, Ledger, None, url)
        text = str(error)
        self.assertTrue(text.startswith("ledger "), text)
        self.assertNotIn("\n", text)
        self.assertNotIn(SECRET, repr(error))
        # Nor does the traceback of what it was made from.
        shown = "".join(traceback.format_exception(error, limit=0))
        self.assertNotIn(SECRET, shown)
        return text

    def test_notAURL(self) -> None:
        """
        The error for an invalid or unknown URL shows only its safe part.
        """
        self.assertIn("has to be sqlite", self.refused(f"user:{SECRET}"))
        self.assertIn("has to be sqlite", self.refused(f"u:{SECRET}@host/name"))
        self.assertIn("'mysql'", self.refused(f"mysql://u:{SECRET}@h/n"))
        self.assertIn("has to be sqlite", self.refused(""))
        self.refused(f"postgresql://u:{SECRET}@host:port/name")

    def test_noFile(self) -> None:
        """
        An SQLite URL needs a file: a database in memory can't be shared by
        connections.
        """
        for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
            self.assertIn("names no file", self.refused(url))

    def test_noFolder(self) -> None:
        """
        A folder that isn't there is named.
        """
        path = Path(self.mktemp()) / "ledger"
        self.assertIn(str(path), self.refused(f"sqlite:///{path}"))

    def test_notALedger(self) -> None:
        """
        A file that is something else is left alone.
        """
        path = Path(self.mktemp())
        path.write_bytes(b"Dear diary," * 100)
        self.assertIn("not a database", self.refused(f"sqlite:///{path}"))
        self.assertEqual(path.read_bytes(), b"Dear diary," * 100)

    def test_noServer(self) -> None:
        """
        A server that isn't there is named, and the user, not the password,
        wherever that stands.
        """
        folder = Path(self.mktemp()).absolute()
        url = f"postgresql://joe:{SECRET}@/name?host={folder}"
        self.assertIn("ledger postgresql://joe", self.refused(url))
        self.refused(f"postgresql://joe@/name?host={folder}&password={SECRET}")

    def test_noDatabase(self) -> None:
        """
        A database that isn't there is named.
        """
        url = (
            serverURL().replace("/postgres?", "/nothing?").replace(":@", f":{SECRET}@")
        )
        self.assertIn("nothing", self.refused(url))
