# -*- test-case-name: tests.cli.test_main -*-
"""
What commands run in: the configuration, the stores, and a reactor.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogBeginner, textFileLogObserver

from moxtls.cli.output import Output
from moxtls.config import InvalidConfig
from moxtls.domain import Domain, InvalidDomain
from moxtls.interfaces import IQueue
from moxtls.queue.access import DirectSpool
from moxtls.queue.spool import SpoolUnusable
from moxtls.queue.stored import StoredQueue
from moxtls.site import Site
from moxtls.store.database import LedgerUnavailable
from moxtls.store.ledger import Ledger
from moxtls.tlsrpt.received import plain
from moxtls.wiring import Base, IReactor, newID

#: Where the configuration is looked for, if nobody says where it is.
CONFIGS = ("moxtls.toml", "/etc/moxtls/moxtls.toml")
#: As a shell has it for a process that SIGINT ended.
INTERRUPTED = 130


class Refusal(Exception):
    """
    A command can't do what it is asked to; one line says why.
    """


#: What may keep a command from its work, and says so in one line.
EXPECTED = (Refusal, InvalidConfig, LedgerUnavailable, SpoolUnusable)


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
        return Site.read(Path(file or self._configFile()))

    def _configFile(self) -> str:
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
        if self._ledger is None:
            self.site.makeFolders()
            self._ledger = Ledger(None, self.site.ledgerURL)
            self._closers.append(self._ledger.stop)
        return self._ledger

    async def queue(self) -> IQueue:
        """
        The queue of this host, whether or not the server runs.
        """
        if self._queue is None:
            self.site.makeFolders()
            spool = DirectSpool(self.site.spool)
            spool.open()
            self._closers.append(spool.close)
            self._queue = StoredQueue(self.reactor, spool, newID)
        return self._queue

    async def base(self, clock: IReactorTime | None = None) -> Base:
        """
        The resolver, probed, and what else reaches out.
        """
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
    status = INTERRUPTED
    running: Deferred[int] | None = None

    def ended(result: int) -> int:
        nonlocal status
        status = result
        if reactor.running:
            reactor.stop()
        return result

    def begin() -> None:
        nonlocal running
        running = Deferred.fromCoroutine(perform(every, arguments, stdin, output))
        running.addCallback(ended)

    def stopped() -> Deferred[int] | None:
        if running is not None:
            running.cancel()
        return running

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", stopped)
    reactor.run()
    return status


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
    Run one command on a reactor that runs.
    """
    shell = Shell(reactor, arguments, stdin, output)
    run: Run = arguments.run
    try:
        return await run(shell, arguments)
    except CancelledError:
        return INTERRUPTED
    except EXPECTED as error:
        output.stderr.write(f"moxtls: {plain(str(error))}\n")
        return 1
    except BrokenPipeError:
        # Who reads us has seen enough.
        return 1
    finally:
        await shell.close()


def domainArgument(text: str) -> Domain:
    """
    A domain on the command line.
    """
    try:
        return Domain.parse(text)
    except InvalidDomain as error:
        raise argparse.ArgumentTypeError(str(error)) from None
