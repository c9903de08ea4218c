# -*- test-case-name: tests.test_tasks -*-
"""
Coroutines in flight: so many at a time, and all to be stopped together.

Something that is to be done often, and never twice at the same time.

Waits for several things at a time, and for inquiries.

One alarm that is put off again and again.

Things that are being found out while something else goes on.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    FirstError,
    gatherResults,
    succeed,
)
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.dns.query import LookupGenerator
from moxtls.interfaces import IResolver

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


class CoalescedTask:
    """
    Does C{work} after each L{poke}; once more, if it was poked meanwhile.
    """

    log = Logger()

    def __init__(self, work: Callable[[], Awaitable[None]], doing: str) -> None:
        """
        @param doing: What C{work} does, for the log if it fails.
        """
        self._work = work
        self._doing = doing
        self._isOpen = False
        self._isBusy = False
        self._isWanted = False
        self._turn: Deferred[None] = succeed(None)

    def open(self) -> None:
        self._isOpen = True

    def poke(self) -> None:
        """
        Never raises.
        """
        self._isWanted = True
        if self._isOpen and not self._isBusy:
            self._isBusy = True
            self._turn = Deferred.fromCoroutine(self._take())

    def close(self) -> Deferred[None]:
        """
        Break off what is being done.

        @return: Fires once nothing is.
        """
        self._isOpen = False
        self._turn.cancel()
        return self._turn

    async def _take(self) -> None:
        try:
            while self._isWanted and self._isOpen:
                self._isWanted = False
                await self._work()
        except CancelledError:
            pass  # close
        except Exception:
            self.log.failure("{doing}", doing=self._doing)
        finally:
            self._isBusy = False


async def gather(pending: Sequence[Deferred[T]]) -> list[T]:
    """
    The results of all, in order.  When this is cancelled, all are; and who
    waits sees a C{CancelledError}, where C{gatherResults} alone would hide it
    in a C{FirstError}.
    """
    if all(each.called for each in pending):
        # As with answers out of a cache.
        return [await each for each in pending]
    try:
        return await gatherResults(pending, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()


async def resolve(resolver: IResolver, inquiry: LookupGenerator[T]) -> T:
    """
    Ask what an inquiry wants to know, and return what it found.
    """
    try:
        questions = next(inquiry)
        while True:
            pending = [resolver.lookup(each.name, each.kind) for each in questions]
            questions = inquiry.send(tuple(await gather(pending)))
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        inquiry.close()


class Timeout:
    """
    Calls once, unless it is set anew in time.
    """

    def __init__(self, clock: IReactorTime, passed: Callable[[], None]) -> None:
        self._clock = clock
        self._passed = passed
        self._call: IDelayedCall | None = None

    def set(self, seconds: float | None) -> None:
        """
        @param seconds: From now; C{None} for never.
        """
        if seconds is None:
            if self._call is not None:
                self._call.cancel()
                self._call = None
        elif self._call is None:
            self._call = self._clock.callLater(seconds, self._pass)
        else:
            self._call.reset(seconds)

    def _pass(self) -> None:
        self._call = None
        self._passed()


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


class SharedTask(Generic[T]):
    """
    One operation whose result any number of callers wait for.  When the last
    of them gives up, it is cancelled.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []
        self._running: Deferred[None] | None = None
        self._result: T | Failure | None = None

    def start(self, running: Deferred[T]) -> None:
        """
        Pass the result of C{running}, or its failure, to all callers.
        """
        self._running = running.addBoth(self._ended)

    def join(self) -> Deferred[T]:
        """
        Fires as the operation does.  Cancelling gives up waiting.
        """
        waiting: Deferred[T] = Deferred(self._leave)
        self._waiting.append(waiting)
        if self._result is not None:
            self._ended(self._result)
        return waiting

    def _ended(self, result: T | Failure) -> None:
        self._result = result
        # A caller that is told may make others give up.
        while self._waiting:
            waiting = self._waiting.pop(0)
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

    def _leave(self, waiting: Deferred[T]) -> None:
        self._waiting.remove(waiting)
        if not self._waiting and self._running is not None:
            self._running.cancel()


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
