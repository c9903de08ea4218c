# -*- test-case-name: tests.queue.test_service -*-
"""
Decides what of that which is due goes out together.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from moxtls.dates import MINUTE
from moxtls.queue.retry import RetrySchedule
from moxtls.queue.types import Batch, BatchMessage, QueuedMessage


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """
    How much the queue does at a time.

    @ivar total: Attempts at the same time.
    @ivar perDestination: Those to the same destination: more is taken for
        abuse by many.
    @ivar parcels: Messages in one attempt: what breaks off an attempt may
        have some of them sent twice.
    @ivar recipients: In one attempt; RFC 5321 4.5.3.1.8 has every host accept
        100.
    @ivar octets: In one attempt, unless one message alone has more.
    @ivar parcelTime: Seconds an attempt may take for each of its messages:
        more than the waits of RFC 5321 4.5.3.2 together.
    """

    total: int = 50
    perDestination: int = 2
    parcels: int = 20
    recipients: int = 100
    octets: int = 25_000_000
    parcelTime: float = 35 * MINUTE
    backoff: RetrySchedule = field(default_factory=RetrySchedule)

    @property
    def retries(self) -> int:
        """
        How many attempts may be of what was in vain before: hosts that keep
        connections waiting leave some for new mail.
        """
        return max(1, self.total * 3 // 4)


@dataclass(frozen=True, slots=True)
class DeliveryGroup:
    """
    A batch, and what the queue has to know about it to go on.

    @ivar due: Its messages, each with one recipient: the same message again
        for the next.
    @ivar allUntil: When nothing else was due for its destination; 0 if
        something was.
    """

    batch: Batch
    due: tuple[QueuedMessage, ...]
    allUntil: float = 0

    @property
    def keys(self) -> set[tuple[str, str]]:
        """
        Message and address.
        """
        return {(each.messageID, each.recipients[0].recipient) for each in self.due}

    @property
    def isRetry(self) -> bool:
        """
        Whether nothing in it is attempted for the first time.
        """
        return all(each.recipients[0].attempts for each in self.due)


def deliveryGroups(
    destination: str, due: Iterable[QueuedMessage], limits: GroupLimits, most: int
) -> list[DeliveryGroup]:
    """
    @param due: Messages with one recipient each, in the order in which they
        are to go.
    @param most: How many loads there may be; the rest waits.
    """
    filling: dict[object, _Filling] = {}
    found: list[_Filling] = []
    for message in due:
        envelope = message.envelope
        demands = (
            envelope.requireTLS,
            envelope.report,
            # RFC 8689 5: of bounces less is demanded, so they go by themselves.
            not envelope.sender,
            envelope.causesReports,
        )
        load = filling.get(demands)
        if load is None or not load.hasRoom(message, limits):
            if len(found) == most:
                continue
            load = filling[demands] = _Filling()
            found.append(load)
        load.add(message)
    return [each.load(destination) for each in found]


class _Filling:
    """
    A load that is being put together.
    """

    def __init__(self) -> None:
        self._due: list[QueuedMessage] = []
        self._parcels: dict[str, BatchMessage] = {}

    def hasRoom(self, message: QueuedMessage, limits: GroupLimits) -> bool:
        if len(self._due) >= limits.recipients:
            return False
        if message.messageID in self._parcels:
            return True
        octets = sum(parcel.size for parcel in self._parcels.values())
        return (
            len(self._parcels) < limits.parcels
            and octets + message.size <= limits.octets
        )

    def add(self, message: QueuedMessage) -> None:
        self._due.append(message)
        parcel = self._parcels.get(message.messageID)
        self._parcels[message.messageID] = (
            replace(
                parcel,
                recipients=parcel.recipients + message.envelope.recipients,
                stored=parcel.stored + _stored(message),
            )
            if parcel
            else _parcel(message)
        )

    def load(self, destination: str) -> DeliveryGroup:
        envelope = self._due[0].envelope
        attempt = 1 + max(each.recipients[0].attempts for each in self._due)
        parcels = tuple(self._parcels.values())
        batch = Batch(
            destination,
            parcels,
            envelope.requireTLS,
            envelope.report,
            attempt,
            envelope.causesReports,
        )
        return DeliveryGroup(batch, tuple(self._due))


def _parcel(message: QueuedMessage) -> BatchMessage:
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
        (each.recipient, place) for each in message.recipients for place in each.stored
    )
