# -*- test-case-name: tests.queue.test_backoff -*-
"""
Decides what an attempt means for a recipient: when to try again, when to give
up, and who is to be told.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import accumulate, takewhile

from moxtls.calendar import DAY, MINUTE
from moxtls.queue.values import (
    Ending,
    Envelope,
    QueuedRecipient,
    RecipientState,
    Result,
)

#: Half of the 15 minutes after which many a greylist lets us in; doubled each
#: time, the eighth attempt comes after some 16 hours.
FIRST_WAIT = 7.5 * MINUTE
ATTEMPTS = 8
#: Seconds by which a wait is stretched or cut, so that what failed together
#: doesn't come back together.
SPREAD = 5
#: The sender of a message hears of it when this attempt was in vain: about
#: two hours (RFC 5321 4.5.4.1 leaves it to us).
NOTICE_ATTEMPT = 5
#: RFC 8460 5.5: redelivery of a report is attempted for so many seconds; it is
#: worth less the older it gets.
REPORT_PERIOD = DAY
#: What is kept of a stranger's words (RFC 5321 4.5.3.1.5 has 512 octets to a
#: reply line; a reply may have many).
LONGEST_TEXT = 1000
LONGEST_HOST = 255
LONGEST_STATUS = 16


class Tell(Enum):
    """
    Who is to be told what.

    C{FAILURE}, C{DELAY}: the sender, by DSN.  C{OBSERVER}: who sent the
    report, which is a part of us.
    """

    NOBODY = auto()
    DELAY = auto()
    FAILURE = auto()
    OBSERVER = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """
    What an attempt leads to.

    @ivar recipient: As it is from now on.
    """

    messageID: str
    recipient: QueuedRecipient
    tell: Tell


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    The schedule.

    @ivar waits: Seconds between one attempt and the next.
    @ivar noticeAttempt: Failing this attempt causes a delay DSN.
    """

    waits: tuple[float, ...] = tuple(FIRST_WAIT * 2**n for n in range(ATTEMPTS - 1))
    noticeAttempt: int = NOTICE_ATTEMPT

    def limit(self, envelope: Envelope) -> int:
        """
        How many attempts there are at most.
        """
        if envelope.maxAttempts:
            return envelope.maxAttempts
        since = list(accumulate(self.waits))
        if envelope.report:
            since = list(takewhile(lambda seconds: seconds <= REPORT_PERIOD, since))
        return 1 + len(since)

    def wait(self, attempts: int, retryAfter: int | None, chance: float) -> float:
        """
        Seconds to wait after that many attempts.

        @param retryAfter: What the other side asked for: it may lengthen the
            wait, up to the longest of the schedule.
        @param chance: From 0 up to 1.
        """
        if not self.waits:
            return 0
        usual = self.waits[min(attempts, len(self.waits)) - 1]
        asked = min(retryAfter or 0, max(self.waits))
        return max(0, max(usual, asked) + (2 * chance - 1) * SPREAD)

    def step(
        self,
        envelope: Envelope,
        recipient: QueuedRecipient,
        result: Result,
        now: float,
        chance: float,
    ) -> Step:
        """
        What C{result} means for C{recipient}.
        """
        attempts = recipient.attempts + 1
        state = self._state(envelope, attempts, result)
        waiting = state is RecipientState.WAITING
        wait = self.wait(attempts, result.retryAfter, chance) if waiting else 0
        after = replace(
            recipient,
            state=state,
            attempts=attempts,
            nextAttempt=now + wait,
            lastResult=bounded(result),
        )
        return Step(result.messageID, after, self._tell(envelope, after))

    def _state(
        self, envelope: Envelope, attempts: int, result: Result
    ) -> RecipientState:
        if result.ending is Ending.DELIVERED:
            return RecipientState.DELIVERED
        if result.ending is Ending.PERMANENT or attempts >= self.limit(envelope):
            return RecipientState.FAILED
        return RecipientState.WAITING

    def _tell(self, envelope: Envelope, recipient: QueuedRecipient) -> Tell:
        if envelope.report:
            ended = recipient.state is not RecipientState.WAITING
            return Tell.OBSERVER if ended else Tell.NOBODY
        # RFC 5321 6.1: never in answer to the null reverse-path.
        if not envelope.sender or recipient.state is RecipientState.DELIVERED:
            return Tell.NOBODY
        if recipient.state is RecipientState.FAILED:
            return Tell.FAILURE
        delayed = recipient.attempts == self.noticeAttempt
        return Tell.DELAY if delayed else Tell.NOBODY


def bounded(result: Result) -> Result:
    """
    The same with no more of a stranger's words than is worth keeping, and
    nothing in them that is no Unicode text.
    """
    return replace(
        result,
        status=_text(result.status, LONGEST_STATUS),
        text=_text(result.text, LONGEST_TEXT),
        host=_text(result.host, LONGEST_HOST),
    )


def _text(text: str, longest: int) -> str:
    return text[:longest].encode("utf-8", "replace").decode("utf-8")
