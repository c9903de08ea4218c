"""
Tests for L{moxtls.queue.schedule}.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY
from moxtls.queue.schedule import Notify, RetryDecision, RetrySchedule, bounded, giveUp
from moxtls.queue.types import (
    DeliveryStatus,
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    ReportKind,
    Result,
)

MAIL = Envelope("us@here.example", ("you@there.example",))
REPORT = replace(MAIL, report=ReportKind.TLS)
RESULT = Result("m", "you@there.example", DeliveryStatus.TEMPORARY, "4.2.1", 450)


class RetryScheduleTests(SynchronousTestCase):
    """
    Tests for L{RetrySchedule} and its decisions.
    """

    def decide(
        self,
        attempts: int,
        envelope: Envelope = MAIL,
        ending: DeliveryStatus = DeliveryStatus.TEMPORARY,
        schedule: RetrySchedule | None = None,
        age: float = 1000,
    ) -> RetryDecision:
        """
        The decision after attempt number C{attempts} for a message submitted C{age}
        seconds ago.
        """
        message = waiting(envelope, attempts - 1)
        result = replace(RESULT, ending=ending)
        return (schedule or RetrySchedule()).decide(message, result, age, 0.5)

    def test_doubled(self) -> None:
        """
        Waits start at 450 seconds and double up to eight hours, which is repeated.
        """
        waits = [self.decide(n).recipient.nextAttempt - 1000 for n in range(1, 10)]
        self.assertEqual(
            waits, [450, 900, 1800, 3600, 7200, 14400, 28800, 28800, 28800]
        )

    def test_spread(self) -> None:
        """
        A wait is up to five seconds longer or shorter, and never negative.
        """
        self.assertEqual(RetrySchedule().wait(1, None, 0), 445)
        self.assertEqual(RetrySchedule().wait(1, None, 1), 455)
        self.assertEqual(RetrySchedule((1,)).wait(1, None, 0), 0)

    def test_givenUp(self) -> None:
        """
        Mail is given up after five days, whatever the number of attempts (RFC 5321
        4.5.4.1); reports (RFC 8460 5.5) and mail from the null reverse-path after one.
        """
        null = replace(MAIL, sender="")
        for envelope, days in ((MAIL, 5), (REPORT, 1), (null, 1)):
            for attempts in (1, 100):
                before = self.decide(attempts, envelope, age=days * DAY - 1)
                after = self.decide(attempts, envelope, age=days * DAY)
                self.assertEqual(before.recipient.state, RecipientState.WAITING)
                self.assertEqual(before.recipient.nextAttempt, days * DAY)
                self.assertEqual(after.recipient.state, RecipientState.FAILED)

    def test_configured(self) -> None:
        """
        Waits and ages can be configured.
        """
        other = RetrySchedule((10, 20), maxAge=100, maxBriefAge=50)
        self.assertEqual(
            [
                self.decide(n, schedule=other, age=30).recipient.nextAttempt
                for n in (1, 2)
            ],
            [40, 50],
        )
        for envelope, age in ((MAIL, 100), (REPORT, 50)):
            last = self.decide(1, envelope, schedule=other, age=age)
            self.assertEqual(last.recipient.state, RecipientState.FAILED)

    def test_maxAttempts(self) -> None:
        """
        An envelope can limit the number of attempts.
        """
        twice = replace(MAIL, maxAttempts=2)
        for attempts, state in (
            (1, RecipientState.WAITING),
            (2, RecipientState.FAILED),
        ):
            self.assertEqual(self.decide(attempts, twice).recipient.state, state)

    def test_retryAfter(self) -> None:
        """
        A longer wait requested by the peer is granted up to the longest wait of the
        schedule.
        """
        self.assertEqual(RetrySchedule().wait(1, 600, 0.5), 600)
        self.assertEqual(RetrySchedule().wait(2, 600, 0.5), 900)
        self.assertEqual(RetrySchedule().wait(1, 10**9, 0.5), 28800)
        self.assertEqual(RetrySchedule().wait(1, -1, 0.5), 450)

    def test_hostWait(self) -> None:
        """
        Waits for an unreachable host follow the schedule, but are at most an hour: each
        retry is one connection for all waiting messages.
        """
        waits = [RetrySchedule().hostWait(n, 0.5) for n in range(1, 7)]
        self.assertEqual(waits, [450, 900, 1800, 3600, 3600, 3600])

    def test_notify(self) -> None:
        """
        Senders are notified of failures; observers of the final result of a report.
        """
        temporary, permanent = DeliveryStatus.TEMPORARY, DeliveryStatus.PERMANENT
        null = replace(MAIL, sender="")
        for envelope, ending, age, expected in (
            (MAIL, DeliveryStatus.DELIVERED, 0, Notify.NONE),
            (MAIL, permanent, 0, Notify.SENDER),
            (MAIL, temporary, 0, Notify.NONE),
            (MAIL, temporary, 5 * DAY, Notify.SENDER),
            (null, temporary, 0, Notify.NONE),
            (null, permanent, 0, Notify.SENDER),
            (REPORT, temporary, 0, Notify.NONE),
            (REPORT, permanent, 0, Notify.OBSERVERS),
            (REPORT, temporary, DAY, Notify.OBSERVERS),
            (REPORT, DeliveryStatus.DELIVERED, 0, Notify.OBSERVERS),
        ):
            self.assertEqual(self.decide(1, envelope, ending, age=age).notify, expected)

    def test_giveUp(self) -> None:
        """
        L{giveUp} keeps the last result of a recipient, and makes one with status 4.4.7
        for a recipient that has none.
        """
        for envelope, expected in ((MAIL, Notify.SENDER), (REPORT, Notify.OBSERVERS)):
            message = waiting(envelope, 0)
            decision = giveUp(message, message.recipients[0])
            self.assertEqual(decision.recipient.state, RecipientState.FAILED)
            self.assertEqual(decision.notify, expected)
            assert decision.recipient.lastResult is not None
            self.assertEqual(decision.recipient.lastResult.status, "4.4.7")
        tried = replace(message.recipients[0], lastResult=RESULT)
        self.assertEqual(giveUp(message, tried).recipient.lastResult, RESULT)

    def test_bounded(self) -> None:
        """
        Remote text is truncated and has no surrogates.
        """
        kept = bounded(replace(RESULT, text="\ud800" + "x" * 10**6, host="h" * 999))
        self.assertEqual(len(kept.text), 1000)
        self.assertEqual(len(kept.host), 255)
        kept.text.encode("utf-8")


def waiting(envelope: Envelope, attempts: int) -> QueuedMessage:
    """
    A message with a waiting recipient, submitted at time 0.
    """
    recipient = QueuedRecipient(
        "you@there.example",
        "there.example",
        RecipientState.WAITING,
        attempts,
        0,
        None,
    )
    return QueuedMessage("m", envelope, 10, 0, False, Path("m"), (recipient,))
