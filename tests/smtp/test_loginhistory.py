"""
Tests for L{moxtls.smtp.loginhistory}.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.loginhistory import MAX_FILE, LoginHistory
from moxtls.smtp.logins import MAX_ACCOUNT_FAILURES, LoginLimits
from moxtls.smtp.rates import networkOf

NOW = 1000.0


class LoginHistoryTests(SynchronousTestCase):
    """
    Tests for L{LoginHistory}.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.history = LoginHistory(self.folder)

    def test_kept(self) -> None:
        """
        Login history survives a restart for any account name, so that guesses from
        elsewhere don't lock the account out of its networks.
        """
        home, users = networkOf("198.51.100.1"), ("anna", "../a b\n", "\u00e9")
        limits = LoginLimits(known=self.history.load(), save=self.history.save)
        for user in users:
            limits.succeeded(limits.begin(user, home, NOW))
        limits = LoginLimits(known=self.history.load(), save=self.history.save)
        for user in users:
            for n in range(MAX_ACCOUNT_FAILURES):
                limits.begin(user, networkOf(f"10.{n}.0.1"), NOW)
            self.assertIsNone(limits.exceeded(user, home, NOW))
            self.assertIsNotNone(limits.exceeded(user, networkOf("10.99.0.1"), NOW))
        self.assertEqual(len(list(self.folder.iterdir())), len(users))
        modes = {path.stat().st_mode & 0o777 for path in self.folder.iterdir()}
        self.assertEqual(modes, {0o600})

    def test_damaged(self) -> None:
        """
        Unreadable files are ignored and logged.
        """
        self.history.save("anna", ["192.0.2.1"])
        for name, content in (
            ("a", b""),
            ("b", b"{}"),
            ("c", b"[1, 2]"),
            ("d", b"[" * MAX_FILE),
            ("e", b"\xff"),
        ):
            (self.folder / f"{name}.json").write_bytes(content)
        os.mkfifo(self.folder / "f.json")
        with capturedLogs() as events:
            known = self.history.load()
        self.assertEqual(known, {"anna": ["192.0.2.1"]})
        self.assertEqual(len(events), 6)

    def test_unwritable(self) -> None:
        """
        A failure to write is only logged.
        """
        LoginHistory(self.folder / "missing").save("anna", ["192.0.2.1"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
