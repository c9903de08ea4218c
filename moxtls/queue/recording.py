# -*- test-case-name: tests.queue.test_recording -*-
"""
Records the results of an attempt while it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.interfaces import IResultRecorder
from moxtls.queue.flight import Flight
from moxtls.queue.values import QueuedMessage, Result

_Pairs = list[tuple[QueuedMessage, Result]]


@implementer(IResultRecorder)
class ResultRecorder:
    """
    L{IResultRecorder} for one attempt of the queue.
    """

    log = Logger()

    def __init__(
        self,
        flight: Flight,
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
