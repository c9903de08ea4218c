# -*- test-case-name: tests.outbound.test_delivery -*-
"""
Hands a batch over in a session that is open.
"""

from __future__ import annotations

from moxtls.outbound.endings import Progress, Trouble, rejected
from moxtls.queue.values import Batch, Parcel
from moxtls.smtp.session import Session
from moxtls.smtp.settings import SessionFailed
from moxtls.smtp.values import Transaction


async def carry(
    session: Session,
    batch: Batch,
    progress: Progress,
    host: str,
    lenient: bool = False,
) -> None:
    """
    One transaction for each parcel that has recipients without an answer.

    @param lenient: As in L{Progress.answered}.
    """
    for parcel in batch.parcels:
        recipients = progress.openRecipients(parcel)
        if not recipients:
            continue
        transaction = _transaction(parcel, recipients, batch.requireTLS is True)
        try:
            replies = await session.deliver(transaction)
        except SessionFailed as failed:
            progress.answered(parcel, failed.decided, host)
            progress.hostFailed(troubleOf(failed, host))
            return
        progress.answered(parcel, replies, host, lenient)


def troubleOf(failed: SessionFailed, host: str) -> Trouble:
    """
    What to say about a session that ended before its time.
    """
    if failed.reply is not None:
        return rejected(failed.reply, host)
    return Trouble("4.4.2", failed.reason, host)


def _transaction(
    parcel: Parcel, recipients: tuple[str, ...], requireTLS: bool
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
