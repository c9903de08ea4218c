"""
Tests for L{moxtls.reception.delivery}.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.types import FinalDisposition
from moxtls.domain import Address, Domain
from moxtls.mailbox.memory import MemoryMailbox
from moxtls.queue.memory import MemoryQueue
from moxtls.queue.types import Envelope
from moxtls.reception.delivery import (
    MAX_CONCURRENT_WRITES,
    MAX_PENDING,
    HistoryRecorder,
    MailboxDelivery,
    StoredMessage,
    VerdictDispatcher,
)
from moxtls.reception.policy import MailboxCopy, StoreResult
from tests.reception.receiving import ReceptionCase
from tests.reception.signed import OTHER_CLIENT, message

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


class VerdictDispatcherTests(ReceptionCase):
    """
    Tests for L{VerdictDispatcher}.
    """

    def test_bounded(self) -> None:
        """
        With too many notifications in progress, mail waits.
        """
        history = self.ledger.history
        pending: list[Deferred[None]] = []

        def received(account: str, domain: Domain, now: float) -> Deferred[None]:
            pending.append(Deferred())
            return pending[-1]

        history.received = received  # type: ignore[method-assign]
        dispatcher = VerdictDispatcher(self.clock, [], history)

        def arrived() -> Deferred[None]:
            return Deferred.fromCoroutine(
                dispatcher.recordReceived("anna", Domain("a.example"))
            )

        for _ in range(MAX_PENDING - 1):
            self.successResultOf(arrived())
        waiting = arrived()
        self.assertNoResult(waiting)
        pending[0].callback(None)
        self.successResultOf(waiting)
        for each in pending[1:]:
            each.callback(None)
        self.successResultOf(Deferred.fromCoroutine(dispatcher.finished()))

    def test_unknown(self) -> None:
        """
        If the history can't be read, the domain counts as known.
        """
        self.ledger.history.isKnown = (  # type: ignore[method-assign]
            lambda account, organizational: fail(OSError("database"))
        )
        asked = self.dispatcher.isKnown(["anna"], Domain("a.example"))
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(asked)))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class HistoryRecorderTests(ReceptionCase):
    """
    Tests for L{HistoryRecorder}.
    """

    def submitted(self, user: str, sender: str, *to: str) -> None:
        accounts = self.reception.accounts
        noted = HistoryRecorder(self.directory, accounts, self.dispatcher)
        sent = noted.submitted(user, Envelope(sender, to))
        self.successResultOf(Deferred.fromCoroutine(sent))

    def test_account(self) -> None:
        """
        The history is that of the account that has logged in, else of the account
        with that address, else none.
        """
        for number, (user, sender, account) in enumerate(
            (
                ("anna", "bob@our.example", "anna"),
                ("", "BOB+x@our.example", "bob"),
                ("program", "bob@our.example", "bob"),
                ("", "all@our.example", ""),
                ("", "x@elsewhere.example", ""),
                ("", "", ""),
            )
        ):
            domain = f"n{number}.example"
            self.submitted(user, sender, f"x@{domain}")
            known = [each for each in ("", "anna", "bob") if self.isKnown(each, domain)]
            self.assertEqual(known, [account], (user, sender))

    def test_outside(self) -> None:
        """
        Each external recipient is recorded; local ones aren't.
        """
        to = ("bob@our.example", "x@a.example", "y@sub.b.example", "z@[192.0.2.1]")
        self.submitted("anna", "anna@our.example", *to)
        self.assertTrue(self.isKnown("anna", "a.example"))
        self.assertTrue(self.isKnown("anna", "b.example"))
        self.assertFalse(self.isKnown("anna", "our.example"))

    def test_loop(self) -> None:
        """
        Domains to which a user writes are known afterwards.
        """
        self.submitted("anna", "anna@our.example", "x@a.example")
        self.receive(message("x@a.example"), client=OTHER_CLIENT)
        self.assertTrue(self.listening.events[-1].isKnown)
