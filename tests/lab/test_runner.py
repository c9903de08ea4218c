"""
Tests for L{moxtls.lab.runner}: the whole of it, over real sockets, with a real
moxtls.
"""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from moxtls.app.build import IReactor
from moxtls.app.configfiles import ConfigFiles
from moxtls.app.service import Server
from moxtls.cli.output import Output
from moxtls.lab.messages import MESSAGES, LabMessage
from moxtls.lab.plan import Network, anyNetwork
from moxtls.lab.runner import LabUnusable, RunOptions, command, run, socketPath
from moxtls.lab.scenario import DESTINATIONS, LabDestination
from moxtls.lab.world import Running
from tests import MAX_WAIT

FEW = tuple(each for each in DESTINATIONS if each.name in ("good", "dane-mismatch"))


def makeServer(file: Path, clock: IReactorTime) -> Running:
    every: IReactor = reactor  # type: ignore[assignment]  # all real ones are
    return Server(every, ConfigFiles.read(file), clock)


class RunTests(TestCase):
    """
    The lab from its beginning to its end.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.stdout = io.StringIO()

    def begin(
        self,
        once: bool,
        destinations: tuple[LabDestination, ...] = DESTINATIONS,
        network: Network | None = None,
        labMessages: tuple[LabMessage, ...] = (),
    ) -> Deferred[int]:
        options = RunOptions(
            self.directory,
            network or anyNetwork(random.randint),
            once=once,
            destinations=destinations,
            labMessages=labMessages,
        )
        output = Output(self.stdout, io.StringIO())
        return Deferred.fromCoroutine(run(reactor, options, makeServer, output))

    async def test_once(self) -> None:
        """
        Mail to each destination is delivered or deferred, mail from each sender is
        accepted or refused, and the reports on it, sent and received, have the
        expected content, field by field.
        """
        status = await self.begin(once=True, labMessages=MESSAGES)
        text = self.stdout.getvalue()
        wrong = [line for line in text.splitlines() if "UNEXPECTED" in line]
        self.assertEqual([], wrong)
        self.assertIn("All of it is as it should be.", text)
        self.assertEqual(0, status)
        for each in (*DESTINATIONS, *MESSAGES):
            self.assertIn(each.explanation, text)

    async def test_unexpected(self) -> None:
        """
        If anything isn't as it should be, that shows in the exit status.
        """
        wrong = LabDestination(
            "wrong",
            "believed to be delivered, and isn't",
            FEW[1].certificate,
            True,
            FEW[1].recipient,
            FEW[1].host,
            FEW[1].signed,
            FEW[1].tlsa,
        )
        self.assertEqual(1, await self.begin(True, (wrong,)))
        self.assertIn("deferred (UNEXPECTED)", self.stdout.getvalue())

    async def test_unexpectedMessage(self) -> None:
        """
        Unexpected results of incoming mail, and unexpected reports, show in the exit
        status too.
        """
        (right,) = (each for each in MESSAGES if each.name == "monitor-direct")
        wrong = replace(right.expected, mailbox="Junk", reported="pass")
        labMessages = (replace(right, expected=wrong),)
        self.assertEqual(1, await self.begin(True, FEW, labMessages=labMessages))
        text = self.stdout.getvalue()
        self.assertIn("UNEXPECTED monitor-direct: mailbox is 'Inbox', not", text)
        self.assertRegex(
            text, "UNEXPECTED monitor.test: .* disposition is none, not pass"
        )

    async def test_commands(self) -> None:
        """
        The day ends on a command, whose output is the reports.
        """
        running = self.begin(False, FEW)
        await self.socket(running)
        answer = await command(reactor, self.directory, "end-day")
        self.assertIn("dane-no-match", answer)
        self.assertIn("All of it is as it should be.", answer)
        self.assertEqual(
            "unknown command\n", await command(reactor, self.directory, "dance")
        )
        await command(reactor, self.directory, "q")
        self.assertEqual(0, await running)
        self.assertIn(answer, self.stdout.getvalue())

    async def test_cancelled(self) -> None:
        """
        A run can be cancelled at any moment, and leaves no files and delayed calls.
        """
        running = self.begin(False, FEW)
        await deferLater(reactor, 0.3)
        running.cancel()
        await self.assertFailure(running, CancelledError)

    async def test_again(self) -> None:
        """
        A lab replaces an earlier one, but not a running one.
        """
        network = anyNetwork(random.randint)
        running = self.begin(False, FEW, network)
        await self.socket(running)
        failing = self.begin(True, FEW, network)
        await self.assertFailure(failing, LabUnusable)
        self.assertTrue((self.directory / "data" / "ledger.sqlite").exists())
        await command(reactor, self.directory, "q")
        self.assertEqual(0, await running)
        again = self.begin(False, FEW, network)
        await self.socket(again)
        await command(reactor, self.directory, "q")
        self.assertEqual(0, await again)

    async def socket(self, running: Deferred[int]) -> None:
        """
        Wait until the command socket listens.
        """
        while not Path(socketPath(self.directory)).exists():
            self.assertNoResult(running)
            await deferLater(reactor, 0.05)

    async def test_notALab(self) -> None:
        """
        Folders with other files are left unchanged.
        """
        self.directory.mkdir()
        mine = self.directory / "mine.txt"
        mine.write_text("mine")
        await self.assertFailure(self.begin(True), LabUnusable)
        self.assertEqual([mine], list(self.directory.iterdir()))
