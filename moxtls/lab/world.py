# -*- test-case-name: tests.lab.test_runner -*-
"""
The whole lab: all its servers, and the sessions in which a moxtls sends and receives
mail there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from moxtls.domain import Domain
from moxtls.interfaces import IQueue
from moxtls.lab.arrivals import (
    Arrival,
    Arrivals,
    ArrivedAggregate,
    ArrivedReport,
    aggregateDifferences,
    arrivedAggregate,
    arrivedReport,
    differences,
    isAggregate,
    isReport,
)
from moxtls.lab.clock import (
    DMARC_ROUND_OVER,
    REPORT_WINDOW,
    ROUND_OVER,
    LabClock,
    endDay,
    untilRoom,
)
from moxtls.lab.expectations import Facts, expectedAggregates, expectedReports
from moxtls.lab.hosts import DNSServer, MailDestination, WebHost
from moxtls.lab.keys import makeKeys, makeSenderKeys, publishedKeys
from moxtls.lab.mail import (
    MailOutcome,
    ReceptionOutcome,
    Route,
    awaitOutcomes,
    receiveAll,
    sendToAll,
)
from moxtls.lab.messages import ANNA, OTTO, REJECTS, LabMessage
from moxtls.lab.plan import Network, mailHosts, zonePlans
from moxtls.lab.received import ReportReception, receiveReports
from moxtls.lab.scenario import DESTINATIONS, SENDER, SENDING_HOST, LabDestination
from moxtls.lab.senders import KNOWN_LIST, senderPlans
from moxtls.lab.validator import Validator
from moxtls.lab.zones import Authority, makeTree
from moxtls.ledger.ledger import Ledger
from moxtls.received.analysis.answers import DMARCAnswer, TLSAnswer
from moxtls.received.analysis.questions import OwnHost, ReportQuestions
from moxtls.received.analysis.sources import OwnSenders
from moxtls.received.types import dayOf

CA_FILE = "ca.pem"
ANCHOR_FILE = "root.ds"
CONFIG_FILE = "moxtls.toml"
#: Takes commands while the lab runs.
SOCKET = "control"
#: Days before today that are asked about.
ANSWERED_DAYS = 30
ARRIVED, DATA, ZONES = "arrived", "data", "zones"


class Lab(MultiService):
    """
    A simulated internet.

    @ivar arrivals: The mail and the reports that arrived.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        directory: Path,
        network: Network,
        destinations: tuple[LabDestination, ...] = DESTINATIONS,
    ) -> None:
        """
        @param reactor: Also provides C{IReactorTCP} and C{IReactorUDP}.
        @param directory: Files are written there, replacing those of an earlier lab.
        """
        super().__init__()
        self.directory = directory
        self.network = network
        self.destinations = destinations
        now = reactor.seconds()
        self.hosts = mailHosts(network, destinations)
        self.keys = makeKeys(self.hosts, now)
        self.senderKeys = makeSenderKeys()
        self.tree = makeTree(
            (
                *zonePlans(network, destinations, self.keys.publication),
                *senderPlans(network, publishedKeys(self.senderKeys)),
            ),
            network.authority,
            now,
        )
        self.arrivals = Arrivals(directory / ARRIVED)
        self.authority = Authority(self.tree.zones)
        self.validator = Validator(
            self.authority.respond, self.tree.anchor, reactor.seconds
        )
        self._populate(reactor)

    @property
    def facts(self) -> Facts:
        """
        Values of this lab that occur in reports.
        """
        return Facts(self.network, self.destinations, self.keys.publication.tlsa)

    @property
    def configFile(self) -> Path:
        """
        The configuration of the moxtls in this lab.
        """
        return self.directory / CONFIG_FILE

    @property
    def accounts(self) -> Path:
        """
        The folder of its mailboxes.
        """
        return self.directory / DATA / "accounts"

    def startService(self) -> None:
        """
        Listen on all addresses, and write the files.

        @raise CannotListenError: An address is in use.
        """
        # In this order: what is there may belong to a lab that still runs.
        super().startService()
        self._clear()
        self._write()

    def _populate(self, reactor: IReactorTime) -> None:
        network = self.network
        for address, responder in (
            (network.authority, self.authority),
            (network.resolver, self.validator),
        ):
            self.addService(DNSServer(reactor, address, network.dnsPort, responder))
        self.addService(
            WebHost(
                reactor,
                (network.webHost, network.httpsPort),
                self.destinations,
                self.keys.ca,
                self.arrivals,
            )
        )
        for host in self.hosts:
            identity = self.keys.identities[host.name]
            self.addService(
                MailDestination(
                    reactor, host, network.smtpPort, identity, self.arrivals
                )
            )

    def _clear(self) -> None:
        for name in (ARRIVED, DATA, ZONES):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        (self.directory / SOCKET).unlink(missing_ok=True)

    def _write(self) -> None:
        zones = self.directory / ZONES
        zones.mkdir(parents=True, exist_ok=True)
        for zone in self.tree.zones:
            name = str(zone.origin).rstrip(".") or "root"
            zone.to_file(str(zones / f"{name}.zone"), sorted=True, relativize=False)
        ca = self.keys.ca.identity.certificatePEM()
        (self.directory / CA_FILE).write_bytes(ca)
        (self.directory / ANCHOR_FILE).write_text(self.tree.anchorText)
        for key in self.keys.dkim:
            path = self.directory / f"{key.selector}.pem"
            path.touch(mode=0o600)
            path.write_bytes(key.pem)
        self.configFile.write_text(configText(self))


