# -*- test-case-name: tests.lab.test_run -*-
"""
A lab with a moxtls in it, for as many days as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from moxtls.interfaces import IQueue
from moxtls.lab.aggregates import (
    ArrivedAggregate,
    aggregateDifferences,
    arrivedAggregate,
    isAggregate,
)
from moxtls.lab.arrivals import Arrival
from moxtls.lab.clock import LabClock
from moxtls.lab.day import DMARC_ROUND_OVER, ROUND_OVER, endDay, untilRoom
from moxtls.lab.expected import expectedReports
from moxtls.lab.letters import LabMessage
from moxtls.lab.mailing import MailOutcome, becameOf, sendToAll
from moxtls.lab.owed import owedReports
from moxtls.lab.receiving import LetterOutcome, Route, receiveAll
from moxtls.lab.reports import ArrivedReport, arrivedReport, differences, isReport
from moxtls.lab.world import Lab


class Running(Protocol):
    """
    A moxtls.
    """

    @property
    def queue(self) -> IQueue:
        """
        Its mail.
        """

    def startService(self) -> None:
        """
        Let it run.
        """

    def recorded(self) -> Deferred[None]:
        """
        Fires once all verdicts given until now are in the ledger.
        """

    def stopService(self) -> Deferred[None]:
        """
        Fires once it doesn't run any more.
        """


#: Makes a moxtls of a configuration file, with a clock for what is dated.
MakeServer = Callable[[Path, IReactorTime], Running]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DayReports:
    """
    The reports on a day.

    @ivar tls: In the order in which they were expected, as C{dmarc}.
    @ivar differences: What about them isn't what it should be if there was
        one mail of each kind.
    """

    tls: tuple[ArrivedReport, ...]
    dmarc: tuple[ArrivedAggregate, ...]
    differences: tuple[str, ...]


class LabSession:
    """
    What can be done in a lab.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        lab: Lab,
        makeServer: MakeServer,
        letters: tuple[LabMessage, ...] = (),
    ) -> None:
        """
        @param letters: The mail that comes in.
        """
        self._reactor = reactor
        self._lab = lab
        self._makeServer = makeServer
        self._letters = letters
        self._server: Running | None = None
        self._told = 0
        self._received = 0.0
        numbers = count(1)
        self._route = Route(
            lab.network, lab.senderKeys, lab.accounts, lambda: str(next(numbers))
        )
        self.clock = LabClock(reactor)
        self.expected = expectedReports(lab.facts)
        self.owed = owedReports(lab.network, letters)

    @property
    def reports(self) -> int:
        """
        How many have to arrive when the day ends.
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
        Send one mail to each destination, and see what becomes of it.
        """
        assert self._server is not None
        lab = self._lab
        await sendToAll(self._reactor, lab.network, lab.destinations)
        return await becameOf(
            self._reactor, self._server.queue, lab.arrivals, lab.destinations
        )

    async def receive(self) -> tuple[LetterOutcome, ...]:
        """
        Have one mail come in of each kind, and see what becomes of it.
        """
        assert self._server is not None
        self._received = self.clock.seconds()
        outcomes = await receiveAll(self._reactor, self._route, self._letters)
        # Time is going to be put forward, and what is recorded only afterwards
        # would be of an hour that is over.
        await self._server.recorded()
        return outcomes

    async def endDay(self, passed: Callable[[float, int], None]) -> DayReports:
        """
        End the report day.

        @param passed: Told now and then what time it is, and how many reports
            have arrived.
        """
        day = await endDay(
            self.clock,
            lambda: self.reports - self._count(),
            lambda now: passed(now, self._count()),
            DMARC_ROUND_OVER if self._letters else ROUND_OVER,
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
    Reports of one kind, and what there is to say of those that can't be read.
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
    As expected; first what isn't.
    """
    return tuple(
        sorted(
            reports,
            key=lambda each: order.index(key(each)) if key(each) in order else -1,
        )
    )
