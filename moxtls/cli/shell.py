# -*- test-case-name: tests.cli.test_shell -*-
"""
What commands run in: the configuration, the stores, and a reactor.

What takes long to import is imported by those who need it.
"""

from __future__ import annotations

import argparse
import os
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogBeginner, textFileLogObserver

from moxtls.cli.output import Output
from moxtls.domain import Domain, InvalidDomain
from moxtls.tlsrpt.received import plain

if TYPE_CHECKING:
    from moxtls.interfaces import IQueue
    from moxtls.site import Site
    from moxtls.store.ledger import Ledger
    from moxtls.wiring import Base, IReactor

#: Where the configuration is looked for, if nobody says where it is.
CONFIGS = ("moxtls.toml", "/etc/moxtls/moxtls.toml")
#: As a shell has it for a process that SIGINT ended.
INTERRUPTED = 130
#: The same for SIGPIPE: whoever read our output has seen enough.
NOBODY_READS = 141


class Refusal(Exception):
    """
    A command can't do what it is asked to; one line says why.
    """


class Shell:
    """
    Opens what a command needs when it needs it, and closes it afterwards.
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
        self._site: Site | None = None
        self._ledger: Ledger | None = None
        self._queue: IQueue | None = None
        self._closers: list[Callable[[], Deferred[None]]] = []

    def now(self) -> float:
        return self.reactor.seconds()

    def openSite(self, file: str = "") -> Site:
        """
        @param file: The configuration; empty for the usual one.
        """
        from moxtls.site import Site

        return Site.read(self.configFile(file))

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
        raise Refusal(f"no configuration: neither {' nor '.join(CONFIGS)} exists")

    @property
    def site(self) -> Site:
        if self._site is None:
            self._site = self.openSite()
        return self._site

    async def ledger(self) -> Ledger:
        from moxtls.store.ledger import Ledger
        from moxtls.wiring import explained

        if self._ledger is None:
            self.site.makeFolders()
            with explained(self.site):
                self._ledger = Ledger(None, self.site.ledgerURL)
            self._closers.append(self._ledger.stop)
        return self._ledger

    async def queue(self) -> IQueue:
        """
        The queue of this host, whether or not the server runs.
        """
        from moxtls.queue.access import DirectSpool
        from moxtls.queue.stored import StoredQueue
        from moxtls.wiring import explained, newID

        if self._queue is None:
            self.site.makeFolders()
            spool = DirectSpool(self.site.spool)
            with explained(self.site):
                spool.open()
            self._closers.append(spool.close)
            self._queue = StoredQueue(self.reactor, spool, newID)
        return self._queue

    async def base(self, clock: IReactorTime | None = None) -> Base:
        """
        The resolver, probed, and what else reaches out.
        """
        from moxtls.wiring import Base

        base = Base(self.reactor, self.site, await self.ledger(), clock or self.reactor)
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
        return NOBODY_READS
    except Exception as error:
        if arguments.verbose:
            traceback.print_exc(file=output.stderr)
        for line in _reason(error).split("\n"):
            output.stderr.write(f"moxtls: {line}\n")
        return 1


def _reason(error: Exception) -> str:
    """
    Why a command failed, in one line; in several if a configuration has several
    faults.
    """
    if isinstance(error, Refusal):
        return plain(str(error))
    from moxtls.config import InvalidConfig
    from moxtls.store.database import LedgerUnavailable

    if isinstance(error, InvalidConfig):
        return "\n".join(map(plain, str(error).split("\n")))
    if isinstance(error, LedgerUnavailable):
        return plain(str(error))
    return plain(f"{type(error).__name__}: {error} (--verbose says more)")


def domainArgument(text: str) -> Domain:
    """
    A domain on the command line.
    """
    try:
        return Domain.parse(text)
    except InvalidDomain as error:
        raise argparse.ArgumentTypeError(str(error)) from None
