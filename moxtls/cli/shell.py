# -*- test-case-name: tests.cli.test_shell -*-
"""
What commands run in: the configuration, the stores, and a reactor.

What takes long to import is imported by those who need it.

Dates and times on the command line, always in UTC.  No I/O.
"""

from __future__ import annotations

import argparse
import os
import re
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver

from moxtls.app.privileges import ROOT, becomeUser, userName
from moxtls.cli.output import Output
from moxtls.dates import DAY, HOUR, MINUTE
from moxtls.domain import Domain, InvalidDomain
from moxtls.tlsrpt.parse import escapeUnprintable

if TYPE_CHECKING:
    from moxtls.app.build import Components, IReactor
    from moxtls.app.configfiles import ConfigFiles
    from moxtls.interfaces import IQueue
    from moxtls.ledger.ledger import Ledger

#: Where the configuration is looked for, if nobody says where it is.
CONFIGS = ("moxtls.toml", "/etc/moxtls/moxtls.toml")
#: As a shell has it for a process that SIGINT ended.
INTERRUPTED = 130
#: The same for SIGPIPE: whoever read our output has seen enough.
OUTPUT_CLOSED = 141


class CommandError(Exception):
    """
    A command can't do what it is asked to; one line says why.

    @ivar status: The exit status.
    """

    def __init__(self, why: str, status: int = 1) -> None:
        super().__init__(why)
        self.status = status


class Shell:
    """
    Opens what a command needs when it needs it, and closes it afterwards.

    The data directory belongs to the user that the server runs as.  A process
    of root's becomes that user as soon as it has read the configuration: what
    only root can read has to be read before.  Nobody else gets at the stores.
    """

    def __init__(
        self,
        reactor: IReactor,
        arguments: argparse.Namespace,
        stdin: BinaryIO,
        output: Output,
    ) -> None:
        self.reactor = reactor
        self.stdin = stdin
        self.output = output
        self._arguments = arguments
        self._site: ConfigFiles | None = None
        self._ledger: Ledger | None = None
        self._queue: IQueue | None = None
        self._closers: list[Callable[[], Deferred[None]]] = []

    def now(self) -> float:
        return self.reactor.seconds()

    def openSite(self, file: str = "") -> ConfigFiles:
        """
        Read a configuration, and stop being root if its data is somebody
        else's.

        @param file: The configuration; empty for the usual one.
        """
        from moxtls.app.configfiles import ConfigFiles

        site = ConfigFiles.read(self.configFile(file))
        owner = site.owner()
        if os.geteuid() == ROOT and owner is not None and owner[0] != ROOT:
            # An installation in a folder of root's can be read only now.
            import moxtls.app.build  # noqa: F401

            try:
                becomeUser(*owner)
            except OSError as error:
                who = userName(owner[0])
                raise CommandError(
                    f"can't become user {who}: {error.strerror}"
                ) from None
        return site

    def configFile(self, file: str = "") -> Path:
        """
        @param file: The configuration; empty for the usual one.
        """
        return Path(file or self._usualFile())

    def _usualFile(self) -> str:
        named: str = self._arguments.config or os.environ.get("MOXTLS_CONFIG", "")
        if named:
            return named
        for each in CONFIGS:
            if Path(each).exists():
                return each
        raise CommandError(f"no configuration: neither {' nor '.join(CONFIGS)} exists")

    @property
    def site(self) -> ConfigFiles:
        if self._site is None:
            self._site = self.openSite()
        return self._site

    def _checkAccess(self, make: bool) -> None:
        owner, site = self.site.owner(), self.site
        if owner is not None and not site.isOurs():
            who = userName(owner[0])
            raise CommandError(f"{site.data}: only root and user {who} may do this")
        if owner is None and make and os.geteuid() == ROOT:
            # The server may be meant to run as somebody else.
            why = (
                "does not exist yet: start the server, or make it as the user that "
                "the server is to run as"
            )
            raise site.wrong("", "DataDirectory", site.config.dataDirectory, why)
        if make:
            site.makeFolders()

    async def ledger(self, make: bool = False) -> Ledger:
        """
        @param make: Make one if there is none.  Otherwise an empty one in memory
            stands for it.
        """
        from moxtls.app.build import asConfigErrors
        from moxtls.ledger.database import LedgerMissing
        from moxtls.ledger.ledger import Ledger
        from moxtls.ledger.memory import MemoryLedger

        if self._ledger is None:
            self._checkAccess(make)
            try:
                with asConfigErrors(self.site):
                    self._ledger = Ledger(None, self.site.ledgerURL, make=make)
            except LedgerMissing:
                self._ledger = MemoryLedger()
            self._closers.append(self._ledger.stop)
        return self._ledger

    async def queue(self, make: bool = False) -> IQueue:
        """
        The queue of this host, whether or not the server runs.

        @param make: As of L{ledger}.
        """
        from moxtls.app.build import asConfigErrors, newID
        from moxtls.queue.client import QueueClient
        from moxtls.queue.memory import MemoryQueue
        from moxtls.queue.spool import InlineSpoolExecutor, isSpool

        if self._queue is None:
            self._checkAccess(make)
            if not make and not isSpool(self.site.spool):
                self._queue = MemoryQueue(self.reactor, newID)
                return self._queue
            spool = InlineSpoolExecutor(self.site.spool)
            with asConfigErrors(self.site):
                spool.open()
            self._closers.append(spool.close)
            self._queue = QueueClient(self.reactor, spool, newID)
        return self._queue

    async def base(self, ledger: Ledger | None = None) -> Components:
        """
        The resolver, probed, and what else reaches out.

        @param ledger: If not that of this host, as far as there is one.
        """
        from moxtls.app.build import Components

        ledger = ledger or await self.ledger()
        base = Components(self.reactor, self.site, ledger, self.reactor)
        self._closers += [base.resolver.stopService, base.dialer.stop]
        base.resolver.startService()
        return base

    async def close(self) -> None:
        while self._closers:
            await self._closers.pop()()


