# -*- test-case-name: tests.reception.test_submission -*-
"""
Message submission (RFC 6409): accepts messages from local users for the queue.
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
from moxtls.message.header import (
    MAIL_LOOP,
    MAX_HEADER,
    ClientInfo,
    headerOf,
    isLooping,
    missingSubmissionFields,
    receivedHeader,
    saysTLSNotRequired,
)
from moxtls.message.spooled import SpooledMessage
from moxtls.queue.types import Envelope, isResponse
from moxtls.reception.recipients import parseForwardPath
from moxtls.smtp.server.data import InvalidMessage
from moxtls.smtp.server.interfaces import (
    RECIPIENT_OK,
    SENDER_OK,
    TRY_LATER,
    IMessage,
    IMessageDelivery,
)
from moxtls.smtp.server.state import TransactionState
from moxtls.smtp.types import Reply

OnQueued = Callable[[str, Envelope], Coroutine[Deferred[Any], Any, None]]


@implementer(IMessageDelivery)
class Submission:
    """
    Accepts mail for any recipient, and adds it to a queue.

    The listener decides which clients may submit, by their address or by AUTH.
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
        @param newID: Returns a new unique identifier of letters and digits.
        @param folder: For large messages while they are received.
        @param onQueued: Called with the submitting user and the envelope of each
            queued message; must not fail.
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
        Accept any sender.
        """
        return succeed(SENDER_OK)

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        """
        Accept any recipient: the conversation has checked the syntax.
        """
        return succeed(RECIPIENT_OK)

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        """
        Start receiving a message.
        """
        return _Submitted(self, client, transaction, SpooledMessage(self._folder))


@implementer(IMessage)
class _Submitted:
    """
    A submitted message.
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
            # The conversation may have other limits than the queue.
            return Reply(554, "5.6.0", str(why))
        except Exception:
            self.log.failure(
                "queueing a message from {host!r} failed", host=self._client.address
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
        # Without a header, the added one must be separated from the first line.
        return received + missing + (b"" if header else b"\r\n")


def envelopeOf(
    transaction: TransactionState, header: bytes, isASCII: bool, hostname: str
) -> Envelope:
    """
    The envelope of a message.  No I/O.

    @param isASCII: The whole message is ASCII.
    @param hostname: The domain of a recipient C{postmaster}.
    """
    sender = transaction.sender and str(Address.parse(transaction.sender))
    recipients = tuple(
        dict.fromkeys(
            str(parseForwardPath(each, hostname)) for each in transaction.recipients
        )
    )
    addressesASCII = all(each.isascii() for each in (sender, *recipients))
    parameters = transaction.parameters
    # RFC 8689 4.1: with REQUIRETLS the field is ignored.
    dontRequire = False if saysTLSNotRequired(header) else None
    return Envelope(
        sender,
        recipients,
        eightBit=not isASCII,
        # RFC 6531 3.4 allows sending a message that doesn't need SMTPUTF8 without
        # it; some clients use it whenever it is announced.
        smtputf8=parameters.smtputf8 and not (isASCII and addressesASCII),
        requireTLS=True if parameters.requireTLS else dontRequire,
        response=isResponse(header),
    )
