"""
Tests for L{moxtls.threads}.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier, Event

from sqlalchemy import Connection
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.ledger.database import LedgerUnavailable
from moxtls.threads import (
    InlineQueue,
    IOperationQueue,
    Operation,
    Operations,
    ThreadQueue,
)
from tests import MAX_WAIT
from tests.ledger.threads import Inbox


def unused(connection: Connection, items: Sequence[str]) -> Sequence[str]:
    """
    These lanes don't lead to a database.
    """
    raise NotImplementedError


class Desk:
    """
    Performs errands: gives back their items in capitals.  Waits if it is
    told to.
    """

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.entered = Event()
        self.open = Event()
        self.open.set()

    def __call__(self, errands: Operations) -> None:
        self.groups.append([errand.item for errand in errands])
        self.entered.set()
        self.open.wait(MAX_WAIT)
        for errand in errands:
            if errand.item == "bad":
                raise ValueError(errand.item)
            errand.result = errand.item.upper()


def submit(lane: IOperationQueue, item: str) -> Deferred[str]:
    """
    Send C{item} down C{lane}.
    """
    return lane.submit(Operation(unused, item))


class LaneTests(SynchronousTestCase):
    """
    A lane with a thread.
    """

    def setUp(self) -> None:
        self.inbox = Inbox()
        self.desk = Desk()
        self.lane = ThreadQueue(self.inbox, self.desk, atOnce=3, most=5)
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.desk.open.set()
        self.inbox.waitFor(self.lane.stop())

    def occupy(self) -> Deferred[str]:
        """
        Make the thread busy until the desk is opened.
        """
        self.desk.open.clear()
        deferred = submit(self.lane, "first")
        self.assertTrue(self.desk.entered.wait(MAX_WAIT))
        return deferred

    def test_answers(self) -> None:
        """
        Each caller gets its own answer, in the reactor's thread.
        """
        deferreds = [submit(self.lane, item) for item in "abc"]
        self.assertEqual([self.inbox.waitFor(each) for each in deferreds], [*"ABC"])

    def test_grouped(self) -> None:
        """
        What waits is taken together, in order, up to the limit.
        """
        self.occupy()
        deferreds = [submit(self.lane, item) for item in "abcde"]
        self.desk.open.set()
        self.inbox.waitFor(deferreds[-1])
        self.assertEqual(self.desk.groups, [["first"], [*"abc"], [*"de"]])

    def test_bounded(self) -> None:
        """
        Beyond the limit nothing is accepted: it fails at once, and says why.
        """
        self.occupy()
        accepted = [submit(self.lane, item) for item in "abcde"]
        refused = self.failureResultOf(submit(self.lane, "f"), LedgerUnavailable)
        self.assertIn("5 operations wait", refused.getErrorMessage())
        self.desk.open.set()
        self.assertEqual([self.inbox.waitFor(each) for each in accepted], [*"ABCDE"])
        self.assertEqual(self.inbox.waitFor(submit(self.lane, "g")), "G")

    def test_exception(self) -> None:
        """
        If performing fails, callers are told, and the thread goes on.
        """
        self.assertRaises(ValueError, self.inbox.waitFor, submit(self.lane, "bad"))
        self.assertEqual(self.inbox.waitFor(submit(self.lane, "a")), "A")

    def test_cancelled(self) -> None:
        """
        Who cancels is told at once, and nobody else is disturbed.
        """
        first = self.occupy()
        cancelled, other = submit(self.lane, "a"), submit(self.lane, "b")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.desk.open.set()
        self.assertEqual(self.inbox.waitFor(other), "B")
        self.assertEqual(self.inbox.waitFor(first), "FIRST")

    def test_stop(self) -> None:
        """
        Stopping waits for all that was accepted, and accepts no more.
        """
        self.occupy()
        accepted = submit(self.lane, "a")
        stopped, again = self.lane.stop(), self.lane.stop()
        self.failureResultOf(submit(self.lane, "b"), LedgerUnavailable)
        self.assertNoResult(stopped)
        self.desk.open.set()
        self.inbox.waitFor(stopped)
        self.assertEqual(self.successResultOf(accepted), "A")
        self.successResultOf(again)
        self.successResultOf(self.lane.stop())

    def test_threads(self) -> None:
        """
        With two threads, one that is busy doesn't hold up the other; stopping
        waits for both.
        """
        meeting = Barrier(2)

        def meet(errands: Operations) -> None:
            meeting.wait(MAX_WAIT)
            self.desk(errands)

        lane = ThreadQueue(self.inbox, meet, threads=2)
        both = [submit(lane, "a"), submit(lane, "b")]
        self.inbox.waitFor(lane.stop())
        self.assertEqual([self.successResultOf(each) for each in both], ["A", "B"])


class HereTests(SynchronousTestCase):
    """
    A lane without a thread.
    """

    def test_atOnce(self) -> None:
        """
        The answer, or the error, is there when the call returns.
        """
        lane = InlineQueue(Desk())
        self.assertEqual(self.successResultOf(submit(lane, "a")), "A")
        self.failureResultOf(submit(lane, "bad"), ValueError)

    def test_stop(self) -> None:
        """
        Once stopped, it accepts nothing.
        """
        lane = InlineQueue(Desk())
        self.successResultOf(lane.stop())
        self.failureResultOf(submit(lane, "a"), LedgerUnavailable)
