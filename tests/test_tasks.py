"""
Tests for L{moxtls.tasks}.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from moxtls.tasks import (
    FairSemaphore,
    SharedTask,
    TaskGroup,
    TooManyWaiting,
    gather,
    ignoreCancelled,
)


class GatherTests(SynchronousTestCase):
    """
    Tests for L{gather}.
    """

    def test_failures(self) -> None:
        """
        The first of several failures is raised, and none is left unhandled, whether
        they come at once or later.
        """
        for count in (0, 1, 2):
            pending: list[Deferred[int]] = [Deferred() for _ in range(3)]
            for each in pending[:count]:
                each.errback(KeyError(count))
            gathered = Deferred.fromCoroutine(gather(pending))
            for each in pending[count:]:
                each.errback(KeyError(count))
            self.failureResultOf(gathered, KeyError)
        failed: list[Deferred[int]] = [fail(KeyError()), succeed(1), fail(KeyError())]
        gathered = Deferred.fromCoroutine(gather(failed))
        self.failureResultOf(gathered, KeyError)


class TaskGroupTests(SynchronousTestCase):
    """
    Tests for L{TaskGroup}.
    """

    def setUp(self) -> None:
        self.group = TaskGroup(2)
        self.pending: list[Deferred[int]] = []

    def begin(self) -> Deferred[int]:
        each: Deferred[int] = Deferred()
        self.pending.append(each)

        async def working() -> int:
            return await each

        return self.group.begin(working())

    def test_room(self) -> None:
        """
        There is room again as soon as one of too many has ended.
        """
        self.begin()
        self.successResultOf(Deferred.fromCoroutine(self.group.room()))
        ended = self.begin()
        waiting = Deferred.fromCoroutine(self.group.room())
        self.assertNoResult(waiting)
        self.pending[1].callback(7)
        self.assertEqual(self.successResultOf(ended), 7)
        self.successResultOf(waiting)

    def test_finished(self) -> None:
        """
        The group has finished when its last task has, whatever the results.
        """
        first, second = self.begin(), self.begin()
        waiting = Deferred.fromCoroutine(self.group.finished())
        self.pending[1].errback(OSError())
        self.assertNoResult(waiting)
        self.pending[0].callback(1)
        self.successResultOf(waiting)
        self.successResultOf(first)
        self.failureResultOf(second, OSError)
        self.assertEqual(len(self.group), 0)

    def test_add(self) -> None:
        """
        A Deferred added to the group counts towards its limit, unless it has fired.
        """
        self.assertEqual(self.successResultOf(self.group.add(succeed(1))), 1)
        elsewhere: Deferred[int] = Deferred()
        self.group.add(elsewhere)
        self.assertEqual(len(self.group), 1)
        elsewhere.callback(2)
        self.assertEqual(len(self.group), 0)
        self.assertEqual(self.successResultOf(elsewhere), 2)

    def test_cancel(self) -> None:
        """
        All are cancelled, and waited for while they clean up.
        """
        cleaning: Deferred[None] = Deferred()

        async def slow() -> None:
            try:
                await Deferred()
            finally:
                await cleaning

        self.group.begin(ignoreCancelled(slow()))
        other = self.begin()
        cancelled = self.group.cancel()
        self.failureResultOf(other, CancelledError)
        self.assertNoResult(cancelled)
        cleaning.callback(None)
        self.successResultOf(cancelled)


class FairSemaphoreTests(SynchronousTestCase):
    """
    Tests for L{FairSemaphore}.
    """

    def note(self, order: list[str], key: str, acquired: None) -> None:
        order.append(key)

    def test_turns(self) -> None:
        """
        Keys take turns, and each lets its own in by their order.
        """
        slots, order = FairSemaphore(1, 9), list[str]()
        self.successResultOf(slots.acquire("a"))
        for key in ("a1", "a2", "a3", "b1", "b2", "c1"):
            slots.acquire(key[0]).addCallback(partial(self.note, order, key))
        for _ in range(7):
            slots.release()
        self.assertEqual(order, ["a1", "b1", "c1", "a2", "b2", "a3"])
        self.successResultOf(slots.acquire("d"))

    def test_atOnce(self) -> None:
        """
        However many are done as soon as it is their turn.
        """
        slots = FairSemaphore(1, 5000)
        slots.acquire("a")
        waiting = [slots.acquire("a") for _ in range(5000)]
        for each in waiting:
            each.addCallback(lambda _: slots.release())
        slots.release()
        self.successResultOf(waiting[-1])

    def test_cancelled(self) -> None:
        """
        A cancelled waiter is skipped.
        """
        slots = FairSemaphore(1, 9)
        slots.acquire("a")
        first, second = slots.acquire("a"), slots.acquire("b")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        slots.release()
        self.successResultOf(second)

    def test_bounded(self) -> None:
        """
        The number of waiters for each key is limited.
        """
        slots = FairSemaphore(0, 2)
        slots.acquire("a"), slots.acquire("a")
        self.assertRaises(TooManyWaiting, slots.acquire, "a")
        slots.acquire("b")


class SharedTaskTests(SynchronousTestCase):
    """
    Tests for L{SharedTask}.
    """

    def setUp(self) -> None:
        self.request: Deferred[int] = Deferred()
        self.shared = SharedTask[int]()
        self.shared.start(self.request)

    def test_shared(self) -> None:
        """
        All callers get the result, later ones included.
        """
        callers = [self.shared.join() for _ in range(2)]
        self.request.callback(7)
        callers.append(self.shared.join())
        self.assertEqual([self.successResultOf(each) for each in callers], [7] * 3)

    def test_cancelled(self) -> None:
        """
        The task runs until the last caller has cancelled.
        """
        first, second = self.shared.join(), self.shared.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertFalse(self.request.called)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertTrue(self.request.called)

    def test_cancelledByAnother(self) -> None:
        """
        A caller may cancel another one when it gets the result.
        """
        first, second = self.shared.join(), self.shared.join()
        first.addCallback(lambda result: second.cancel())
        self.request.callback(7)
        self.failureResultOf(second, CancelledError)
