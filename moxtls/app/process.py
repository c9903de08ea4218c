# -*- test-case-name: tests.app.test_build -*-
"""
Settings of the process of a server or command: random identifiers, garbage collection,
and errors of stores that can't be opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from random import SystemRandom

from moxtls.app.configfiles import ConfigFiles
from moxtls.ledger.database import LedgerUnavailable
from moxtls.queue.spool import SpoolUnusable

#: Thresholds of the garbage collector. Many connections have more live objects than
#: Python's default threshold of 700, and none of them is garbage: collecting took a
#: twentieth of the time of a message.
GARBAGE = (10_000, 20, 20)

jitter = SystemRandom().random


def newID() -> str:
    """
    A new identifier: unguessable, and valid as a file name and a local part.
    """
    return secrets.token_hex(12)


@contextmanager
def asConfigErrors(configFiles: ConfigFiles) -> Iterator[None]:
    """
    Convert errors of stores that can't be opened to configuration errors that name
    the responsible key.

    @raise InvalidConfig: Instead of the exceptions of the stores.
    """
    try:
        yield
    except LedgerUnavailable as error:
        key = "Ledger" if configFiles.config.ledger else "DataDirectory"
        raise configFiles.wrong("", key, "", str(error)) from None
    except SpoolUnusable as error:
        raise configFiles.wrong("", "DataDirectory", "", str(error)) from None
