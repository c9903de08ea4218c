"""
Tests for L{moxtls.received.intake.expiry}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.config import ReceivedReports
from moxtls.dates import DAY, HOUR
from moxtls.interfaces import StoreUnavailable
from moxtls.ledger.ledger import MemoryLedger
from moxtls.received.intake import expiry
from moxtls.received.intake.expiry import NAME, PAUSE, ExpiryService, retention
from moxtls.received.types import (
    AcceptedReport,
    HandshakeFailures,
    ParsedReport,
    ReceivedKind,
    RefusedReport,
    ReportFilter,
)
from moxtls.reporting.service import Lease
from tests.received.intake.test_authenticity import MAIL, dmarcReport, tlsReport

NOW = 1_800_000_000
CONFIG = ReceivedReports(
    keepTLSDays=10, keepDMARCDays=20, keepFailureDays=30, keepRefusedDays=40
)
#: For each kind, and for refused ones.
KINDS = (*ReceivedKind, None)


class ExpiryTests(SynchronousTestCase):
    """
    Tests for L{ExpiryService}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.ledger = MemoryLedger()
        self.addCleanup(self.ledger.stop)

    def started(self, config: ReceivedReports = CONFIG, node: str = "a") -> None:
        """
        Start a service, which is stopped when the test ends.
        """
        service = ExpiryService(
            self.clock,
            self.ledger.received,
            self.ledger.listenerHistory,
            Lease(self.clock, self.ledger.leases, NAME, node),
            retention(config),
        )
        service.startService()
        self.addCleanup(lambda: self.successResultOf(service.stopService()))

    def add(self, age: int, count: int = 1) -> None:
        """
        Add reports of each kind that are C{age} days old, and refused ones.
        """
        end = NOW - age * DAY
        origin = replace(MAIL, received=end)
        for number in range(count):
            for each in (
                tlsReport("our.example", end=end),
                dmarcReport(end=end),
                dmarcReport(end=end, kind=ReceivedKind.FAILURE),
            ):
                report: ParsedReport = replace(each, reportID=f"{age}.{number}")
                adding = self.ledger.received.add(AcceptedReport(report, origin))
                self.successResultOf(adding)
            refusing = self.ledger.received.refuse(RefusedReport(origin, f"{number}"))
            self.successResultOf(refusing)

    def counts(self) -> list[int]:
        """
        The number of reports of each of L{KINDS}.
        """
        found = []
        for kind in KINDS:
            isRefused = kind is None
            filter = ReportFilter(kind, refused=isRefused)
            reports = self.successResultOf(self.ledger.received.reports(filter, 1000))
            found.append(len(reports))
        return found

    def pump(self, seconds: float = 60 * PAUSE) -> None:
        """
        Let C{seconds} pass.
        """
        self.clock.pump([PAUSE] * int(seconds / PAUSE))

    def test_kinds(self) -> None:
        """
        Each kind is kept for its days, and what isn't older stays.
        """
        for age in (5, 15, 25, 35, 45):
            self.add(age)
        self.started()
        self.pump()
        self.assertEqual(self.counts(), [1, 2, 3, 4])

    def test_hourly(self) -> None:
        """
        Reports that expire later are removed within an hour.
        """
        self.add(9)
        self.started()
        self.assertEqual(self.counts(), [1, 1, 1, 1])
        self.clock.advance(2 * DAY)
        self.clock.advance(HOUR)
        self.pump()
        self.assertEqual(self.counts(), [0, 1, 1, 1])

    def test_forever(self) -> None:
        """
        Zero days are for ever.
        """
        self.add(10_000)
        self.started(ReceivedReports(0, 0, 0, 0))
        self.pump()
        self.assertEqual(self.counts(), [1, 1, 1, 1])

    def test_steps(self) -> None:
        """
        Many reports are removed in steps, between which there is time for others.
        """
        self.patch(expiry, "STEP", 2)
        self.add(100, 5)
        self.started()
        self.assertGreaterEqual(self.counts()[0], 3)
        self.pump()
        self.assertEqual(self.counts(), [0, 0, 0, 0])

    def test_lease(self) -> None:
        """
        While another node has the lease, nothing is removed here.
        """
        taken = self.ledger.leases.acquire(NAME, "b", NOW + DAY, NOW)
        self.assertTrue(self.successResultOf(taken))
        self.add(100)
        self.started()
        self.pump()
        self.assertEqual(self.counts(), [1, 1, 1, 1])
        self.successResultOf(self.ledger.leases.release(NAME, "b"))
        self.clock.advance(HOUR)
        self.pump()
        self.assertEqual(self.counts(), [0, 0, 0, 0])
        # It has been released.
        taken = self.ledger.leases.acquire(NAME, "b", NOW + DAY, self.clock.seconds())
        self.assertTrue(self.successResultOf(taken))

    def test_outage(self) -> None:
        """
        After an outage of the ledger it goes on.
        """
        self.add(100)
        away = fail(StoreUnavailable("away"))
        patching = self.patch(self.ledger.received, "expire", lambda *_: away)
        self.started()
        patching.restore()
        self.clock.advance(HOUR)
        self.pump()
        self.assertEqual(self.counts(), [0, 0, 0, 0])

    def test_history(self) -> None:
        """
        Events of listeners are kept as long as TLS reports.
        """
        for age in (9, 11):
            hour = (NOW - age * DAY) // HOUR * HOUR
            failures = HandshakeFailures("smtp", hour, "timeout", 1)
            self.successResultOf(self.ledger.listenerHistory.addFailures([failures]))
        self.started()
        self.pump()
        found = self.successResultOf(self.ledger.listenerHistory.failures(0, NOW))
        self.assertEqual(len(found), 1)
