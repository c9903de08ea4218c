# -*- test-case-name: tests.queue.test_retry -*-
"""
The retry schedule: decides when to attempt a recipient again, when to give up, and
which notifications to send.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from moxtls.dates import DAY, HOUR, MINUTE
from moxtls.queue.types import (
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
        Decide on the one recipient that C{message} has.
        """
        (recipient,) = message.recipients
        attempts = recipient.attempts + 1
        end = self.end(message)
        state = _state(message.envelope, attempts, result, now >= end)
        nextAttempt = now
        if state is RecipientState.WAITING:
            wait = self.wait(attempts, result.retryAfter, chance)
            # The last attempt comes before giving up, not long before.
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
