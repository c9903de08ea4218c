# -*- test-case-name: tests.smtp.test_loginhistory -*-
"""
Networks from which somebody logged in, kept in files: a server that is restarted
while somebody guesses passwords still knows where the owners are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.logger import Logger

from moxtls.regularfiles import readRegular

#: Bytes of a file: far more than all that is remembered of an account.
MAX_FILE = 64 * 1024


class LoginHistory:
    """
    A file for each account, of a few lines.

    Losing one loses little, so nothing waits for the disk.
    """

    log = Logger()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Mapping[str, Sequence[str]]:
        """
        The networks and addresses of each account, those of the latest logins last.
        """
        known = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                user, networks = json.loads(readRegular(path, MAX_FILE))
                known[str(user)] = [str(each) for each in networks]
            except (OSError, ValueError, TypeError, RecursionError) as error:
                self.log.warn(
                    "ignoring {file!r}: {error}", file=str(path), error=repr(error)
                )
        return known

    def save(self, user: str, networks: Sequence[str]) -> None:
        """
        Remember C{networks} in place of what was known of C{user}.  A failure is
        logged.
        """
        # A name may have anything in it.
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
            self.log.failure("writing {file!r}", file=str(path))
