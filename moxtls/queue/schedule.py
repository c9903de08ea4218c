# -*- test-case-name: tests.queue.test_schedule -*-
"""
Schedules delivery: groups due messages into batches, and decides when to attempt a
recipient again, when to give up, and which notifications to send.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from moxtls.dates import DAY, HOUR, MINUTE
from moxtls.queue.types import (
    Batch,
    BatchMessage,
    DeliveryStatus,
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Result,
)

#: Half of the 15 minutes after which many greylisting hosts accept mail; doubled for
#: each attempt, up to eight hours.
FIRST_WAIT = 7.5 * MINUTE
WAITS = tuple(FIRST_WAIT * 2**n for n in range(7))
#: RFC 5321 4.5.4.1: the give-up time is to be at least 4 to 5 days.
MAX_AGE = 5 * DAY
#: RFC 8460 5.5: redelivery of a report is attempted for up to a day; DSNs too
#: are worth less the older they get.
MAX_BRIEF_AGE = DAY
#: RFC 5321 4.5.4.1 leaves the time of a delay notification to the sending host.
NOTICE_AFTER = 2 * HOUR
#: Longest wait before an unreachable host is tried again: that costs one connection,
#: however many messages wait for it.
MAX_HOST_WAIT = HOUR
#: Seconds by which a wait is lengthened or shortened at random, so that messages which
#: failed together aren't retried together.
SPREAD = 5
#: Characters kept of a remote host's reply (RFC 5321 4.5.3.1.5 limits a reply line to
#: 512 octets; a reply may have many lines).
MAX_TEXT = 1000
MAX_HOST_LENGTH = 255
MAX_STATUS_LENGTH = 16
#: RFC 3463 3.5: delivery time expired.
EXPIRED = "4.4.7"


class Notify(Enum):
    """
    The notification of a final result.

    C{SENDER}: a failure DSN to the sender.  C{OBSERVERS}: the result of a report, to
    the report observers of this process.
    """

    NONE = auto()
    SENDER = auto()
    OBSERVERS = auto()


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """
    The consequence of an attempt for one recipient.

    @ivar recipient: With its new state.
    """

    messageID: str
    recipient: QueuedRecipient
    notify: Notify


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """
    When to retry and when to give up.  Giving up and delay DSNs depend on the age of a
    message, whatever the number of attempts (RFC 5321 4.5.4.1).

    @ivar waits: Seconds between attempts; the last value repeats.
    @ivar maxAge: Seconds after which a message is given up.
    @ivar maxBriefAge: The same for reports, and for messages with the null
        reverse-path.
    @ivar noticeAfter: Seconds after which a delay DSN is sent; 0 for never.
    """

    waits: tuple[float, ...] = WAITS
    maxAge: float = MAX_AGE
    maxBriefAge: float = MAX_BRIEF_AGE
    noticeAfter: float = NOTICE_AFTER

    def wait(self, attempts: int, retryAfter: int | None, chance: float) -> float:
        """
        Seconds to wait after a number of attempts.

        @param retryAfter: Seconds requested by the remote host: they may lengthen the
            wait, up to the longest of the schedule.
        @param chance: A random number from 0 up to 1.
        """
        usual = self.waits[min(attempts, len(self.waits)) - 1]
        requested = min(retryAfter or 0, max(self.waits))
        return max(0, max(usual, requested) + (2 * chance - 1) * SPREAD)

    def hostWait(self, failures: int, chance: float) -> float:
        """
        Seconds to wait after a number of attempts in which no host of a destination
        could be reached.
        """
        return min(self.wait(failures, None, chance), MAX_HOST_WAIT)

    def end(self, message: QueuedMessage) -> float:
        """
        The Unix time at which to give up.
        """
        envelope = message.envelope
        isBrief = envelope.report is not None or not envelope.sender
        return message.queued + (self.maxBriefAge if isBrief else self.maxAge)

    def decide(
        self, message: QueuedMessage, result: Result, now: float, chance: float
    ) -> RetryDecision:
        """
        Decide about the single recipient of C{message}.
        """
        (recipient,) = message.recipients
        attempts = recipient.attempts + 1
        end = self.end(message)
        state = _state(message.envelope, attempts, result, now >= end)
        nextAttempt = now
        if state is RecipientState.WAITING:
            wait = self.wait(attempts, result.retryAfter, chance)
            # The last attempt is made when the lifetime ends, not long before.
            nextAttempt = min(now + wait, end)
        after = replace(
            recipient,
            state=state,
            attempts=attempts,
            nextAttempt=nextAttempt,
            lastResult=bounded(result),
            stored=result.stored or recipient.stored,
        )
        return RetryDecision(
            result.messageID, after, _notification(message.envelope, state)
        )


def giveUp(message: QueuedMessage, recipient: QueuedRecipient) -> RetryDecision:
    """
    Give up a recipient that had no attempt in time.
    """
    last = recipient.lastResult or Result(
        message.messageID,
        recipient.recipient,
        DeliveryStatus.TEMPORARY,
        EXPIRED,
        text="no attempt could be made in time",
    )
    failed = replace(recipient, state=RecipientState.FAILED, lastResult=last)
    return RetryDecision(
        message.messageID, failed, _notification(message.envelope, failed.state)
    )


def _state(
    envelope: Envelope, attempts: int, result: Result, isOver: bool
) -> RecipientState:
    if result.ending is DeliveryStatus.DELIVERED:
        return RecipientState.DELIVERED
    isLast = isOver or 0 < envelope.maxAttempts <= attempts
    if result.ending is DeliveryStatus.PERMANENT or isLast:
        return RecipientState.FAILED
    return RecipientState.WAITING


def _notification(envelope: Envelope, state: RecipientState) -> Notify:
    if state is RecipientState.WAITING:
        return Notify.NONE
    if envelope.report:
        return Notify.OBSERVERS
    return Notify.SENDER if state is RecipientState.FAILED else Notify.NONE


def bounded(result: Result) -> Result:
    """
    The same result with texts of the remote host shortened, and without surrogates
    and NULs, which the index can't store.
    """
    return replace(
        result,
        status=_text(result.status, MAX_STATUS_LENGTH),
        text=_text(result.text, MAX_TEXT),
        host=_text(result.host, MAX_HOST_LENGTH),
    )


def _text(text: str, maxLength: int) -> str:
    text = text[:maxLength].replace("\0", "?")
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """
    Limits on delivery attempts.

    @ivar maxConcurrent: Attempts at the same time.
    @ivar maxPerDestination: Attempts at the same time to one destination: many hosts
        treat more as abuse.
    @ivar maxMessages: Messages in one attempt: if it is interrupted, some of them may
        be sent twice.
    @ivar maxRecipients: Recipients in one attempt; RFC 5321 4.5.3.1.8 requires hosts
        to accept 100.
    @ivar maxSize: Octets in one attempt, unless a single message has more.
    @ivar maxMessageTime: Seconds an attempt may take for each of its messages: more
        than the timeouts of RFC 5321 4.5.3.2 together.
    """

    maxConcurrent: int = 50
    maxPerDestination: int = 2
    maxMessages: int = 20
    maxRecipients: int = 100
    maxSize: int = 25_000_000
    maxMessageTime: float = 35 * MINUTE
    schedule: RetrySchedule = field(default_factory=RetrySchedule)

    @property
    def maxRetries(self) -> int:
        """
        Retries at the same time: slow hosts leave some attempts for new messages.
        """
        return max(1, self.maxConcurrent * 3 // 4)


@dataclass(frozen=True, slots=True)
class DeliveryGroup:
    """
    A batch with the queue's messages.

    @ivar due: The messages, each with one recipient; a message with more recipients is
        repeated.
    @ivar allUntil: The time at which nothing else was due for the destination; 0 if
        something was.
    """

    batch: Batch
    due: tuple[QueuedMessage, ...]
    allUntil: float = 0

    @property
    def keys(self) -> set[tuple[str, str]]:
        """
        Message id and address of each recipient.
        """
        return {(each.messageID, each.recipients[0].recipient) for each in self.due}

    @property
    def isRetry(self) -> bool:
        """
        True if each recipient was attempted before.
        """
        return all(each.recipients[0].attempts for each in self.due)


def deliveryGroup(
    destination: str, due: Iterable[QueuedMessage], limits: GroupLimits
) -> tuple[DeliveryGroup | None, bool]:
    """
    Group messages that can go out together: with the same requirements as the first,
    within the limits.

    @param due: Messages with one recipient each, in order of delivery.

    @return: The group, C{None} if nothing is due; and true if it contains all.
    """
    builder: _GroupBuilder | None = None
    isAll = True
    for message in due:
        if builder is None:
            builder = _GroupBuilder(message)
        elif builder.hasRoom(message, limits):
            builder.add(message)
        else:
            isAll = False
            if builder.isFull(limits):
                break
    return (builder.build(destination) if builder else None), isAll


def _requirements(envelope: Envelope) -> tuple[object, ...]:
    return (
        envelope.requireTLS,
        envelope.report,
        # RFC 8689 5: the requirements for DSNs are weaker, so they go separately.
        not envelope.sender,
        envelope.causesReports,
    )


class _GroupBuilder:
    """
    Collects the messages of one group.
    """

    def __init__(self, first: QueuedMessage) -> None:
        self._requirements = _requirements(first.envelope)
        self._due: list[QueuedMessage] = []
        self._messages: dict[str, BatchMessage] = {}
        self._octets = 0
        self.add(first)

    def isFull(self, limits: GroupLimits) -> bool:
        return (
            len(self._due) >= limits.maxRecipients
            or len(self._messages) >= limits.maxMessages
        )

    def hasRoom(self, message: QueuedMessage, limits: GroupLimits) -> bool:
        if len(self._due) >= limits.maxRecipients:
            return False
        if message.messageID in self._messages:
            return True
        return (
            len(self._messages) < limits.maxMessages
            and self._octets + message.size <= limits.maxSize
            and _requirements(message.envelope) == self._requirements
        )

    def add(self, message: QueuedMessage) -> None:
        self._due.append(message)
        known = self._messages.get(message.messageID)
        if known is None:
            self._messages[message.messageID] = _batchMessage(message)
            self._octets += message.size
            return
        self._messages[message.messageID] = replace(
            known,
            recipients=known.recipients + message.envelope.recipients,
            stored=known.stored + _stored(message),
        )

    def build(self, destination: str) -> DeliveryGroup:
        envelope = self._due[0].envelope
        attempt = 1 + max(each.recipients[0].attempts for each in self._due)
        messages = tuple(self._messages.values())
        batch = Batch(
            destination,
            messages,
            envelope.requireTLS,
            envelope.report,
            attempt,
            envelope.causesReports,
        )
        return DeliveryGroup(batch, tuple(self._due))


def _batchMessage(message: QueuedMessage) -> BatchMessage:
    envelope = message.envelope
    return BatchMessage(
        message.messageID,
        envelope.sender,
        envelope.recipients,
        message.path,
        message.size,
        envelope.eightBit,
        envelope.smtputf8,
        envelope.contentType,
        _stored(message),
    )


def _stored(message: QueuedMessage) -> tuple[tuple[str, str], ...]:
    return tuple(
        (each.recipient, mailbox)
        for each in message.recipients
        for mailbox in each.stored
    )
