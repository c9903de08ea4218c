# -*- test-case-name: tests.reception.test_delivery -*-
"""
Delivers an accepted message into mailboxes, and queues the copies that can't be
stored now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from moxtls.dmarc.types import FinalDisposition
from moxtls.interfaces import IMailbox, IQueue
from moxtls.mailbox.names import MailboxFull, MailboxRefused
from moxtls.queue.types import Envelope
from moxtls.reception.policy import (
    TRY_LATER,
    MailboxCopy,
    StoreResult,
    replyFor,
    undelivered,
)
from moxtls.smtp.types import Reply
from moxtls.tasks import TaskGroup

#: Copies of one message that are written concurrently.
MAX_CONCURRENT_WRITES = 20

Chunks = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """
    A message as it is stored.

    @ivar sender: MAIL FROM.
    @ivar chunks: Returns the given octets followed by the message.
    """

    sender: str
    chunks: Callable[[bytes], Chunks]
    eightBit: bool = False
    smtputf8: bool = False


class MailboxDelivery:
    """
    Writes copies of messages into mailboxes.
    """

    log = Logger()

    def __init__(self, mailboxOf: Callable[[str], IMailbox], queue: IQueue) -> None:
        """
        @param mailboxOf: Returns the mailbox of an account, by name.
        @param queue: Retries copies that can't be stored now, and sends DSNs for
            those that never can.
        """
        self._mailboxOf = mailboxOf
        self._queue = queue

    async def deliver(
        self,
        message: StoredMessage,
        copies: Sequence[MailboxCopy],
        finalDisposition: FinalDisposition,
    ) -> Reply:
        """
        @return: The reply to the client.
        """
        results = await self.store(message, copies)
        rest = undelivered(copies, results, finalDisposition)
        if rest and not await self._queued(message, rest):
            return TRY_LATER
        return replyFor(results, finalDisposition)

    async def store(
        self, message: StoredMessage, copies: Sequence[MailboxCopy], seen: bool = False
    ) -> list[StoreResult]:
        """
        @return: The result of each of C{copies}, in order.
        """
        if len(copies) == 1:
            return [await self._stored(message, copies[0], seen)]
        writes = TaskGroup(MAX_CONCURRENT_WRITES)
        running = []
        for copy in copies:
            await writes.room()
            running.append(writes.begin(self._stored(message, copy, seen)))
        return [await each for each in running]

    async def _stored(
        self, message: StoredMessage, copy: MailboxCopy, seen: bool
    ) -> StoreResult:
        # RFC 5321 4.4: added at final delivery.
        path = f"Return-Path: <{message.sender}>\r\nDelivered-To: {copy.address}\r\n"
        try:
            mailbox = self._mailboxOf(copy.account)
            await mailbox.deliver(copy.mailbox, message.chunks(path.encode()), seen)
        except CancelledError:
            raise
        except MailboxFull:
            return StoreResult.FULL
        except MailboxRefused as refused:
            self.log.info(
                "delivery of mail to account {account!r} refused: {why!r}",
                account=copy.account,
                why=refused.reason[:500],
            )
            return StoreResult.REFUSED
        except Exception:
            self.log.failure(
                "delivery of mail to account {account!r} failed", account=copy.account
            )
            return StoreResult.LATER
        return StoreResult.STORED

    async def _queued(
        self, message: StoredMessage, copies: Sequence[MailboxCopy]
    ) -> bool:
        """
        Queue the copies that are left over, so that the client doesn't send again a
        message that other recipients have already.
        """
        recipients = tuple(dict.fromkeys(str(each.address) for each in copies))
        envelope = Envelope(
            message.sender,
            recipients,
            eightBit=message.eightBit,
            smtputf8=message.smtputf8,
        )
        try:
            await self._queue.submit(envelope, message.chunks(b""))
        except CancelledError:
            raise
        except Exception:
            self.log.failure(
                "queueing mail for {count} recipients failed", count=len(recipients)
            )
            return False
        return True
