"""
Tests for L{moxtls.queue.attempts}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, succeed

from moxtls.interfaces import IResultRecorder
from moxtls.queue.attempts import DeliveryAttempt, ResultRecorder
from moxtls.queue.batches import DeliveryGroup
from moxtls.queue.types import (
    Batch,
    DeliveryStatus,
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Result,
)
from tests.queue import recorders
from tests.queue.recorders import FIRST, SECOND


def message(messageID: str) -> QueuedMessage:
    """
    One that is due.
    """
    address = "a@there.example"
    return QueuedMessage(
        messageID,
        Envelope("us@here.example", (address,)),
        10,
        0,
        False,
        Path(messageID),
        (
            QueuedRecipient(
                address, "there.example", RecipientState.WAITING, 0, 0, None
            ),
        ),
    )


class ResultRecorderTests(recorders.ResultRecorderMixin):
    """
    Tests for L{ResultRecorder}.
    """

    def makeRecorder(self) -> IResultRecorder:
        due = (message("m1"), message("m2"))
        self.attempt = DeliveryAttempt(DeliveryGroup(Batch("there.example", ()), due))
        self.written: list[Result] = []
        self.disk: Deferred[None] | None = None
        self.queueRecorder = ResultRecorder(self.attempt, self.write)
        return self.queueRecorder

    def write(self, pairs: list[tuple[QueuedMessage, Result]]) -> Deferred[None]:
        def written(value: None) -> None:
            self.written += [result for _, result in pairs]

        return (self.disk or succeed(None)).addCallback(written)

    def recorded(self) -> list[Result]:
        return self.written

    def test_others(self) -> None:
        """
        Results of other attempts are ignored.
        """
        stranger = Result("m3", "a@there.example", DeliveryStatus.DELIVERED, "2.0.0")
        self.successResultOf(self.recorder.record([stranger]))
        self.assertEqual(self.recorded(), [])

    def test_finished(self) -> None:
        """
        Whoever waits no longer for a result to be recorded doesn't keep it
        from being recorded; the attempt ends after that.
        """
        self.disk = Deferred()
        waiting = self.recorder.record([FIRST])
        finished = self.queueRecorder.finished()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertNoResult(finished)
        self.disk.callback(None)
        self.successResultOf(finished)
        self.assertEqual(self.recorded(), [FIRST])

    def test_broken(self) -> None:
        """
        A failure to record a result is logged, and ends the wait.
        """
        self.disk = Deferred()
        waiting = self.recorder.record([FIRST, SECOND])
        self.disk.errback(OSError(28, "full"))
        self.successResultOf(waiting)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
