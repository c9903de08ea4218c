# -*- test-case-name: tests.queue.test_access -*-
"""
Ways to a spool that don't make the reactor wait for a disk, and one that does.

A spool has a thread of its own, rather than the ledger's: what it waits for
is files as much as rows, and one wait for the disk is to serve many messages.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredList, execute, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from moxtls.queue.spool import Spool

T = TypeVar("T")

#: Operations in one transaction: enough to share the wait for the disk, few
#: enough that none waits long for the others.
GROUP = 100


class SpoolClosed(Exception):
    """
    The spool isn't open, or not any more.
    """


class SpoolExecutor(ABC):
    """
    How others get at a spool.
    """

    @abstractmethod
    def open(self, delivering: bool = False) -> None:
        """
        @param delivering: Be the one process that delivers from it.

        @raise SpoolUnusable: It can't be opened, or somebody else delivers.
        """

    @abstractmethod
    def run(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        """
        Do C{operation} in a transaction, after those that came before it.

        @return: Fires with what it returns, once that would survive a power
            cut; fails with what it raises, and then nothing is changed.
            Cancelling it doesn't stop it.
        """

    @abstractmethod
    def read(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        """
        Do C{operation}, which changes nothing, whatever else is being done:
        it sees what was done when it began, and holds up nobody.

        @return: Fires with what it returns; fails with what it raises.
            Cancelling it doesn't stop it.
        """

    @abstractmethod
    def close(self) -> Deferred[None]:
        """
        Fires once everything begun is done.
        """


def _opened(root: Path, delivering: bool) -> Spool:
    spool = Spool(root)
    if delivering:
        try:
            spool.claim()
        except BaseException:
            spool.close()
            raise
    return spool


@dataclass(frozen=True, slots=True)
class _Job:
    """
    @ivar answer: To be called once it is known how C{perform} ended.
    """

    perform: Callable[[Spool], None]
    answer: Callable[[Failure | None], None]


def _job(operation: Callable[[Spool], T]) -> tuple[_Job, Deferred[T]]:
    found: list[T] = []
    result: Deferred[T] = Deferred()

    def perform(spool: Spool) -> None:
        found.append(operation(spool))

    def answer(failure: Failure | None) -> None:
        if failure is None:
            result.callback(found[0])
        else:
            result.errback(failure)

    return _Job(perform, answer), result


class InlineSpoolExecutor(SpoolExecutor):
    """
    Waits for the disk: for commands and tests.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._spool: Spool | None = None

    def open(self, delivering: bool = False) -> None:
        self._spool = _opened(self._root, delivering)

    def run(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        if self._spool is None:
            return fail(SpoolClosed())
        job, result = _job(operation)
        job.answer(_performed(self._spool, [job])[0])
        return result

    def read(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        if self._spool is None:
            return fail(SpoolClosed())
        return execute(self._spool.read, operation)

    def close(self) -> Deferred[None]:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        return succeed(None)


class ThreadedSpoolExecutor(SpoolExecutor):
    """
    Has a thread wait for the disk, for as many operations at once as came
    while it waited before; another one reads.
    """

    def __init__(self, reactor: IReactorFromThreads, root: Path) -> None:
        self._reactor = reactor
        self._root = root
        self._isOpen = False

    def open(self, delivering: bool = False) -> None:
        writing = _opened(self._root, delivering)
        try:
            reading = _opened(self._root, False)
        except BaseException:
            writing.close()
            raise
        self._isOpen = True
        self._writer = _SpoolThread(self._reactor, writing, GROUP, _performed)
        self._reader = _SpoolThread(self._reactor, reading, 1, _read)

    def run(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        return self._do(operation, lambda: self._writer)

    def read(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        return self._do(operation, lambda: self._reader)

    def _do(
        self, operation: Callable[[Spool], T], thread: Callable[[], _SpoolThread]
    ) -> Deferred[T]:
        if not self._isOpen:
            return fail(SpoolClosed())
        job, result = _job(operation)
        thread().put(job)
        return result

    def close(self) -> Deferred[None]:
        if not self._isOpen:
            return succeed(None)
        self._isOpen = False
        closed = DeferredList([self._writer.close(), self._reader.close()])
        return closed.addCallback(lambda results: None)


class _SpoolThread:
    """
    A thread with a spool of its own.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        spool: Spool,
        most: int,
        perform: Callable[[Spool, list[_Job]], list[Failure | None]],
    ) -> None:
        """
        @param most: Jobs given to C{perform} at a time.
        """
        self._reactor = reactor
        self._most = most
        self._perform = perform
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed: Deferred[None] = Deferred()
        # What isn't done when the process ends wasn't acknowledged either.
        thread = threading.Thread(
            target=self._serve, args=(spool,), name="spool", daemon=True
        )
        thread.start()

    def put(self, job: _Job) -> None:
        self._waiting.put(job)

    def close(self) -> Deferred[None]:
        """
        Fires once everything begun is done.
        """
        self._waiting.put(None)
        return self._closed

    def _serve(self, spool: Spool) -> None:
        while (job := self._waiting.get()) is not None:
            jobs = [job]
            isLast = self._fill(jobs)
            outcomes = self._perform(spool, jobs)
            self._reactor.callFromThread(_answer, jobs, outcomes)
            if isLast:
                break
        spool.close()
        self._reactor.callFromThread(self._closed.callback, None)

    def _fill(self, jobs: list[_Job]) -> bool:
        """
        Add to C{jobs} what is waiting already.

        @return: Whether they are the last.
        """
        while len(jobs) < self._most:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            jobs.append(job)
        return False


def _performed(spool: Spool, jobs: list[_Job]) -> list[Failure | None]:
    try:
        return spool.perform([job.perform for job in jobs])
    except Exception:
        return [Failure()] * len(jobs)


def _read(spool: Spool, jobs: list[_Job]) -> list[Failure | None]:
    return [_readOne(spool, job) for job in jobs]


def _readOne(spool: Spool, job: _Job) -> Failure | None:
    try:
        spool.read(job.perform)
    except Exception:
        return Failure()
    return None


def _answer(jobs: list[_Job], outcomes: list[Failure | None]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        job.answer(outcome)
