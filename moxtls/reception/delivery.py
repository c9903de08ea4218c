# -*- test-case-name: tests.reception.test_delivery -*-
"""
Delivers an accepted message into mailboxes, queues the copies that can't be stored now,
and notifies verdict observers and the sender history without delaying the SMTP reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.dmarc.types import FinalDisposition, VerdictEvent
from moxtls.domain import Address, Domain, InvalidAddress
from moxtls.interfaces import IMailbox, IQueue, ISenderHistory, IVerdictObserver
from moxtls.mailbox.names import MailboxFull, MailboxRefused
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import Envelope
from moxtls.reception.policy import (
    TRY_LATER,
    MailboxCopy,
    StoreResult,
    replyFor,
    undelivered,
    withoutUnneeded,
)
from moxtls.reception.recipients import Directory
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
        results = withoutUnneeded(copies, await self.store(message, copies))
        rest = undelivered(copies, results, finalDisposition)
        if rest and not await self._queued(message, rest):
            return TRY_LATER
        return replyFor(results, finalDisposition)

    async def store(
        self, message: StoredMessage, copies: Sequence[MailboxCopy]
    ) -> list[StoreResult]:
        """
        @return: The result of each of C{copies}, in order.
        """
        if len(copies) == 1:
            return [await self._stored(message, copies[0])]
        writes = TaskGroup(MAX_CONCURRENT_WRITES)
        running = []
        for copy in copies:
            await writes.room()
            running.append(writes.begin(self._stored(message, copy)))
        return [await each for each in running]

    async def _stored(self, message: StoredMessage, copy: MailboxCopy) -> StoreResult:
        # RFC 5321 4.4: added at final delivery.
        path = f"Return-Path: <{message.sender}>\r\nDelivered-To: {copy.address}\r\n"
        try:
            mailbox = self._mailboxOf(copy.account)
            chunks = message.chunks(path.encode() + copy.field)
            await mailbox.deliver(copy.mailbox, chunks, copy.seen)
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


#: Notifications in progress before further mail waits for them: else they would fill
#: the memory while a database is stalled.
MAX_PENDING = 1000


class VerdictDispatcher:
    """
    Notifies verdict observers and records the sender history.

    @ivar reportsFailures: True if an observer sends failure reports (RFC 9991).
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        observers: Iterable[IVerdictObserver],
        history: ISenderHistory,
        reportsFailures: bool = False,
    ) -> None:
        self.reportsFailures = reportsFailures
        self._clock = clock
        self._observers = tuple(observers)
        self._history = history
        self._pending = TaskGroup(MAX_PENDING)

    async def dispatch(self, event: VerdictEvent) -> None:
        """
        Fires once all observers have been called, not once they have finished.
        """
        for observer in self._observers:
            await self._start(observer.verdictGiven, event)

    async def recordReceived(self, account: str, domain: Domain) -> None:
        """
        Record that authenticated mail from C{domain} was accepted for C{account}.
        """
        await self._start(self._history.received, account, domain, self._now())

    async def recordSent(self, account: str, domain: Domain) -> None:
        """
        Record that C{account} sends mail to C{domain}.
        """
        await self._start(self._history.sent, account, domain, self._now())

    async def isKnown(self, accounts: Iterable[str], organization: Domain) -> bool:
        """
        True if any of C{accounts} has corresponded with C{organization}, also if that
        can't be looked up.
        """
        for account in dict.fromkeys(accounts):
            try:
                if await self._history.isKnown(account, organization):
                    return True
            except CancelledError:
                raise
            except Exception:
                logUnlessOutage(
                    self.log,
                    "sender history: lookup of {domain} failed",
                    domain=str(organization),
                )
                return True
        return False

    async def finished(self) -> None:
        """
        Wait until all notifications have finished.
        """
        await self._pending.finished()

    def _now(self) -> float:
        return self._clock.seconds()

    async def _start(self, told: Callable[..., Deferred[None]], *what: Any) -> None:
        try:
            notifying = told(*what)
        except Exception:
            logUnlessOutage(self.log, "notification of a verdict observer failed")
            return
        notifying.addErrback(self._failed)
        if not notifying.called:
            self._pending.add(notifying)
            await self._pending.room()

    def _failed(self, failure: Failure) -> None:
        logUnlessOutage(self.log, "notification of a verdict observer failed", failure)


class HistoryRecorder:
    """
    Records the domains to which local users send mail.
    """

    log = Logger()

    def __init__(
        self,
        directory: Directory,
        accounts: Mapping[str, Any],
        dispatcher: VerdictDispatcher,
    ) -> None:
        """
        @param accounts: All accounts, by name.
        """
        self._directory = directory
        self._accounts = accounts
        self._dispatcher = dispatcher

    async def submitted(self, user: str, envelope: Envelope) -> None:
        """
        Record a message that is in the queue already.  Never fails, as queueing can't
        be undone.

        @param user: The authenticated user; empty without authentication.
        """
        try:
            await self._submitted(user, envelope)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(
                self.log,
                "sender history: recording recipients of {user!r} failed",
                user=user,
            )

    async def _submitted(self, user: str, envelope: Envelope) -> None:
        domains = {
            address.domain
            for address in map(_address, envelope.recipients)
            if address is not None and isinstance(address.domain, Domain)
        }
        outside = [each for each in domains if not self._directory.isLocal(each)]
        account = self._accountOf(user, envelope.sender) if outside else ""
        for domain in sorted(outside):
            await self._dispatcher.recordSent(account, domain)

    def _accountOf(self, user: str, sender: str) -> str:
        if user in self._accounts:
            return user
        address = _address(sender)
        found = () if address is None else self._directory.find(address)
        if isinstance(found, tuple) and len(found) == 1:
            return found[0].account
        return ""


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except InvalidAddress:
        return None
