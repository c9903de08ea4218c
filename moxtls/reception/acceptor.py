# -*- test-case-name: tests.reception.test_acceptor -*-
"""
Accepts mail from other hosts for local recipients, and receives each message, from its
first octet to the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.authentication.check import MessageAuthentication, MessageAuthenticator
from moxtls.authentication.outcome import (
    AuthenticationOutcome,
    authenticationResults,
    receivedSPF,
)
from moxtls.config import Account
from moxtls.dmarc.types import FinalDisposition
from moxtls.domain import Address
from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.message.header import (
    MAX_HEADER,
    ClientInfo,
    Header,
    headerEnd,
    receivedHeader,
    removeForgedFields,
    splitHeader,
)
from moxtls.message.spooled import SpooledMessage
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import ReportKind
from moxtls.received.intake.authenticity import AuthenticationUnavailable
from moxtls.received.intake.intake import ReadingUnavailable
from moxtls.reception.delivery import MailboxDelivery, StoredMessage, VerdictDispatcher
from moxtls.reception.policy import (
    ACCEPTED,
    TRY_LATER,
    Decision,
    MailboxCopy,
    Recipient,
    authenticatedOrganization,
    checkHeader,
    decide,
    needsHistory,
    planCopies,
    replyFor,
    verdictEvent,
)
from moxtls.reception.recipients import Directory, NotLocal, parseForwardPath
from moxtls.reception.reports import MailedReports
from moxtls.reporting.destinations import bounceMailbox
from moxtls.smtp.server.data import HEADER_TOO_LONG
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
    @ivar reports: Takes in such reports; C{None} if they are only delivered.
    """

    hostname: str
    directory: Directory
    accounts: Mapping[str, Account]
    mailboxOf: Callable[[str], IMailbox]
    postmaster: str
    bounced: Callable[[str, bytes], Deferred[ReportKind | None]]
    isForReports: Callable[[Address], Deferred[bool]]
    reports: MailedReports | None = None


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
        self.reports = local.reports
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
        if found.isForReports and self.reports is not None:
            # Reports are in the ledger, whether or not their mailbox has room.
            return succeed(RECIPIENT_OK)
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


#: Octets of a message that are searched for a DSN about a report.  A DSN has the header
#: of the message it is about, or all of it; reports aren't that large.
MAX_DSN_LENGTH = 1024 * 1024


