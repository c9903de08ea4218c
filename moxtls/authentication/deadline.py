# -*- test-case-name: tests.authentication.test_check -*-
"""
Runs the checks of a message in parallel, with one limit of time.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

#: The error of a task that wasn't done in time.
OVERDUE = "it took too long"


class Task(Generic[T]):
    """
    A coroutine, started at once, that any number of callers may wait for.  It never
    fails: it has a fallback result instead.

    @ivar fallback: Makes the result if the coroutine fails, is cancelled or overdue.
    @ivar isDone: True if it has ended.
    @ivar failed: True if the result is the fallback.
    """

    log = Logger()

    def __init__(
        self, coroutine: Coroutine[Deferred[Any], Any, T], fallback: Callable[[], T]
    ) -> None:
        self.fallback = fallback
        self.isDone = False
        self.failed = False
        self._waiting: list[Deferred[None]] = []
        self._running: Deferred[None] | None = None
        self._running = _start(self._run(coroutine))

    @property
    def value(self) -> T:
        """
        The result, once it C{isDone}.
        """
        return self._value

    def join(self) -> Deferred[None]:
        """
        Fires once it C{isDone}.  Cancelling ends the wait, not the task.
        """
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def cancel(self) -> None:
        """
        End the task with its fallback.
        """
        if self._running is not None:
            self._running.cancel()

    async def _run(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> None:
        try:
            self._value = await coroutine
        except CancelledError:
            # The task was cancelled, not a caller.
            self._fail()
        except Exception:
            self.log.failure("Authentication check of a message failed")
            self._fail()
        self.isDone = True
        self._running = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _fail(self) -> None:
        self.failed = True
        self._value = self.fallback()


class Deadline:
    """
    One limit of time for the waits for several tasks, from the first wait on.

    @ivar expired: True if a task wasn't done in time.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.expired = False
        self._clock = clock
        self._seconds = seconds
        self._timer: IDelayedCall | None = None
        self._isOver = False
        self._waiting: Deferred[None] | None = None

    async def resultOf(self, task: Task[T]) -> T:
        """
        The result of C{task}, or its fallback if it isn't done in time.
        """
        if not task.isDone and not self._isOver:
            await self._wait(task)
        if task.isDone:
            return task.value
        self.expired = True
        return task.fallback()

    def close(self) -> None:
        """
        Stop the timer.
        """
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    async def _wait(self, task: Task[Any]) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._expire)
        self._waiting = task.join()
        try:
            await self._waiting
        except CancelledError:
            if not self._isOver:
                raise
        finally:
            self._waiting = None

    def _expire(self) -> None:
        self._isOver = True
        if self._waiting is not None:
            self._waiting.cancel()


def _start(coroutine: Coroutine[Deferred[Any], Any, None]) -> Deferred[None] | None:
    """
    Start a coroutine.

    @return: C{None} if it ended without a wait: most answers are in a cache, and a
        C{Deferred} costs more than a cache lookup.
    """
    try:
        first = coroutine.send(None)
    except StopIteration:
        return None
    return Deferred.fromCoroutine(_resumed(coroutine, first))


@types.coroutine
def _resumed(
    coroutine: Coroutine[Deferred[Any], Any, None], waiting: Deferred[Any]
) -> Generator[Deferred[Any], Any, None]:
    """
    Run the rest of a coroutine that has begun to wait.
    """
    try:
        while True:
            try:
                result = yield waiting
            except Exception as error:
                waiting = coroutine.throw(error)
            else:
                waiting = coroutine.send(result)
    except StopIteration:
        return
    finally:
        coroutine.close()
