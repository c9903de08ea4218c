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
    A new directory, in memory where there is one: dying, other than a power
    cut, loses nothing that was written, so nobody need wait for a disk.
    """
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="moxtls-", dir=where))
    case.addCleanup(shutil.rmtree, root)
    return root


def killedAt(step: int, work: Callable[[], object]) -> bool:
    """
    Do C{work} in a process of its own that dies before it has sent that many
    statements to SQLite or operations on files to the system.

    @return: Whether it died of it, rather than finishing.
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
    Have this process killed at its C{step}th step that a disk sees.
    """
    left = iter(range(step))

    def tick() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(text: str) -> None:
        # Dying before others is the same as dying before what comes next.
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
    Once started, has C{callback} called with each statement on connections
    opened from then on.
    """
    connect = sqlite3.connect

    def traced(path: Path, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **more)
        connection.set_trace_callback(callback)
        return connection

    return patch("sqlite3.connect", traced)
