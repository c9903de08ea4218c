# -*- test-case-name: tests.queue.test_spool -*-
"""
A directory of messages on their way out that survives power cuts.

Several processes may use one at the same time; only one of them delivers from
it.  What is done to a spool is an I{operation}: a function of the L{Spool}.
Those done together share one transaction and its waits for the disk.

Ways to a spool that don't make the reactor wait for a disk, and one that does.

A spool has a thread of its own, rather than the ledger's: what it waits for
is files as much as rows, and one wait for the disk is to serve many messages.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredList, execute, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from moxtls.dates import DAY
from moxtls.queue.files import MessageFiles
from moxtls.queue.index import Index, checkVersion
from moxtls.queue.types import Envelope, accepted, acceptedBody
from moxtls.sqlitefile import makePrivate, readOnly

#: Seconds to wait for another process to finish its transaction.
BUSY_TIMEOUT = 30
#: How long a key outlives its message: whoever submits it again has been told
#: long before that it was accepted.
KEYS_KEPT = 60 * DAY
#: How many keys are forgotten at a time.
KEYS_AT_ONCE = 1000

INDEX = "index.sqlite"

T = TypeVar("T")

#: Something to be done to a spool.
Operation = Callable[["Spool"], None]


class SpoolUnusable(Exception):
    """
    A spool can't be used, for a reason that the operator has to see to.
    """

    def __init__(self, root: Path, reason: str) -> None:
        super().__init__(root, reason)
        self.root = root
        self.reason = reason

    def __str__(self) -> str:
        return f"spool {self.root}: {self.reason}"


class Spool:
    """
    An open spool, to be used by one thread at a time.

    @ivar index: Where messages and recipients stand.
    @ivar bodies: The messages themselves.
    """

    def __init__(self, root: Path) -> None:
        """
        @raise SpoolUnusable: It can't be opened.
        """
        self._root = root
        self._lock: int | None = None
        try:
            self.bodies = MessageFiles(root / "messages")
            self._db = _connect(root / INDEX)
            self.index = Index(self._db, self.bodies)
            (prepared,) = self.perform([lambda spool: spool.index.prepare()])
            if prepared is not None:
                prepared.raiseException()
        except (OSError, sqlite3.Error, ValueError) as error:
            raise SpoolUnusable(root, str(error)) from error

    def claim(self) -> None:
        """
        Become the process that delivers from here, until L{close}.

        @raise SpoolUnusable: Another process is.
        """
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            reason = "another process delivers from it"
            raise SpoolUnusable(self._root, reason) from error
        self._lock = lock

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def perform(self, operations: Sequence[Operation]) -> list[Failure | None]:
        """
        Do C{operations} in one transaction.

        @return: For each the failure with which it ended, and which undid
            it, if it did.

        @raise Exception: None of them was done.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [self._perform(operation) for operation in operations]
            self.bodies.sync()
        except BaseException:
            self._rollback()
            self.bodies.backTo((0, 0))
            raise
        self._commit()
        self.bodies.committed()
        return outcomes

    def read(self, operation: Callable[[Spool], T]) -> T:
        """
        Do an operation that changes nothing, in a transaction that holds up
        nobody who writes.
        """
        self._db.execute("PRAGMA query_only = ON")
        # WAL has it see what was committed when it began, and nothing newer.
        self._db.execute("BEGIN")
        try:
            return operation(self)
        finally:
            self._rollback()
            self._db.execute("PRAGMA query_only = OFF")

    def submit(
        self, messageID: str, envelope: Envelope, body: Sequence[bytes], now: float
    ) -> str:
        """
        Operation: take in a message, unless its key is known.

        @return: Its id, or that of the earlier message.

        @raise ValueError: As L{accepted} and L{acceptedBody}.
        """
        known = self.index.known(envelope.key) if envelope.key else None
        if known is not None:
            return known
        envelope = accepted(envelope)
        size = self.bodies.write(messageID, acceptedBody(envelope, body))
        self.index.add(messageID, envelope, size, now)
        return messageID

    def abandoned(self, now: float) -> list[str]:
        """
        Operation that reads: files that processes which died left behind.
        """
        return [
            name for name in self.bodies.abandoned(now) if not self.index.contains(name)
        ]

    def tidy(self, names: Sequence[str]) -> None:
        """
        Operation: remove files that L{abandoned} found.
        """
        for name in names:
            if not self.index.contains(name):
                self.bodies.remove(name)

    def forgetKeys(self, now: float) -> None:
        """
        Operation: forget keys that nobody submits again.
        """
        self.index.forgetKeys(now - KEYS_KEPT, KEYS_AT_ONCE)

    def _perform(self, operation: Operation) -> Failure | None:
        mark = self.bodies.mark()
        self._db.execute("SAVEPOINT operation")
        failure = None
        try:
            operation(self)
        except Exception:
            failure = Failure()
            # SQLite has given up the whole transaction if this isn't so.
            if not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK TO operation")
            self.bodies.backTo(mark)
        self._db.execute("RELEASE operation")
        return failure

    def _commit(self) -> None:
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error:
            # Nobody knows whether it is on disk; a file too many does no harm.
            self._rollback()
            self.bodies.uncertain()
            raise

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def examine(root: Path) -> None:
    """
    See whether a spool could be opened; nothing is made or changed.

    @raise SpoolUnusable: It couldn't.
    """
    path = root / INDEX
    if not path.exists():
        return
    try:
        connection = readOnly(path)
        if connection is not None:
            with closing(connection):
                checkVersion(connection)
    except (sqlite3.Error, ValueError) as error:
        raise SpoolUnusable(root, str(error)) from error


def isDelivered(root: Path) -> bool:
    """
    Whether there is a process that delivers from a spool.
    """
    try:
        lock = os.open(root / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def isSpool(root: Path) -> bool:
    """
    Whether a spool has been made there.
    """
    return (root / INDEX).exists()


def _connect(path: Path) -> sqlite3.Connection:
    makePrivate(path)
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    # WAL's usual NORMAL would lose the latest commits in a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


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