Run = Callable[[Shell, argparse.Namespace], Awaitable[int]]


def execute(
    arguments: argparse.Namespace, stdin: BinaryIO, stdout: TextIO, stderr: TextIO
) -> int:
    """
    Run one command to its end.

    @return: Its exit status.
    """
    from twisted.internet import reactor

    every: IReactor = reactor  # type: ignore[assignment]  # all real ones are
    _log(stderr if arguments.verbose else None)
    output = Output(stdout, stderr, getattr(arguments, "json", False))
    running = Deferred.fromCoroutine(perform(every, arguments, stdin, output))
    statuses: list[int] = []
    ended = running.addCallback(statuses.append)
    if not statuses:
        # It waits for something.  Others don't, and so can be interrupted
        # also while they wait for somebody at the keyboard.
        _runReactor(ended)
    return statuses[0] if statuses else INTERRUPTED


def _runReactor(running: Deferred[None]) -> None:
    """
    Run the reactor until C{running} fires; interrupting it cancels that.
    """
    from twisted.internet import reactor

    stopping = False

    def ended(result: None) -> None:
        if not stopping:
            reactor.stop()

    def stopped() -> Deferred[None]:
        nonlocal stopping
        stopping = True
        running.cancel()
        return running

    running.addCallback(ended)
    reactor.addSystemEventTrigger("before", "shutdown", stopped)
    reactor.run()


def _log(file: TextIO | None) -> None:
    """
    What goes on inside is only of interest to those who ask for it: commands
    say themselves what went wrong.
    """
    observers = [] if file is None else [textFileLogObserver(file)]
    globalLogBeginner.beginLoggingTo(
        observers, discardBuffer=True, redirectStandardIO=False
    )


async def perform(
    reactor: IReactor, arguments: argparse.Namespace, stdin: BinaryIO, output: Output
) -> int:
    """
    Run one command.  Whatever happens is told by its exit status.
    """
    shell = Shell(reactor, arguments, stdin, output)
    run: Run = arguments.run
    try:
        try:
            return await run(shell, arguments)
        finally:
            await shell.close()
    except (CancelledError, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return OUTPUT_CLOSED
    except Exception as error:
        if arguments.verbose:
            traceback.print_exc(file=output.stderr)
        for line in _reason(error).split("\n"):
            output.stderr.write(f"moxtls: {line}\n")
        return error.status if isinstance(error, CommandError) else 1


def _reason(error: Exception) -> str:
    """
    Why a command failed, in one line; in several if a configuration has several
    faults.
    """
    if isinstance(error, CommandError):
        return escapeUnprintable(str(error))
    from moxtls.config import InvalidConfig
    from moxtls.ledger.database import LedgerUnavailable

    if isinstance(error, InvalidConfig):
        return "\n".join(map(escapeUnprintable, str(error).split("\n")))
    if isinstance(error, LedgerUnavailable):
        return escapeUnprintable(str(error))
    return escapeUnprintable(f"{type(error).__name__}: {error} (--verbose says more)")


def domainArgument(text: str) -> Domain:
    """
    A domain on the command line.
    """
    try:
        return Domain.parse(text)
    except InvalidDomain as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}


def moment(second: float) -> str:
    """
    C{2026-11-24 19:05:29}, or nothing for the time 0.
    """
    if not second:
        return ""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")


def dayArgument(text: str) -> date:
    """
    C{2026-11-24}
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a day such as 2026-11-24"
        ) from None


def durationArgument(text: str) -> int:
    """
    C{90m}, C{12h} or C{31d}, in seconds.
    """
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a time such as 90m, 12h or 31d"
        )
    return int(match[1]) * _UNITS[match[2]]
