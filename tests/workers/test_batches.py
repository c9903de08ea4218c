"""
Tests for L{moxtls.workers.batches}.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from moxtls.workers.batches import Batches

Results = Sequence[int | Exception]


RUNNING = 2


class BatchesTests(SynchronousTestCase):
    """
    Tests for L{Batches}.
    """

    def setUp(self) -> None:
        self.begun: list[tuple[list[int], Deferred[Results]]] = []
        self.batches = Batches[int, int](self.begin, lambda number: number, 10, RUNNING)

    def begin(self, numbers: list[int]) -> Deferred[Results]:
        deferred: Deferred[Results] = Deferred()
        self.begun.append((numbers, deferred))
        return deferred

    def end(self) -> None:
        """
        Complete the oldest running batch.
        """
        numbers, deferred = self.begun.pop(0)
        deferred.callback([10 * each for each in numbers])

    def test_together(self) -> None:
        """
        Items that arrive during a batch wait, and form the next one.
        """
        answers = [self.batches.put(1) for _ in range(RUNNING + 3)]
        self.assertEqual([each for each, _ in self.begun], [[1]] * RUNNING)
        self.assertEqual(self.batches.waiting, 3)
        self.end()
        self.assertEqual(self.begun[-1][0], [1, 1, 1])
        self.assertEqual(self.batches.waiting, 0)
        self.assertEqual(self.successResultOf(answers[0]), 10)
        while self.begun:
            self.end()
        self.assertEqual([self.successResultOf(each) for each in answers[1:]], [10] * 4)

    def test_size(self) -> None:
        """
        A batch doesn't exceed the limit; a single larger item is a batch of its own.
        """
        for number in (*[1] * RUNNING, 6, 4, 1, 99, 2):
            self.batches.put(number)
        for _ in range(RUNNING):
            self.end()
        self.assertEqual([each for each, _ in self.begun], [[6, 4], [1]])
        self.end()
        self.end()
        self.assertEqual([each for each, _ in self.begun], [[99], [2]])

    def test_failures(self) -> None:
        """
        An item may fail by itself, or a whole batch; the next is performed.
        """
        first, *others = [self.batches.put(each) for each in (3, 4, 1, 1)]
        self.begun[0][1].callback([KeyError("x")])
        self.failureResultOf(first, KeyError)
        self.begun[1][1].errback(OSError("gone"))
        self.failureResultOf(others[0], OSError)
        self.begun[2][1].errback(OSError("gone"))
        self.failureResultOf(others[1], OSError)
        self.failureResultOf(others[2], OSError)
        answer = self.batches.put(1)
        self.begun[-1][1].callback([7])
        self.assertEqual(self.successResultOf(answer), 7)

    def test_atOnce(self) -> None:
        """
        However many there are, they may all be done, or fail, at once.
        """
        held: Deferred[Results] = Deferred()
        answers: list[Deferred[Results]] = [held] * RUNNING

        def do(numbers: list[int]) -> Deferred[Results]:
            if answers:
                answers.pop()
                return Deferred(lambda _: None) if answers else held
            return fail(OSError("gone")) if numbers[0] == 9 else succeed(numbers)

        batches = Batches[int, int](do, lambda number: number, 1, RUNNING)
        put = [batches.put(each) for each in (1, 1, *(8, 9) * 5000)]
        held.callback([1])
        self.assertEqual(self.successResultOf(put[-2]), 8)
        self.failureResultOf(put[-1], OSError)
        for each in put[3:-1:2]:
            self.failureResultOf(each, OSError)

    def test_idle(self) -> None:
        """
        C{idle} fires when everything is done.
        """
        self.successResultOf(self.batches.idle())
        for _ in range(RUNNING + 1):
            self.batches.put(1)
        idle = self.batches.idle()
        while self.begun:
            self.assertNoResult(idle)
            self.end()
        self.successResultOf(idle)

    def test_notified(self) -> None:
        """
        Waiters for idleness are called after all others, so that they find everything
        settled.
        """
        order: list[str] = []
        held: Deferred[Results] = Deferred()

        def do(numbers: list[int]) -> Deferred[Results]:
            return held if numbers == [1] else fail(OSError("gone"))

        batches = Batches[int, int](do, lambda number: number, 10, 1)
        for number in (1, 2):
            batches.put(number).addErrback(lambda _: order.append("failed"))
        batches.idle().addCallback(lambda _: order.append("idle"))
        held.errback(OSError("gone"))
        self.assertEqual(order, ["failed", "failed", "idle"])

    def test_mistake(self) -> None:
        """
        A batch that can't be started fails, and later ones are processed.
        """

        def do(numbers: list[int]) -> Deferred[Results]:
            return succeed([10 // each for each in numbers])

        batches = Batches[int, int](do, lambda number: number, 10, RUNNING)
        self.failureResultOf(batches.put(0), ZeroDivisionError)
        self.assertEqual(self.successResultOf(batches.put(5)), 2)
        self.successResultOf(batches.idle())
