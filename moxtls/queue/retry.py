# -*- test-case-name: tests.queue.test_retry -*-
"""
Decides what an attempt means for a recipient: when to try again, when to give
up, and who is to be told.  No I/O.
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

#: Half of the 15 minutes after which many a greylist lets us in; doubled each
#: time, up to eight hours.
FIRST_WAIT = 7.5 * MINUTE
WAITS = tuple(FIRST_WAIT * 2**n for n in range(7))
#: RFC 5321 4.5.4.1: the give-up time is to be at least 4 to 5 days.
MAX_AGE = 5 * DAY
#: RFC 8460 5.5: redelivery of a report is attempted for up to a day; DSNs too
#: are worth less the older they get.
MAX_BRIEF_AGE = DAY
#: RFC 5321 4.5.4.1 leaves it to us when a sender hears of a delay.
NOTICE_AFTER = 2 * HOUR
#: A host that couldn't be reached is tried again after this long at the latest:
#: it costs one connection, however much mail waits for it.
MAX_HOST_WAIT = HOUR
#: Seconds by which a wait is stretched or cut, so that what failed together
#: doesn't come back together.
SPREAD = 5
#: What is kept of a stranger's words (RFC 5321 4.5.3.1.5 has 512 octets to a
#: reply line; a reply may have many).
MAX_TEXT = 1000
MAX_HOST_LENGTH = 255
MAX_STATUS_LENGTH = 16
#: RFC 3463 3.5: delivery time expired.
EXPIRED = "4.4.7"


class Notify(Enum):
    """
    Who is to be told what.

    C{FAILURE}: the sender, by DSN.  C{OBSERVER}: who sent the
    report, which is a part of us.
    """

    NOBODY = auto()
    FAILURE = auto()
    OBSERVER = auto()


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """
    What an attempt leads to.

    @ivar recipient: As it is from now on.
    """

    messageID: str
    recipient: QueuedRecipient
    tell: Notify


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """
    The schedule.  Giving up and notices of delay go by the time since a
    message came, however many attempts that makes (RFC 5321 4.5.4.1).

    @ivar waits: Seconds between one attempt and the next; the last of them
        again and again.
    @ivar maxAge: Seconds after which mail is given up.
    @ivar maxBriefAge: The same for reports, and for mail from the null
        reverse-path.
    @ivar noticeAfter: Seconds after which a delay DSN is sent; 0 for never.
    """

    waits: tuple[float, ...] = WAITS
    maxAge: float = MAX_AGE
    maxBriefAge: float = MAX_BRIEF_AGE
    noticeAfter: float = NOTICE_AFTER

    def wait(self, attempts: int, retryAfter: int | None, chance: float) -> float:
        """
        Seconds to wait after that many attempts.

        @param retryAfter: What the other side asked for: it may lengthen the
            wait, up to the longest of the schedule.
        @param chance: From 0 up to 1.
        """
        usual = self.waits[min(attempts, len(self.waits)) - 1]
        asked = min(retryAfter or 0, max(self.waits))
        return max(0, max(usual, asked) + (2 * chance - 1) * SPREAD)

    def hostWait(self, failures: int, chance: float) -> float:
        """
        Seconds to wait after no host of a destination could be reached in
        that many attempts.
        """
        return min(self.wait(failures, None, chance), MAX_HOST_WAIT)

    def end(self, message: QueuedMessage) -> float:
        """
        When to give up.
        """
        envelope = message.envelope
        isBrief = envelope.report is not None or not envelope.sender
        return message.queued + (self.maxBriefAge if isBrief else self.maxAge)

    def step(
        self, message: QueuedMessage, result: Result, now: float, chance: float
    ) -> RetryDecision:
        """
        What C{result} means for the one recipient that C{message} has.
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
        return RetryDecision(result.messageID, after, _tell(message.envelope, state))


def overdue(message: QueuedMessage, recipient: QueuedRecipient) -> RetryDecision:
    """
    What it means that there was no attempt in time for one of a message's
    recipients to be given up.
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
        message.messageID, failed, _tell(message.envelope, failed.state)
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


def _tell(envelope: Envelope, state: RecipientState) -> Notify:
    if state is RecipientState.WAITING:
        return Notify.NOBODY
    if envelope.report:
        return Notify.OBSERVER
    return Notify.FAILURE if state is RecipientState.FAILED else Notify.NOBODY


def bounded(result: Result) -> Result:
    """
    The same with no more of a stranger's words than is worth keeping, and
    nothing in them that is no Unicode text.
    """
    return replace(
        result,
        status=_text(result.status, MAX_STATUS_LENGTH),
        text=_text(result.text, MAX_TEXT),
        host=_text(result.host, MAX_HOST_LENGTH),
    )


def _text(text: str, longest: int) -> str:
    return text[:longest].encode("utf-8", "replace").decode("utf-8")
