# -*- test-case-name: tests.outbound.test_carry -*-
"""
Hands parcels over in a session that is open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed

from moxtls.interfaces import IResultRecorder
from moxtls.outbound.endings import DeliveryError, RecipientResults, smtpError
from moxtls.queue.values import BatchMessage
from moxtls.smtp.extensions import splitByLimits
from moxtls.smtp.session import ClientSession
from moxtls.smtp.settings import SessionFailed
from moxtls.smtp.values import RecipientReply, Transaction

#: RFC 5321 3.8: the host is about to close the connection.
CLOSING = 421


async def deliverBatch(
    session: ClientSession,
    parcels: tuple[BatchMessage, ...],
    progress: RecipientResults,
    recorder: IResultRecorder,
    host: str,
    requireTLS: bool = False,
    lenient: bool = False,
) -> tuple[BatchMessage, ...]:
    """
    One transaction for each parcel that has recipients without an answer; as
    many as it takes to keep to the host's limits on recipients (RFC 9422).

    @param recorder: Has recorded the final results of each transaction
        before the data of the next message is sent: recording takes place while
        the host answers the commands before it.
    @param requireTLS: Say REQUIRETLS.
    @param lenient: As in L{RecipientResults.answered}.

    @return: What another session with the same host may take, after this one
        took at least one parcel, or some recipients of it, and takes no more.
    """
    begun = False
    recorded: Deferred[None] = succeed(None)
    for index, parcel in enumerate(parcels):
        recipients = progress.openRecipients(parcel)
        whole = _transaction(parcel, recipients, requireTLS)
        parts = splitByLimits(whole, session.extensions) if recipients else ()
        for number, part in enumerate(parts):
            if begun and not session.usable:
                await recorded
                rest = tuple(to for each in parts[number:] for to in each.recipients)
                return (replace(parcel, recipients=rest), *parcels[index + 1 :])
            begun = True
            progress.begin()
            try:
                replies = await session.deliver(part, recorded)
                ended = _ended(replies, host)
            except SessionFailed as failed:
                replies, ended = failed.decided, sessionError(failed, host, lenient)
            except OSError as why:
                progress.parcelFailed(parcel, _unreadable(why))
                continue
            progress.answered(parcel, replies, host, lenient)
            if not progress.over:
                # Without another transaction, what the attempt returns is soon
                # recorded: that saves a commit for most messages.
                # It has fired, unless this transaction ended before its data.
                await recorded
                recorded = recorder.record(progress.news())
            if ended is not None:
                progress.hostFailed(ended)
                await recorded
                return ()
    await recorded
    return ()


def sessionError(
    failed: SessionFailed, host: str, lenient: bool = False
) -> DeliveryError:
    """
    What to say about a session that ended before its time.

    @param lenient: Take it as temporary in any case.
    """
    if failed.reply is None:
        return DeliveryError("4.4.2", failed.reason, host)
    if failed.reply.accepted:
        # RFC 3463 3.6: it said yes to something else than it was asked.
        return DeliveryError("4.5.0", f"{failed.reason}: {failed.reply}", host)
    trouble = smtpError(failed.reply, host)
    return trouble.softened() if lenient else trouble


def _unreadable(why: OSError) -> DeliveryError:
    # Without its path, for this goes into a DSN.
    return DeliveryError("4.3.0", f"the message can't be read: {why.strerror}")


def _ended(replies: Iterable[RecipientReply], host: str) -> DeliveryError | None:
    """
    Why the host takes nothing more, if it has said so.
    """
    said = (each.reply for each in replies)
    closing = next((reply for reply in said if reply.code == CLOSING), None)
    return None if closing is None else smtpError(closing, host)


def _transaction(
    parcel: BatchMessage, recipients: tuple[str, ...], requireTLS: bool
) -> Transaction:
    return Transaction(
        parcel.sender,
        recipients,
        parcel.path,
        parcel.size,
        parcel.eightBit,
        parcel.smtputf8,
        requireTLS,
    )
