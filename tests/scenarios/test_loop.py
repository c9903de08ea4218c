"""
Hosts that report to each other, for weeks.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR, utcDay
from moxtls.domain import Domain
from moxtls.reporting.types import ReportState, Suppression
from tests.queue.killing import quickDirectory
from tests.scenarios.support_hosts import Internet, MailHost

FIRST = date(2026, 11, 24)
A = Domain("a.example")
B = Domain("b.example")


class LoopCase(SynchronousTestCase):
    """
    Two hosts.
    """

    def setUp(self) -> None:
        self.internet = Internet(FIRST)
        self.a, self.b = (
            MailHost(self.internet, domain, ip, quickDirectory(self))
            for domain, ip in ((A, "198.51.100.1"), (B, "198.51.100.2"))
        )
        self.addCleanup(self.stop)
        # From here every report is about one of these days.
        self.internet.advanceTime(6 * HOUR)

    def stop(self) -> None:
        for host in (self.a, self.b):
            for each in host.stop():
                self.internet.network.flush()
                self.successResultOf(each)

    def day(self, *senders: MailHost) -> None:
        """
        Send mail from C{senders} to the other host, and advance a day.
        """
        for sender in senders:
            sender.send(B if sender is self.a else A)
        self.internet.advanceTime(DAY)


class LoopTests(LoopCase):
    """
    Mail causes reports, and reports cause none.
    """

    def perDay(self, host: MailHost) -> Counter[date]:
        """
        The number of reports to C{host} about each day.
        """
        return Counter(utcDay(each.start) for each in host.received)

    def test_mutual(self) -> None:
        """
        Each host gets a report about each day with mail, and none about a day on
        which only reports were delivered.
        """
        for _ in range(3):
            self.day(self.a, self.b)
        for _ in range(4):
            self.day()
        days = [FIRST + timedelta(days=number) for number in range(3)]
        for host in (self.a, self.b):
            self.assertEqual(self.perDay(host), Counter(days))
            self.assertEqual(
                {each.state for each in host.sent()}, {ReportState.DELIVERED}
            )
            left = self.successResultOf(host.ledger.outcomes.results())
            self.assertEqual(left, ())

    def test_counted(self) -> None:
        """
        Deliveries of reports are not counted in reports on other mail (RFC 8460 3).
        """
        for _ in range(3):
            self.day(self.a, self.b)
        for host in (self.a, self.b):
            totals = [report.policies[0].succeeded for report in host.received]
            self.assertEqual(totals, [1, 1, 1])

    def test_oneWay(self) -> None:
        """
        A host that sends no mail sends no reports.
        """
        for _ in range(2):
            self.day(self.a)
        self.assertEqual(len(self.b.received), 2)
        self.assertEqual(self.b.sent(), [])


class SuppressionTests(LoopCase):
    """
    Suppression of an address for reports that fails.
    """

    def states(self, days: int) -> str:
        """
        The states of the reports of C{a} after C{days} days, each by its first
        letter.
        """
        for _ in range(days):
            self.day(self.a)
        return "".join(str(each.state)[0] for each in self.a.sent())

    def entries(self) -> tuple[Suppression, ...]:
        return self.successResultOf(self.a.ledger.suppressions.entries())

    def test_refused(self) -> None:
        """
        An address refused with 550 is suppressed for two days, then four, and so on;
        after each suppression it is tried again.
        """
        self.b.refuses = True
        self.assertEqual(self.states(17), "fsfsssfsssssssfss")
        self.assertEqual(self.b.received, [])
        # Nobody is bothered with it.
        folder = self.a.mailbox.messages
        self.assertEqual(list(folder), [("Postmaster", "tlsrpt")])
        self.assertTrue(all(each.seen for each in folder["Postmaster", "tlsrpt"]))

    def test_bounced(self) -> None:
        """
        A DSN about an accepted report suppresses the address too; it arrives at the
        report's envelope sender and makes no loop either.
        """
        self.b.bounces = True
        self.assertEqual(self.states(17), "fsfsssfsssssssfss")
        folder = self.a.mailbox.messages
        self.assertEqual(list(folder), [("Postmaster", "tlsrpt")])
        self.assertEqual(len(folder["Postmaster", "tlsrpt"]), 4)

    def test_reset(self) -> None:
        """
        After a period of successful reports, a failure counts as the first.
        """
        self.b.refuses = True
        self.assertEqual(self.states(4), "fsfs")
        self.b.refuses = False
        self.assertEqual(self.states(14)[4:], "ssdddddddddddd")
        self.assertEqual(self.entries(), ())
        self.b.refuses = True
        self.assertEqual(self.states(5)[18:], "fsfss")
        self.assertEqual([each.failures for each in self.entries()], [2])

    def test_bothBroken(self) -> None:
        """
        Two hosts that bounce each other's reports don't loop: a DSN causes no report.
        """
        self.a.bounces = self.b.bounces = True
        self.day(self.a, self.b)
        for _ in range(6):
            self.day()
        for host in (self.a, self.b):
            states = [each.state for each in host.sent()]
            self.assertEqual(states, [ReportState.FAILED])
