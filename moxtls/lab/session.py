# -*- test-case-name: tests.lab.test_run -*-
"""
A lab with a moxtls in it, for as many days as one likes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from moxtls.interfaces import IQueue
from moxtls.lab.clock import LabClock
from moxtls.lab.day import endDay
from moxtls.lab.expected import expectedReports
from moxtls.lab.mailing import MailOutcome, becameOf, sendToAll
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

    def stopService(self) -> Deferred[None]:
        """
        Fires once it doesn't run any more.
        """


#: Makes a moxtls of a configuration file, with a clock for what is dated.
MakeServer = Callable[[Path, IReactorTime], Running]


class LabSession:
    """
    What can be done in a lab.
    """

    def __init__(self, reactor: IReactorTime, lab: Lab, makeServer: MakeServer) -> None:
        self._reactor = reactor
        self._lab = lab
        self._makeServer = makeServer
        self._server: Running | None = None
        self._told = 0
        self.clock = LabClock(reactor)
        self.expected = expectedReports(lab.facts)

    def open(self) -> None:
        """
        Start the lab, and moxtls in it.
        """
        self._lab.startService()
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

    async def endDay(
        self, passed: Callable[[float, int], None]
    ) -> tuple[tuple[ArrivedReport, ...], list[str]]:
        """
        End the report day.

        @param passed: Told now and then what time it is, and how many reports
            have arrived.

        @return: The reports, and what about them isn't what it should be if
            one mail was sent to each destination.
        """
        day = await endDay(
            self.clock,
            lambda: self._count() >= len(self.expected),
            lambda now: passed(now, self._count()),
        )
        reports, unreadable = self._newReports()
        selectors = [each.selector for each in self._lab.keys.dkim]
        found = differences(reports, self.expected, day, selectors)
        return reports, [*unreadable, *found]

    def _count(self) -> int:
        return sum(map(isReport, self._lab.arrivals.all[self._told :]))

    def _newReports(self) -> tuple[tuple[ArrivedReport, ...], list[str]]:
        records = self._lab.keys.publication.dkim
        arrivals = [each for each in self._lab.arrivals.all[self._told :]]
        self._told += len(arrivals)
        reports, unreadable = [], []
        for each in filter(isReport, arrivals):
            report = arrivedReport(each, records)
            if report is None:
                unreadable.append(f"{each.recipient}: a report that can't be read")
            else:
                reports.append(report)
        order = list(self.expected)
        reports.sort(
            key=lambda each: order.index(each.domain) if each.domain in order else -1
        )
        return tuple(reports), unreadable
