"""
Commands, run as a shell would: on a configuration of their own, up to their exit
status.
"""

from __future__ import annotations

import io
import json
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import IReactor
from moxtls.cli.main import parser
from moxtls.cli.output import Output
from moxtls.cli.shell import perform
from moxtls.dates import utcDay
from moxtls.ledger.ledger import Ledger
from tests.queue.killing import quickDirectory

#: 2026-11-24 12:00:00 UTC.
NOON = 1_795_521_600
TODAY = utcDay(NOON)

CONFIG = 'Hostname = "mail.example.org"\n'


class Terminal(io.StringIO):
    """
    A stream that is a terminal.
    """

    def isatty(self) -> bool:
        return True


def columns(case: SynchronousTestCase, count: int) -> None:
    """
    Set the width of terminals during a test.
    """
    patched = patch.dict("os.environ", COLUMNS=str(count))
    patched.start()
    case.addCleanup(patched.stop)


@dataclass(frozen=True)
class Ran:
    """
    A command that has ended.
    """

    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """
        The JSON output.
        """
        return json.loads(self.out)


def performing(
    reactor: IReactor, file: Path, words: tuple[str, ...], stdin: bytes, tty: bool
) -> Deferred[Ran]:
    """
    Begin to run a command with the configuration C{file}.
    """

    async def perform_() -> Ran:
        out, err = (Terminal if tty else io.StringIO)(), io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                whole = ["--config", str(file), *words]
                arguments = parser(whole).parse_args(whole)
        except SystemExit as ended:
            return Ran(int(ended.code or 0), out.getvalue(), err.getvalue())
        output = Output(out, err, getattr(arguments, "json", False))
        status = await perform(reactor, arguments, io.BytesIO(stdin), output)
        return Ran(status, out.getvalue(), err.getvalue())

    return ensureDeferred(perform_())


class CommandCase(SynchronousTestCase):
    """
    Commands that use only the disk.

    @ivar file: The configuration.
    """

    def setUp(self) -> None:
        self.folder = quickDirectory(self)
        self.file = self.folder / "moxtls.toml"
        self.file.write_text(CONFIG)
        # As the server makes it; a command of root's doesn't.
        (self.folder / "data").mkdir(mode=0o700)
        self.clock = MemoryReactorClock()
        self.clock.advance(NOON)

    def run_(self, *words: str, stdin: bytes = b"", tty: bool = False) -> Ran:
        """
        Run a command to its end.
        """
        reactor: IReactor = self.clock  # type: ignore[assignment]
        running = performing(reactor, self.file, words, stdin, tty)
        return self.successResultOf(running)

    def good(self, *words: str, stdin: bytes = b"", tty: bool = False) -> Ran:
        """
        Run a command that has to succeed, without errors.
        """
        ran = self.run_(*words, stdin=stdin, tty=tty)
        self.assertEqual((ran.status, ran.err), (0, ""))
        return ran

    def complaint(self, *words: str, status: int = 1, stdin: bytes = b"") -> str:
        """
        The error of a failed command: one line, and no other output.
        """
        ran = self.run_(*words, stdin=stdin)
        self.assertEqual((ran.status, ran.out), (status, ""), ran.err)
        self.assertRegex(ran.err, r"\Amoxtls[^\n]*: [^\n]+\n\Z")
        return ran.err.rstrip("\n")

    @contextmanager
    def ledger(self) -> Generator[Ledger, None, None]:
        """
        The configured ledger, open during the context.
        """
        ledger = Ledger(None, f"sqlite:///{self.folder}/data/ledger.sqlite")
        yield ledger
        self.successResultOf(ledger.stop())
