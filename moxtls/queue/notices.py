# -*- test-case-name: tests.queue.test_service -*-
"""
What is done to a spool after an attempt: where the recipients stand, who is
sent a DSN, what is finished.  All of it in the same transaction, so that no
moment of dying loses a DSN or sends one twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from twisted.logger import Logger

from moxtls.queue.backoff import Step, Tell
from moxtls.queue.bounce import Notice, bounceEnvelope, compose, headerOf
from moxtls.queue.spool import Spool
from moxtls.queue.values import QueuedMessage, QueuedRecipient, RecipientState

#: Untold failures looked at in one go after a start.
AT_ONCE = 1000


class Notices:
    """
    Operations on a spool.
    """

    log = Logger()

    def __init__(self, hostname: str, newID: Callable[[], str]) -> None:
        self._hostname = hostname
        self._newID = newID

    def settle(
        self, spool: Spool, steps: Sequence[Step], busy: AbstractSet[str], now: float
    ) -> None:
        """
        Operation: carry out C{steps}.

        @param busy: Messages of which other recipients are being attempted:
            their failures wait, to be told in one DSN.
        """
        spool.index.apply(steps)
        for messageID in dict.fromkeys(step.messageID for step in steps):
            own = [step for step in steps if step.messageID == messageID]
            self._tellDelay(spool, messageID, own, now)
            if messageID not in busy:
                self.tellFailure(spool, messageID, now)

    def tellFailures(self, spool: Spool, now: float) -> None:
        """
        Operation: for when nothing is busy.
        """
        for _, messageID in spool.index.untold(False, 0, AT_ONCE):
            self.tellFailure(spool, messageID, now)

    def tellFailure(self, spool: Spool, messageID: str, now: float) -> None:
        """
        Operation: send the DSN that C{messageID} causes, if it does, and
        clear the message away, if it is finished.
        """
        failed = spool.index.untoldOf(messageID)
        message = spool.index.message(messageID) if failed else None
        if message is not None and message.envelope.report is None:
            self._send(spool, message, failed, False, now)
            spool.index.told(messageID, failed)
        if spool.index.finished(messageID):
            spool.index.remove(messageID, now)

    def compose(
        self,
        spool: Spool,
        message: QueuedMessage,
        recipients: Sequence[QueuedRecipient],
        delayed: bool,
        now: float,
    ) -> bytes:
        """
        Operation: the DSN.
        """
        # What is posted to a URI has no header.
        isMail = not message.envelope.contentType
        start = spool.bodies.header(message.messageID) if isMail else b""
        return compose(
            Notice(
                self._newID(),
                self._hostname,
                now,
                delayed,
                message,
                tuple(recipients),
                headerOf(start),
            )
        )

    def _tellDelay(
        self, spool: Spool, messageID: str, steps: Sequence[Step], now: float
    ) -> None:
        delayed = [step.recipient for step in steps if step.tell is Tell.DELAY]
        message = spool.index.message(messageID) if delayed else None
        if message is not None:
            self._send(spool, message, delayed, True, now)

    def _send(
        self,
        spool: Spool,
        message: QueuedMessage,
        recipients: Sequence[QueuedRecipient],
        delayed: bool,
        now: float,
    ) -> None:
        envelope = bounceEnvelope(message)
        if envelope is None:
            self.log.warn(
                "{messageID}: no DSN can be sent to {sender!r}",
                messageID=message.messageID,
                sender=message.envelope.sender,
            )
            return
        body = self.compose(spool, message, recipients, delayed, now)
        spool.submit(self._newID(), envelope, [body], now)


def isFailed(recipient: QueuedRecipient) -> bool:
    return recipient.state is RecipientState.FAILED
