"""
Tests for L{moxtls.cli.shell}.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred

from moxtls.cli.output import Output
from moxtls.cli.shell import Refusal, Shell, perform
from moxtls.interfaces import IQueue
from moxtls.queue.access import SpoolClosed
from moxtls.wiring import IReactor
from tests.cli.commands import CommandCase, Ran, Terminal

Run = Callable[[Shell, argparse.Namespace], Awaitable[int]]


class PerformTests(CommandCase):
    """
    Tests for L{perform}.
    """

    def begin(self, run: Run, verbose: bool = False) -> Deferred[Ran]:
        """
        Run something that is no real command.
        """
        arguments = argparse.Namespace(run=run, config=str(self.file), verbose=verbose)
        output = Output(Terminal(), Terminal())
        reactor: IReactor = self.clock  # type: ignore[assignment]

        async def ran() -> Ran:
            status = await perform(reactor, arguments, Terminal(), output)  # type: ignore[arg-type]
            return Ran(status, output.stdout.getvalue(), output.stderr.getvalue())  # type: ignore[attr-defined]

        return Deferred.fromCoroutine(ran())

    def raising(self, error: BaseException, verbose: bool = False) -> Ran:
        async def run(shell: Shell, arguments: argparse.Namespace) -> int:
            await shell.ledger()
            raise error

        return self.successResultOf(self.begin(run, verbose))

    def test_refusal(self) -> None:
        """
        Why a command can't do something is one line, whatever is in it.
        """
        ran = self.raising(Refusal("it\nis\x1b so"))
        self.assertEqual(ran, Ran(1, "", "moxtls: it\\nis\\x1b so\n"))

    def test_unexpected(self) -> None:
        """
        A mistake of ours ends the command all the same, with one line, and
        with all there is for those who ask.
        """
        ran = self.raising(ZeroDivisionError("by\nzero"))
        said = "moxtls: ZeroDivisionError: by\\nzero (--verbose says more)\n"
        self.assertEqual(ran, Ran(1, "", said))
        ran = self.raising(ZeroDivisionError("by\nzero"), verbose=True)
        self.assertIn("Traceback", ran.err)
        self.assertTrue(ran.err.endswith(said))

    def test_interrupted(self) -> None:
        """
        Who interrupts a command knows that he did.
        """
        for error in (KeyboardInterrupt(), CancelledError()):
            self.assertEqual(self.raising(error), Ran(130, "", ""))

    def test_cancelled(self) -> None:
        """
        Cancelling gives up on what a command waits for, and closes what it
        opened.
        """
        opened: list[IQueue] = []

        async def run(shell: Shell, arguments: argparse.Namespace) -> int:
            opened.append(await shell.queue())
            await Deferred()
            return 0

        running = self.begin(run)
        self.assertNoResult(running)
        running.cancel()
        self.assertEqual(self.successResultOf(running).status, 130)
        self.failureResultOf(opened[0].messages(), SpoolClosed)

    def test_nobodyReads(self) -> None:
        """
        Nor does he who doesn't read to the end need to be told.
        """
        self.assertEqual(self.raising(BrokenPipeError()), Ran(141, "", ""))


class ConfigFileTests(CommandCase):
    """
    Tests for where the configuration is looked for.
    """

    def check(self, named: str = "", **environment: str) -> Ran:
        """
        Run C{moxtls config check} in the site's folder.
        """
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with patch.dict(os.environ, environment):
                return self.run_("--config", named, "config", "check")
        finally:
            os.chdir(before)

    def test_order(self) -> None:
        """
        What is named comes first, then the environment, then this folder.
        """
        (self.folder / "other.toml").write_text("a")
        self.assertIn("moxtls.toml: good", self.check().out)
        found = self.check(MOXTLS_CONFIG="other.toml")
        self.assertIn("other.toml: not TOML", found.err)
        found = self.check("moxtls.toml", MOXTLS_CONFIG="other.toml")
        self.assertIn("moxtls.toml: good", found.out)

    def test_nowhere(self) -> None:
        """
        If there is none, where it was looked for is told.
        """
        self.file.unlink()
        with patch("moxtls.cli.shell.CONFIGS", ("moxtls.toml", "/nowhere/x.toml")):
            ran = self.check()
        said = (
            "moxtls: no configuration: neither moxtls.toml nor /nowhere/x.toml exists"
        )
        self.assertEqual((ran.status, ran.err), (1, f"{said}\n"))


class StoreTests(CommandCase):
    """
    Tests for stores that can't be opened.
    """

    def test_ledger(self) -> None:
        """
        A ledger that can't be opened is named, with the key that says where
        it is and without its password.
        """
        url = "postgresql://me:secret@127.0.0.1:1/x"
        with self.file.open("a") as file:
            file.write(f'Ledger = "{url}"\n')
        said = self.complaint("results")
        self.assertIn(f"moxtls: {self.file}: Ledger: ledger postgresql://me:***@", said)
        self.assertNotIn("secret", said)

    def test_damaged(self) -> None:
        """
        So is one that is something else.
        """
        (self.folder / "data").mkdir()
        (self.folder / "data" / "ledger.sqlite").write_bytes(b"x" * 5000)
        said = self.complaint("results")
        self.assertIn("DataDirectory: ledger sqlite:///", said)
        self.assertIn("file is not a database", said)

    def test_folder(self) -> None:
        """
        So is a data directory that can't be made.
        """
        (self.folder / "data").write_bytes(b"")
        for words in (("results",), ("queue", "list")):
            said = self.complaint(*words)
            self.assertIn('DataDirectory = "data": cannot be used: ', said)
