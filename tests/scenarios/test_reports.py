"""
TLS reports over several days, from the recorded outcome to the queue.
"""

from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY as ONE_DAY
from moxtls.dates import MINUTE, midnight, utcDay
from moxtls.domain import Domain
from moxtls.message.mime import leafParts
from moxtls.queue.types import DeliveryStatus, Result
from moxtls.reporting.handover import ReportDeliveryTracker
from moxtls.reporting.types import ReportState
from moxtls.tlsrpt.parse import ReceivedTLSReport
from moxtls.tlsrpt.recorder import OutcomeRecorder
from tests.reporting.support import DAY, ED25519, A, World, outcome, signatures
from tests.reports import readTLSReport

B = Domain("b.example")
HOST = Domain("mx.host.example")


class ReportDaysTests(SynchronousTestCase):
    """
    Reports over several days.
    """

    def setUp(self) -> None:
        self.world = World()
        self.recorder = OutcomeRecorder(self.world.clock, self.world.ledger.outcomes)
        self.services = [self.world.service(f"node{number}") for number in range(2)]
        for service in self.services:
            service.startService()
            self.addCleanup(service.stopService)

    def deliver(self, recipient: Domain) -> None:
        told = self.recorder.sessionEnded(outcome(recipient, str(HOST)))
        self.successResultOf(told)

    def restOfDay(self) -> None:
        """
        Advance until the reports about today are sent.
        """
        clock = self.world.clock
        wait = (-clock.seconds()) % ONE_DAY + 50 * MINUTE
        clock.pump([MINUTE] * round(wait / MINUTE))

    def reports(self) -> dict[tuple[str, int], ReceivedTLSReport]:
        """
        Reports by recipient and first second.
        """
        return {
            (each.envelope.recipients[0], report.start): report
            for each in self.successResultOf(self.world.queue.messages())
            for report in [readTLSReport(self.world.queue.bodies[each.messageID])]
        }

    def test_threeDays(self) -> None:
        """
        Two nodes, two recipient domains and their common host, three days: there is
        one report about each day, with all of its sessions.
        """
        for domain in (A, B, HOST):
            self.world.publishRecord(domain)
        for sessions in (1, 2, 3):
            for _ in range(sessions):
                self.deliver(A)
                self.world.clock.advance(MINUTE)
                self.deliver(B)
            self.restOfDay()
        found = self.reports()
        self.assertEqual(len(self.world.queue.bodies), len(found))
        days = [DAY + timedelta(days=each) for each in (1, 2, 3)]
        expected = {
            (f"tls@{domain}", midnight(day)) for domain in (A, B, HOST) for day in days
        }
        self.assertEqual(set(found), expected)
        self.assertEqual(len({each.reportID for each in found.values()}), len(found))
        for (_, start), report in found.items():
            number = days.index(utcDay(start)) + 1
            for policy in report.policies:
                self.assertEqual(policy.succeeded, number)
        self.assertEqual(self.world.results(), ())

    def test_signed(self) -> None:
        """
        Queued reports verify, and match their header.
        """
        self.world.publishRecord(A)
        self.deliver(A)
        self.restOfDay()
        (body,) = self.world.queue.bodies.values()
        self.assertEqual(signatures(body, ED25519), [True])
        header = message_from_bytes(body)
        self.assertEqual(header["TLS-Report-Domain"], "a.example")
        types = [part.type for part in leafParts(body)]
        self.assertEqual(types, ["text/plain", "application/tlsrpt+gzip"])

    def test_sameDestination(self) -> None:
        """
        A domain and its host that name the same address get one report, not two.
        """
        self.world.publishRecord(A, "mailto:tls@host.example")
        self.world.publishRecord(HOST, "mailto:tls@HOST.example")
        self.deliver(A)
        self.restOfDay()
        self.assertEqual(self.world.queued(), ["tls@host.example"])

    def test_refused(self) -> None:
        """
        A destination that refuses a report is suppressed for two days, and then gets
        reports again.
        """
        self.world.publishRecord(A)
        ledger = self.world.ledger
        deliveryTracker = ReportDeliveryTracker(
            self.world.clock, ledger.archive, ledger.suppressions
        )
        for number in range(4):
            self.deliver(A)
            self.restOfDay()
            if number == 0:
                (envelope,) = self.world.queue.envelopes
                result = Result(
                    "id", "tls@a.example", DeliveryStatus.PERMANENT, "5.1.1"
                )
                self.successResultOf(deliveryTracker.reportEnded(envelope, result))
        reports = self.successResultOf(ledger.archive.reports(domain=A))
        states = [report.state for report in reversed(reports)]
        self.assertEqual(
            states,
            [
                ReportState.FAILED,
                ReportState.SUPPRESSED,
                ReportState.SUPPRESSED,
                ReportState.QUEUED,
            ],
        )

    def test_ownDeliveries(self) -> None:
        """
        Deliveries of reports cause no reports, day after day.
        """
        self.world.publishRecord(A)
        self.deliver(A)
        self.restOfDay()
        for _ in range(3):
            self.assertEqual(len(self.world.queue.bodies), 1)
            delivery = outcome(A, str(HOST))
            delivery = type(delivery)(
                delivery.recipientDomain,
                delivery.recipient,
                delivery.hosts,
                sendReport=False,
            )
            self.successResultOf(self.recorder.sessionEnded(delivery))
            self.restOfDay()
        self.assertEqual(self.world.results(), ())
