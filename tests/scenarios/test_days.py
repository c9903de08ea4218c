"""
Three days of mail over two nodes with one ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import utcDay
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger as SQLLedger
from moxtls.ledger.ledger import MemoryLedger
from moxtls.reporting.destinations import canonicalURI
from moxtls.reporting.types import ReportState
from tests.ledger.test_ledger import emptied, emptyFile
from tests.queue.killing import quickDirectory
from tests.scenarios.support import (
    Contents,
    Ledger,
    Node,
    Nodes,
    RecipientDomain,
    Sent,
    publishRecord,
)

if TYPE_CHECKING:
    _TestCase = SynchronousTestCase
else:
    _TestCase = object

FIRST = date(2026, 11, 24)
DAYS = tuple(FIRST + timedelta(days=number) for number in range(3))

#: Takes mail for most of them.
SHARED = Domain("mx.shared.example")
#: Asks for reports to the same address as the host does.
TENANT = Domain("tenant.shared.example")
ALPHA = Domain("alpha.example")
#: Wants them in two ways; its host in none.
POSTED = Domain("posted.example")
IDN = Domain.parse("bücher.example")
#: Changes where it wants them at noon of the second day.
MOVING = Domain("moving.example")
#: Its record can't be looked up when the first day is reported, until noon.
LATE = Domain("late.example")
#: Changes its policy at noon of the second day.
FICKLE = Domain("fickle.example")
#: Its own host, and that of another domain.
BOTH = Domain("both.example")
GUEST = Domain("guest.example")
#: Receives mail, but requests no reports.
SILENT = Domain("silent.example")
#: Gets reports of others by mail, and no other mail.
COLLECTOR = Domain("collector.example")

TESTING = ("version: STSv1", "mode: testing")
ENFORCE = ("version: STSv1", "mode: enforce")
RECIPIENTS = (
    RecipientDomain(TENANT, SHARED),
    RecipientDomain(ALPHA, SHARED),
    RecipientDomain(POSTED, Domain("mx.posted.example")),
    RecipientDomain(IDN, SHARED),
    RecipientDomain(MOVING, SHARED),
    RecipientDomain(LATE, Domain("mx.late.example")),
    RecipientDomain(FICKLE, SHARED, TESTING),
    RecipientDomain(BOTH, BOTH),
    RecipientDomain(GUEST, BOTH),
    RecipientDomain(SILENT, SHARED),
    RecipientDomain(COLLECTOR, SHARED),
)
MAILED = tuple(
    recipient.domain for recipient in RECIPIENTS if recipient.domain != COLLECTOR
)
#: Those that are told about themselves, every day.
OWNERS = tuple(domain for domain in MAILED if domain != SILENT)
#: Report destinations at the start.
DESTINATIONS = {
    TENANT: ("mailto:tls@collector.example",),
    ALPHA: ("mailto:tls@alpha.example",),
    POSTED: ("https://posted.example/tls", "mailto:tls@posted.example"),
    IDN: ("mailto:tls@bücher.example",),
    MOVING: ("mailto:old@moving.example",),
    LATE: ("mailto:tls@late.example",),
    FICKLE: ("mailto:tls@fickle.example",),
    BOTH: ("mailto:tls@both.example",),
    GUEST: ("mailto:tls@guest.example",),
    COLLECTOR: ("mailto:never@collector.example",),
    SHARED: ("mailto:tls@collector.example",),
    Domain("mx.late.example"): ("mailto:tls@late.example",),
}
#: The clients of the host that are in its report: not the one whose own goes
#: to the same address.
CLIENTS = (ALPHA, IDN, MOVING, FICKLE, SILENT, COLLECTOR)

#: Mail is sent so many times a day.
ROUNDS = 4
#: Day, what it is about, destination.
Name = tuple[date, str, str]


class DaysContract(_TestCase):
    """
    The scenarios, over any ledger.
    """

    def makeLedgers(self) -> Sequence[Ledger]:
        """
        A ledger for each of two nodes, with shared contents.
        """
        raise NotImplementedError

    def begin(self, apart: bool = False) -> None:
        """
        @param apart: As of L{Nodes}.
        """
        ledgers = self.makeLedgers()
        for ledger in ledgers:
            self.addCleanup(ledger.stop)
        self.world = Nodes(FIRST, RECIPIENTS, ledgers, apart)
        for domain, uris in DESTINATIONS.items():
            publishRecord(self.world.resolver, domain, *uris)
        self.first, self.second = self.world.nodes

    def exchangeMail(self, *nodes: Node) -> None:
        """
        Exchange six hours of mail.
        """
        self.world.advanceTime(3)
        for number, node in enumerate(nodes):
            for domain in MAILED:
                self.world.deliver(node, domain, 1 + number)
        self.world.advanceTime(3)

    def stopped(self, node: Node) -> None:
        self.successResultOf(node.service.stopService())

    def counts(self) -> list[int]:
        """
        The number of reports sent by each node.
        """
        return [len(list(node.sent())) for node in self.world.nodes]

    def named(self, sent: Sequence[Sent]) -> dict[Name, Contents]:
        """
        C{sent} by name; each name occurs once.
        """
        names = Counter((each.day, each.about, each.to) for each in sent)
        self.assertEqual([name for name, count in names.items() if count > 1], [])
        return {(each.day, each.about, each.to): each.contents for each in sent}

    # --- what has to come of it ----------------------------------------------------

    def own(self, day: date, domain: Domain, withHost: bool) -> Contents:
        """
        Expected contents of the report to C{domain} about itself and its host.
        """
        journal = self.world.journal
        found = {
            (str(what), lines, count)
            for (when, what, lines), count in journal.sessions.items()
            if (when, what) == (day, domain)
        }
        host = str(self.world.recipients[domain].host)
        if withHost:
            found.add((host, (), journal.total(day, domain)))
        return frozenset(found)

    def clients(self, day: date, *domains: Domain) -> Contents:
        """
        Expected contents of the report to the shared host.
        """
        total = self.world.journal.total
        return frozenset(
            (str(domain), (), total(day, domain))
            for domain in domains
            if total(day, domain)
        )

    def expected(self) -> dict[Name, Contents]:
        """
        All expected reports.
        """
        found: dict[Name, Contents] = {}
        for day in DAYS:
            for domain in OWNERS:
                withHost = (day, domain) != (DAYS[0], LATE)
                for to in self.wanted(day, domain):
                    found[day, str(domain), to] = self.own(day, domain, withHost)
            host = f"host {SHARED}"
            found[day, host, "tls@collector.example"] = self.clients(day, *CLIENTS)
            host = f"host {BOTH}"
            found[day, host, "tls@both.example"] = self.clients(day, GUEST)
        # It wasn't known yet that the domain's own report would go there too.
        host = "host mx.late.example"
        found[DAYS[0], host, "tls@late.example"] = self.clients(DAYS[0], LATE)
        return found

    def wanted(self, day: date, domain: Domain) -> tuple[str, ...]:
        """
        Destinations of C{domain} for the report about C{day}.
        """
        if domain == MOVING and day != DAYS[0]:
            return ("new@moving.example",)
        uris = (canonicalURI(each) for each in DESTINATIONS[domain])
        return tuple(each.removeprefix("mailto:") for each in uris)

    # --- the days --------------------------------------------------------------------

    def firstDay(self) -> None:
        for _ in range(ROUNDS):
            self.exchangeMail(self.first, self.second)
        self.world.resolver.fail(f"_smtp._tls.{LATE}", RRType.TXT)

    def secondDay(self) -> None:
        """
        TLSRPT records that are published or changed at noon.
        """
        self.exchangeMail(self.second)
        self.exchangeMail(self.second)
        for domain in (LATE, MOVING):
            publishRecord(self.world.resolver, domain, *DESTINATIONS[domain])
        publishRecord(self.world.resolver, MOVING, "mailto:new@moving.example")
        self.world.recipients[FICKLE] = RecipientDomain(FICKLE, SHARED, ENFORCE)
        self.exchangeMail(self.second)
        self.exchangeMail(self.second)

    def thirdDay(self) -> None:
        """
        Run until the reports about the last day are sent.
        """
        for _ in range(ROUNDS - 1):
            self.exchangeMail(self.second, self.first)
        self.world.advanceTime(6)

    def check(self) -> None:
        """
        Each report is in one queue, once and complete; unreported results are those
        of today and of report deliveries.
        """
        for node in self.world.nodes:
            self.stopped(node)
        for node in self.world.nodes:
            self.assertEqual(node.clock.getDelayedCalls(), [])
        found, expected = self.named(self.world.sent()), self.expected()
        self.assertEqual(set(found), set(expected))
        for name, contents in expected.items():
            self.assertEqual(found[name], contents, name)
        for node in self.world.nodes:
            results = self.successResultOf(node.ledger.outcomes.results())
            self.assertEqual({each.day for each in results}, {utcDay(self.now)})
            self.assertFalse(any(each.sendReport for each in results))
        reports = self.successResultOf(self.first.ledger.archive.reports())
        self.assertEqual(len(reports), len(expected))
        self.assertEqual({each.state for each in reports}, {ReportState.DELIVERED})

    @property
    def now(self) -> float:
        return self.world.clock.seconds()

    def test_threeDays(self) -> None:
        """
        Two nodes record results for the same reports and race to send them; one is
        stopped in the middle of a round, and restarted a day later under its name.
        Each report is sent once (RFC 8460 4.1), by one of them, with the sessions of
        both.
        """
        self.begin()
        self.firstDay()
        self.world.advanceTime(0.5)
        before = self.counts()
        self.stopped(self.first)
        self.secondDay()
        self.world.advanceTime(4)
        after = self.counts()
        self.assertEqual((before[1], after[0]), (0, before[0]))
        self.assertGreater(min(before[0], after[1]), 0)
        self.first.start()
        self.thirdDay()
        self.check()

    def test_standsStill(self) -> None:
        """
        A node is suspended in the middle of a round, and resumed a day and a half
        later. The other node sends its reports meanwhile, and nothing is sent twice.
        """
        self.begin(apart=True)
        self.firstDay()
        self.world.advanceTime(0.5)
        before = self.counts()
        self.world.suspend(self.first)
        self.secondDay()
        self.world.advanceTime(4)
        after = self.counts()
        self.assertEqual((before[1], after[0]), (0, before[0]))
        self.assertGreater(min(before[0], after[1]), 0)
        self.world.resume(self.first)
        self.thirdDay()
        self.check()


class MemoryDaysTests(DaysContract, SynchronousTestCase):
    """
    Two workers in one process.
    """

    def makeLedgers(self) -> Sequence[Ledger]:
        ledger = MemoryLedger()
        return ledger, ledger


class SQLiteDaysTests(DaysContract, SynchronousTestCase):
    """
    Two processes on one host.
    """

    def makeLedgers(self) -> Sequence[Ledger]:
        path = quickDirectory(self) / "ledger"
        path.write_bytes(emptyFile())
        return tuple(SQLLedger(None, f"sqlite:///{path}") for _ in range(2))


class PostgresDaysTests(DaysContract, SynchronousTestCase):
    """
    Two hosts.
    """

    def makeLedgers(self) -> Sequence[Ledger]:
        url = emptied()
        return tuple(SQLLedger(None, url) for _ in range(2))
