"""
Tests for L{moxtls.delivery.local}.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.config import parse
from moxtls.delivery.local import LocalCourier
from moxtls.interfaces import ICourier, IMailbox, StoreUnavailable
from moxtls.mailbox.names import MailboxFull, MailboxRefused, MailboxUnavailable
from moxtls.message.spooled import CHUNK
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.queue.memory import MemoryResultRecorder
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.types import (
    Batch,
    BatchMessage,
    DeliveryStatus,
    Envelope,
    ReportKind,
    Result,
)
from moxtls.received.types import TakenReports
from moxtls.reception.recipients import Directory, Target
from moxtls.smtp.types import Reply
from tests.queue.couriers import FakeMailbox

CONFIG = """
Hostname = "mail.here.example"
[Domains."here.example".Aliases.all]
Addresses = ["anna@here.example", "bob@here.example"]
[Accounts.anna.Destinations]
"anna@here.example" = {}
[Accounts.bob.Destinations]
"bob@here.example" = {Mailbox = "Work"}
"""

REPORTS = CONFIG.replace(
    ".Aliases.all]", ']\nDMARC = {}\n[Domains."here.example".Aliases.all]'
)


@implementer(IMailbox)
class FailingMailbox(FakeMailbox):
    """
    A mailbox that fails.

    @ivar why: The exception; C{None} to never answer.
    """

    why: Exception | None = None

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        return Deferred() if self.why is None else fail(self.why)


@implementer(IMailbox)
class SlowMailbox(FakeMailbox):
    """
    A mailbox that stores messages at once, and confirms later.

    @ivar waiting: Deferreds of unconfirmed deliveries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[None]] = []

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        super().deliver(mailbox, message, seen)
        self.waiting.append(Deferred())
        return self.waiting[-1]


