# -*- test-case-name: tests.smtp.test_loginhistory -*-
"""
Stores the networks of successful logins in files, so that a server that restarts
during a password guessing attack still recognizes the owners of accounts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.logger import Logger

from moxtls.regularfiles import readRegular

#: Octets of a file, far more than the networks of an account need.
MAX_FILE = 64 * 1024


class LoginHistory:
    """
    A JSON file for each account.

    The loss of a file is harmless, so files aren't synced to disk.
    """

    log = Logger()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Mapping[str, Sequence[str]]:
        """
        Read the networks and addresses of each account, the latest logins last.
        """
        known = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                user, networks = json.loads(readRegular(path, MAX_FILE))
                known[str(user)] = [str(each) for each in networks]
            except (OSError, ValueError, TypeError, RecursionError) as error:
                self.log.warn(
                    "ignoring login history {file!r}: {error}",
                    file=str(path),
                    error=repr(error),
                )
        return known

    def save(self, user: str, networks: Sequence[str]) -> None:
        """
        Replace the networks of an account.  A failure is logged.
        """
        # Hashed, as a user name may contain any characters.
        name = hashlib.blake2b(user.encode("utf-8"), digest_size=16).hexdigest()
        path = self._folder / f"{name}.json"
        temporary = path.with_suffix(".new")
        try:
            temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                json.dump([user, list(networks)], file)
            temporary.replace(path)
        except OSError:
            self.log.failure("writing login history {file!r} failed", file=str(path))
