# -*- test-case-name: tests.lab.test_run -*-
"""
C{moxtls lab run}: the lab and moxtls in it, shown to somebody.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime, IReactorUNIX
from twisted.internet.stdio import StandardIO

from moxtls.cli.output import Output
from moxtls.lab.conditions import LabDestination
from moxtls.lab.control import (
    END_DAY,
    MAIL,
    QUIT,
    Command,
    Commands,
    ControlFactory,
    TerminalCommands,
    socketPath,
)
from moxtls.lab.correspondence import MESSAGES
from moxtls.lab.letters import LabMessage
from moxtls.lab.mailing import MailOutcome
from moxtls.lab.network import Network
from moxtls.lab.scenario import DESTINATIONS
from moxtls.lab.session import DayReports, LabSession, MakeServer
from moxtls.lab.show import (
    HELP,
    describeReports,
    showAggregates,
    showDifferences,
    showLetters,
    showMail,
    showProgress,
    showReports,
    showWorld,
)
from moxtls.lab.world import ANCHOR_FILE, Lab

DIRECTORY = "moxtls-lab"


class LabUnusable(Exception):
    """
    The lab can't be started; one line says why.
    """


@dataclass(frozen=True, slots=True)
class RunOptions:
    """
    @ivar once: Do everything once without waiting for anybody, and see
        whether it is as it should be.
    @ivar interactive: Whether there is somebody at the keyboard.
    """

    directory: Path
    network: Network
    once: bool = False
    interactive: bool = False
    destinations: tuple[LabDestination, ...] = DESTINATIONS
    letters: tuple[LabMessage, ...] = MESSAGES


async def run(
    reactor: IReactorTime, options: RunOptions, makeServer: MakeServer, output: Output
) -> int:
    """
    Start the lab, send mail, and show what comes of it.

    @param reactor: Also provides TCP, UDP and UNIX sockets.

    @return: The exit status: 0 if all was as it should be.

    @raise LabUnusable: It can't be started.
    """
    directory = options.directory.absolute()
    _check(directory)
    lab = Lab(reactor, directory, options.network, options.destinations)
    session = LabSession(reactor, lab, makeServer, options.letters)
    try:
        try:
            session.open()
        except CannotListenError as error:
            raise LabUnusable(str(error)) from None
        showWorld(output, lab)
        visit = _Visit(session, output)
        await visit.mail()
        if options.once:
            await visit.endDay()
            return 1 if visit.isUnexpected else 0
        await _commands(reactor, options, visit)
        return 0
    finally:
        await session.close()


def _check(directory: Path) -> None:
    """
    @raise LabUnusable: There is something else, which is not to be touched.
    """
    isOurs = (directory / ANCHOR_FILE).exists()
    if directory.exists() and any(directory.iterdir()) and not isOurs:
        raise LabUnusable(f"{directory} isn't empty, and no lab")


class _Visit:
    """
    @ivar isUnexpected: Whether anything was.
    """

    def __init__(self, session: LabSession, output: Output) -> None:
        self._session = session
        self._output = output
        self._mails = 0
        self._days = 0
        self.isUnexpected = False

    def prompt(self) -> None:
        self._output.line(HELP)

    async def mail(self) -> None:
        """
        Send mail and have some come in, and show what became of it.
        """
        self._output.progress("sending a mail to each destination")
        outcomes: tuple[MailOutcome, ...] = await self._session.mail()
        self._output.progress("having mail come in")
        letters = await self._session.receive()
        self._output.progressEnded()
        self._mails += 1
        wrong = [line for each in letters for line in each.differences]
        self.isUnexpected |= not all(each.asExpected for each in outcomes)
        self.isUnexpected |= bool(wrong)
        showMail(self._output, outcomes)
        showLetters(self._output, letters, wrong)

    async def endDay(self) -> str:
        """
        End the day, and show the reports.

        @return: The same, as text.
        """
        expected = self._session.reports

        def passed(now: float, count: int) -> None:
            showProgress(self._output, now, count, expected)

        reports = await self._session.endDay(passed)
        self._output.progressEnded()
        # With a second mail, or leftovers of the day before, it is anybody's
        # guess.
        isFirst = (self._mails, self._days) == (1, 0)
        self._days += 1
        self.isUnexpected |= isFirst and bool(reports.differences)
        text = io.StringIO()
        for each in (self._output, replace(self._output, stdout=text)):
            _show(each, reports, isFirst)
        return text.getvalue()


def _show(output: Output, reports: DayReports, isFirst: bool) -> None:
    describeReports(output, reports.tls)
    showReports(output, reports.tls)
    showAggregates(output, reports.dmarc)
    if isFirst:
        showDifferences(output, reports.differences)


async def _commands(reactor: IReactorTime, options: RunOptions, visit: _Visit) -> None:
    """
    Do what one is told, until one is told to stop.
    """
    commands = Commands()
    with _listening(reactor, options, commands):
        while True:
            visit.prompt()
            command = await commands.get()
            if command.word == QUIT:
                command.answer("")
                return
            await _obey(command, visit)


async def _obey(command: Command, visit: _Visit) -> None:
    if command.word == END_DAY:
        command.answer(await visit.endDay())
    elif command.word == MAIL:
        await visit.mail()
        command.answer("")
    else:
        command.answer("unknown command\n")


@contextmanager
def _listening(
    reactor: IReactorTime, options: RunOptions, commands: Commands
) -> Iterator[None]:
    path = socketPath(options.directory)
    callers = ControlFactory(commands)
    try:
        port = IReactorUNIX(reactor).listenUNIX(path, callers, mode=0o600)
    except CannotListenError as error:
        raise LabUnusable(str(error)) from None
    terminal = None
    if options.interactive:
        terminal = StandardIO(TerminalCommands(commands), reactor=reactor)
    try:
        yield
    finally:
        port.stopListening()
        callers.close()
        if terminal is not None:
            terminal.loseConnection()
