"""
Tests for L{moxtls.tasks}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from moxtls.tasks import TaskGroup, ignoreCancelled


class CrewTests(SynchronousTestCase):
    """
    Tests for L{TaskGroup}.
    """

    def setUp(self) -> None:
        self.crew = TaskGroup(2)
        self.works: list[Deferred[int]] = []

    def begin(self) -> Deferred[int]:
        work: Deferred[int] = Deferred()
        self.works.append(work)

        async def working() -> int:
            return await work

        return self.crew.begin(working())

    def test_room(self) -> None:
        """
        There is room again as soon as one of too many has ended.
        """
        self.begin()
        self.successResultOf(Deferred.fromCoroutine(self.crew.room()))
        ended = self.begin()
        waiting = Deferred.fromCoroutine(self.crew.room())
        self.assertNoResult(waiting)
        self.works[1].callback(7)
        self.assertEqual(self.successResultOf(ended), 7)
        self.successResultOf(waiting)

    def test_finished(self) -> None:
        """
        It has finished when the last one has, however it ended.
        """
        first, second = self.begin(), self.begin()
        waiting = Deferred.fromCoroutine(self.crew.finished())
        self.works[1].errback(OSError())
        self.assertNoResult(waiting)
        self.works[0].callback(1)
        self.successResultOf(waiting)
        self.successResultOf(first)
        self.failureResultOf(second, OSError)
        self.assertEqual(len(self.crew), 0)

    def test_add(self) -> None:
        """
        What was started elsewhere takes room too, unless it is over already.
        """
        self.assertEqual(self.successResultOf(self.crew.add(succeed(1))), 1)
        elsewhere: Deferred[int] = Deferred()
        self.crew.add(elsewhere)
        self.assertEqual(len(self.crew), 1)
        elsewhere.callback(2)
        self.assertEqual(len(self.crew), 0)
        self.assertEqual(self.successResultOf(elsewhere), 2)

    def test_abandon(self) -> None:
        """
        All are cancelled, and waited for while they clean up.
        """
        cleaning: Deferred[None] = Deferred()

        async def slow() -> None:
            try:
                await Deferred()
            finally:
                await cleaning

        self.crew.begin(ignoreCancelled(slow()))
        other = self.begin()
        abandoned = self.crew.abandon()
        self.failureResultOf(other, CancelledError)
        self.assertNoResult(abandoned)
        cleaning.callback(None)
        self.successResultOf(abandoned)
