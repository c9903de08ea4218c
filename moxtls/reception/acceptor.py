# -*- test-case-name: tests.reception.test_acceptor -*-
"""
Accepts mail from other hosts for local recipients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.authentication.check import MessageAuthenticator
from moxtls.config import Account
from moxtls.domain import Address
from moxtls.interfaces import IMailbox
from moxtls.message.spooled import SpooledMessage
from moxtls.message.trace import ClientInfo
from moxtls.queue.types import ReportKind
from moxtls.reception.delivery import MailboxDelivery
from moxtls.reception.message import IncomingMessage
from moxtls.reception.observers import VerdictDispatcher
from moxtls.reception.policy import Recipient
from moxtls.reception.recipients import Directory, NotLocal, parseForwardPath
from moxtls.smtp.server.interfaces import (
    RECIPIENT_OK,
    SENDER_OK,
    IMessage,
    IMessageDelivery,
)
from moxtls.smtp.server.state import TransactionState
from moxtls.smtp.types import Reply

NO_RELAY = Reply(550, "5.7.1", "Relaying denied: the domain isn't local")
NO_SUCH_MAILBOX = Reply(550, "5.1.1", "No such mailbox here")
#: Entries in the cache of recipients.
MAX_CACHED = 1000
#: RFC 3463 3.3: a temporary error, as the owner may make room.
MAILBOX_FULL = Reply(452, "4.2.2", "The mailbox is full")


@dataclass(frozen=True, slots=True)
class LocalDomains:
    """
    The local domains, their accounts and mailboxes.

    @ivar hostname: A-labels.
    @ivar accounts: By name.
    @ivar mailboxOf: Returns the mailbox of an account; the empty name is that of the
        host.
    @ivar postmaster: The mailbox of the host's postmaster.
    @ivar bounced: As L{moxtls.reporting.handover.ReportDeliveryTracker.bounced}.
    @ivar isForReports: Fires with true if an address receives reports of other hosts.
    """

    hostname: str
    directory: Directory
    accounts: Mapping[str, Account]
    mailboxOf: Callable[[str], IMailbox]
    postmaster: str
    bounced: Callable[[str, bytes], Deferred[ReportKind | None]]
    isForReports: Callable[[Address], Deferred[bool]]


@implementer(IMessageDelivery)
class Reception:
    """
    Validates recipients and receives messages for them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        local: LocalDomains,
        delivery: MailboxDelivery,
        dispatcher: VerdictDispatcher,
        authenticator: MessageAuthenticator | None,
        newID: Callable[[], str],
        folder: Path,
    ) -> None:
        """
        @param authenticator: C{None} if messages aren't authenticated.
        @param newID: Returns a unique identifier of letters and digits.
        @param folder: For large messages while they are received.
        """
        self.clock = clock
        self.delivery = delivery
        self.dispatcher = dispatcher
        self.newID = newID
        self.hostname = local.hostname
        self.accounts = local.accounts
        self.postmaster = local.postmaster
        self.bounced = local.bounced
        self.isForReports = local.isForReports
        self._local = local
        # Each recipient is looked up at RCPT and at the end of the message, and often
        # again in later messages.
        self.recipient = lru_cache(MAX_CACHED)(self._recipient)
        self._authenticator = authenticator
        self._folder = folder

    def mailFrom(
        self, client: ClientInfo, transaction: TransactionState
    ) -> Deferred[Reply]:
        """
        Accept any sender, and start the DNS lookups for it.
        """
        if self._authenticator is not None and not client.user:
            self._authenticator.prefetch(client, transaction.sender)
        return succeed(SENDER_OK)

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        """
        Accept a local recipient with room in a mailbox.
        """
        found = self.recipient(recipient)
        if not isinstance(found, Recipient):
            return succeed(found)
        room = self._checkRoom(found.accounts, transaction.parameters.size)
        return Deferred.fromCoroutine(room)

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        """
        Start receiving a message.
        """
        authentication = None
        # An authenticated user is local, whatever the address of the client.
        if self._authenticator is not None and not client.user:
            authentication = self._authenticator.startMessage(
                client, transaction.sender
            )
        spooled = SpooledMessage(self._folder)
        return IncomingMessage(self, client, transaction, spooled, authentication)

    def _recipient(self, text: str) -> Recipient | Reply:
        """
        @param text: The address in RCPT.

        @return: The recipient, or the reply that refuses it.
        """
        address = parseForwardPath(text, self.hostname)
        targets = self._local.directory.find(address)
        if isinstance(targets, NotLocal):
            return NO_RELAY
        if not isinstance(targets, tuple) or not targets:
            return NO_SUCH_MAILBOX
        return Recipient(address, targets)

    async def _checkRoom(self, accounts: tuple[str, ...], size: int) -> Reply:
        """
        Accept an alias as long as one of its members has room; members without room
        are dealt with when the message is complete.
        """
        for account in accounts:
            if await self._local.mailboxOf(account).hasRoom(size):
                return RECIPIENT_OK
        return MAILBOX_FULL
