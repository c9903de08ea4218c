# -*- test-case-name: tests.test_tasks -*-
"""
Helpers for coroutines and Deferreds: waiting for several at once, bounded groups,
limits of time, and requests that callers share.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
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

from moxtls.dns.types import LookupGenerator
from moxtls.interfaces import IResolver

T = TypeVar("T")


async def gather(pending: Sequence[Deferred[T]]) -> list[T]:
    """
    Wait for all of C{pending}.  Cancelling cancels all.

    @return: The results, in order.

    @raise Exception: The first failure, C{CancelledError} included: C{gatherResults}
        alone would hide it in a C{FirstError}.
    """
    if all(each.called and not isinstance(each.result, Failure) for each in pending):
        # As with answers out of a cache.
        return [await each for each in pending]
    try:
        return await gatherResults(pending, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()


async def resolve(resolver: IResolver, lookups: LookupGenerator[T]) -> T:
    """
    Run a lookup generator with the answers of a resolver.

    @return: The generator's return value.
    """
    try:
        questions = next(lookups)
        while True:
            pending = [resolver.lookup(each.name, each.kind) for each in questions]
            questions = lookups.send(tuple(await gather(pending)))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        lookups.close()


async def ignoreCancelled(coroutine: Coroutine[Deferred[Any], Any, Any]) -> None:
    """
    Run C{coroutine}; if it is cancelled, return without an error.
    """
    with suppress(CancelledError):
        await coroutine


def cancelPromptly(pending: Deferred[T]) -> Deferred[T]:
    """
    The same, except that cancelling fails with C{CancelledError} at once, whatever
    C{pending} makes of it.
    """

    def cancel(outer: Deferred[T]) -> None:
        outer.errback(CancelledError())
        pending.cancel()

    def fire(result: T | Failure) -> None:
        if not outer.called:
            outer.callback(result)

    outer: Deferred[T] = Deferred(cancel)
    pending.addBoth(fire)
    return outer


class TaskGroup:
    """
    A group of running coroutines, with a limit on their number.

    Results go to the caller that started a coroutine; a failure that no caller handles
    has to be handled inside the coroutine.
    """

    def __init__(self, maxRunning: int) -> None:
        self._maxRunning = maxRunning
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
        Add an operation that was started elsewhere.

        @return: C{running}.
        """
        if not running.called:
            self._running[running] = None
            running.addBoth(self._ended, running)
        return running

    async def room(self) -> None:
        """
        Wait until fewer than the limit are running.
        """
        while len(self._running) >= self._maxRunning:
            await self._change()

    async def finished(self) -> None:
        """
        Wait until all have ended.
        """
        while self._running:
            await self._change()

    def cancel(self) -> Deferred[None]:
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