@implementer(IMessage)
class IncomingMessage:
    """
    Receives, authenticates and delivers one message.
    """

    log = Logger()

    def __init__(
        self,
        reception: Reception,
        client: ClientInfo,
        transaction: TransactionState,
        spooled: SpooledMessage,
        authentication: MessageAuthentication | None,
    ) -> None:
        """
        @param authentication: C{None} if messages aren't authenticated.
        """
        self._reception = reception
        self._client = client
        self._transaction = transaction
        self._spooled = spooled
        self._id = reception.newID()
        self._stream = StreamingMessage(spooled, authentication)

    def write(self, chunk: bytes) -> Deferred[None] | None:
        self._stream.write(chunk)
        return None

    def finish(self) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._finish())

    def abort(self) -> None:
        self._stream.close()

    # --- what becomes of it ------------------------------------------------------

    async def _finish(self) -> Reply:
        try:
            return await self._received()
        except CancelledError:
            raise
        except (ReadingUnavailable, AuthenticationUnavailable) as why:
            self.log.warn(
                "message from {host!r} deferred: {why}",
                host=self._client.address,
                why=str(why),
            )
            return TRY_LATER
        except Exception:
            logUnlessOutage(
                self.log,
                "reception of a message from {host!r} failed",
                host=self._client.address,
            )
            return TRY_LATER
        finally:
            self.abort()

    async def _received(self) -> Reply:
        if self._stream.isTooLong:
            return HEADER_TOO_LONG
        header = self._stream.end()
        refusal = checkHeader(header)
        if refusal is not None:
            return refusal
        outcome = await self._stream.outcome()
        decision = Decision(FinalDisposition.ACCEPTED)
        if outcome is not None:
            decision = decide(outcome, self._transaction.sender)
        reply = await self._decided(header, outcome, decision)
        self._log(outcome, decision, reply)
        return reply

    async def _decided(
        self, header: Header, outcome: AuthenticationOutcome | None, decision: Decision
    ) -> Reply:
        reception, transaction = self._reception, self._transaction
        found = map(reception.recipient, transaction.recipients)
        recipients = [each for each in found if isinstance(each, Recipient)]
        stored = self._storedMessage(outcome, recipients)
        if outcome is not None:
            await self._notifyObservers(header, outcome, decision, recipients)
        if decision.refusal is not None:
            # Accounts may keep refused messages; failing to store one changes nothing.
            copies = planCopies(
                recipients, decision.finalDisposition, reception.accounts
            )
            await reception.delivery.store(stored, copies)
            return decision.refusal
        others, reply = await self._storeReportDSNs(stored, recipients)
        taken = None
        if reception.reports is not None:
            # Before the message itself: if that can't be stored, the client sends it
            # again, and its reports are known by then.
            taken = await reception.reports.take(
                self._client, header, outcome, self._spooled, others
            )
        copies = planCopies(
            others, decision.finalDisposition, reception.accounts, taken
        )
        if copies:
            reply = await reception.delivery.deliver(
                stored, copies, decision.finalDisposition
            )
        if outcome is not None and reply.accepted:
            await self._recordHistory(outcome, decision, copies)
        return reply

    async def _notifyObservers(
        self,
        header: Header,
        outcome: AuthenticationOutcome,
        decision: Decision,
        recipients: Sequence[Recipient],
    ) -> None:
        dispatcher, sender = self._reception.dispatcher, self._transaction.sender
        known: dict[tuple[str, ...], bool] = {}
        for recipient in recipients:
            event = verdictEvent(outcome, decision, sender, recipient, header)
            if not event.isForReports:
                isForReports = await self._reception.isForReports(recipient.address)
                event = replace(event, isForReports=isForReports)
            discovery = event.verdict.discovery
            if discovery and needsHistory(event, dispatcher.reportsFailures):
                accounts, author = recipient.accounts, discovery.organizational
                if accounts not in known:
                    known[accounts] = await dispatcher.isKnown(accounts, author)
                event = replace(event, isKnown=known[accounts])
            await dispatcher.dispatch(event)

    async def _recordHistory(
        self,
        outcome: AuthenticationOutcome,
        decision: Decision,
        copies: Sequence[MailboxCopy],
    ) -> None:
        author = authenticatedOrganization(outcome, decision)
        if author is not None:
            for account in dict.fromkeys(copy.account for copy in copies):
                await self._reception.dispatcher.recordReceived(account, author)

    def _log(
        self, outcome: AuthenticationOutcome | None, decision: Decision, reply: Reply
    ) -> None:
        self.log.info(
            "{finalDisposition} {id} from {sender!r} at {host} for {count} recipients, "
            "{size} bytes, DMARC {dmarc}: {code}",
            finalDisposition=str(decision.finalDisposition),
            id=self._id,
            sender=self._transaction.sender,
            host=self._client.address,
            count=len(self._transaction.recipients),
            size=self._spooled.size,
            dmarc=str(outcome.verdict.status) if outcome else "not checked",
            code=reply.code,
        )

    # --- what comes back of reports ------------------------------------------------

    async def _storeReportDSNs(
        self, stored: StoredMessage, recipients: Sequence[Recipient]
    ) -> tuple[Sequence[Recipient], Reply]:
        """
        Store DSNs about our reports apart, as nobody needs to read them.

        @return: The other recipients, and the reply if there are none.
        """
        others = []
        reply = ACCEPTED
        for recipient in recipients:
            kind = await self._reportKind(recipient)
            if kind is None:
                others.append(recipient)
                continue
            mailbox = bounceMailbox(kind, self._reception.postmaster)
            copy = MailboxCopy(HOST_ACCOUNT, mailbox, recipient.address, seen=True)
            results = await self._reception.delivery.store(stored, [copy])
            reply = replyFor(results, FinalDisposition.ACCEPTED)
        return others, reply

    async def _reportKind(self, recipient: Recipient) -> ReportKind | None:
        if not recipient.mayBeReportSender:
            return None
        beginning = self._spooled.beginning(MAX_DSN_LENGTH)
        return await self._reception.bounced(str(recipient.address), beginning)

    # --- what is stored ----------------------------------------------------------

    def _storedMessage(
        self, outcome: AuthenticationOutcome | None, recipients: Sequence[Recipient]
    ) -> StoredMessage:
        stream, hostname = self._stream, self._reception.hostname
        # RFC 5321 7.6: others must not learn of each other.
        only = str(recipients[0].address) if len(recipients) == 1 else ""
        trace = self._trace(outcome, only)
        return StoredMessage(
            self._transaction.sender,
            lambda before: stream.chunks(hostname, before + trace),
            eightBit=not self._spooled.isASCII,
            smtputf8=self._transaction.parameters.smtputf8,
        )

    def _trace(self, outcome: AuthenticationOutcome | None, only: str) -> bytes:
        """
        The trace fields (RFC 5321 4.4), and above them the authentication results,
        which are about the message as received (RFC 8601 4).
        """
        reception, client, transaction = (
            self._reception,
            self._client,
            self._transaction,
        )
        hostname, sender = reception.hostname, transaction.sender
        results = b""
        if outcome is not None:
            found = outcome.authentication
            results = authenticationResults(hostname, found, outcome.verdict, sender)
            results += receivedSPF(hostname, found, sender, client.helo)
        now, smtputf8 = reception.clock.seconds(), transaction.parameters.smtputf8
        return results + receivedHeader(client, hostname, self._id, now, smtputf8, only)


