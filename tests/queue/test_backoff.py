"""
Tests for L{moxtls.queue.backoff}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.calendar import HOUR
from moxtls.queue.backoff import Backoff, Step, Tell, bounded
from moxtls.queue.values import (
    Ending,
    Envelope,
    QueuedRecipient,
    RecipientState,
    ReportKind,
    Result,
)

MAIL = Envelope("us@here.example", ("you@there.example",))
REPORT = replace(MAIL, report=ReportKind.TLS)
RESULT = Result("m", "you@there.example", Ending.TEMPORARY, "4.2.1", 450)


class BackoffTests(SynchronousTestCase):
    """
    Tests for L{Backoff}.
    """

    def step(
        self,
        attempts: int,
        envelope: Envelope = MAIL,
        ending: Ending = Ending.TEMPORARY,
        backoff: Backoff | None = None,
    ) -> Step:
        """
        What the C{attempts}th attempt leads to.
        """
        recipient = QueuedRecipient(
            "you@there.example",
            "there.example",
            RecipientState.WAITING,
            attempts - 1,
            0,
            None,
        )
        result = replace(RESULT, ending=ending)
        return (backoff or Backoff()).step(envelope, recipient, result, 1000, 0.5)

    def test_doubled(self) -> None:
        """
        The wait is 450 seconds at first, and doubled each time, up to eight
        hours.
        """
        waits = [self.step(n).recipient.nextAttempt - 1000 for n in range(1, 8)]
        self.assertEqual(waits, [450, 900, 1800, 3600, 7200, 14400, 28800])

    def test_spread(self) -> None:
        """
        A wait is up to five seconds longer or shorter, and never negative.
        """
        self.assertEqual(Backoff().wait(1, None, 0), 445)
        self.assertEqual(Backoff().wait(1, None, 1), 455)
        self.assertEqual(Backoff((1,)).wait(1, None, 0), 0)

    def test_last(self) -> None:
        """
        The eighth attempt is the last, unless the envelope says otherwise.
        """
        for envelope, last in (
            (MAIL, 8),
            (REPORT, 8),
            (replace(MAIL, maxAttempts=2), 2),
            (replace(REPORT, maxAttempts=9), 9),
        ):
            before, after = self.step(last - 1, envelope), self.step(last, envelope)
            self.assertEqual(before.recipient.state, RecipientState.WAITING)
            self.assertEqual(after.recipient.state, RecipientState.FAILED)

    def test_reportPeriod(self) -> None:
        """
        RFC 8460 5.5: a report is attempted for up to 24 hours, however long
        mail is.
        """
        days = Backoff((12 * HOUR, 12 * HOUR, 1, 12 * HOUR))
        self.assertEqual(days.limit(MAIL), 5)
        self.assertEqual(days.limit(REPORT), 3)

    def test_configured(self) -> None:
        """
        A list of waits makes for one attempt more than it has; beyond it, the
        last is used again.
        """
        short = Backoff((10, 20))
        self.assertEqual(self.step(2, backoff=short).recipient.nextAttempt, 1020)
        self.assertEqual(
            self.step(3, backoff=short).recipient.state, RecipientState.FAILED
        )
        longer = replace(MAIL, maxAttempts=9)
        again = self.step(5, longer, backoff=short)
        self.assertEqual(again.recipient.nextAttempt, 1020)
        once = self.step(1, backoff=Backoff(()))
        self.assertEqual(once.recipient.state, RecipientState.FAILED)

    def test_asked(self) -> None:
        """
        Who asks for a longer wait gets it, up to the longest there is.
        """
        self.assertEqual(Backoff().wait(1, 600, 0.5), 600)
        self.assertEqual(Backoff().wait(2, 600, 0.5), 900)
        self.assertEqual(Backoff().wait(1, 10**9, 0.5), 28800)
        self.assertEqual(Backoff().wait(1, -1, 0.5), 450)

    def test_tell(self) -> None:
        """
        The sender is told of failures, and of the fifth attempt in vain; of
        reports, and in answer to the null reverse-path, nobody is told.
        RFC 5321 6.1
        """
        temporary, permanent = Ending.TEMPORARY, Ending.PERMANENT
        null = replace(MAIL, sender="")
        for attempts, envelope, ending, tell in (
            (1, MAIL, Ending.DELIVERED, Tell.NOBODY),
            (1, MAIL, permanent, Tell.FAILURE),
            (4, MAIL, temporary, Tell.NOBODY),
            (5, MAIL, temporary, Tell.DELAY),
            (6, MAIL, temporary, Tell.NOBODY),
            (8, MAIL, temporary, Tell.FAILURE),
            (5, replace(MAIL, maxAttempts=5), temporary, Tell.FAILURE),
            (5, null, temporary, Tell.NOBODY),
            (1, null, permanent, Tell.NOBODY),
            (1, REPORT, temporary, Tell.NOBODY),
            (1, REPORT, permanent, Tell.OBSERVER),
            (5, REPORT, temporary, Tell.NOBODY),
            (8, REPORT, temporary, Tell.OBSERVER),
            (1, REPORT, Ending.DELIVERED, Tell.OBSERVER),
        ):
            step = self.step(attempts, envelope, ending)
            self.assertEqual(step.tell, tell, (attempts, envelope, ending))

    def test_bounded(self) -> None:
        """
        What strangers say is kept only so far, and only if it is text.
        """
        kept = bounded(replace(RESULT, text="\ud800" + "x" * 10**6, host="h" * 999))
        self.assertEqual(len(kept.text), 1000)
        self.assertEqual(len(kept.host), 255)
        kept.text.encode("utf-8")
