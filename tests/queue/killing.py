"""
Processes that are killed at a chosen step.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase


def quickDirectory(case: SynchronousTestCase) -> Path:
    """
    A new directory, in memory where the system has a writable C{/dev/shm}.

    A killed process loses nothing that it wrote, unlike a power failure, so that these
    tests need no disk.
    """
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="moxtls-", dir=where))
    case.addCleanup(shutil.rmtree, root)
    return root


def killedAt(step: int, work: Callable[[], object]) -> bool:
    """
    Run C{work} in a child process that is killed after C{step} SQL statements and file
    operations.

    @return: Whether it was killed, instead of finishing before.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            dieAt(step)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"the work itself failed at step {step}")
    return os.WIFSIGNALED(status)


def dieAt(step: int) -> None:
    """
    Have this process kill itself before the next SQL statement or file operation after
    the first C{step}.
    """
    left = iter(range(step))

    def tick() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(text: str) -> None:
        # SELECT and savepoints write nothing.
        if not text.startswith(("SELECT", "SAVEPOINT", "RELEASE")):
            tick()

    def ticking(name: str) -> None:
        real = getattr(os, name)

        def stepped(*arguments: object, **more: object) -> object:
            tick()
            return real(*arguments, **more)

        setattr(os, name, stepped)

    for name in ("open", "write", "ftruncate", "fsync", "rename", "unlink"):
        ticking(name)
    traceSQL(statement).__enter__()


def traceSQL(callback: Callable[[str], None]) -> AbstractContextManager[object]:
    """
    Context manager that calls C{callback} with each statement on SQLite connections
    opened inside.
    """
    connect = sqlite3.connect

    def traced(path: Path, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **more)
        connection.set_trace_callback(callback)
        return connection

    return patch("sqlite3.connect", traced)
