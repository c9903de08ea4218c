# -*- test-case-name: tests.workers.test_batches -*-
"""
Processes items in batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

T = TypeVar("T")
R = TypeVar("R")

Process = Callable[[list[T]], Deferred[Sequence[R | Exception]]]
_Waiting = tuple[T, Deferred[R]]


class Batches(Generic[T, R]):
    """
    Collects items while batches are in progress, and processes them as the next batch.
    """

    def __init__(
        self,
        process: Process[T, R],
        sizeOf: Callable[[T], int],
        maxSize: int,
        maxRunning: int = 2,
    ) -> None:
        """
        @param process: Fires with the result of each item, in order.
        @param maxSize: Limit on the sum of C{sizeOf} in one batch, unless it has only
            one item.
        @param maxRunning: Batches at a time: with two, the worker has the next one
            when it finishes the first.
        """
        self._process = process
        self._sizeOf = sizeOf
        self._maxSize = maxSize
        self._maxRunning = maxRunning
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._running = 0
        # Including batches whose results are being delivered.
        self._unfinished = 0
        self._isStarting = False
        self._idle: list[Deferred[None]] = []

    @property
    def waiting(self) -> int:
        """
        The number of items in no batch yet.
        """
        return len(self._waiting)

    def put(self, item: T) -> Deferred[R]:
        """
        Add an item.

        @return: Fires with its result; fails if that is an exception.
        """
        deferred: Deferred[R] = Deferred()
        self._waiting.append((item, deferred))
        self._startBatches()
        return deferred

    def idle(self) -> Deferred[None]:
        """
        Fires once no items are left, and all results are delivered.
        """
        if not self._unfinished:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _startBatches(self) -> None:
        # A batch that is done at once is followed by the next in this loop, not by
        # recursion.
        if self._isStarting:
            return
        self._isStarting = True
        while self._waiting and self._running < self._maxRunning:
            batch = self._next()
            self._running += 1
            self._unfinished += 1
            # An exception must not end the processing of later batches.
            done = maybeDeferred(self._process, [item for item, _ in batch])
            done.addCallbacks(
                self._done, self._failed, callbackArgs=(batch,), errbackArgs=(batch,)
            )
        self._isStarting = False

    def _next(self) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        left = self._maxSize
        while self._waiting and (
            not batch or self._sizeOf(self._waiting[0][0]) <= left
        ):
            left -= self._sizeOf(self._waiting[0][0])
            batch.append(self._waiting.popleft())
        return batch

    def _done(
        self, results: Sequence[R | Exception], batch: list[_Waiting[T, R]]
    ) -> None:
        self._ended()
        for (_, deferred), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                deferred.errback(result)
            else:
                deferred.callback(result)
        self._finished()

    def _failed(self, failure: Failure, batch: list[_Waiting[T, R]]) -> None:
        self._ended()
        for _, deferred in batch:
            deferred.errback(failure)
        self._finished()

    def _ended(self) -> None:
        self._running -= 1
        self._startBatches()

    def _finished(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            idle, self._idle = self._idle, []
            for each in idle:
                each.callback(None)
