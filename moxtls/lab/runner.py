# -*- test-case-name: tests.lab.test_runner -*-
"""
Runs a lab with a moxtls in it, for any number of days, and shows the results; takes
commands from its terminal, and over a socket in its directory.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from moxtls.cli.output import Output
from moxtls.lab.mail import MailOutcome
from moxtls.lab.messages import MESSAGES, LabMessage
from moxtls.lab.plan import Network
from moxtls.lab.scenario import DESTINATIONS, LabDestination
from moxtls.lab.show import (
    HELP,
    describeReports,
    showAggregates,
    showDifferences,
    showMail,
    showProgress,
    showReceived,
    showReceptions,
    showReports,
    showWorld,
)
from moxtls.lab.world import (
    ANCHOR_FILE,
    SOCKET,
    DayReports,
    Lab,
    LabSession,
    MakeServer,
)

DIRECTORY = "moxtls-lab"
#: The maximum length of a command.
MAX_COMMAND = 100
#: The maximum length of its result.
MAX_ANSWER_LENGTH = 10 * 1024 * 1024

END_DAY = "end-day"
MAIL = "m"
QUIT = "q"


class LabUnusable(Exception):
    """
    The lab can't be started; the message is one line.
    """


@dataclass(frozen=True, slots=True)
class RunOptions:
    """
    The options of a run.

    @ivar once: Do everything once without prompts, and check the results.
    @ivar interactive: True if there is a terminal.
    """

    directory: Path
    network: Network
    once: bool = False
    interactive: bool = False
    destinations: tuple[LabDestination, ...] = DESTINATIONS
    labMessages: tuple[LabMessage, ...] = MESSAGES


async def run(
    reactor: IReactorTime, options: RunOptions, makeServer: MakeServer, output: Output
) -> int:
    """
    Start the lab, send mail, and show the results.

    @param reactor: Also provides TCP, UDP and UNIX sockets.

    @return: The exit status: 0 if all results are as expected.

    @raise LabUnusable: It can't be started.
    """
    directory = options.directory.absolute()
    _check(directory)
    lab = Lab(reactor, directory, options.network, options.destinations)
    session = LabSession(reactor, lab, makeServer, options.labMessages)
    try:
        try:
            session.open()
        except CannotListenError as error:
            raise LabUnusable(str(error)) from None
        showWorld(output, lab)
        mailing = _Mailing(session, output)
        await mailing.mail()
        if options.once:
            await mailing.endDay()
            return 1 if mailing.isUnexpected else 0
        await _commands(reactor, options, mailing)
        return 0
    finally:
        await session.close()


def _check(directory: Path) -> None:
    """
    @raise LabUnusable: The folder contains something else.
    """
    isOurs = (directory / ANCHOR_FILE).exists()
    if directory.exists() and any(directory.iterdir()) and not isOurs:
        raise LabUnusable(f"{directory} isn't empty, and no lab")


class _Mailing:
    """
    A run of the lab.

    @ivar isUnexpected: True if any result differs from the expected one.
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
        Send mail both ways, and show the results.
        """
        self._output.progress("sending a mail to each destination")
        outcomes: tuple[MailOutcome, ...] = await self._session.mail()
        self._output.progress("having mail come in")
        labMessages = await self._session.receive()
        reports = await self._session.receiveReports()
        answers = await self._session.answers()
        self._output.progressEnded()
        self._mails += 1
        wrong = [line for each in labMessages for line in each.differences]
        self.isUnexpected |= not all(each.asExpected for each in outcomes)
        self.isUnexpected |= bool(wrong)
        self.isUnexpected |= any(each.differences for each in reports)
        showMail(self._output, outcomes)
        showReceived(self._output, labMessages, wrong)
        showReceptions(self._output, reports, answers)

    async def endDay(self) -> str:
        """
        End the day, and show the reports.

        @return: The reports as text.
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


async def _commands(
    reactor: IReactorTime, options: RunOptions, mailing: _Mailing
) -> None:
    """
    Execute commands until one ends the run.
    """
    commands = Commands()
    with _listening(reactor, options, commands):
        while True:
            mailing.prompt()
            command = await commands.get()
            if command.word == QUIT:
                command.answer("")
                return
            await _obey(command, mailing)


async def _obey(command: Command, mailing: _Mailing) -> None:
    if command.word == END_DAY:
        command.answer(await mailing.endDay())
    elif command.word == MAIL:
        await mailing.mail()
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


# --- commands ---


class Command:
    """
    A command, and the callback for its result.
    """

    def __init__(self, word: str, answer: Callable[[str], None]) -> None:
        self.word = word
        self.answer = answer


Commands = DeferredQueue[Command]


class TerminalCommands(LineOnlyReceiver):
    """
    Reads commands from the terminal.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_COMMAND

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def lineReceived(self, line: bytes) -> None:
        word = line.strip().decode("ascii", "replace")
        self._commands.put(Command(word or END_DAY, lambda text: None))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._commands.put(Command(QUIT, lambda text: None))


class _Caller(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = MAX_COMMAND

    def __init__(self, commands: Commands, callers: set[_Caller]) -> None:
        self._commands = commands
        self._callers = callers

    def connectionMade(self) -> None:
        self._callers.add(self)

    def lineReceived(self, line: bytes) -> None:
        word = line.strip().decode("ascii", "replace")
        self._commands.put(Command(word, self._answer))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._callers.discard(self)

    def hangUp(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _answer(self, text: str) -> None:
        if self.transport is not None:
            self.transport.write(text.encode())
        self.hangUp()


class ControlFactory(ServerFactory):
    """
    Accepts commands over the socket.
    """

    noisy = False

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._callers: set[_Caller] = set()

    def buildProtocol(self, addr: IAddress | None) -> _Caller:
        return _Caller(self._commands, self._callers)

    def close(self) -> None:
        """
        Close all connections.
        """
        for caller in tuple(self._callers):
            caller.hangUp()


class _Answer(Protocol):
    def __init__(self) -> None:
        self.done: Deferred[str] = Deferred()
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_ANSWER_LENGTH and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(self._received.decode("utf-8", "replace"))


async def command(reactor: object, directory: Path, word: str) -> str:
    """
    Send a command to a running lab.

    @param reactor: Provides C{IReactorUNIX}.

    @return: The output of the command.

    @raise twisted.internet.error.ConnectError: No lab is running there.
    """
    endpoint = UNIXClientEndpoint(reactor, socketPath(directory))
    answer = await connectProtocol(endpoint, _Answer())
    if answer.transport is not None:
        answer.transport.write(f"{word}\n".encode())
    text: str = await answer.done
    return text


def socketPath(directory: Path) -> str:
    """
    The path of the socket, short because the system limits it to about a hundred
    bytes.
    """
    path = str((directory / SOCKET).absolute())
    return min(path, os.path.relpath(path), key=len)
