"""
Tests for L{moxtls.queue.attempts}.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from moxtls.interfaces import IResultRecorder
from moxtls.queue.attempts import DeliveryAttempt, ResultLog, ResultRecorder
from moxtls.queue.schedule import DeliveryGroup
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
    A message with one due recipient.
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

    def test_otherAttempt(self) -> None:
        """
        Results of other attempts are ignored.
        """
        other = Result("m3", "a@there.example", DeliveryStatus.DELIVERED, "2.0.0")
        self.successResultOf(self.recorder.record([other]))
        self.assertEqual(self.recorded(), [])

    def test_cancelled(self) -> None:
        """
        A result is recorded even if the wait for it is cancelled, and C{finished} fires
        after that.
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

    def test_writeFails(self) -> None:
        """
        A failure to write a result is logged and ends the wait.
        """
        self.disk = Deferred()
        waiting = self.recorder.record([FIRST, SECOND])
        self.disk.errback(OSError(28, "full"))
        self.successResultOf(waiting)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


DONE = Result(
    "m1", "a@there.example", DeliveryStatus.DELIVERED, "2.0.0", 250, "ok", "mx.test"
)
LATER = replace(
    DONE, ending=DeliveryStatus.TEMPORARY, status="4.2.1", code=450, text="later"
)


class ResultLogTests(SynchronousTestCase):
    """
    Tests for L{ResultLog}.
    """

    def setUp(self) -> None:
        self.said: list[Result] = []
        self.deferred: list[tuple[str, int, Result]] = []
        self.log = ResultLog(
            self.said.append,
            lambda host, number, last: self.deferred.append((host, number, last)),
        )

    def test_final(self) -> None:
        """
        Each final result is logged in a line of its own.
        """
        failed = replace(DONE, ending=DeliveryStatus.PERMANENT)
        for result in (DONE, failed, DONE):
            self.log.ended(result)
        self.log.minutePassed()
        self.assertEqual(self.said, [DONE, failed, DONE])
        self.assertEqual(self.deferred, [])

    def test_deferred(self) -> None:
        """
        The first deferral by a host is logged at once, further ones once a minute with
        their number, until a minute without any.
        """
        last = replace(LATER, text="still later")
        self.log.ended(LATER)
        self.assertEqual(self.said, [LATER])
        self.log.minutePassed()
        self.log.ended(LATER)
        for _ in range(998):
            self.log.ended(LATER)
        self.log.ended(last)
        self.log.deferred(last, 1000)
        self.log.minutePassed()
        self.log.minutePassed()
        self.assertEqual(self.said, [LATER, LATER])
        self.assertEqual(self.deferred, [("mx.test", 1999, last)])

    def test_oneLinePerMinute(self) -> None:
        """
        A host that keeps deferring has at most one line a minute.
        """
        self.log.ended(LATER)
        for _ in range(5):
            self.log.ended(LATER)
            self.log.minutePassed()
        self.assertEqual(len(self.said), 1)
        self.assertEqual([number for _, number, _ in self.deferred], [1] * 5)

    def test_hosts(self) -> None:
        """
        Deferrals are counted by host; a destination without a host counts as one.
        """
        hostless = replace(LATER, host="")
        for result in (LATER, hostless, replace(LATER, host="other.test")):
            self.log.ended(result)
            self.log.ended(result)
        self.log.minutePassed()
        hosts = [host for host, _, _ in self.deferred]
        self.assertEqual(hosts, ["mx.test", "there.example", "other.test"])

    def test_maxHosts(self) -> None:
        """
        Deferrals by hosts beyond the limit are counted together.
        """
        with patch("moxtls.queue.attempts.MAX_HOSTS", 2):
            for number in range(10):
                self.log.ended(replace(LATER, host=f"h{number}.test"))
            self.log.minutePassed()
        self.assertEqual(len(self.said), 3)
        self.assertEqual([each[:2] for each in self.deferred], [("other hosts", 7)])
