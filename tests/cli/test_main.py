"""
Tests for L{moxtls.cli.main}.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from moxtls import __version__
from moxtls.cli.main import COMMANDS, parser
from tests import MAX_WAIT
from tests.cli.commands import CommandCase


class ParserTests(SynchronousTestCase):
    """
    Tests for L{parser}.
    """

    def test_help(self) -> None:
        """
        Every command is listed with its purpose.
        """
        text = " ".join(parser([]).format_help().split())
        for name, (_, meaning) in COMMANDS.items():
            self.assertIn(f" {name} {meaning}", text)

    def test_complete(self) -> None:
        """
        Every command has verbs or something to run, and calls itself the same
        whether or not it is imported.
        """
        for name, (module, meaning) in COMMANDS.items():
            commands = argparse.ArgumentParser().add_subparsers()
            import_module(f"moxtls.cli.{module}").add(commands)
            self.assertEqual(list(commands.choices), [name])
            [listed] = commands._choices_actions
            self.assertEqual(listed.help, meaning)

    def test_described(self) -> None:
        """
        The help of every command describes the command and each argument.
        """
        for name in set(COMMANDS) - {"send", "lab"}:
            for each in self.commands(parser([name]), name):
                self.assertTrue(each.description, each.prog)
                for argument in each._actions:
                    if not isinstance(argument, argparse._SubParsersAction):
                        self.assertTrue(argument.help, (each.prog, argument.dest))

    def commands(
        self, parent: argparse.ArgumentParser, name: str
    ) -> Iterator[argparse.ArgumentParser]:
        """
        A command, and the commands that it has.
        """
        for action in parent._actions:
            if isinstance(action, argparse._SubParsersAction):
                command = action.choices[name]
                yield command
                for each in command._actions:
                    if isinstance(each, argparse._SubParsersAction):
                        yield from each.choices.values()


class ArgumentTests(CommandCase):
    """
    Tests for global options and errors.
    """

    def test_wrong(self) -> None:
        """
        Wrong arguments cause one line, and status 2.
        """
        for words in [
            (),
            ("nonsense",),
            ("queue",),
            ("queue", "nonsense"),
            ("results", "a b"),
            ("results", "--day", "24.11."),
            ("--nonsense",),
            ("report", "show"),
            ("report", "pending", "--kind", "arf"),
            ("mtasts", "drop"),
            ("probe",),
            ("config", "check", "--config"),
        ]:
            self.complaint(*words, status=2)

    def test_version(self) -> None:
        """
        C{--version} prints the version.
        """
        self.assertEqual(self.good("--version").out, f"moxtls {__version__}\n")


class ProcessTests(SynchronousTestCase):
    """
    Tests for the command as a process.
    """

    def run_(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "moxtls.cli.main", *words],
            capture_output=True,
            text=True,
            timeout=MAX_WAIT,
            stdin=subprocess.DEVNULL,
        )

    def test_help(self) -> None:
        """
        Help imports no modules of the commands.
        """
        ran = self.run_("--help")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        for name in COMMANDS:
            self.assertIn(f"    {name} ", ran.stdout)
        code = "import moxtls.cli.main, sys; sys.exit('twisted' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code]).returncode, 0)

    def test_closedOutput(self) -> None:
        """
        A closed pipe causes no error message.
        """
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            ran = subprocess.run(
                [sys.executable, "-m", "moxtls.cli.main", "config", "describe"],
                stdout=pipe,
                stderr=subprocess.PIPE,
                timeout=MAX_WAIT,
            )
        self.assertEqual((ran.returncode, ran.stderr), (141, b""))

    def test_noStreams(self) -> None:
        """
        A command works if the caller has closed its standard streams.
        """
        for closed, said in (("<&-", b"usage"), (">&-", b""), ("<&- >&- 2>&-", b"")):
            words = f'"$0" -m moxtls.cli.main report list --help {closed}'
            ran = subprocess.run(
                ["/bin/sh", "-c", words, sys.executable],
                capture_output=True,
                timeout=MAX_WAIT,
            )
            self.assertEqual((ran.returncode, ran.stderr), (0, b""), closed)
            self.assertEqual(ran.stdout[:5], said)

    def test_refused(self) -> None:
        """
        A failed command prints one line, with status 1.
        """
        ran = self.run_("report", "show", "/")
        self.assertEqual((ran.returncode, ran.stdout), (1, ""))
        self.assertEqual(ran.stderr, "moxtls: /: Is a directory\n")
