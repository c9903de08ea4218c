"""
Support for tests that kill processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sqlite3.dbapi2
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.python.runtime import platform
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from moxtls.dates import HOUR, MINUTE, midnight
from moxtls.interfaces import IQueue, IReportSource
from moxtls.ledger.ledger import Ledger
from moxtls.queue.executor import InlineSpoolExecutor, QueueClient
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.handover import QueueSubmitter
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from moxtls.reporting.types import ReportState
from tests.reporting.support import DAY, ED25519, HOSTNAME, ids

NOW = midnight(DAY) + 24 * HOUR + 300
READING = ("SELECT", "BEGIN", "PRAGMA")
#: Beside SQL statements, what changes files.
FILES = frozenset({"os.rename", "os.remove", "os.link", "os.mkdir", "os.truncate"})


class Node:
    """
    A node with a ledger and a spool on disk, whose operations are synchronous.
    """

    def __init__(self, root: Path, start: int) -> None:
        """
        @param start: Distinguishes identifiers made by this process from those of
            earlier ones.
        """
        self.clock = Clock()
        self.clock.advance(NOW + start * HOUR)
        self.ledger = Ledger(None, f"sqlite:///{root / 'ledger.sqlite'}")
        self.spool = InlineSpoolExecutor(root / "spool")
        self.spool.open()
        newID = ids()
        self.newID = lambda: f"run{start}{newID()}"
        self.queue: IQueue = QueueClient(self.clock, self.spool, self.newID)

    def source(self) -> IReportSource:
        """
        The source of the reports.
        """
        raise NotImplementedError

    def run(self) -> None:
        """
        Send all reports that are due.
        """
        service = ReportService(
            self.clock,
            ReportPipeline(
                self.source(),
                self.ledger.archive,
                self.ledger.leases,
                ReportComposer(
                    self.clock,
                    self.ledger.suppressions,
                    ReportIdentity(HOSTNAME, (ED25519,)),
                    self.newID,
                ),
                QueueSubmitter(self.queue),
            ),
            jitter=lambda: 0,
            options=ReportOptions("node"),
        )
        self.work(service)

    def work(self, service: ReportService) -> None:
        """
        Run C{service} until due reports are sent.
        """
        service.startService()
        self.clock.pump([0, MINUTE])
        service.stopService()

    def stop(self) -> None:
        self.spool.close()
        self.ledger.stop()


def watch(notice: Callable[[], None]) -> None:
    """
    Call C{notice} before each statement of any database and each change of a file,
    until the process ends.

    Death before a read-only statement is the same as death before the next one.
    """
    real = sqlite3.connect

    def connect(*where: Any, **how: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*where, **how)
        connection.set_trace_callback(traced)
        return connection

    def traced(statement: str) -> None:
        if not statement.startswith(READING):
            notice()

    def audit(event: str, what: tuple[object, ...]) -> None:
        if event in FILES:
            notice()

    for module in (sqlite3, sqlite3.dbapi2):
        module.connect = connect  # type: ignore[attr-defined]
    sys.addaudithook(audit)


class KilledCase(SynchronousTestCase):
    """
    Each report is queued once, wherever the process is killed.

    @cvar nodeType: The node to run.
    @cvar expected: Destinations of reports, with counts.
    """

    nodeType: type[Node]
    expected: dict[str, int]

    def setUp(self) -> None:
        if not platform.isLinux():
            raise SkipTest("needs fork")
        self.template = Path(self.mktemp())
        self.template.mkdir(parents=True)
        node = self.nodeType(self.template, 0)
        self.prepare(node.ledger)
        node.stop()

    def prepare(self, ledger: Ledger) -> None:
        """
        Record the data to be reported.
        """
        raise NotImplementedError

    def left(self, ledger: Ledger) -> Sequence[object]:
        """
        The number of unreported items.
        """
        raise NotImplementedError

    def inspect(self, message: bytes) -> None:
        """
        Check a queued report.
        """

    def copy(self) -> Path:
        root = Path(self.mktemp())
        shutil.copytree(self.template, root)
        return root

    def runUntil(self, root: Path, step: int) -> bool:
        """
        Run a node in a process that is killed right before step C{step}.

        @return: True if that step was reached.
        """
        child = os.fork()
        if not child:
            try:
                self.asChild(root, step)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            return True
        self.assertEqual(os.WEXITSTATUS(status), 0)
        return False

    def asChild(self, root: Path, step: int) -> None:
        taken = 0

        def notice() -> None:
            nonlocal taken
            taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(notice)
        node = self.nodeType(root, 0)
        taken = 0
        node.run()
        node.stop()
        os._exit(0)

    def checked(self, root: Path, step: int) -> None:
        node = self.nodeType(root, 1)
        node.run()
        messages = self.successResultOf(node.queue.messages())
        found = Counter(to for each in messages for to in each.envelope.recipients)
        self.assertEqual(found, self.expected, step)
        for message in messages:
            self.assertEqual(message.path.stat().st_size, message.size)
            self.inspect(message.path.read_bytes())
        reports = self.successResultOf(node.ledger.archive.reports())
        states = {report.state for report in reports}
        self.assertEqual(states, {ReportState.QUEUED}, step)
        self.assertEqual(len(self.left(node.ledger)), 0, step)
        node.stop()

    def checkEveryStatement(self) -> None:
        """
        Kill the process before each writing statement and each change of a file in
        turn, and run it again.
        """
        step = 1
        root = self.copy()
        while self.runUntil(root, step):
            self.checked(root, step)
            shutil.rmtree(root)
            root = self.copy()
            step += 1
        self.checked(root, step)
        self.assertGreater(step, 20)
