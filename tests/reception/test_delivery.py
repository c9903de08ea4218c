"""
Tests for L{moxtls.reception.delivery}.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.types import FinalDisposition
from moxtls.domain import Address
from moxtls.mailbox.memory import MemoryMailbox
from moxtls.queue.memory import MemoryQueue
from moxtls.reception.delivery import (
    MAX_CONCURRENT_WRITES,
    MailboxDelivery,
    StoredMessage,
)
from moxtls.reception.policy import MailboxCopy, StoreResult

ANNA = Address.parse("anna@our.example")
MESSAGE = StoredMessage(
    "x@a.example", lambda before: (before, b"A: b\r\n"), eightBit=True
)


class SlowMailbox(MemoryMailbox):
    """
    A mailbox that stores when the test lets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writing: list[Deferred[None]] = []

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        self.writing.append(Deferred())
        return self.writing[-1]


class DeliveryTests(SynchronousTestCase):
    """
    Tests for L{MailboxDelivery}.
    """

    def setUp(self) -> None:
        self.queue = MemoryQueue(Clock(), lambda: "q1")

    def test_missing(self) -> None:
        """
        Copies for a missing account are left to the queue.
        """
        mailbox = MemoryMailbox()
        delivery = MailboxDelivery({"anna": mailbox}.__getitem__, self.queue)
        copies = [
            MailboxCopy("anna", "Inbox", ANNA),
            MailboxCopy("gone", "Inbox", ANNA),
        ]
        delivered = delivery.deliver(MESSAGE, copies, FinalDisposition.ACCEPTED)
        reply = self.successResultOf(Deferred.fromCoroutine(delivered))
        self.assertEqual(reply.code, 250)
        [envelope] = self.queue.envelopes
        self.assertTrue(envelope.eightBit)
        self.assertEqual(self.queue.bodies["q1"], b"A: b\r\n")
        self.flushLoggedErrors(KeyError)

    def test_parallel(self) -> None:
        """
        Copies are written concurrently, within a limit; results are in order.
        """
        mailbox = SlowMailbox()
        delivery = MailboxDelivery(lambda account: mailbox, self.queue)
        copies = [MailboxCopy("anna", "Inbox", ANNA)] * (MAX_CONCURRENT_WRITES + 5)
        storing = Deferred.fromCoroutine(delivery.store(MESSAGE, copies))
        self.assertEqual(len(mailbox.writing), MAX_CONCURRENT_WRITES)
        mailbox.writing[1].errback(OSError("disk"))
        for each in mailbox.writing:
            if not each.called:
                each.callback(None)
        while len(mailbox.writing) < len(copies):
            mailbox.writing[-1].callback(None)
        for each in mailbox.writing:
            if not each.called:
                each.callback(None)
        outcomes = self.successResultOf(storing)
        self.assertEqual(outcomes.pop(1), StoreResult.LATER)
        self.assertEqual(set(outcomes), {StoreResult.STORED})
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
