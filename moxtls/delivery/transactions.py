# -*- test-case-name: tests.delivery.test_attempt -*-
"""
Sends the messages of a batch in an open session.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed

from moxtls.delivery.results import DeliveryError, RecipientResults, smtpError
from moxtls.interfaces import IResultRecorder
from moxtls.queue.types import BatchMessage
from moxtls.smtp.client.connection import SessionFailed
from moxtls.smtp.client.replies import splitByLimits
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.types import RecipientReply, Transaction

#: RFC 5321 3.8: the host is about to close the connection.
CLOSING = 421


async def deliverBatch(
    session: ClientSession,
    messages: tuple[BatchMessage, ...],
    results: RecipientResults,
    recorder: IResultRecorder,
    host: str,
    requireTLS: bool = False,
    lenient: bool = False,
) -> tuple[BatchMessage, ...]:
    """
    Send messages in an open session, in one transaction for each message that
    has undecided recipients, or several if the host limits the recipients of a
    transaction (RFC 9422).

    @param recorder: Has recorded the final results of each transaction before
        the data of the next message is sent: recording takes place while the
        host answers the commands before it.
    @param requireTLS: Send the REQUIRETLS parameter (RFC 8689).
    @param lenient: As in L{RecipientResults.addReplies}.

    @return: The messages, or the recipients of one, that another session with
        the same host may accept.  Empty unless this session has carried at
        least one transaction and accepts no more.
    """
    begun = False
    recorded: Deferred[None] = succeed(None)
    for index, message in enumerate(messages):
        recipients = results.undecidedRecipients(message)
        whole = _transaction(message, recipients, requireTLS)
        parts = splitByLimits(whole, session.extensions) if recipients else ()
        for number, part in enumerate(parts):
            if begun and not session.usable:
                await recorded
                rest = tuple(to for each in parts[number:] for to in each.recipients)
                return (replace(message, recipients=rest), *messages[index + 1 :])
            begun = True
            results.messageStarted()
            try:
                replies = await session.deliver(part, recorded)
                ended = _closingError(replies, host)
            except SessionFailed as failed:
                replies, ended = failed.decided, sessionError(failed, host, lenient)
            except OSError as why:
                results.failMessage(message, _unreadableMessage(why))
                continue
            results.addReplies(message, replies, host, lenient)
            if not results.complete:
                # After the last transaction the caller records all results at
                # once: that saves a commit for most messages.  The previous
                # recording is done, unless this transaction ended before its data.
                await recorded
                recorded = recorder.record(results.takeNew())
            if ended is not None:
                results.addHostError(ended)
                await recorded
                return ()
    await recorded
    return ()


def sessionError(
    failed: SessionFailed, host: str, lenient: bool = False
) -> DeliveryError:
    """
    The error of a session that ended early.

    @param lenient: Make it temporary in any case.
    """
    if failed.reply is None:
        return DeliveryError("4.4.2", failed.reason, host)
    if failed.reply.accepted:
        # RFC 3463 3.6: a positive reply where it doesn't belong.
        return DeliveryError("4.5.0", f"{failed.reason}: {failed.reply}", host)
    error = smtpError(failed.reply, host)
    return error.asTemporary() if lenient else error


def _unreadableMessage(why: OSError) -> DeliveryError:
    # Without its path: the text goes into a DSN.
    return DeliveryError("4.3.0", f"the message can't be read: {why.strerror}")


def _closingError(replies: Iterable[RecipientReply], host: str) -> DeliveryError | None:
    """
    The error of a host that has announced that it closes the connection.
    """
    for each in replies:
        if each.reply.code == CLOSING:
            return smtpError(each.reply, host)
    return None


def _transaction(
    message: BatchMessage, recipients: tuple[str, ...], requireTLS: bool
) -> Transaction:
    return Transaction(
        message.sender,
        recipients,
        message.path,
        message.size,
        message.eightBit,
        message.smtputf8,
        requireTLS,
    )
