# -*- test-case-name: tests.lab.test_runner -*-
"""
Runs a lab with a moxtls in it, for any number of days, and shows the results.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime, IReactorUNIX
from twisted.internet.stdio import StandardIO

from moxtls.cli.output import Output
from moxtls.interfaces import IQueue
from moxtls.lab.clock import DMARC_ROUND_OVER, ROUND_OVER, LabClock, endDay, untilRoom
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
from moxtls.lab.expectations import (
    ArrivedAggregate,
    ArrivedReport,
    aggregateDifferences,
    arrivedAggregate,
    arrivedReport,
    differences,
    expectedAggregates,
    expectedReports,
    isAggregate,
    isReport,
)
from moxtls.lab.mail import (
    MailOutcome,
    ReceptionOutcome,
    Route,
    awaitOutcomes,
    receiveAll,
    sendToAll,
)
from moxtls.lab.messages import MESSAGES, LabMessage
from moxtls.lab.network import Arrival, Network
from moxtls.lab.scenario import DESTINATIONS, LabDestination
from moxtls.lab.show import (
    HELP,
    describeReports,
    showAggregates,
    showDifferences,
    showMail,
    showProgress,
    showReceived,
    showReports,
    showWorld,
)
from moxtls.lab.world import ANCHOR_FILE, Lab


class Running(Protocol):
    """
    A running moxtls.
    """

    @property
    def queue(self) -> IQueue:
        """
        Its queue.
        """

    def startService(self) -> None:
        """
        Start it.
        """

    def recorded(self) -> Deferred[None]:
        """
        Fires when all verdicts given so far are in the ledger.
        """

    def stopService(self) -> Deferred[None]:
        """
        Stop it; fires when it has ended.
        """


#: Makes a moxtls of a configuration file, with a clock for what is dated.
MakeServer = Callable[[Path, IReactorTime], Running]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DayReports:
    """
    The reports on a day.

    @ivar tls: In the expected order, as C{dmarc}.
    @ivar differences: Differences from the expected reports, if there was one message
        of each kind.
    """

    tls: tuple[ArrivedReport, ...]
    dmarc: tuple[ArrivedAggregate, ...]
    differences: tuple[str, ...]


class LabSession:
    """
    The operations of a lab.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        lab: Lab,
        makeServer: MakeServer,
        labMessages: tuple[LabMessage, ...] = (),
    ) -> None:
        """
        @param labMessages: The messages from senders.
        """
        self._reactor = reactor
        self._lab = lab
        self._makeServer = makeServer
        self._labMessages = labMessages
        self._server: Running | None = None
        self._told = 0
        self._received = 0.0
        numbers = count(1)
        self._route = Route(
            lab.network, lab.senderKeys, lab.accounts, lambda: str(next(numbers))
        )
        self.clock = LabClock(reactor)
        self.expected = expectedReports(lab.facts)
        self.owed = expectedAggregates(lab.network, labMessages)

    @property
    def reports(self) -> int:
        """
        The number of reports that have to arrive when the day ends.
        """
        return len(self.expected) + len(self.owed)

    def open(self) -> None:
        """
        Start the lab, and moxtls in it.
        """
        self._lab.startService()
        self.clock.putForward(untilRoom(self.clock.seconds()))
        self._server = self._makeServer(self._lab.configFile, self.clock)
        self._server.startService()

    async def close(self) -> None:
        """
        Stop what was started.
        """
        server, self._server = self._server, None
        if server is not None:
            await server.stopService()
        if self._lab.running:
            await maybeDeferred(self._lab.stopService)

    async def mail(self) -> tuple[MailOutcome, ...]:
        """
        Send one message to each destination, and observe the results.
        """
        assert self._server is not None
        lab = self._lab
        await sendToAll(self._reactor, lab.network, lab.destinations)
        return await awaitOutcomes(
            self._reactor, self._server.queue, lab.arrivals, lab.destinations
        )

    async def receive(self) -> tuple[ReceptionOutcome, ...]:
        """
        Send one message from each sender, and observe the results.
        """
        assert self._server is not None
        self._received = self.clock.seconds()
        outcomes = await receiveAll(self._reactor, self._route, self._labMessages)
        # Time is going to be put forward, and what is recorded only afterwards
        # would be of an hour that is over.
        await self._server.recorded()
        return outcomes

    async def endDay(self, passed: Callable[[float, int], None]) -> DayReports:
        """
        End the report day.

        @param passed: Called with the time and the number of reports that have
            arrived.
        """
        day = await endDay(
            self.clock,
            lambda: self.reports - self._count(),
            lambda now: passed(now, self._count()),
            DMARC_ROUND_OVER if self._labMessages else ROUND_OVER,
        )
        arrivals = self._lab.arrivals.all[self._told :]
        self._told += len(arrivals)
        records = self._lab.keys.publication.dkim
        tls, unread = _read(arrivals, isReport, lambda a: arrivedReport(a, records))
        dmarc, alsoUnread = _read(
            arrivals, isAggregate, lambda a: arrivedAggregate(a, records)
        )
        selectors = [each.selector for each in self._lab.keys.dkim]
        return DayReports(
            _inOrder(tls, list(self.expected), lambda each: each.domain),
            _inOrder(dmarc, list(self.owed), lambda each: each.key),
            (
                *unread,
                *alsoUnread,
                *differences(tls, self.expected, day, selectors),
                *aggregateDifferences(dmarc, self.owed, self._received, selectors),
            ),
        )

    def _count(self) -> int:
        arrived = self._lab.arrivals.all[self._told :]
        return sum(isReport(each) or isAggregate(each) for each in arrived)


def _read(
    arrivals: Sequence[Arrival],
    isOne: Callable[[Arrival], bool],
    read: Callable[[Arrival], _T | None],
) -> tuple[list[_T], list[str]]:
    """
    The reports of one kind, and errors of those that can't be read.
    """
    reports, unreadable = [], []
    for each in filter(isOne, arrivals):
        report = read(each)
        if report is None:
            unreadable.append(f"{each.recipient}: a report that can't be read")
        else:
            reports.append(report)
    return reports, unreadable


def _inOrder(
    reports: Sequence[_T], order: Sequence[object], key: Callable[[_T], object]
) -> tuple[_T, ...]:
    """
    In the expected order; unexpected ones first.
    """
    return tuple(
        sorted(
            reports,
            key=lambda each: order.index(key(each)) if key(each) in order else -1,
        )
    )


DIRECTORY = "moxtls-lab"


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
    @raise LabUnusable: The folder contains something else.
    """
    isOurs = (directory / ANCHOR_FILE).exists()
    if directory.exists() and any(directory.iterdir()) and not isOurs:
        raise LabUnusable(f"{directory} isn't empty, and no lab")


class _Visit:
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
        self._output.progressEnded()
        self._mails += 1
        wrong = [line for each in labMessages for line in each.differences]
        self.isUnexpected |= not all(each.asExpected for each in outcomes)
        self.isUnexpected |= bool(wrong)
        showMail(self._output, outcomes)
        showReceived(self._output, labMessages, wrong)

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


async def _commands(reactor: IReactorTime, options: RunOptions, visit: _Visit) -> None:
    """
    Execute commands until one ends the run.
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