@implementer(IMailbox)
class KeepingMailbox(FakeMailbox):
    """
    Keeps messages as they are given to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Sequence[bytes]] = []

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        self.messages.append(message)
        return succeed(None)


class LocalCourierTests(SynchronousTestCase):
    """
    Tests for L{LocalCourier}.
    """

    def setUp(self) -> None:
        self.mailboxes = {each: FakeMailbox() for each in ("", "anna", "bob")}
        directory = Directory(parse(CONFIG, "moxtls.toml"))
        self.clock = Clock()
        self.courier = LocalCourier(
            self.clock, directory.find, self.mailboxes.__getitem__
        )
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"Subject: a\r\n\r\n")

    def begin(
        self, *recipients: str, stored: tuple[str, ...] = ()
    ) -> Deferred[tuple[Result, ...]]:
        places = tuple((to, place) for to in recipients for place in stored)
        batchMessage = BatchMessage(
            "m1", "us@there.example", recipients, self.path, 14, stored=places
        )
        return self.courier.deliver(
            Batch("here.example", (batchMessage,)), MemoryResultRecorder()
        )

    def deliver(self, recipient: str, stored: tuple[str, ...] = ()) -> Result:
        (result,) = self.successResultOf(self.begin(recipient, stored=stored))
        return result

    def failing(self, account: str, why: Exception | None) -> None:
        """
        Make that account's mailboxes fail.
        """
        mailbox = self.mailboxes[account] = FailingMailbox()
        mailbox.why = why

    def test_delivered(self) -> None:
        """
        A message to a local account is stored in its mailbox, unread, with
        reverse-path and recipient on top (RFC 5321 4.4).
        """
        verifyObject(ICourier, self.courier)
        result = self.deliver("Bob+x@here.example")
        self.assertEqual(
            (result.messageID, result.ending), ("m1", DeliveryStatus.DELIVERED)
        )
        trace = b"Return-Path: <us@there.example>\r\nDelivered-To: bob@here.example\r\n"
        self.assertEqual(
            self.mailboxes["bob"].deliveries,
            [("Work", trace + b"Subject: a\r\n\r\n", False)],
        )

    def test_reports(self) -> None:
        """
        A report of this host to an address for reports is taken in before it is
        stored, with what became of it; mail of users, and to other addresses, isn't.
        """
        taken: list[tuple[Path, str, str]] = []

        async def take(path: Path, sender: str, target: Target) -> TakenReports:
            taken.append((path, sender, target.reported))
            return TakenReports(b"X-Moxtls-Report: accepted\r\n", True)

        directory = Directory(parse(REPORTS, "moxtls.toml"))
        courier = LocalCourier(
            self.clock, directory.find, self.mailboxes.__getitem__, take
        )
        for to, report in (
            ("dmarcreports@here.example", ReportKind.DMARC),
            ("dmarcreports@here.example", None),
            ("anna@here.example", ReportKind.DMARC),
        ):
            message = BatchMessage("m1", "us@there.example", (to,), self.path, 14)
            batch = Batch("here.example", (message,), report=report)
            delivering = courier.deliver(batch, MemoryResultRecorder())
            (result,) = self.successResultOf(delivering)
            self.assertIs(result.ending, DeliveryStatus.DELIVERED)
        self.assertEqual(taken, [(self.path, "us@there.example", "here.example")])
        first, second = self.mailboxes[""].deliveries
        self.assertIn(b"X-Moxtls-Report: accepted\r\nSubject: a", first[1])
        self.assertEqual((first[2], second[2]), (True, False))

    def test_reportFails(self) -> None:
        """
        A report that can't be taken in now is delivered later.
        """

        async def take(path: Path, sender: str, target: Target) -> TakenReports:
            raise StoreUnavailable("away")

        directory = Directory(parse(REPORTS, "moxtls.toml"))
        courier = LocalCourier(
            self.clock, directory.find, self.mailboxes.__getitem__, take
        )
        to = ("dmarcreports@here.example",)
        message = BatchMessage("m1", "us@there.example", to, self.path, 14)
        batch = Batch("here.example", (message,), report=ReportKind.DMARC)
        delivering = courier.deliver(batch, MemoryResultRecorder())
        (result,) = self.successResultOf(delivering)
        self.assertIs(result.ending, DeliveryStatus.TEMPORARY)
        self.assertEqual(self.mailboxes[""].deliveries, [])

    def test_postmaster(self) -> None:
        """
        Mail to the postmaster is stored in this host's own mailboxes (RFC 5321
        4.5.1).
        """
        self.deliver("postmaster@here.example")
        self.assertEqual(
            [each[0] for each in self.mailboxes[""].deliveries], ["Postmaster"]
        )

    def test_unknown(self) -> None:
        """
        An unknown local recipient fails permanently (RFC 3463 3.2).
        """
        for recipient, status in [
            ("nobody@here.example", "5.1.1"),
            ("anna@there.example", "5.1.2"),
            ("anna@[127.0.0.1]", "5.1.2"),
            ("no address", "5.1.3"),
        ]:
            result = self.deliver(recipient)
            self.assertEqual(
                (result.ending, result.status), (DeliveryStatus.PERMANENT, status)
            )

    def test_failing(self) -> None:
        """
        A full mailbox may have room later (RFC 3463 3.3: X.2.2 is transient), as may
        a broken one; a refusal is permanent.
        """
        for why, ending, status in [
            (MailboxFull(), DeliveryStatus.TEMPORARY, "4.2.2"),
            (MailboxRefused("no, thanks"), DeliveryStatus.PERMANENT, "5.2.0"),
            (MailboxUnavailable("wait"), DeliveryStatus.TEMPORARY, "4.2.0"),
            (OSError("no disk"), DeliveryStatus.TEMPORARY, "4.3.0"),
        ]:
            self.failing("anna", why)
            result = self.deliver("anna@here.example")
            self.assertEqual((result.ending, result.status), (ending, status))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_reply(self) -> None:
        """
        The result is the server's reply (RFC 2033) and its status; a reply that is
        permanent only for the connection is temporary.
        """
        later = Reply(451, "4.3.1", "wait")
        for why, status, code in [
            (MailboxRefused("550 5.1.1 no", Reply(550, "5.1.1", "no")), "5.1.1", 550),
            (MailboxRefused("550 no", Reply(550, "", "no")), "5.2.0", 550),
            (MailboxUnavailable(str(later), later), "4.3.1", 451),
            (MailboxUnavailable("554 5.3.0 x", Reply(554, "5.3.0", "x")), "4.2.0", 554),
        ]:
            self.failing("anna", why)
            result = self.deliver("anna@here.example")
            self.assertEqual((result.status, result.code), (status, code))
            self.assertEqual(result.words, str(why))

    def test_gone(self) -> None:
        """
        A body that can't be read now is tried again.
        """
        self.path.unlink()
        self.assertEqual(
            self.deliver("anna@here.example").ending, DeliveryStatus.TEMPORARY
        )
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_alias(self) -> None:
        """
        All members of an alias get the message. If one fails temporarily, the result
        has the others as stored, and the next attempt skips them.
        """
        self.failing("bob", MailboxFull())
        result = self.deliver("all@here.example")
        self.assertEqual(result.status, "4.2.2")
        again = self.deliver("all@here.example", result.stored)
        self.assertEqual(again, result)
        self.mailboxes["bob"] = FakeMailbox()
        last = self.deliver("all@here.example", again.stored)
        self.assertEqual((last.status, last.stored), ("2.0.0", ()))
        for name in ("anna", "bob"):
            self.assertEqual(len(self.mailboxes[name].deliveries), 1)

    def test_aliasRefused(self) -> None:
        """
        The sender gets a DSN about a member that failed permanently.
        """
        self.failing("anna", MailboxRefused("no"))
        result = self.deliver("all@here.example")
        self.assertEqual((result.ending, result.text), (DeliveryStatus.PERMANENT, "no"))
        self.assertEqual(len(self.mailboxes["bob"].deliveries), 1)

    def test_cancelled(self) -> None:
        """
        A cancelled attempt reports the mailboxes stored to; a mailbox that doesn't
        finish in time is attempted again.
        """
        self.failing("bob", None)
        delivery = self.begin("anna@here.example", "bob@here.example")
        self.assertNoResult(delivery)
        delivery.cancel()
        self.clock.advance(10)
        (result,) = self.successResultOf(delivery)
        self.assertEqual(result.recipient, "anna@here.example")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelledWhileStoring(self) -> None:
        """
        A mailbox that is storing finishes after cancellation, and the attempt waits
        for it.
        """
        slow = self.mailboxes["bob"] = SlowMailbox()
        delivery = self.begin("bob@here.example")
        delivery.cancel()
        self.assertNoResult(delivery)
        slow.waiting.pop().callback(None)
        (result,) = self.successResultOf(delivery)
        self.assertEqual(result.ending, DeliveryStatus.DELIVERED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelledBetween(self) -> None:
        """
        Cancellation between two mailboxes reports the first as stored, and doesn't
        begin with the next.
        """
        slow = self.mailboxes["anna"] = SlowMailbox()
        delivery = self.begin("all@here.example")
        delivery.cancel()
        slow.waiting.pop().callback(None)
        (result,) = self.successResultOf(delivery)
        self.assertEqual(result.ending, DeliveryStatus.TEMPORARY)
        self.assertEqual(len(result.stored), 1)
        self.assertEqual(self.mailboxes["bob"].deliveries, [])
        self.deliver("all@here.example", result.stored)
        self.assertEqual(slow.waiting, [])
        self.assertEqual(len(self.mailboxes["bob"].deliveries), 1)

    def test_chunks(self) -> None:
        """
        A body is read in parts, when they are wanted.
        """
        body = bytes(range(256)) * (2 * CHUNK // 256) + b"end"
        self.path.write_bytes(body)
        mailbox = self.mailboxes["anna"] = KeepingMailbox()
        self.deliver("anna@here.example")
        [message] = mailbox.messages
        self.assertEqual(len(message), 4)
        self.assertEqual([len(each) for each in message][1:], [CHUNK, CHUNK, 3])
        self.assertEqual(b"".join(message)[-len(body) :], body)
        self.assertEqual(message[1:3], [message[1], message[2]])


class StoppedTests(SynchronousTestCase):
    """
    Tests for local delivery across restarts of a queue.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.root = Path(self.mktemp())
        self.mailboxes: dict[str, FakeMailbox] = {
            each: FakeMailbox() for each in ("", "anna", "bob")
        }
        self.numbers = count(1)

    def started(self) -> QueueService:
        directory = Directory(parse(CONFIG, "moxtls.toml"))
        courier = LocalCourier(self.clock, directory.find, self.mailboxes.__getitem__)
        service = QueueService(
            self.clock,
            InlineSpoolExecutor(self.root),
            lambda batch: courier,
            Settlement("mail.here.example", self.newID),
            ReportStatusNotifier(self.clock, [], FakeMailbox(), str),
            self.newID,
            jitter=lambda: 0.5,
            limits=GroupLimits(),
        )
        service.startService()
        return service

    def newID(self) -> str:
        return f"m{next(self.numbers)}"

    def kept(self) -> list[int]:
        return [len(self.mailboxes[name].deliveries) for name in ("anna", "bob")]

    def test_stoppedBetween(self) -> None:
        """
        A queue that is stopped between two mailboxes, and restarted, stores no second
        copy.
        """
        slow = self.mailboxes["anna"] = SlowMailbox()
        service = self.started()
        envelope = Envelope("us@there.example", ("all@here.example",))
        self.successResultOf(service.submit(envelope, [b"Subject: a\r\n\r\n"]))
        stopped = service.stopService()
        self.assertNoResult(stopped)
        slow.waiting.pop().callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.kept(), [1, 0])
        service = self.started()
        self.clock.pump([30] * 16)
        self.assertEqual(self.kept(), [1, 1])
        self.assertEqual(self.successResultOf(service.messages()), ())
        self.successResultOf(service.stopService())

    def test_startedBetween(self) -> None:
        """
        The same if a mailbox was full at that time.
        """
        full = self.mailboxes["bob"] = FailingMailbox()
        full.why = MailboxFull()
        service = self.started()
        envelope = Envelope("us@there.example", ("all@here.example",))
        self.successResultOf(service.submit(envelope, [b"Subject: a\r\n\r\n"]))
        self.successResultOf(service.stopService())
        self.mailboxes["bob"] = FakeMailbox()
        service = self.started()
        self.clock.pump([30] * 16)
        self.assertEqual(self.kept(), [1, 1])
        self.successResultOf(service.stopService())