class CoalescedTask:
    """
    A function that runs once at a time, after each L{schedule}: calls that come while
    it runs cause one more run together.
    """

    log = Logger()

    def __init__(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """
        @param name: For the log, if it fails: "{name} failed".
        """
        self._function = function
        self._name = name
        self._isOpen = False
        self._isRunning = False
        self._isScheduled = False
        self._run: Deferred[None] = succeed(None)

    def start(self) -> None:
        """
        Allow runs.  Those scheduled before begin with the next L{schedule}.
        """
        self._isOpen = True

    def schedule(self) -> None:
        """
        Run the function, at once if it isn't running.  Never raises.
        """
        self._isScheduled = True
        if self._isOpen and not self._isRunning:
            self._isRunning = True
            self._run = Deferred.fromCoroutine(self._runAll())

    def stop(self) -> Deferred[None]:
        """
        Cancel the run in progress, and allow no more.

        @return: Fires once none is in progress.
        """
        self._isOpen = False
        self._run.cancel()
        return self._run

    async def _runAll(self) -> None:
        try:
            while self._isScheduled and self._isOpen:
                self._isScheduled = False
                await self._function()
        except CancelledError:
            pass  # stop
        except Exception:
            self.log.failure("{name} failed", name=self._name)
        finally:
            self._isRunning = False


class SharedTask(Generic[T]):
    """
    One request that any number of callers wait for.  It is cancelled when the last of
    them has cancelled.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []
        self._request: Deferred[None] | None = None
        self._result: T | Failure | None = None

    def start(self, request: Deferred[T]) -> None:
        """
        Have C{request} answer all callers.
        """
        self._request = request.addBoth(self._deliver)

    def join(self) -> Deferred[T]:
        """
        Wait for the request, which may be done already.
        """
        waiter: Deferred[T] = Deferred(self._leave)
        self._waiting.append(waiter)
        if self._result is not None:
            self._deliver(self._result)
        return waiter

    def _deliver(self, result: T | Failure) -> None:
        self._result = result
        # A callback may make other callers cancel.
        while self._waiting:
            waiter = self._waiting.pop(0)
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(result)

    def _leave(self, waiter: Deferred[T]) -> None:
        self._waiting.remove(waiter)
        if not self._waiting and self._request is not None:
            self._request.cancel()


class TooManyWaiting(Exception):
    """
    The queue for one key is full.
    """


class FairSemaphore:
    """
    A semaphore with a queue for each key.  Keys take turns, so that many requests
    under one key don't delay few under another.
    """

    def __init__(self, tokens: int, maxWaiting: int) -> None:
        """
        @param maxWaiting: The length of the queue for one key.
        """
        self._tokens = tokens
        self._maxWaiting = maxWaiting
        self._isReleasing = False
        self._waiting: OrderedDict[str, OrderedDict[Deferred[None], None]]
        self._waiting = OrderedDict()

    def acquire(self, key: str) -> Deferred[None]:
        """
        Fires once a token is acquired.  Cancelling leaves the queue.

        @raise TooManyWaiting: The queue for C{key} is full.
        """
        if self._tokens:
            self._tokens -= 1
            return succeed(None)
        turns = self._waiting.setdefault(key, OrderedDict())
        if len(turns) >= self._maxWaiting:
            raise TooManyWaiting(key)
        turn: Deferred[None] = Deferred(lambda turn: self._leave(key, turn))
        turns[turn] = None
        return turn

    def release(self) -> None:
        """
        Give a token back.
        """
        self._tokens += 1
        # A token that is released at once is passed on by this loop, not by recursion.
        if self._isReleasing:
            return
        self._isReleasing = True
        while self._tokens and self._waiting:
            self._tokens -= 1
            self._next().callback(None)
        self._isReleasing = False

    def _next(self) -> Deferred[None]:
        key, turns = self._waiting.popitem(last=False)
        turn, _ = turns.popitem(last=False)
        if turns:
            self._waiting[key] = turns
        return turn

    def _leave(self, key: str, turn: Deferred[None]) -> None:
        turns = self._waiting[key]
        del turns[turn]
        if not turns:
            del self._waiting[key]


class Timeout:
    """
    A timer that calls a function, unless it is reset before.
    """

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._call: IDelayedCall | None = None

    def set(self, seconds: float | None) -> None:
        """
        @param seconds: From now; C{None} to stop the timer.
        """
        if seconds is None:
            if self._call is not None:
                self._call.cancel()
                self._call = None
        elif self._call is None:
            self._call = self._clock.callLater(seconds, self._expire)
        else:
            self._call.reset(seconds)

    def _expire(self) -> None:
        self._call = None
        self._expired()


class TimeLimit(Generic[T]):
    """
    A limit on the wait for a Deferred, which holds also if that can't be cancelled.

    @ivar result: Fires with its result; fails with C{TimeoutError} if there is none in
        time.
    """

    def __init__(
        self, clock: IReactorTime, pending: Deferred[T], seconds: float
    ) -> None:
        self.result: Deferred[T] = Deferred()
        self._pending = pending
        self._end = clock.callLater(seconds, self._expire)
        pending.addBoth(self._deliver)

    def cancel(self, seconds: float) -> None:
        """
        Cancel, and wait for the result for C{seconds} at most.
        """
        if self._end.active():
            self._end.reset(seconds)
        self._pending.cancel()

    def _expire(self) -> None:
        self._pending.cancel()
        if not self.result.called:
            self.result.errback(Failure(TimeoutError()))

    def _deliver(self, outcome: T | Failure) -> None:
        if self._end.active():
            self._end.cancel()
        if self.result.called:
            return
        if isinstance(outcome, Failure):
            self.result.errback(outcome)
        else:
            self.result.callback(outcome)
