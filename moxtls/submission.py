# -*- test-case-name: tests.test_submission -*-
"""
Submission (RFC 6409): messages from our own people, for the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.domain import Address
from moxtls.interfaces import IQueue
from moxtls.message.header import MAX_HEADER, headerOf
from moxtls.message.spooled import SpooledMessage
from moxtls.message.trace import (
    MAIL_LOOP,
    ClientInfo,
    isLooping,
    missingSubmissionFields,
    receivedHeader,
    saysTLSNotRequired,
)
from moxtls.queue.responses import isResponse
from moxtls.queue.types import Envelope
from moxtls.smtp.server.data import InvalidMessage
from moxtls.smtp.server.events import TransactionState
from moxtls.smtp.server.interfaces import (
    RECIPIENT_OK,
    SENDER_OK,
    TRY_LATER,
    IMessage,
    IMessageDelivery,
)
from moxtls.smtp.types import Reply

OnQueued = Callable[[str, Envelope], Coroutine[Deferred[Any], Any, None]]


@implementer(IMessageDelivery)
class Submission:
    """
    Takes mail for anybody, and gives it to a queue.

    Whether the client may submit at all is for the listener to see to, by
    its address or by AUTH.
    """

    def __init__(
        self,
        clock: IReactorTime,
        queue: IQueue,
        hostname: str,
        newID: Callable[[], str],
        folder: Path,
        onQueued: OnQueued | None = None,
    ) -> None:
        """
        @param newID: Letters and digits, never the same twice.
        @param folder: For large messages while they come in.
        @param onQueued: Is told of each message that is queued, and by whom; it
            must not fail.
        """
        self.clock = clock
        self.queue = queue
        self.hostname = hostname
        self.newID = newID
        self.onQueued = onQueued
        self._folder = folder

    def mailFrom(
        self, client: ClientInfo, transaction: TransactionState
    ) -> Deferred[Reply]:
        """
        Anybody may be the sender.
        """
        return succeed(SENDER_OK)

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        """
        So may the recipient: the conversation lets nothing but addresses pass.
        """
        return succeed(RECIPIENT_OK)

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        """
        Begin a message.
        """
        return _Submitted(self, client, transaction, SpooledMessage(self._folder))


@implementer(IMessage)
class _Submitted:
    """
    One message for the queue.
    """

    log = Logger()

    def __init__(
        self,
        submission: Submission,
        client: ClientInfo,
        transaction: TransactionState,
        spooled: SpooledMessage,
    ) -> None:
        self._submission = submission
        self._client = client
        self._transaction = transaction
        self._spooled = spooled

    def write(self, chunk: bytes) -> Deferred[None] | None:
        self._spooled.write(chunk)
        return None

    def finish(self) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._submit())

    def abort(self) -> None:
        self._spooled.close()

    async def _submit(self) -> Reply:
        try:
            return await self._queued()
        except CancelledError:
            raise
        except InvalidMessage as why:
            # Of a conversation with other limits than the queue has.
            return Reply(554, "5.6.0", str(why))
        except Exception:
            self.log.failure(
                "queueing a message from {host!r}", host=self._client.address
            )
            return TRY_LATER
        finally:
            self._spooled.close()

    async def _queued(self) -> Reply:
        header = headerOf(self._spooled.beginning(MAX_HEADER))
        if isLooping(header):
            return MAIL_LOOP
        envelope = envelopeOf(
            self._transaction, header, self._spooled.isASCII, self._submission.hostname
        )
        prefix = self._prefix(header, envelope)
        messageID = await self._submission.queue.submit(
            envelope, self._spooled.chunks(prefix)
        )
        self.log.info(
            "queued {id} from {sender!r} for {count} recipients, {size} bytes",
            id=messageID,
            sender=envelope.sender,
            count=len(envelope.recipients),
            size=self._spooled.size,
        )
        if self._submission.onQueued is not None:
            await self._submission.onQueued(self._client.user, envelope)
        return Reply(250, "2.0.0", f"Queued as {messageID}")

    def _prefix(self, header: bytes, envelope: Envelope) -> bytes:
        submission = self._submission
        now, ourID = submission.clock.seconds(), submission.newID()
        only = envelope.recipients[0] if len(envelope.recipients) == 1 else ""
        smtputf8 = self._transaction.parameters.smtputf8
        received = receivedHeader(
            self._client, submission.hostname, ourID, now, smtputf8, only
        )
        missing = missingSubmissionFields(header, f"{ourID}@{submission.hostname}", now)
        # Where there is no header, ours must not swallow the first line.
        return received + missing + (b"" if header else b"\r\n")


def envelopeOf(
    transaction: TransactionState, header: bytes, isASCII: bool, hostname: str
) -> Envelope:
    """
    What the queue has to know of a message.  No I/O.

    @param isASCII: Whether all of it is.
    @param hostname: Of whose postmaster is meant if a client only says so.
    """
    sender = transaction.sender and str(Address.parse(transaction.sender))
    recipients = tuple(
        dict.fromkeys(str(addressOf(each, hostname)) for each in transaction.recipients)
    )
    addressesASCII = all(each.isascii() for each in (sender, *recipients))
    parameters = transaction.parameters
    # RFC 8689 4.1: REQUIRETLS makes the field count for nothing.
    dontRequire = False if saysTLSNotRequired(header) else None
    return Envelope(
        sender,
        recipients,
        eightBit=not isASCII,
        # RFC 6531 3.4 lets a message that doesn't need it go without; some
        # clients say SMTPUTF8 wherever they can.
        smtputf8=parameters.smtputf8 and not (isASCII and addressesASCII),
        requireTLS=True if parameters.requireTLS else dontRequire,
        response=isResponse(header),
    )


def addressOf(recipient: str, hostname: str) -> Address:
    """
    @param recipient: An address, or C{postmaster} (RFC 5321 4.5.1).
    """
    if recipient.lower() == "postmaster":
        recipient = f"{recipient}@{hostname}"
    return Address.parse(recipient)
