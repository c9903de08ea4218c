# -*- test-case-name: tests.ledger.test_groupcommit -*-
"""
Writing in groups, and reading beside it.

Whatever waits when the last transaction is done goes into the next one, so
that under load the cost of a commit is shared by many; each caller's
C{Deferred} fires after the commit.
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

#: Errands per transaction.  More saves nothing, and makes other nodes wait.
MAX_GROUP = 1000
#: Of a transaction that was in the way of others.
MAX_ATTEMPTS = 6
#: Seconds before the second attempt; doubled each time.
FIRST_PAUSE = 0.02
#: Threads that read: one for people, one for the daily reports.
READ_THREADS = 2
#: Answered in one transaction.
MAX_READS = 16
#: Operations that may wait.  Outcomes of a few kB each: two seconds at ten thousand a
#: second, so that a stalled database costs tens of megabytes of memory, not more.
MAX_WAITING = 20_000


class Operation(Job[T], Generic[I, T]):
    """
    A database operation on one item.

    @ivar together: Performs several operations of the same kind at once, given their
        items; returns their results in the same order.
    """

    __slots__ = ("item", "together")

    def __init__(
        self, together: Callable[[Connection, Sequence[I]], Sequence[T]], item: I
    ) -> None:
        super().__init__()
        self.together = together
        self.item = item


# Operations of all kinds wait side by side.
Operations = Sequence[Operation[Any, Any]]


class GroupCommitWriter:
    """
    Where everything is written.
    """

    def __init__(self, lane: IJobQueue) -> None:
        self._lane = lane
        self.stop = lane.stop

    def run(self, job: Callable[[Connection], T]) -> Deferred[T]:
        """
        @param job: Is given a connection in a transaction; may be called
            again if that is rolled back.

        @return: Fires with what it returned, once that is committed.
        """
        return self._lane.submit(Operation(_each, job))

    def add(
        self, together: Callable[[Connection, Sequence[I]], Sequence[T]], item: I
    ) -> Deferred[T]:
        """
        @param together: Does the work for several items in one go.
        """
        return self._lane.submit(Operation(together, item))


class GroupReader:
    """
    Where everything is read.
    """

    def __init__(self, lane: IJobQueue) -> None:
        self._lane = lane
        self.stop = lane.stop

    def ask(self, question: Callable[[Connection], T]) -> Deferred[T]:
        """
        @param question: Is given a connection that sees one state.

        @return: Fires with what it returned.
        """
        return self._lane.submit(Operation(_each, question))


def makeWriter(
    reactor: IReactorFromThreads | None,
    database: Database,
    outages: OutageLog | None = None,
) -> GroupCommitWriter:
    """
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
        threads,
        batchSize,
        MAX_WAITING,
        outages,
    )


class Group(ABC):
    """
    Performs errands in one transaction if it can, one by one if it must.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @abstractmethod
    def _together(self, errands: Operations) -> None:
        """
        Perform all of them, or none.

        @raise LedgerUnavailable: It would be no use to try again.
        """

    def __call__(self, errands: Operations) -> None:
        try:
            self._together(errands)
        except LedgerUnavailable:
            raise
        except Exception:
            if len(errands) == 1:
                raise
            self._oneByOne(errands)

    def _oneByOne(self, errands: Operations) -> None:
        """
        So that an errand that can't be done is the only one that fails.
        """
        unavailable: LedgerUnavailable | None = None
        for errand in errands:
            try:
                if unavailable is not None:
                    # Each attempt might take as long as a connection takes to
                    # time out.
                    raise unavailable
                self._together([errand])
            except LedgerUnavailable as error:
                unavailable = errand.error = error
            except Exception as error:
                errand.error = error


class GroupRead(Group):
    """
    Shares the cost of looking at one state.
    """

    def _together(self, errands: Operations) -> None:
        try:
            with self._database.reader.connect() as connection, connection.begin():
                _answer(connection, errands)
        except SQLAlchemyError as error:
            raise self._database.explain(error) from None


class GroupCommit(Group):
    """
    Shares the cost of a commit.
    """

    def _together(self, errands: Operations) -> None:
        for attempt in range(MAX_ATTEMPTS):
            try:
                return self._commit(errands)
            except SQLAlchemyError as error:
                if attempt == MAX_ATTEMPTS - 1 or not isTransient(error):
                    raise self._database.explain(error) from None
            sleep(FIRST_PAUSE * 2**attempt)

    def _commit(self, errands: Operations) -> None:
        with self._database.writer.connect() as connection:
            transaction = connection.begin()
            _answer(connection, errands)
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                if isDisconnected(error):
                    # It may be committed or not: trying again might count
                    # everything twice.
                    unavailable = self._database.unavailable(error)
                    unavailable.uncertain = True
                    raise unavailable from None
                raise


def _answer(connection: Connection, errands: Operations) -> None:
    """
    In the order in which they were submitted.
    """
    for together, neighbours in groupby(errands, _kind):
        some = list(neighbours)
        results = together(connection, [errand.item for errand in some])
        for errand, result in zip(some, results, strict=True):
            errand.result = result


def _kind(errand: Operation[Any, Any]) -> Callable[..., Sequence[Any]]:
    return errand.together


def _each(
    connection: Connection, jobs: Sequence[Callable[[Connection], T]]
) -> Sequence[T]:
    return [job(connection) for job in jobs]
