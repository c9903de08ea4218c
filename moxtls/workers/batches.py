# -*- test-case-name: tests.workers.test_batches -*-
"""
Has things done several at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

T = TypeVar("T")
R = TypeVar("R")

Do = Callable[[list[T]], Deferred[Sequence[R | Exception]]]
_Waiting = tuple[T, Deferred[R]]


class Batches(Generic[T, R]):
    """
    What comes while others are being done is done together.
    """

    def __init__(
        self, do: Do[T, R], sizeOf: Callable[[T], int], most: int, running: int = 2
    ) -> None:
        """
        @param do: Fires with what each comes to, in their order.
        @param most: Of what C{sizeOf} says, in one batch, if there are several
            in it.
        @param running: How many batches are under way: while one is being done,
            the next one is there already.
        """
        self._do = do
        self._sizeOf = sizeOf
        self._most = most
        self._mostRunning = running
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._running = 0
        # Those, and those that are done of which not everybody knows.
        self._open = 0
        self._isBeginning = False
        self._idle: list[Deferred[None]] = []

    @property
    def waiting(self) -> int:
        """
        How many aren't being done yet.
        """
        return len(self._waiting)

    def put(self, thing: T) -> Deferred[R]:
        """
        @return: Fires with what it comes to, or fails if that is an exception.
        """
        deferred: Deferred[R] = Deferred()
        self._waiting.append((thing, deferred))
        self._begin()
        return deferred

    def idle(self) -> Deferred[None]:
        """
        Fires once nothing is left to do, and everybody knows.
        """
        if not self._open:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _begin(self) -> None:
        # What is done at once ends within this loop, and not within itself.
        if self._isBeginning:
            return
        self._isBeginning = True
        while self._waiting and self._running < self._mostRunning:
            batch = self._next()
            self._running += 1
            self._open += 1
            # Were it to raise, nothing would ever be done again.
            done = maybeDeferred(self._do, [thing for thing, _ in batch])
            done.addCallbacks(
                self._done, self._failed, callbackArgs=(batch,), errbackArgs=(batch,)
            )
        self._isBeginning = False

    def _next(self) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        left = self._most
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
        self._rest()

    def _failed(self, why: Failure, batch: list[_Waiting[T, R]]) -> None:
        self._ended()
        for _, deferred in batch:
            deferred.errback(why)
        self._rest()

    def _ended(self) -> None:
        self._running -= 1
        self._begin()

    def _rest(self) -> None:
        self._open -= 1
        if not self._open:
            idle, self._idle = self._idle, []
            for each in idle:
                each.callback(None)
