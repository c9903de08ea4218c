# -*- test-case-name: tests.queue.test_service -*-
"""
Carries out the decisions after an attempt: recipient states, DSNs, removal of finished
messages, and the notification of report observers.  Changes of the spool are one
transaction, so that a crash neither loses a DSN nor sends one twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from moxtls.interfaces import IMailbox, IReportObserver
from moxtls.outages import logUnlessOutage
from moxtls.queue.dsn import DSNMessage, composeDSN, dsnEnvelope, headerOf
from moxtls.queue.executor import SpoolExecutor
from moxtls.queue.schedule import RetryDecision, RetrySchedule, giveUp
from moxtls.queue.spool import Spool
from moxtls.queue.types import (
    DeliveryStatus,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    ReportKind,
)

#: Messages with unreported failures for which DSNs are sent at startup.
RESUME_BATCH = 1000
#: Old messages reported as delayed, or given up, in one transaction.
EXPIRE_BATCH = 100


class Settlement:
    """
    Operations on a spool that carry out retry decisions.
    """

    log = Logger()

    def __init__(self, hostname: str, newID: Callable[[], str]) -> None:
        self._hostname = hostname
        self._newID = newID

    def settle(
        self,
        spool: Spool,
        decisions: Sequence[RetryDecision],
        busy: AbstractSet[str],
        now: float,
    ) -> None:
        """
        Operation: carry out C{decisions}.

        @param busy: Ids of messages with recipients in an active attempt: all their
            failures are reported in one DSN after it.
        """
        spool.index.record(decisions)
        self._ended(spool, decisions, busy, now)

    def attempted(
        self,
        spool: Spool,
        decisions: Sequence[RetryDecision],
        unrecorded: Sequence[str],
        busy: AbstractSet[str],
        now: float,
    ) -> None:
        """
        Operation: carry out the decisions of attempts.

        @param unrecorded: The lines of those that aren't recorded yet.
        """
        if unrecorded:
            spool.index.recordLines(unrecorded)
        responses = [each for each in decisions if _isResponse(each)]
        if responses:
            spool.index.reached({each.recipient.destination for each in responses})
        self._ended(spool, decisions, busy, now)

    def backOff(
        self,
        spool: Spool,
        destination: str,
        schedule: RetrySchedule,
        now: float,
        chance: float,
    ) -> float:
        """
        Operation: suspend attempts for a destination none of whose hosts could be
        reached.

        @return: The Unix time of the next attempt.
        """
        failures, notBefore = spool.index.outage(destination)
        if notBefore > now:
            # A concurrent attempt had the same result.
            return notBefore
        until = now + schedule.hostWait(failures + 1, chance)
        spool.index.backOff(destination, until, now)
        return until

    def resume(self, spool: Spool, now: float) -> None:
        """
        Operation: send the DSNs that are due at a start, when no attempt is active.
        """
        unreported = spool.index.withUnreported(False, 0, RESUME_BATCH)
        self._finish(spool, [messageID for _, messageID in unreported], now)

    def sendDelayed(
        self, spool: Spool, before: float, busy: AbstractSet[str], now: float
    ) -> bool:
        """
        Operation: send delay DSNs about messages queued up to C{before}.

        @return: True if there may be more of them.
        """
        found = spool.index.delayed(before, EXPIRE_BATCH + len(busy))
        delayed = [each for each in found if each.messageID not in busy]
        for message in delayed:
            self._send(spool, message, message.recipients, True, now)
            spool.index.markDelayReported(message.messageID)
        return len(delayed) >= EXPIRE_BATCH

    def giveUp(
        self,
        spool: Spool,
        before: float,
        brief: bool,
        busy: AbstractSet[str],
        now: float,
    ) -> bool:
        """
        Operation: give up messages queued up to C{before}.

        @param brief: As of L{moxtls.queue.index.Index.aged}.

        @return: True if there may be more of them.
        """
        found = spool.index.aged(before, brief, EXPIRE_BATCH + len(busy))
        old = [each for each in found if each.messageID not in busy]
        decisions = [giveUp(each, one) for each in old for one in each.recipients]
        self.settle(spool, decisions, busy, now)
        return len(old) >= EXPIRE_BATCH

    def compose(
        self,
        spool: Spool,
        message: QueuedMessage,
        recipients: Sequence[QueuedRecipient],
        delayed: bool,
        now: float,
    ) -> bytes:
        """
        Operation: compose a DSN.

        @param delayed: True if attempts go on.
        """
        # A message posted to a URI has no header.
        isMail = not message.envelope.contentType
        start = spool.files.header(message.messageID) if isMail else b""
        # RFC 8689 5: only the header of a message that requires TLS.
        isWhole = len(start) == message.size and not message.envelope.requireTLS
        hasNoSender = not message.envelope.sender and not message.envelope.report
        return composeDSN(
            DSNMessage(
                self._newID(),
                self._hostname,
                now,
                delayed,
                message,
                tuple(recipients),
                headerOf(start),
                start if isWhole and hasNoSender else b"",
            )
        )

    def _ended(
        self,
        spool: Spool,
        decisions: Sequence[RetryDecision],
        busy: AbstractSet[str],
        now: float,
    ) -> None:
        spool.index.ended({each.recipient.destination for each in decisions}, now)
        messageIDs = dict.fromkeys(each.messageID for each in decisions)
        self._finish(spool, [each for each in messageIDs if each not in busy], now)

    def _finish(self, spool: Spool, messageIDs: Sequence[str], now: float) -> None:
        """
        Send the failure DSNs of messages that are due, and remove finished messages.
        """
        for messageID in spool.index.unreportedAmong(messageIDs):
            message = spool.index.message(messageID)
            if message is not None and message.envelope.report is None:
                failed = spool.index.unreported(messageID)
                self._send(spool, message, failed, False, now)
                spool.index.markReported(messageID, failed)
        spool.index.removeFinished(messageIDs, now)

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
                "{messageID}: delivery to the postmaster failed; the message is lost: "
                "{why!r}",
                messageID=message.messageID,
                why=[each.lastResult.text for each in recipients if each.lastResult],
            )
            return
        body = self.compose(spool, message, recipients, delayed, now)
        eightBit = envelope.eightBit or not body.isascii()
        envelope = replace(envelope, eightBit=eightBit)
        spool.submit(self._newID(), envelope, [body], now)


def _isResponse(decision: RetryDecision) -> bool:
    """
    True if the result shows that a host was reached.
    """
    result = decision.recipient.lastResult
    return (
        result is not None
        and not result.unreachable
        and (result.code > 0 or result.ending is not DeliveryStatus.TEMPORARY)
    )


def isFailed(recipient: QueuedRecipient) -> bool:
    return recipient.state is RecipientState.FAILED


#: Messages read at a time.
PAGE_SIZE = 100


class ReportStatusNotifier:
    """
    Notifies observers of final results of reports, and stores DSNs about reports in a
    mailbox of their own.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        observers: Sequence[IReportObserver],
        mailbox: IMailbox,
        mailboxFor: Callable[[ReportKind], str],
    ) -> None:
        """
        @param mailboxFor: Returns the name of the mailbox for DSNs.
        """
        self._clock = clock
        self._observers = observers
        self._mailbox = mailbox
        self._mailboxFor = mailboxFor

    async def notifyAll(self, spool: SpoolExecutor, settlement: Settlement) -> None:
        """
        Send all notifications that are due.  A failure is logged, and the notification
        remains due.
        """
        after = 0
        while found := await spool.read(_unreported(after)):
            for number, messageID in found:
                after = number
                await self._notifyOrLog(spool, settlement, messageID)

    async def _notifyOrLog(
        self, spool: SpoolExecutor, settlement: Settlement, messageID: str
    ) -> None:
        try:
            await self._notify(spool, settlement, messageID)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(
                self.log,
                "Notifying observers of report {messageID} failed",
                messageID=messageID,
            )

    async def _notify(
        self, spool: SpoolExecutor, settlement: Settlement, messageID: str
    ) -> None:
        now = self._clock.seconds()
        message, ended = await spool.read(lambda spool: _ended(spool, messageID))
        if message is None or message.envelope.report is None:
            return
        for recipient in ended:
            for observer in self._observers:
                if recipient.lastResult is not None:
                    await observer.reportEnded(message.envelope, recipient.lastResult)
        failed = [recipient for recipient in ended if isFailed(recipient)]
        if failed:
            report = message
            dsn = await spool.read(
                lambda spool: settlement.compose(spool, report, failed, False, now)
            )
            name = self._mailboxFor(message.envelope.report)
            await self._mailbox.deliver(name, [dsn], seen=True)
        await spool.run(lambda spool: _markReported(spool, messageID, ended, now))


def _unreported(after: int) -> Callable[[Spool], list[tuple[int, str]]]:
    return lambda spool: spool.index.withUnreported(True, after, PAGE_SIZE)


def _ended(
    spool: Spool, messageID: str
) -> tuple[QueuedMessage | None, tuple[QueuedRecipient, ...]]:
    return spool.index.message(messageID), spool.index.unreported(messageID)


def _markReported(
    spool: Spool, messageID: str, ended: Sequence[QueuedRecipient], now: float
) -> None:
    spool.index.markReported(messageID, ended)
    spool.index.removeFinished([messageID], now)
