"""
Tests for L{moxtls.queue.local}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.config import parse
from moxtls.inbound.recipients import Directory
from moxtls.interfaces import ICourier, IMailbox
from moxtls.mailbox.names import MailboxFull, MailboxRefused, MailboxUnavailable
from moxtls.queue import local
from moxtls.queue.local import CHUNK, LocalCourier
from moxtls.queue.memory import MemoryResultRecorder
from moxtls.queue.values import Batch, Ending, Parcel, Result
from moxtls.smtp.values import Reply
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


@implementer(IMailbox)
class FailingMailbox(FakeMailbox):
    """
    @ivar why: What deliveries fail with; C{None} to never answer.
    """

    why: Exception | None = None

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        return Deferred() if self.why is None else fail(self.why)


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
        self.courier = LocalCourier(directory.find, self.mailboxes.__getitem__)
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"Subject: a\r\n\r\n")

    def begin(self, *recipients: str) -> Deferred[tuple[Result, ...]]:
        parcel = Parcel("m1", "us@there.example", recipients, self.path, 14)
        return self.courier.deliver(
            Batch("here.example", (parcel,)), MemoryResultRecorder()
        )

    def deliver(self, recipient: str) -> Result:
        (result,) = self.successResultOf(self.begin(recipient))
        return result

    def failing(self, account: str, why: Exception | None) -> None:
        """
        Have that account's mailboxes fail.
        """
        mailbox = self.mailboxes[account] = FailingMailbox()
        mailbox.why = why

    def test_delivered(self) -> None:
        """
        A message for somebody here is put into the mailbox, unread, with its
        reverse-path and his address on top.  RFC 5321 4.4
        """
        verifyObject(ICourier, self.courier)
        result = self.deliver("Bob+x@here.example")
        self.assertEqual((result.messageID, result.ending), ("m1", Ending.DELIVERED))
        trace = b"Return-Path: <us@there.example>\r\nDelivered-To: bob@here.example\r\n"
        self.assertEqual(
            self.mailboxes["bob"].kept,
            [("Work", trace + b"Subject: a\r\n\r\n", False)],
        )

    def test_postmaster(self) -> None:
        """
        The postmaster's goes to this host's own mailboxes.  RFC 5321 4.5.1
        """
        self.deliver("postmaster@here.example")
        self.assertEqual([each[0] for each in self.mailboxes[""].kept], ["Postmaster"])

    def test_unknown(self) -> None:
        """
        Somebody who isn't here will not be here later.  RFC 3463 3.2
        """
        for recipient, status in [
            ("nobody@here.example", "5.1.1"),
            ("anna@there.example", "5.1.2"),
            ("anna@[127.0.0.1]", "5.1.2"),
            ("no address", "5.1.3"),
        ]:
            result = self.deliver(recipient)
            self.assertEqual((result.ending, result.status), (Ending.PERMANENT, status))

    def test_failing(self) -> None:
        """
        A full mailbox may have room later (RFC 3463 3.3: X.2.2 is transient),
        as may a broken one; who refuses once does so for good.
        """
        for why, ending, status in [
            (MailboxFull(), Ending.TEMPORARY, "4.2.2"),
            (MailboxRefused("no, thanks"), Ending.PERMANENT, "5.2.0"),
            (MailboxUnavailable("wait"), Ending.TEMPORARY, "4.2.0"),
            (OSError("no disk"), Ending.TEMPORARY, "4.3.0"),
        ]:
            self.failing("anna", why)
            result = self.deliver("anna@here.example")
            self.assertEqual((result.ending, result.status), (ending, status))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_reply(self) -> None:
        """
        Where a server said it (RFC 2033), its reply and its status are the result;
        what is permanent only for its connection is not.
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
        self.assertEqual(self.deliver("anna@here.example").ending, Ending.TEMPORARY)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_alias(self) -> None:
        """
        All members get it.  Where one doesn't yet, the next attempt is for
        him only.
        """
        self.failing("bob", MailboxFull())
        for _ in range(2):
            self.assertEqual(self.deliver("all@here.example").status, "4.2.2")
        self.mailboxes["bob"] = FakeMailbox()
        for _ in range(2):
            self.assertEqual(self.deliver("all@here.example").status, "2.0.0")
        # The second time, it was begun anew.
        self.assertEqual(len(self.mailboxes["anna"].kept), 2)
        self.assertEqual(len(self.mailboxes["bob"].kept), 2)

    def test_aliasRefused(self) -> None:
        """
        The sender hears of a member that will never get it.
        """
        self.failing("anna", MailboxRefused("no"))
        result = self.deliver("all@here.example")
        self.assertEqual((result.ending, result.text), (Ending.PERMANENT, "no"))
        self.assertEqual(len(self.mailboxes["bob"].kept), 1)

    def test_bounded(self) -> None:
        """
        However many are partly done, no more than so many are remembered.
        """
        self.patch(local, "MOST_PARTLY_DONE", 1)
        self.failing("bob", MailboxFull())
        for recipient in ("all@here.example", "ALL@here.example") * 2:
            self.deliver(recipient)
        self.assertEqual(len(self.mailboxes["anna"].kept), 4)

    def test_cancelled(self) -> None:
        """
        Breaking it off says who got it until then.
        """
        self.failing("bob", None)
        delivery = self.begin("anna@here.example", "bob@here.example")
        self.assertNoResult(delivery)
        delivery.cancel()
        (result,) = self.successResultOf(delivery)
        self.assertEqual(result.recipient, "anna@here.example")

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
