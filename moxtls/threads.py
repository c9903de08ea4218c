# -*- test-case-name: tests.test_threads -*-
"""
Job queues served by threads, for operations that block: the database's and the disk's.

The reactor's thread submits jobs and receives their results; nothing else crosses
between threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread, current_thread
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads

from moxtls.interfaces import StoreUnavailable
from moxtls.outages import OutageLog

T = TypeVar("T")


class Job(Generic[T]):
    """
    One operation, and its result.

    @ivar deferred: Fires in the reactor's thread.  Cancelling it doesn't stop the
        operation.
    @ivar error: Set instead of C{result} if the operation failed.
    """

    __slots__ = ("deferred", "error", "result")

    def __init__(self) -> None:
        self.deferred: Deferred[T] = Deferred()
        self.result: T
        self.error: Exception | None = None

    def deliver(self) -> None:
        """
        Fire C{deferred}.
        """
        if self.error is not None:
            self.deferred.errback(self.error)
        else:
            self.deferred.callback(self.result)


class FunctionJob(Job[T]):
    """
    A job that calls a function.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., T]) -> None:
        super().__init__()
        self._function = function

    def call(self, *arguments: Any) -> None:
        """
        Keep the function's result.

        @raise Exception: As the function.
        """
        self.result = self._function(*arguments)

    def perform(self, *arguments: Any) -> None:
        """
        Keep the function's result, or its exception.
        """
        try:
            self.call(*arguments)
        except Exception as error:
            self.error = error


#: Performs a batch of jobs: sets C{result} or C{error} of each.  An exception becomes
#: the error of all of them.
Perform = Callable[[Sequence[Any]], None]


class IJobQueue(Protocol):
    """
    A queue of jobs.
    """

    def submit(self, job: Job[T]) -> Deferred[T]:
        """
        Fires with the job's result, later or at once; fails with its error, or if the
        queue is closed or full.
        """

    def stop(self) -> Deferred[None]:
        """
        Accept no more jobs.  Fires once all accepted ones have their results.
        """


class InlineQueue:
    """
    A queue without a thread: a job is done when C{submit} returns.
    """

    def __init__(
        self,
        perform: Perform,
        name: str,
        unavailable: type[Exception],
        atEnd: Callable[[], None] | None = None,
    ) -> None:
        """
        The parameters are those of L{ThreadQueue}.
        """
        self._perform = perform
        self._name = name
        self._unavailable = unavailable
        self._atEnd = atEnd
        self._stopped = False

    def submit(self, job: Job[T]) -> Deferred[T]:
        if self._stopped:
            job.error = self._unavailable(f"{self._name}: it is closed")
        else:
            _performAll(self._perform, [job])
        job.deliver()
        return job.deferred

    def stop(self) -> Deferred[None]:
        isFirst, self._stopped = not self._stopped, True
        if isFirst and self._atEnd is not None:
            self._atEnd()
        return succeed(None)


class ThreadQueue:
    """
    A queue with one or more threads of its own.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        perform: Perform,
        name: str,
        unavailable: type[Exception],
        *,
        threads: int = 1,
        batchSize: int = 1,
        maxWaiting: int | None = None,
        outages: OutageLog | None = None,
        atEnd: Callable[[], None] | None = None,
    ) -> None:
        """
        @param perform: Called in a thread.
        @param name: Of what the jobs work on, for error messages.
        @param unavailable: Raised, with a text, if the queue is closed or full.
        @param batchSize: The number of jobs that C{perform} is given at most.
        @param maxWaiting: The number of jobs that may wait; any number if not given.
        @param outages: Informed of jobs that failed with L{StoreUnavailable} or didn't.
        @param atEnd: Called in the last thread to end, when all jobs are done.
        """
        self._reactor = reactor
        self._perform = perform
        self._name = name
        self._unavailable = unavailable
        self._batchSize = batchSize
        self._maxWaiting = maxWaiting
        self._outages = outages
        self._atEnd = atEnd
        self._condition = Condition()
        self._waiting: deque[Job[Any]] = deque()
        self._stopping = False
        self._whenStopped: list[Deferred[None]] = []
        self._working = threads
        # Daemon threads: a program that ends without stop() must not hang, and jobs
        # without a result may be lost.
        self._threads = [
            Thread(target=self._work, name=name, daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job[T]) -> Deferred[T]:
        with self._condition:
            job.error = self._refusal()
            if job.error is None:
                self._waiting.append(job)
                self._condition.notify()
                return job.deferred
        self._deliver([job])
        return job.deferred

    def stop(self) -> Deferred[None]:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if not self._threads:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._whenStopped.append(stopped)
        return stopped

    def _refusal(self) -> Exception | None:
        if self._stopping:
            return self._unavailable(f"{self._name}: it is closed")
        if self._maxWaiting is not None and len(self._waiting) >= self._maxWaiting:
            return self._unavailable(
                f"{self._name}: it is too slow, {self._maxWaiting} operations wait"
            )
        return None

    def _work(self) -> None:
        while jobs := self._nextBatch():
            _performAll(self._perform, jobs)
            self._reactor.callFromThread(self._deliver, jobs)
        with self._condition:
            self._working -= 1
            isLast = not self._working
        if isLast and self._atEnd is not None:
            self._atEnd()
        self._reactor.callFromThread(self._ended)

    def _nextBatch(self) -> list[Job[Any]]:
        """
        Wait for jobs.

        @return: None if the queue is stopped and empty.
        """
        with self._condition:
            while not self._waiting and not self._stopping:
                self._condition.wait()
            number = min(self._batchSize, len(self._waiting))
            return [self._waiting.popleft() for _ in range(number)]

    def _deliver(self, jobs: Sequence[Job[Any]]) -> None:
        if self._outages is not None:
            self._observe(jobs, self._outages)
        for job in jobs:
            job.deliver()

    def _observe(self, jobs: Sequence[Job[Any]], outages: OutageLog) -> None:
        errors = [job.error for job in jobs if isinstance(job.error, StoreUnavailable)]
        if errors:
            outages.failed(errors[0], len(errors))
        else:
            # With any other error, the database did answer.
            outages.succeeded()

    def _ended(self) -> None:
        thread = self._threads.pop()
        if self._threads:
            return
        # It is this thread where the reactor calls at once, as in tests.
        if thread is not current_thread():
            thread.join()
        for stopped in self._whenStopped:
            stopped.callback(None)


def _performAll(perform: Perform, jobs: Sequence[Job[Any]]) -> None:
    try:
        perform(jobs)
    except Exception as error:
        for job in jobs:
            job.error = error