class StreamingMessage:
    """
    Spools a message while it is received, and starts authenticating it once its
    header is complete.

    @ivar isTooLong: True if the header is longer than L{MAX_HEADER}.
    """

    def __init__(
        self, spooled: SpooledMessage, authentication: MessageAuthentication | None
    ) -> None:
        """
        @param authentication: C{None} if messages aren't authenticated.
        """
        self._spooled = spooled
        self._authentication = authentication
        # The header received so far; empty once it is complete.
        self._beginning = bytearray()
        self._header: Header | None = None
        self._bodyStart = 0

    @property
    def isTooLong(self) -> bool:
        return len(self._beginning) > MAX_HEADER

    def write(self, chunk: bytes) -> None:
        """
        @raise OSError: The disk is full.
        """
        self._spooled.write(chunk)
        if self._header is None and not self.isTooLong:
            seen = len(self._beginning)
            self._beginning += chunk
            end = headerEnd(self._beginning, seen)
            if 0 <= end <= MAX_HEADER:
                self._headerEnds(bytes(self._beginning[:end]), end + len(b"\r\n"))

    def end(self) -> Header:
        """
        End the message.  Only to be called if C{isTooLong} is false.

        @return: The header.
        """
        if self._header is None:
            # Without an empty line the whole message is header.
            self._headerEnds(bytes(self._beginning), self._spooled.size)
        assert self._header is not None
        return self._header

    async def outcome(self) -> AuthenticationOutcome | None:
        """
        Finish authentication.

        @return: C{None} if the message isn't authenticated.
        """
        authentication, self._authentication = self._authentication, None
        if authentication is None:
            return None
        body = self._spooled.chunks(start=self._bodyStart)
        return await authentication.finish(body)

    def chunks(self, hostname: str, trace: bytes = b"") -> Sequence[bytes]:
        """
        The message behind C{trace}, without forged authentication results of
        C{hostname}; to be read before the message is closed.
        """
        header = self.end()
        left = removeForgedFields(header, hostname)
        if left is header.data:
            return self._spooled.chunks(trace)
        return self._spooled.chunks(trace + left, len(header.data))

    def giveUp(self) -> None:
        """
        Cancel authentication.
        """
        authentication, self._authentication = self._authentication, None
        if authentication is not None:
            authentication.cancel()

    def close(self) -> None:
        """
        Discard the message.  Idempotent.
        """
        self.giveUp()
        self._spooled.close()

    def _headerEnds(self, data: bytes, bodyStart: int) -> None:
        self._beginning.clear()
        self._header = splitHeader(data)
        self._bodyStart = bodyStart
        if self._authentication is not None:
            self._authentication.begin(self._header)
