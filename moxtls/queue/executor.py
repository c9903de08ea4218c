# -*- test-case-name: tests.queue.test_spool -*-
"""
Executors that perform operations on a spool, and the queue as seen by processes that
don't deliver.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from zope.interface import implementer

from moxtls.interfaces import IQueue
from moxtls.queue.files import ResultJournal
from moxtls.queue.spool import Spool, SpoolUnusable
from moxtls.queue.types import Envelope, QueuedMessage
from moxtls.threads import FunctionJob, IJobQueue, InlineQueue, ThreadQueue

T = TypeVar("T")

#: Operations in one transaction: enough to share the wait for the disk, few enough that
#: none waits long for the others.
MAX_BATCH = 100


class SpoolClosed(Exception):
    """
    The spool isn't open.
    """


class SpoolExecutor(ABC):
    """
    Access to a spool: operations and their results as Deferreds.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._queues: tuple[IJobQueue, IJobQueue] | None = None
        self._journal: ResultJournal | None = None

    def open(self, delivering: bool = False) -> None:
        """
        @param delivering: Be the one process that delivers from the spool.

        @raise SpoolUnusable: It can't be opened, or another process delivers from it.
        """
        spool = _opened(self._root, delivering)
        try:
            self._queues = self._start(spool)
        except BaseException:
            spool.close()
            raise
        self._journal = spool.journal

    @property
    def journal(self) -> ResultJournal:
        """
        The journal of the process that delivers from the spool.

        @raise SpoolClosed: This process doesn't deliver, or the spool is closed.
        """
        if self._journal is None or self._queues is None:
            raise SpoolClosed()
        return self._journal

    def run(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        """
        Do C{operation} in a transaction, after those submitted before it.

        @return: Fires with its result, once that would survive a power cut; fails with
            what it raises, and then nothing is changed.  Cancelling it doesn't stop
            the operation.
        """
        if self._queues is None:
            return fail(SpoolClosed())
        return self._queues[0].submit(FunctionJob(operation))

    def read(self, operation: Callable[[Spool], T]) -> Deferred[T]:
        """
        Do C{operation}, which changes nothing, beside any others: it sees what was
        committed when it began, and delays no writer.

        @return: Fires with its result; fails with what it raises.  Cancelling it
            doesn't stop the operation.
        """
        if self._queues is None:
            return fail(SpoolClosed())
        return self._queues[1].submit(FunctionJob(operation))

    def close(self) -> Deferred[None]:
        """
        Close the spool after all submitted operations.

        @return: Fires once it is closed.
        """
        if self._queues is None:
            return succeed(None)
        queues, self._queues = self._queues, None
        closed = DeferredList([each.stop() for each in queues])
        return closed.addCallback(lambda results: None)

    @abstractmethod
    def _start(self, spool: Spool) -> tuple[IJobQueue, IJobQueue]:
        """
        The queues for writing and for reading.  They close C{spool} when stopped.
        """


class InlineSpoolExecutor(SpoolExecutor):
    """
    Performs operations in the caller's thread: for commands and tests.
    """

    def _start(self, spool: Spool) -> tuple[IJobQueue, IJobQueue]:
        return (
            InlineQueue(partial(_write, spool), "spool", SpoolClosed, spool.close),
            InlineQueue(partial(_read, spool), "spool", SpoolClosed),
        )


class ThreadedSpoolExecutor(SpoolExecutor):
    """
    Performs operations in two threads, so that the reactor never waits for the disk.

    One writes, with one transaction for all operations that arrived during the one
    before; the other one reads.

    A spool has threads of its own, rather than the ledger's: it waits for files as
    much as for rows, and one wait for the disk is shared by many messages.
    """

    def __init__(self, reactor: IReactorFromThreads, root: Path) -> None:
        super().__init__(root)
        self._reactor = reactor

    def _start(self, spool: Spool) -> tuple[IJobQueue, IJobQueue]:
        reading = _opened(self._root, False)
        return (
            self._queue(spool, _write, MAX_BATCH),
            self._queue(reading, _read, 1),
        )

    def _queue(
        self,
        spool: Spool,
        perform: Callable[[Spool, Sequence[FunctionJob[Any]]], None],
        batchSize: int,
    ) -> IJobQueue:
        return ThreadQueue(
            self._reactor,
            partial(perform, spool),
            "spool",
            SpoolClosed,
            batchSize=batchSize,
            atEnd=spool.close,
        )


def _opened(root: Path, delivering: bool) -> Spool:
    spool = Spool(root)
    try:
        if delivering:
            spool.claim()
        else:
            spool.recover()
    except BaseException as error:
        spool.close()
        if isinstance(error, OSError | sqlite3.Error):
            raise SpoolUnusable(root, str(error)) from error
        raise
    return spool


def _write(spool: Spool, jobs: Sequence[FunctionJob[Any]]) -> None:
    failures = spool.perform([job.call for job in jobs])
    for job, failure in zip(jobs, failures, strict=True):
        job.error = failure


def _read(spool: Spool, jobs: Sequence[FunctionJob[Any]]) -> None:
    for job in jobs:
        try:
            spool.read(job.call)
        except Exception as error:
            job.error = error


@implementer(IQueue)
class QueueClient:
    """
    L{IQueue} over an open spool.
    """

    def __init__(
        self, clock: IReactorTime, spool: SpoolExecutor, newID: Callable[[], str]
    ) -> None:
        """
        @param newID: Returns a new message id, which is also a file name.
        """
        self._clock = clock
        self._spool = spool
        self._newID = newID

    def submit(self, envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        messageID, now = self._newID(), self._clock.seconds()
        return self._spool.run(
            lambda spool: spool.submit(messageID, envelope, body, now)
        )

    def messages(self) -> Deferred[tuple[QueuedMessage, ...]]:
        return self._spool.read(lambda spool: spool.index.messages())

    def page(
        self, after: int, limit: int
    ) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        return self._spool.read(lambda spool: spool.index.page(after, limit))

    def retry(self, messageID: str) -> Deferred[bool]:
        now = self._clock.seconds()
        return self._spool.run(lambda spool: spool.index.retry(messageID, now))

    def hold(self, messageID: str, held: bool) -> Deferred[bool]:
        return self._spool.run(lambda spool: spool.index.hold(messageID, held))

    def drop(self, messageID: str) -> Deferred[bool]:
        now = self._clock.seconds()
        return self._spool.run(lambda spool: spool.index.remove(messageID, now))
