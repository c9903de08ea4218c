"""
Results in the spool, and the outcome in the ledger, of an attempt during which the
process ends.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

from moxtls.delivery.attempt import DirectCourier
from moxtls.delivery.sessions import FINISH_TIMEOUT
from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.types import Envelope
from moxtls.tlsrpt.recorder import OutcomeRecorder
from tests.delivery.deliveries import EXAMPLE, MX, USER, DeliveryCase
from tests.ledger.threads import Inbox
from tests.queue.couriers import FakeMailbox


class StoppingTests(DeliveryCase):
    """
    A host with a queue and a ledger, which stop one after the other.
    """

    def setUp(self) -> None:
        super().setUp()
        self.url = f"sqlite:///{Path(self.mktemp()).absolute()}"
        self.threads = Inbox()
        self.ledger = Ledger(self.threads, self.url)
        recorder = OutcomeRecorder(self.clock, self.ledger.outcomes)
        self.context = replace(self.context, observer=recorder)
        courier = DirectCourier(self.context)
        numbers = count()
        self.queue = QueueService(
            self.clock,
            InlineSpoolExecutor(Path(self.mktemp())),
            lambda batch: courier,
            Settlement("us.example", lambda: f"n{next(numbers)}"),
            ReportStatusNotifier(self.clock, [], FakeMailbox(), str),
            lambda: f"m{next(numbers)}",
            jitter=lambda: 0.5,
            limits=GroupLimits(),
        )
        self.queue.startService()

    def send(self) -> None:
        body = (b"Subject: hello\r\n\r\n", b"hello\r\n")
        sent = Envelope("me@us.example", (USER,))
        self.successResultOf(self.queue.submit(sent, body))
        self.clock.advance(0)
        self.network.flush()

    def stop(self) -> None:
        """
        Stop in the server's order, without waiting for threads in between.
        """
        stopped = self.queue.stopService()
        self.clock.advance(FINISH_TIMEOUT)
        self.successResultOf(stopped)
        self.threads.waitFor(self.ledger.stop())

    def recorded(self) -> dict[Domain, tuple[int, int]]:
        """
        Successes and failures, by policy domain.
        """
        ledger = Ledger(None, self.url)
        results = self.successResultOf(ledger.outcomes.results())
        self.successResultOf(ledger.stop())
        return {
            each.policyDomain: (
                sum(tally.succeeded for tally in each.tallies),
                sum(tally.failed for tally in each.tallies),
            )
            for each in results
        }

    def test_recording(self) -> None:
        """
        A process that ends while the outcome of a delivery is being recorded: the
        outcome is in the ledger, and the message isn't sent again.
        """
        self.serve(self.goodContext())
        self.send()
        # The attempt hasn't got a result from the ledger's threads.
        self.stop()
        self.assertEqual(self.recorded(), {EXAMPLE: (1, 0), Domain(MX): (1, 0)})
        # The result was written before, and is carried out at the latest now.
        self.queue.startService()
        self.assertEqual(self.successResultOf(self.queue.messages()), ())
        self.successResultOf(self.queue.stopService())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_delivering(self) -> None:
        """
        A process that ends in the middle of a session: the TLS outcome is recorded,
        and the attempt doesn't count.
        """
        self.serve(self.goodContext(), replies={"END": ""})
        self.send()
        [message] = self.successResultOf(self.queue.messages())
        self.stop()
        self.assertEqual(self.recorded(), {EXAMPLE: (1, 0), Domain(MX): (1, 0)})
        self.assertTrue(message.path.exists())
