# -*- test-case-name: tests.queue.test_service -*-
"""
Groups due messages into delivery batches.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from moxtls.dates import MINUTE
from moxtls.queue.retry import RetrySchedule
from moxtls.queue.types import Batch, BatchMessage, Envelope, QueuedMessage


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
        True if nothing in it is attempted for the first time.
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