def configText(lab: Lab) -> str:
    """
    The configuration of the moxtls in C{lab}.
    """
    network = lab.network
    lines = [
        f'Hostname = "{SENDING_HOST}"',
        f'DataDirectory = "{DATA}"',
        f'CAFile = "{CA_FILE}"',
        "OutgoingTLSReportsForAllSuccess = true",
        "",
        "[Resolver]",
        f"Servers = {json.dumps([f'{network.resolver}:{network.dnsPort}'])}",
        "",
        "[Listeners.submission]",
        f'Address = "{network.submission}"',
        f"Port = {network.submissionPort}",
        "",
        "[Listeners.reception]",
        f'Address = "{network.submission}"',
        f"Port = {network.smtpPort}",
        'Service = "reception"',
        "",
        "[Delivery]",
        f"Port = {network.smtpPort}",
        f"HTTPSPort = {network.httpsPort}",
        "AllowOwnHosts = true",
        "",
        "[Reporting]",
        f"Window = {REPORT_WINDOW}",
        "",
        f'[Accounts.{ANNA}.Destinations."{ANNA}@{SENDER}"]',
        "",
        f"[Accounts.{OTTO}]",
        f'RejectsMailbox = "{REJECTS}"',
        "",
        f'[Accounts.{OTTO}.Destinations."{OTTO}@{SENDER}"]',
        "",
        f'[Domains."{SENDER}".TLSRPT]',
        "",
        f'[Domains."{SENDER}".DMARC]',
        "",
        "[DMARC]",
        f'MailingLists = ["{KNOWN_LIST}"]',
    ]
    for key in lab.keys.dkim:
        lines += [
            "",
            f'[Domains."{SENDER}".DKIM.Selectors.{key.selector}]',
            f'KeyFile = "{key.selector}.pem"',
            f'Algorithm = "{key.algorithm}"',
        ]
    return "\n".join([*lines, ""])


# --- sessions ---


class Running(Protocol):
    """
    A running moxtls.
    """

    @property
    def queue(self) -> IQueue:
        """
        Its queue.
        """

    @property
    def ledger(self) -> Ledger:
        """
        Its ledger.
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

    async def receiveReports(self) -> tuple[ReportReception, ...]:
        """
        Send the reports about the lab's own domain, and look at them in the ledger.
        """
        assert self._server is not None
        return await receiveReports(
            self._reactor,
            self._route,
            self._server.ledger.received,
            self.clock.seconds(),
        )

    async def answers(self) -> tuple[TLSAnswer, DMARCAnswer]:
        """
        Answers from the received reports about the lab's domain.
        """
        assert self._server is not None
        ledger, domain = self._server.ledger, Domain(SENDER)
        host = OwnHost(OwnSenders(SENDER, frozenset({SENDING_HOST})))
        questions = ReportQuestions(
            self._reactor, ledger.received, ledger.listenerHistory, host, None
        )
        today = dayOf(self.clock.seconds())
        span = today - ANSWERED_DAYS, today
        return await questions.tls(domain, *span), await questions.dmarc(domain, *span)

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
