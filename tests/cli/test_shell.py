"""
Tests for L{moxtls.cli.shell}.

Tests for L{moxtls.cli.shell}.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import IReactor
from moxtls.cli.output import Output
from moxtls.cli.shell import (
    CommandError,
    Shell,
    dayArgument,
    durationArgument,
    moment,
    perform,
)
from moxtls.interfaces import IQueue
from moxtls.queue.executor import SpoolClosed
from moxtls.tap import Options, makeService
from tests.cli.commands import CONFIG, CommandCase, Ran, Terminal
from tests.configs import rsaKey

#: Commands that only look.
READING = (
    ("results",),
    ("evaluations",),
    ("queue", "list"),
    ("report", "sent"),
    ("mtasts", "show"),
    ("config", "check"),
)

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
        A command's error is one line, whatever its text.
        """
        ran = self.raising(CommandError("it\nis\x1b so"))
        self.assertEqual(ran, Ran(1, "", "moxtls: it\\nis\\x1b so\n"))

    def test_unexpected(self) -> None:
        """
        An internal error ends the command with one line, and with a traceback on
        request.
        """
        ran = self.raising(ZeroDivisionError("by\nzero"))
        said = "moxtls: ZeroDivisionError: by\\nzero (--verbose says more)\n"
        self.assertEqual(ran, Ran(1, "", said))
        ran = self.raising(ZeroDivisionError("by\nzero"), verbose=True)
        self.assertIn("Traceback", ran.err)
        self.assertTrue(ran.err.endswith(said))

    def test_interrupted(self) -> None:
        """
        An interrupted command exits with a status of its own.
        """
        for error in (KeyboardInterrupt(), CancelledError()):
            self.assertEqual(self.raising(error), Ran(130, "", ""))

    def test_cancelled(self) -> None:
        """
        Cancellation cancels what a command waits for, and closes what it opened.
        """
        opened: list[IQueue] = []

        async def run(shell: Shell, arguments: argparse.Namespace) -> int:
            opened.append(await shell.queue(make=True))
            await Deferred()
            return 0

        running = self.begin(run)
        self.assertNoResult(running)
        running.cancel()
        self.assertEqual(self.successResultOf(running).status, 130)
        self.failureResultOf(opened[0].messages(), SpoolClosed)

    def test_closedOutput(self) -> None:
        """
        A closed standard output ends a command without an error message.
        """
        self.assertEqual(self.raising(BrokenPipeError()), Ran(141, "", ""))


class ConfigFileTests(CommandCase):
    """
    Tests for where the configuration is looked for.
    """

    def check(self, named: str = "", **environment: str) -> Ran:
        """
        Run C{moxtls config check} in the configuration's folder.
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
        The order is: the named file, the environment, this folder.
        """
        (self.folder / "other.toml").write_text("a")
        self.assertIn("moxtls.toml: good", self.check().out)
        found = self.check(MOXTLS_CONFIG="other.toml")
        self.assertIn("other.toml: not TOML", found.err)
        found = self.check("moxtls.toml", MOXTLS_CONFIG="other.toml")
        self.assertIn("moxtls.toml: good", found.out)

    def test_nowhere(self) -> None:
        """
        Without a configuration file, the error names the paths that were tried.
        """
        self.file.unlink()
        with patch("moxtls.cli.shell.CONFIGS", ("moxtls.toml", "/nowhere/x.toml")):
            ran = self.check()
        said = (
            "moxtls: no configuration: neither moxtls.toml nor /nowhere/x.toml exists"
        )
        self.assertEqual((ran.status, ran.err), (1, f"{said}\n"))


