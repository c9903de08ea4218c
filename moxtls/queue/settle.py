# -*- test-case-name: tests.queue.test_service -*-
"""
What is done to a spool after an attempt: where the recipients stand, who is
sent a DSN, what is finished.  All of it in the same transaction, so that no
moment of dying loses a DSN or sends one twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from twisted.logger import Logger

from moxtls.queue.dsn import DSNMessage, composeDSN, dsnEnvelope, headerOf
from moxtls.queue.retry import RetryDecision, RetrySchedule, overdue
from moxtls.queue.spool import Spool
from moxtls.queue.types import (
    DeliveryStatus,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
)

#: Untold failures looked at in one go after a start.
UNTOLD_AT_ONCE = 1000
#: Old messages told of, or given up, in one transaction.
AT_ONCE = 100


class Settlement:
    """
    Operations on a spool.
    """

    log = Logger()

    def __init__(self, hostname: str, newID: Callable[[], str]) -> None:
        self._hostname = hostname
        self._newID = newID

    def settle(
        self,
        spool: Spool,
        steps: Sequence[RetryDecision],
        busy: AbstractSet[str],
        now: float,
    ) -> None:
        """
        Operation: carry out C{steps}.

        @param busy: Messages of which other recipients are being attempted:
            their failures wait, to be told in one DSN.
        """
        spool.index.apply(steps, now)
        for messageID in dict.fromkeys(step.messageID for step in steps):
            if messageID not in busy:
                self.tellFailure(spool, messageID, now)

    def attempted(
        self,
        spool: Spool,
        steps: Sequence[RetryDecision],
        busy: AbstractSet[str],
        now: float,
    ) -> None:
        """
        Operation: the same after an attempt.
        """
        for destination in {
            step.recipient.destination for step in steps if _isAnswer(step)
        }:
            spool.index.reached(destination)
        self.settle(spool, steps, busy, now)

    def backOff(
        self,
        spool: Spool,
        destination: str,
        backoff: RetrySchedule,
        now: float,
        chance: float,
    ) -> float:
        """
        Operation: make no attempt for a destination for some time, as no host
        of it could be reached.

        @return: Until when.
        """
        failures, notBefore = spool.index.outage(destination)
        if notBefore > now:
            # Another attempt at the same time has come to the same.
            return notBefore
        until = now + backoff.hostWait(failures + 1, chance)
        spool.index.backOff(destination, until, now)
        return until

    def tellFailures(self, spool: Spool, now: float) -> None:
        """
        Operation: for when nothing is busy.
        """
        for _, messageID in spool.index.untold(False, 0, UNTOLD_AT_ONCE):
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

    def tellDelays(
        self, spool: Spool, before: float, busy: AbstractSet[str], now: float
    ) -> bool:
        """
        Operation: send delay DSNs about messages that came up to C{before}.

        @return: Whether there may be more of them.
        """
        found = spool.index.unnoticed(before, AT_ONCE + len(busy))
        delayed = [each for each in found if each.messageID not in busy]
        for message in delayed:
            self._send(spool, message, message.recipients, True, now)
            spool.index.noticed(message.messageID)
        return len(delayed) >= AT_ONCE

    def giveUp(
        self,
        spool: Spool,
        before: float,
        brief: bool,
        busy: AbstractSet[str],
        now: float,
    ) -> bool:
        """
        Operation: give up messages that came up to C{before}.

        @param brief: As of L{moxtls.queue.index.Index.aged}.

        @return: Whether there may be more of them.
        """
        found = spool.index.aged(before, brief, AT_ONCE + len(busy))
        old = [each for each in found if each.messageID not in busy]
        steps = [overdue(each, one) for each in old for one in each.recipients]
        self.settle(spool, steps, busy, now)
        return len(old) >= AT_ONCE

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
        # RFC 8689 5: of a message that has to be protected the header only.
        isWhole = len(start) == message.size and not message.envelope.requireTLS
        isOnlyHere = not message.envelope.sender and not message.envelope.report
        return composeDSN(
            DSNMessage(
                self._newID(),
                self._hostname,
                now,
                delayed,
                message,
                tuple(recipients),
                headerOf(start),
                start if isWhole and isOnlyHere else b"",
            )
        )

    def _send(
        self,
        spool: Spool,
        message: QueuedMessage,
        recipients: Sequence[QueuedRecipient],
        delayed: bool,
        now: float,
    ) -> None:
        envelope = dsnEnvelope(message, recipients, self._hostname)
        if envelope is None:
            self.log.error(
                "{messageID} to the postmaster has failed, and is lost: {why!r}",
                messageID=message.messageID,
                why=[each.lastResult.text for each in recipients if each.lastResult],
            )
            return
        body = self.compose(spool, message, recipients, delayed, now)
        eightBit = envelope.eightBit or not body.isascii()
        envelope = replace(envelope, eightBit=eightBit)
        spool.submit(self._newID(), envelope, [body], now)


def _isAnswer(step: RetryDecision) -> bool:
    """
    Whether it shows that a host was reached.
    """
    result = step.recipient.lastResult
    return (
        result is not None
        and not result.unreachable
        and (result.code > 0 or result.ending is not DeliveryStatus.TEMPORARY)
    )


def isFailed(recipient: QueuedRecipient) -> bool:
    return recipient.state is RecipientState.FAILED
