# -*- test-case-name: tests.inbound.test_authenticate -*-
"""
Things that are being found out while something else goes on.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

#: What is wrong with what isn't back in time.
OVERDUE = "it took too long"


class Task(Generic[T]):
    """
    One of them, begun at once.  Any number may wait for it, and it never
    fails.

    @ivar otherwise: What it comes to if it fails, is given up or overdue.
    @ivar isDone: Whether it has come to an end.
    @ivar failed: Whether that was C{otherwise}.
    """

    log = Logger()

    def __init__(
        self, coroutine: Coroutine[Deferred[Any], Any, T], otherwise: Callable[[], T]
    ) -> None:
        self.otherwise = otherwise
        self.isDone = False
        self.failed = False
        self._waiting: list[Deferred[None]] = []
        self._running: Deferred[None] | None = None
        self._running = startTask(self._run(coroutine))

    @property
    def value(self) -> T:
        """
        What was found, once it C{isDone}.
        """
        return self._value

    def join(self) -> Deferred[None]:
        """
        Fires once it C{isDone}.  Cancelling gives up waiting, and nothing
        else.
        """
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def cancel(self) -> None:
        """
        Nobody wants to know any more.
        """
        if self._running is not None:
            self._running.cancel()

    async def _run(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> None:
        try:
            self._value = await coroutine
        except CancelledError:
            # It was this that was cancelled, and not who waits for it.
            self._giveUp()
        except Exception:
            self.log.failure("checking where a message is from")
            self._giveUp()
        self.isDone = True
        self._running = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _giveUp(self) -> None:
        self.failed = True
        self._value = self.otherwise()


class Deadline:
    """
    Waits for lookups, for so long altogether from the first that has to be
    waited for.

    @ivar gaveUp: Whether something wasn't back in time.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.gaveUp = False
        self._clock = clock
        self._seconds = seconds
        self._alarm: IDelayedCall | None = None
        self._isOver = False
        self._waiting: Deferred[None] | None = None

    async def soon(self, lookup: Task[T]) -> T:
        """
        What C{lookup} found, if it is back in time.
        """
        if not lookup.isDone and not self._isOver:
            await self._wait(lookup)
        if lookup.isDone:
            return lookup.value
        self.gaveUp = True
        return lookup.otherwise()

    def close(self) -> None:
        """
        Nothing else is to be waited for.
        """
        alarm, self._alarm = self._alarm, None
        if alarm is not None and alarm.active():
            alarm.cancel()

    async def _wait(self, lookup: Task[Any]) -> None:
        if self._alarm is None:
            self._alarm = self._clock.callLater(self._seconds, self._end)
        self._waiting = lookup.join()
        try:
            await self._waiting
        except CancelledError:
            if not self._isOver:
                raise
        finally:
            self._waiting = None

    def _end(self) -> None:
        self._isOver = True
        if self._waiting is not None:
            self._waiting.cancel()


def startTask(coroutine: Coroutine[Deferred[Any], Any, None]) -> Deferred[None] | None:
    """
    Start something.

    @return: C{None} if that was all, and nothing had to be waited for: most
        answers are in a cache, and a C{Deferred} costs more than to look.
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
    The rest of a coroutine that waits for something.
    """
    try:
        while True:
            try:
                found = yield waiting
            except Exception as error:
                waiting = coroutine.throw(error)
            else:
                waiting = coroutine.send(found)
    except StopIteration:
        return
    finally:
        coroutine.close()
