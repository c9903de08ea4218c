# -*- test-case-name: tests.queue.test_recording -*-
"""
Records the results of attempts while they go on, those of all attempts together.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.interfaces import IResultRecorder
from moxtls.queue.flight import DeliveryAttempt
from moxtls.queue.values import QueuedMessage, Result

T = TypeVar("T")

_Pairs = list[tuple[QueuedMessage, Result]]


@implementer(IResultRecorder)
class ResultRecorder:
    """
    L{IResultRecorder} for one attempt of the queue.
    """

    log = Logger()

    def __init__(
        self,
        flight: DeliveryAttempt,
        write: Callable[[_Pairs], Coroutine[Deferred[Any], Any, None]],
    ) -> None:
        """
        @param write: Records results, and returns once they are on disk, or
            never will be.
        """
        self._flight = flight
        self._write = write
        self._writing: set[Deferred[None]] = set()

    def record(self, results: Sequence[Result]) -> Deferred[None]:
        pairs = self._flight.take(results)
        if not pairs:
            return succeed(None)
        writing = Deferred.fromCoroutine(self._write(pairs))
        waiting: Deferred[None] = Deferred()

        def written(result: object) -> None:
            self._writing.discard(writing)
            # Unless it was cancelled.
            if not waiting.called:
                waiting.callback(None)

        self._writing.add(writing)
        writing.addErrback(
            lambda failure: self.log.failure("recording results", failure)
        )
        writing.addCallback(written)
        return waiting

    def finished(self) -> Deferred[None]:
        """
        Fires once whatever was taken is recorded.
        """
        done = DeferredList(tuple(self._writing))
        return done.addCallback(lambda results: None)


class Grouped(Generic[T]):
    """
    Has things written, together with what came while others were being written.
    """

    def __init__(self, write: Callable[[list[T]], Deferred[None]]) -> None:
        """
        @param write: Writes all or nothing.
        """
        self._write = write
        self._waiting: list[tuple[Sequence[T], Deferred[None]]] = []
        self._isBusy = False

    def add(self, things: Sequence[T]) -> Deferred[None]:
        """
        Fires once C{things} are written; fails if they aren't.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append((things, waiting))
        self._start()
        return waiting

    def _start(self) -> None:
        if self._isBusy or not self._waiting:
            return
        self._isBusy = True
        group, self._waiting = self._waiting, []
        writing = self._write([each for things, _ in group for each in things])
        writing.addBoth(self._written, group)

    def _written(
        self,
        result: Failure | None,
        group: list[tuple[Sequence[T], Deferred[None]]],
    ) -> None:
        self._isBusy = False
        self._start()
        for _, waiting in group:
            # A failure is everybody's own: it is handled once by each.
            if isinstance(result, Failure):
                waiting.errback(Failure(result.value))
            else:
                waiting.callback(None)
