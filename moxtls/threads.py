# -*- test-case-name: tests.test_threads -*-
"""
What is asked of the database waits in a lane for a thread.

The reactor's thread submits and is given the answers; nothing else crosses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads

from moxtls.ledger.database import LedgerUnavailable
from moxtls.outages import OutageLog

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")

#: Outcomes of a few kB each: two seconds at ten thousand a second, so that a
#: database that stands still costs memory by the ten megabytes, not more.
MAX_WAITING = 20_000


class Operation(Generic[I, T]):
    """
    One thing asked of the database, and what came of it.

    @ivar together: Does several errands of the same kind at once, given their
        items; returns their results in the same order.
    """

    __slots__ = ("deferred", "error", "item", "result", "together")

    def __init__(
        self, together: Callable[[Connection, Sequence[I]], Sequence[T]], item: I
    ) -> None:
        self.together = together
        self.item = item
        self.deferred: Deferred[T] = Deferred()
        self.result: T
        self.error: Exception | None = None

    def deliver(self) -> None:
        """
        Tell who waits for it.
        """
        if self.error is not None:
            self.deferred.errback(self.error)
        else:
            self.deferred.callback(self.result)


# Errands of all kinds wait side by side.
Operations = Sequence[Operation[Any, Any]]
Perform = Callable[[Operations], None]


class IOperationQueue(Protocol):
    """
    A way for errands to be performed.
    """

    def submit(self, errand: Operation[I, T]) -> Deferred[T]:
        """
        Fires, some time or at once, with what came of it.
        """

    def stop(self) -> Deferred[None]:
        """
        Take no more.  Fires once all that was taken is answered.
        """


class InlineQueue:
    """
    A lane without a thread: everything is done by the time C{submit} returns.
    """

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._stopped = False

    def submit(self, errand: Operation[I, T]) -> Deferred[T]:
        if self._stopped:
            errand.error = LedgerUnavailable("ledger: it is closed")
        else:
            _guarded(self._perform, [errand])
        errand.deliver()
        return errand.deferred

    def stop(self) -> Deferred[None]:
        self._stopped = True
        return succeed(None)


class ThreadQueue:
    """
    A lane with one or more threads of its own.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        perform: Perform,
        threads: int = 1,
        atOnce: int = 1,
        most: int = MAX_WAITING,
        outages: OutageLog | None = None,
    ) -> None:
        """
        @param perform: Called in a thread; leaves a result or an error in
            each errand.  An exception counts for all of them.
        @param atOnce: How many errands it is given at most.
        @param most: How many may wait.
        @param outages: Told of errands that failed as the database is unavailable.
        """
        self._outages = outages
        self._reactor = reactor
        self._perform = perform
        self._atOnce = atOnce
        self._most = most
        self._condition = Condition()
        self._waiting: deque[Operation[Any, Any]] = deque()
        self._stopping = False
        self._whenStopped: list[Deferred[None]] = []
        # Daemons: a program that ends without having called stop() must not
        # hang, and what isn't acknowledged may be lost.
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, errand: Operation[I, T]) -> Deferred[T]:
        with self._condition:
            if self._stopping:
                errand.error = LedgerUnavailable("ledger: it is closed")
            elif len(self._waiting) >= self._most:
                errand.error = LedgerUnavailable(
                    f"ledger: it is too slow, {self._most} operations wait for it"
                )
            else:
                self._waiting.append(errand)
                self._condition.notify()
        if errand.error is not None:
            self._deliver([errand])
        return errand.deferred

    def stop(self) -> Deferred[None]:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if not self._threads:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._whenStopped.append(stopped)
        return stopped

    def _work(self) -> None:
        while errands := self._next():
            _guarded(self._perform, errands)
            self._reactor.callFromThread(self._deliver, errands)
        self._reactor.callFromThread(self._ended)

    def _next(self) -> list[Operation[Any, Any]]:
        with self._condition:
            while not self._waiting and not self._stopping:
                self._condition.wait()
            number = min(self._atOnce, len(self._waiting))
            return [self._waiting.popleft() for _ in range(number)]

    def _deliver(self, errands: Operations) -> None:
        if self._outages is not None:
            self._note(errands, self._outages)
        for errand in errands:
            errand.deliver()

    def _note(self, errands: Operations, outages: OutageLog) -> None:
        errors = [each.error for each in errands]
        away = [each for each in errors if isinstance(each, LedgerUnavailable)]
        if away:
            outages.failed(away[0], len(away))
        else:
            # Whatever else is wrong, the database answered.
            outages.succeeded()

    def _ended(self) -> None:
        thread = self._threads.pop()
        if self._threads:
            return
        thread.join()
        for stopped in self._whenStopped:
            stopped.callback(None)


def _guarded(perform: Perform, errands: Operations) -> None:
    try:
        perform(errands)
    except Exception as error:
        for errand in errands:
            errand.error = error
