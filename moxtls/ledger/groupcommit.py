# -*- test-case-name: tests.ledger.test_groupcommit -*-
"""
Group commit: write operations that wait share the next transaction.

Under load many operations share the cost of a commit; each caller's C{Deferred}
fires after the commit.  Read operations are grouped in the same way, on threads of
their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby
from time import sleep
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from moxtls.ledger.database import (
    Database,
    LedgerUnavailable,
    isDisconnected,
    isTransient,
)
from moxtls.outages import OutageLog
from moxtls.threads import IJobQueue, InlineQueue, Job, ThreadQueue

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")

#: Write operations per transaction.  More saves nothing, and makes other nodes wait.
MAX_GROUP = 1000
#: Attempts at a transaction that conflicts with others.
MAX_ATTEMPTS = 6
#: Seconds before the second attempt; doubled each time.
FIRST_PAUSE = 0.02
#: Threads that read: one for interactive use, one for the daily reports.
READ_THREADS = 2
#: Read operations per transaction.
MAX_READS = 16
#: Operations that may wait.  Outcomes of a few kB each: two seconds at ten thousand a
#: second, so that a stalled database costs tens of megabytes of memory, not more.
MAX_WAITING = 20_000


class Operation(Job[T], Generic[I, T]):
    """
    A database operation on one item.

    @ivar performAll: Performs several operations of the same kind at once, given their
        items; returns their results in the same order.
    """

    __slots__ = ("item", "performAll")

    def __init__(
        self, performAll: Callable[[Connection, Sequence[I]], Sequence[T]], item: I
    ) -> None:
        super().__init__()
        self.performAll = performAll
        self.item = item


# Operations of all kinds wait side by side.
Operations = Sequence[Operation[Any, Any]]


class GroupCommitWriter:
    """
    Runs write operations in grouped transactions.
    """

    def __init__(self, queue: IJobQueue) -> None:
        self._queue = queue
        self.stop = queue.stop

    def run(self, job: Callable[[Connection], T]) -> Deferred[T]:
        """
        Run an operation.

        @param job: Called with a connection in a transaction; may be called again
            if that is rolled back.

        @return: Fires with its result after the commit.
        """
        return self._queue.submit(Operation(_each, job))

    def add(
        self, performAll: Callable[[Connection, Sequence[I]], Sequence[T]], item: I
    ) -> Deferred[T]:
        """
        Run an operation that handles several items in few statements.

        @param performAll: Called with a connection and the items of all operations of
            this kind that wait; returns their results in order.

        @return: Fires with the result for C{item} after the commit.
        """
        return self._queue.submit(Operation(performAll, item))


class GroupReader:
    """
    Runs read operations.
    """

    def __init__(self, queue: IJobQueue) -> None:
        self._queue = queue
        self.stop = queue.stop

    def run(self, job: Callable[[Connection], T]) -> Deferred[T]:
        """
        Run an operation.

        @param job: Called with a connection that sees one snapshot of the database.

        @return: Fires with its result.
        """
        return self._queue.submit(Operation(_each, job))

    def add(
        self, performAll: Callable[[Connection, Sequence[I]], Sequence[T]], item: I
    ) -> Deferred[T]:
        """
        Run an operation that handles several items in few statements, as
        L{GroupCommitWriter.add} does.
        """
        return self._queue.submit(Operation(performAll, item))


def makeWriter(
    reactor: IReactorFromThreads | None,
    database: Database,
    outages: OutageLog | None = None,
) -> GroupCommitWriter:
    """
    Make a writer on a thread of its own.

    @param reactor: C{None} to work in the caller's thread.
    """
    commit = GroupCommit(database)
    return GroupCommitWriter(_jobQueue(reactor, commit, 1, MAX_GROUP, outages))


def makeReader(
    reactor: IReactorFromThreads | None,
    database: Database,
    outages: OutageLog | None = None,
) -> GroupReader:
    """
    Make a reader on threads of its own.

    @param reactor: C{None} to work in the caller's thread.
    """
    read = GroupRead(database)
    return GroupReader(_jobQueue(reactor, read, READ_THREADS, MAX_READS, outages))


def _jobQueue(
    reactor: IReactorFromThreads | None,
    perform: Group,
    threads: int,
    batchSize: int,
    outages: OutageLog | None,
) -> IJobQueue:
    if reactor is None:
        return InlineQueue(perform, "ledger", LedgerUnavailable)
    return ThreadQueue(
        reactor,
        perform,
        "ledger",
        LedgerUnavailable,
        threads=threads,
        batchSize=batchSize,
        maxWaiting=MAX_WAITING,
        outages=outages,
    )


class Group(ABC):
    """
    Performs operations in one transaction; if that fails, one by one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @abstractmethod
    def _performAll(self, operations: Operations) -> None:
        """
        Perform all operations, or none.

        @raise LedgerUnavailable: Another attempt would fail, too.
        """

    def __call__(self, operations: Operations) -> None:
        try:
            self._performAll(operations)
        except LedgerUnavailable:
            raise
        except Exception:
            if len(operations) == 1:
                raise
            self._oneByOne(operations)

    def _oneByOne(self, operations: Operations) -> None:
        """
        Perform each in its own transaction, so that only invalid ones fail.
        """
        unavailable: LedgerUnavailable | None = None
        for operation in operations:
            try:
                if unavailable is not None:
                    # Each attempt might take until a connection times out.
                    raise unavailable
                self._performAll([operation])
            except LedgerUnavailable as error:
                unavailable = operation.error = error
            except Exception as error:
                operation.error = error


class GroupRead(Group):
    """
    Performs read operations in one transaction.
    """

    def _performAll(self, operations: Operations) -> None:
        try:
            with self._database.reader.connect() as connection, connection.begin():
                _perform(connection, operations)
        except SQLAlchemyError as error:
            raise self._database.explain(error) from None


class GroupCommit(Group):
    """
    Performs write operations in one transaction, and retries on conflicts.
    """

    def _performAll(self, operations: Operations) -> None:
        for attempt in range(MAX_ATTEMPTS):
            try:
                return self._commit(operations)
            except SQLAlchemyError as error:
                if attempt == MAX_ATTEMPTS - 1 or not isTransient(error):
                    raise self._database.explain(error) from None
            sleep(FIRST_PAUSE * 2**attempt)

    def _commit(self, operations: Operations) -> None:
        with self._database.writer.connect() as connection:
            transaction = connection.begin()
            _perform(connection, operations)
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                if isDisconnected(error):
                    # It may be committed or not: another attempt might count
                    # everything twice.
                    unavailable = self._database.unavailable(error)
                    unavailable.uncertain = True
                    raise unavailable from None
                raise


def _perform(connection: Connection, operations: Operations) -> None:
    """
    Perform operations in the order of submission; same of one kind together.
    """
    for performAll, same in groupby(operations, _kind):
        group = list(same)
        results = performAll(connection, [operation.item for operation in group])
        for operation, result in zip(group, results, strict=True):
            operation.result = result


def _kind(operation: Operation[Any, Any]) -> Callable[..., Sequence[Any]]:
    return operation.performAll


def _each(
    connection: Connection, jobs: Sequence[Callable[[Connection], T]]
) -> Sequence[T]:
    return [job(connection) for job in jobs]