class PathTests(CommandCase):
    """
    Tests for relative paths: in the configuration they are relative to its
    folder, once; on the command line to that of the process.
    """

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder.parent)
        self.file = Path(self.folder.name, "moxtls.toml")

    def test_commands(self) -> None:
        """
        All commands see the same data, however the configuration is named.
        """
        for ledger in ("", 'Ledger = "sqlite:///data/other.sqlite"\n'):
            (self.folder / "moxtls.toml").write_text(ledger + CONFIG)
            self.good("suppress", "add", "x@b.example")
            self.good("send", "--file", str(self.file), "x@b.example")
            for file in (self.file, self.folder / "moxtls.toml"):
                ran = self.run_("--config", str(file), "suppress", "list", "--json")
                self.assertEqual(len(ran.value), 1)
            for words in READING:
                self.assertEqual(self.run_(*words).err, "", words)
        self.assertEqual(len(self.good("queue", "list", "--json").value), 2)
        self.assertEqual(
            {each.name for each in self.folder.iterdir()}, {"moxtls.toml", "data"}
        )

    def test_server(self) -> None:
        """
        The server uses the same data as commands.
        """
        self.good("suppress", "add", "x@b.example")
        options = Options()
        options.parseOptions(["--config", str(self.file)])
        makeService(options)
        self.assertEqual(
            {each.name for each in self.folder.iterdir()}, {"moxtls.toml", "data"}
        )
        self.assertEqual(len(self.good("suppress", "list", "--json").value), 1)

    def test_files(self) -> None:
        """
        Files that the configuration names are beside it.
        """
        (self.folder / "moxtls.toml").write_text(
            f'{CONFIG}[Domains."a.example".DKIM.Selectors.s]\nKeyFile = "s.pem"\n'
        )
        (self.folder / "s.pem").write_bytes(rsaKey(2048))
        self.assertIn("good", self.good("config", "check").out)


class StoreTests(CommandCase):
    """
    Tests for stores that can't be opened.
    """

    def test_ledger(self) -> None:
        """
        A ledger that can't be opened is reported with its configuration key and
        without its password.
        """
        url = "postgresql://me:secret@127.0.0.1:1/x"
        with self.file.open("a") as file:
            file.write(f'Ledger = "{url}"\n')
        said = self.complaint("results")
        self.assertIn(f"moxtls: {self.file}: Ledger: ledger postgresql://me:***@", said)
        self.assertNotIn("secret", said)

    def test_damaged(self) -> None:
        """
        A ledger file that isn't a database is refused with its configuration key.
        """
        (self.folder / "data" / "ledger.sqlite").write_bytes(b"x" * 5000)
        said = self.complaint("results")
        self.assertIn("DataDirectory: ledger sqlite:///", said)
        self.assertIn("file is not a database", said)

    def test_folder(self) -> None:
        """
        A data directory that can't be created is refused with its configuration key.
        """
        (self.folder / "data").rmdir()
        (self.folder / "data").write_bytes(b"")
        for words in (("results",), ("queue", "list")):
            said = self.complaint(*words)
            self.assertIn('DataDirectory = "data": cannot be used: ', said)


class TimesTests(SynchronousTestCase):
    """
    Tests for the format of times.
    """

    def test_moment(self) -> None:
        """
        Times are in UTC; a missing time is empty.
        """
        self.assertEqual(moment(1_795_521_600.9), "2026-11-24 12:00:00")
        self.assertEqual(moment(0), "")

    def test_day(self) -> None:
        """
        A day is written as in ISO 8601.
        """
        self.assertEqual(dayArgument("2026-11-24"), date(2026, 11, 24))
        for text in ("yesterday", "2026-13-01", ""):
            self.assertRaises(argparse.ArgumentTypeError, dayArgument, text)

    def test_duration(self) -> None:
        """
        A number and a unit, nothing else.
        """
        for text, seconds in (("90m", 5400), ("12h", 43200), ("31d", 2678400)):
            self.assertEqual(durationArgument(text), seconds)
        for text in ("3", "d", "-1d", "1.5h", "1000000d", "1w", "1d "):
            self.assertRaises(argparse.ArgumentTypeError, durationArgument, text)
