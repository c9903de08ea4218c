# -*- test-case-name: tests.reporting.test_crew -*-
"""
Coroutines in flight: so many at a time, and all to be stopped together.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed

T = TypeVar("T")


class TaskGroup:
    """
    What its members return is theirs: a failure that nobody else takes has to
    be dealt with inside them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: dict[Deferred[Any], None] = {}
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """
        Start C{coroutine}, whether or not there is room.

        @return: Fires with its result.
        """
        return self.add(Deferred.fromCoroutine(coroutine))

    def add(self, running: Deferred[T]) -> Deferred[T]:
        """
        Count what was started elsewhere.

        @return: C{running}.
        """
        if not running.called:
            self._running[running] = None
            running.addBoth(self._ended, running)
        return running

    async def room(self) -> None:
        """
        Wait until one more may begin.
        """
        while len(self._running) >= self._most:
            await self._change()

    async def finished(self) -> None:
        """
        Wait until all have ended.
        """
        while self._running:
            await self._change()

    def abandon(self) -> Deferred[None]:
        """
        Cancel all.

        @return: Fires once all have ended.
        """
        for running in tuple(self._running):
            running.cancel()
        return Deferred.fromCoroutine(self.finished())

    def _change(self) -> Deferred[None]:
        if not self._running:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _ended(self, result: T, running: Deferred[Any]) -> T:
        del self._running[running]
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        return result


async def ignoreCancelled(coroutine: Coroutine[Deferred[Any], Any, Any]) -> None:
    """
    Let C{coroutine} end by being cancelled without a failure left over.
    """
    with suppress(CancelledError):
        await coroutine
