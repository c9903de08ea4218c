"""
Tests for L{moxtls.threads}.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier, Event

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.threads import IJobQueue, InlineQueue, Job, ThreadQueue
from tests import MAX_WAIT
from tests.ledger.threads import Inbox


class Closed(Exception):
    """
    The queue is stopped.
    """


class TextJob(Job[str]):
    """
    A job to write a text in capitals.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Performer:
    """
    Performs jobs, when its gate is open.

    @ivar batches: The texts of each call.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = Event()
        self.open = Event()
        self.open.set()

    def __call__(self, jobs: Sequence[TextJob]) -> None:
        self.batches.append([job.text for job in jobs])
        self.entered.set()
        self.open.wait(MAX_WAIT)
        for job in jobs:
            if job.text == "bad":
                raise ValueError(job.text)
            job.result = job.text.upper()


def submit(queue: IJobQueue, text: str) -> Deferred[str]:
    """
    Submit a job for C{text}.
    """
    return queue.submit(TextJob(text))


class ThreadQueueTests(SynchronousTestCase):
    """
    Tests for L{ThreadQueue}.
    """

    def setUp(self) -> None:
        self.inbox = Inbox()
        self.performer = Performer()
        self.queue = ThreadQueue(
            self.inbox, self.performer, "test", Closed, batchSize=3, maxWaiting=5
        )
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.performer.open.set()
        self.inbox.waitFor(self.queue.stop())

    def occupy(self) -> Deferred[str]:
        """
        Make the thread busy until the performer is opened.
        """
        self.performer.open.clear()
        deferred = submit(self.queue, "first")
        self.assertTrue(self.performer.entered.wait(MAX_WAIT))
        return deferred

    def test_answers(self) -> None:
        """
        Each caller gets its own result, in the reactor's thread.
        """
        deferreds = [submit(self.queue, item) for item in "abc"]
        self.assertEqual([self.inbox.waitFor(each) for each in deferreds], [*"ABC"])

    def test_grouped(self) -> None:
        """
        Waiting operations are performed together, in order, up to the limit.
        """
        self.occupy()
        deferreds = [submit(self.queue, item) for item in "abcde"]
        self.performer.open.set()
        self.inbox.waitFor(deferreds[-1])
        self.assertEqual(self.performer.batches, [["first"], [*"abc"], [*"de"]])

    def test_bounded(self) -> None:
        """
        Beyond the limit operations fail at once, with a reason.
        """
        self.occupy()
        accepted = [submit(self.queue, item) for item in "abcde"]
        refused = self.failureResultOf(submit(self.queue, "f"), Closed)
        self.assertIn("5 operations wait", refused.getErrorMessage())
        self.performer.open.set()
        self.assertEqual([self.inbox.waitFor(each) for each in accepted], [*"ABCDE"])
        self.assertEqual(self.inbox.waitFor(submit(self.queue, "g")), "G")

    def test_exception(self) -> None:
        """
        If performing fails, the Deferreds of the group fail, and the thread
        continues.
        """
        self.assertRaises(ValueError, self.inbox.waitFor, submit(self.queue, "bad"))
        self.assertEqual(self.inbox.waitFor(submit(self.queue, "a")), "A")

    def test_cancelled(self) -> None:
        """
        A cancelled operation fails at once, and others aren't affected.
        """
        first = self.occupy()
        cancelled, other = submit(self.queue, "a"), submit(self.queue, "b")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.performer.open.set()
        self.assertEqual(self.inbox.waitFor(other), "B")
        self.assertEqual(self.inbox.waitFor(first), "FIRST")

    def test_stop(self) -> None:
        """
        Stopping waits for all that was accepted, and accepts no more.
        """
        self.occupy()
        accepted = submit(self.queue, "a")
        stopped, again = self.queue.stop(), self.queue.stop()
        self.failureResultOf(submit(self.queue, "b"), Closed)
        self.assertNoResult(stopped)
        self.performer.open.set()
        self.inbox.waitFor(stopped)
        self.assertEqual(self.successResultOf(accepted), "A")
        self.successResultOf(again)
        self.successResultOf(self.queue.stop())

    def test_threads(self) -> None:
        """
        With two threads, a busy one doesn't block the other; stopping waits for both.
        """
        meeting = Barrier(2)

        def meet(jobs: Sequence[TextJob]) -> None:
            meeting.wait(MAX_WAIT)
            self.performer(jobs)

        queue = ThreadQueue(self.inbox, meet, "test", Closed, threads=2)
        both = [submit(queue, "a"), submit(queue, "b")]
        self.inbox.waitFor(queue.stop())
        self.assertEqual([self.successResultOf(each) for each in both], ["A", "B"])


class InlineQueueTests(SynchronousTestCase):
    """
    Tests for L{InlineQueue}.
    """

    def test_atOnce(self) -> None:
        """
        The result, or the error, is there when the call returns.
        """
        queue = InlineQueue(Performer(), "test", Closed)
        self.assertEqual(self.successResultOf(submit(queue, "a")), "A")
        self.failureResultOf(submit(queue, "bad"), ValueError)

    def test_stop(self) -> None:
        """
        Once stopped, it accepts no operations.
        """
        queue = InlineQueue(Performer(), "test", Closed)
        self.successResultOf(queue.stop())
        self.failureResultOf(submit(queue, "a"), Closed)
