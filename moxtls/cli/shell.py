# -*- test-case-name: tests.cli.test_shell -*-
"""
The environment of commands: configuration, stores, and reactor.

Modules that take long to import are imported where they are used.

Dates and times on the command line are UTC.
"""

from __future__ import annotations

import argparse
import os
import re
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

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

#: The default paths of the configuration.
CONFIGS = ("moxtls.toml", "/etc/moxtls/moxtls.toml")
#: The exit status of a shell for a process that SIGINT ended.
INTERRUPTED = 130
#: The same for SIGPIPE: the reader of the output has closed it.
OUTPUT_CLOSED = 141


#: The file name that stands for standard input.
STDIN = "-"


class CommandError(Exception):
    """
    A command failed; the message is one line.

    @ivar status: The exit status.
    """

    def __init__(self, why: str, status: int = 1) -> None:
        super().__init__(why)
        self.status = status


class Shell:
    """
    Opens what a command needs on demand, and closes it afterwards.

    The data directory belongs to the user that the server runs as. A process of root
    switches to that user as soon as it has read the configuration: files that only
    root can read must be read before. No other user has access to the stores.
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
        self._configFiles: ConfigFiles | None = None
        self._ledger: Ledger | None = None
        self._queue: IQueue | None = None
        self._closers: list[Callable[[], Deferred[None]]] = []

    def now(self) -> float:
        return self.reactor.seconds()

    def openConfigFiles(self, file: str = "") -> ConfigFiles:
        """
        Read a configuration, and drop root privileges if its data belongs to another
        user.

        @param file: The configuration; empty for the default.
        """
        from moxtls.app.configfiles import ConfigFiles

        configFiles = ConfigFiles.read(self.configFile(file))
        owner = configFiles.owner()
        if os.geteuid() == ROOT and owner is not None and owner[0] != ROOT:
            # An installation in a folder of root can be read only now.
            import moxtls.app.build  # noqa: F401

            try:
                becomeUser(*owner)
            except OSError as error:
                who = userName(owner[0])
                raise CommandError(
                    f"can't become user {who}: {error.strerror}"
                ) from None
        return configFiles

    def configFile(self, file: str = "") -> Path:
        """
        The path of the configuration.

        @param file: The configuration; empty for the default.
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
    def configFiles(self) -> ConfigFiles:
        if self._configFiles is None:
            self._configFiles = self.openConfigFiles()
        return self._configFiles

    def _checkAccess(self, make: bool) -> None:
        owner, configFiles = self.configFiles.owner(), self.configFiles
        if owner is not None and not configFiles.isOurs():
            who = userName(owner[0])
            raise CommandError(
                f"{configFiles.data}: only root and user {who} may do this"
            )
        if owner is None and make and os.geteuid() == ROOT:
            # The server may be meant to run as another user.
            why = (
                "does not exist yet: start the server, or make it as the user that "
                "the server is to run as"
            )
            raise configFiles.wrong(
                "", "DataDirectory", configFiles.config.dataDirectory, why
            )
        if make:
            configFiles.makeFolders()

    async def ledger(self, make: bool = False, isThreaded: bool = False) -> Ledger:
        """
        The ledger.

        @param make: Create one if there is none. Otherwise an empty one in memory
            takes its place.
        @param isThreaded: Run its operations in threads: those that wait share a
            transaction.
        """
        from moxtls.app.process import asConfigErrors
        from moxtls.ledger.database import LedgerMissing
        from moxtls.ledger.ledger import Ledger, MemoryLedger

        if self._ledger is None:
            self._checkAccess(make)
            try:
                with asConfigErrors(self.configFiles):
                    reactor = self.reactor if isThreaded else None
                    url = self.configFiles.ledgerURL
                    self._ledger = Ledger(reactor, url, make=make)
            except LedgerMissing:
                self._ledger = MemoryLedger()
            self._closers.append(self._ledger.stop)
        return self._ledger

    async def queue(self, make: bool = False) -> IQueue:
        """
        The queue of this host, whether or not the server runs.

        @param make: As for L{ledger}.
        """
        from moxtls.app.process import asConfigErrors, newID
        from moxtls.queue.executor import InlineSpoolExecutor, QueueClient
        from moxtls.queue.memory import MemoryQueue
        from moxtls.queue.spool import isSpool

        if self._queue is None:
            self._checkAccess(make)
            if not make and not isSpool(self.configFiles.spool):
                self._queue = MemoryQueue(self.reactor, newID)
                return self._queue
            spool = InlineSpoolExecutor(self.configFiles.spool)
            with asConfigErrors(self.configFiles):
                spool.open()
            self._closers.append(spool.close)
            self._queue = QueueClient(self.reactor, spool, newID)
        return self._queue

    async def base(self, ledger: Ledger | None = None) -> Components:
        """
        The components of the server, with the resolver started.

        @param ledger: Instead of the ledger of this host.
        """
        from moxtls.app.build import Components

        ledger = ledger or await self.ledger()
        base = Components(self.reactor, self.configFiles, ledger, self.reactor)
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
        # Only commands that wait for I/O need the reactor. Without it a prompt
        # can be interrupted.
        _runReactor(ended)
    return statuses[0] if statuses else INTERRUPTED


def _runReactor(running: Deferred[None]) -> None:
    """
    Run the reactor until C{running} fires; an interrupt cancels C{running}.
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
    Log to C{file}, or nowhere: by default commands print errors themselves.
    """
    observers = [] if file is None else [textFileLogObserver(file)]
    globalLogBeginner.beginLoggingTo(
        observers, discardBuffer=True, redirectStandardIO=False
    )


async def perform(
    reactor: IReactor, arguments: argparse.Namespace, stdin: BinaryIO, output: Output
) -> int:
    """
    Run one command and return its exit status. Errors are printed.
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
    The error message of a failed command: one line, or several for a configuration
    with several errors.
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


def addGroup(commands: Any, name: str, meaning: str) -> Any:
    """
    Add a command that has commands of its own.

    @return: For L{addCommand}.
    """
    group = commands.add_parser(name, help=meaning, description=_sentence(meaning))
    return group.add_subparsers(dest="verb", required=True)


def addCommand(commands: Any, name: str, meaning: str) -> argparse.ArgumentParser:
    """
    Add a command with C{--json}.

    @param meaning: The help text, without a full stop.
    """
    description = _sentence(meaning)
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=meaning, description=description
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    if commands.dest == "verb":
        # For usage and errors.
        commands.metavar = "|".join(commands.choices)
    return command


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def domainArgument(text: str) -> Domain:
    """
    Parse a domain on the command line.
    """
    try:
        return Domain.parse(text)
    except InvalidDomain as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}


def moment(second: float) -> str:
    """
    Format a time as C{2026-11-24 19:05:29}; empty for the time 0.
    """
    if not second:
        return ""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")


def dayArgument(text: str) -> date:
    """
    Parse a day such as C{2026-11-24}.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a day such as 2026-11-24"
        ) from None


def durationArgument(text: str) -> int:
    """
    Parse a duration such as C{90m}, C{12h} or C{31d} into seconds.
    """
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a time such as 90m, 12h or 31d"
        )
    return int(match[1]) * _UNITS[match[2]]
