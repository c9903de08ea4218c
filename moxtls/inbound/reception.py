# -*- test-case-name: tests.inbound.test_reception -*-
"""
Takes mail from outside for people here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.config import Account
from moxtls.inbound.authenticate import Checks
from moxtls.inbound.decide import Recipient
from moxtls.inbound.delivery import Delivery
from moxtls.inbound.incoming import IncomingMessage
from moxtls.inbound.observers import Audience
from moxtls.inbound.recipients import Directory, NotHere
from moxtls.interfaces import IMailbox
from moxtls.queue.values import ReportKind
from moxtls.smtp.acceptor import RECIPIENT_OK, SENDER_OK, IAcceptor, IMessageSink
from moxtls.smtp.events import Incoming
from moxtls.smtp.received import Client
from moxtls.smtp.spooled import SpooledMessage
from moxtls.smtp.submission import addressOf
from moxtls.smtp.values import Reply

NO_RELAY = Reply(550, "5.7.1", "Mail for that domain isn't taken here")
NOBODY = Reply(550, "5.1.1", "No such mailbox here")
#: RFC 3463 3.3: for now, as somebody may tidy up.
NO_ROOM = Reply(452, "4.2.2", "The mailbox is full")


@dataclass(frozen=True, slots=True)
class House:
    """
    Who lives here.

    @ivar hostname: A-labels.
    @ivar accounts: By name.
    @ivar mailboxOf: By an account's name, or the empty one of the host.
    @ivar postmaster: The mailbox of the host's postmaster.
    @ivar bounced: As L{moxtls.reporting.handover.Aftermath.bounced}.
    """

    hostname: str
    directory: Directory
    accounts: Mapping[str, Account]
    mailboxOf: Callable[[str], IMailbox]
    postmaster: str
    bounced: Callable[[str, bytes], Deferred[ReportKind | None]]


@implementer(IAcceptor)
class Reception:
    """
    Decides who gets mail here, and what mail.
    """

    def __init__(
        self,
        clock: IReactorTime,
        house: House,
        delivery: Delivery,
        audience: Audience,
        checks: Checks | None,
        newID: Callable[[], str],
        folder: Path,
    ) -> None:
        """
        @param checks: C{None} if nothing is checked.
        @param newID: Letters and digits, never the same twice.
        @param folder: For large messages while they come in.
        """
        self.clock = clock
        self.delivery = delivery
        self.audience = audience
        self.newID = newID
        self.hostname = house.hostname
        self.accounts = house.accounts
        self.postmaster = house.postmaster
        self.bounced = house.bounced
        self._house = house
        self._checks = checks
        self._folder = folder

    def mailFrom(self, client: Client, incoming: Incoming) -> Deferred[Reply]:
        """
        Anybody may be the sender; what is known of him is looked up now.
        """
        if self._checks is not None and not client.user:
            self._checks.expect(client, incoming.sender)
        return succeed(SENDER_OK)

    def rcptTo(
        self, client: Client, incoming: Incoming, recipient: str
    ) -> Deferred[Reply]:
        """
        Somebody of ours is wanted, who has room.
        """
        address = addressOf(recipient, self.hostname)
        targets = self._house.directory.find(address)
        if isinstance(targets, NotHere):
            return succeed(NO_RELAY)
        if not isinstance(targets, tuple) or not targets:
            return succeed(NOBODY)
        accounts = tuple(dict.fromkeys(each.account for each in targets))
        return Deferred.fromCoroutine(self._room(accounts, incoming.parameters.size))

    def message(self, client: Client, incoming: Incoming) -> IMessageSink:
        """
        Begin a message.
        """
        examination = None
        # Whoever has logged in is one of us, wherever he is.
        if self._checks is not None and not client.user:
            examination = self._checks.examine(client, incoming.sender)
        spooled = SpooledMessage(self._folder)
        return IncomingMessage(self, client, incoming, spooled, examination)

    def recipient(self, text: str) -> Recipient:
        """
        @param text: As in a RCPT that was accepted.
        """
        address = addressOf(text, self.hostname)
        targets = self._house.directory.find(address)
        return Recipient(address, targets if isinstance(targets, tuple) else ())

    async def _room(self, accounts: tuple[str, ...], size: int) -> Reply:
        """
        An alias is there as long as one of its members has room: whoever has
        none is dealt with when the message is there.
        """
        for account in accounts:
            if await self._house.mailboxOf(account).hasRoom(size):
                return RECIPIENT_OK
        return NO_ROOM
