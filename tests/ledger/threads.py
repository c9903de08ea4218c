"""
Threads without a reactor that runs, for the tests of L{moxtls.ledger}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Queue
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from tests import MAX_WAIT

T = TypeVar("T")


@implementer(IReactorFromThreads)
class Inbox:
    """
    A queue of calls from threads, which run while the test waits.
    """

    def __init__(self) -> None:
        self._calls: Queue[Callable[[], object]] = Queue()

    def callFromThread(
        self, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> None:
        self._calls.put(lambda: callable(*args, **kwargs))

    def waitFor(self, deferred: Deferred[T]) -> T:
        """
        Run calls until C{deferred} fires, and return its result.
        """
        results: list[T] = []
        failures: list[Failure] = []
        deferred.addCallbacks(results.append, failures.append)
        while not results and not failures:
            self._calls.get(timeout=MAX_WAIT)()
        if failures:
            failures[0].raiseException()
        return results[0]


def race(runners: Sequence[Callable[[], T]]) -> list[T]:
    """
    Run C{runners} in threads at the same time, and return their results.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run(runner: Callable[[], T]) -> None:
        try:
            results.append(runner())
        except Exception as error:
            errors.append(error)

    threads = [Thread(target=run, args=(runner,), daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MAX_WAIT)
    if errors:
        raise errors[0]
    assert len(results) == len(runners), "a thread hangs"
    return results
