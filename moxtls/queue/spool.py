# -*- test-case-name: tests.queue.test_spool -*-
"""
The spool: a directory of queued messages that survives power cuts.

Several processes may use a spool at the same time; only one of them delivers from it.
An I{operation} is a function of the L{Spool}.  Operations performed together share one
transaction and its waits for the disk.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from twisted.logger import Logger

from moxtls.dates import DAY
from moxtls.queue.files import MessageFiles, ResultJournal, isJournal
from moxtls.queue.index import Index, checkVersion, isJournalLine
from moxtls.queue.types import Envelope, accepted, acceptedBody
from moxtls.sqlitefile import makePrivate, readOnly

#: Seconds to wait for another process to finish its transaction.
BUSY_TIMEOUT = 30
#: Seconds that a submission key is kept after its message was removed: a submission is
#: repeated only until its submitter gets a reply.
KEY_LIFETIME = 60 * DAY
#: Keys deleted in one transaction.
KEYS_BATCH = 1000

INDEX = "index.sqlite"

T = TypeVar("T")

#: A function that changes a spool.
Operation = Callable[["Spool"], None]


class SpoolUnusable(Exception):
    """
    A spool can't be used until the operator corrects something.
    """

    def __init__(self, root: Path, reason: str) -> None:
        super().__init__(root, reason)
        self.root = root
        self.reason = reason

    def __str__(self) -> str:
        return f"spool {self.root}: {self.reason}"


class Spool:
    """
    An open spool, for one thread at a time.

    @ivar index: The database of messages and recipients.
    @ivar files: The contents of the messages.
    @ivar journal: Results that the index doesn't have yet, in the process that delivers
        from the spool; C{None} in others.  Unlike the rest, for the reactor's thread.
    """

    log = Logger()

    def __init__(self, root: Path) -> None:
        """
        @raise SpoolUnusable: It can't be opened.
        """
        self._root = root
        self._lock: int | None = None
        self.journal: ResultJournal | None = None
        try:
            self.files = MessageFiles(root / "messages")
            self._db = _connect(root / INDEX)
            self.index = Index(self._db, self.files)
            (prepared,) = self.perform([lambda spool: spool.index.prepare()])
            if prepared is not None:
                raise prepared
        except (OSError, sqlite3.Error, ValueError) as error:
            raise SpoolUnusable(root, str(error)) from error

    def claim(self) -> None:
        """
        Become the process that delivers from the spool, until L{close}.

        @raise SpoolUnusable: Another process delivers from it.
        """
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            reason = "another process delivers from it"
            raise SpoolUnusable(self._root, reason) from error
        self._lock = lock
        self.journal = ResultJournal(self._root, wait=True)
        self._recoverFrom(self.journal)

    def recover(self) -> None:
        """
        Record the results that a killed process left in the journal, unless a process
        delivers from the spool.
        """
        # The owner couldn't open files created by another user.
        if isJournal(self._root):
            with (
                suppress(BlockingIOError),
                closing(ResultJournal(self._root, wait=False)) as journal,
            ):
                self._recoverFrom(journal)

    def close(self) -> None:
        self._db.close()
        if self.journal is not None:
            self.journal.close()
            self.journal = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def perform(self, operations: Sequence[Operation]) -> list[Exception | None]:
        """
        Perform C{operations} in one transaction.

        @return: For each, the exception that ended it and undid it, or C{None}.

        @raise Exception: None of them was performed.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [self._perform(operation) for operation in operations]
            self.files.sync()
        except BaseException:
            self._rollback()
            self.files.rollbackTo((0, 0))
            raise
        self._commit()
        self.files.committed()
        return outcomes

    def read(self, operation: Callable[[Spool], T]) -> T:
        """
        Perform an operation that changes nothing, in a transaction that doesn't block
        writers.
        """
        self._db.execute("PRAGMA query_only = ON")
        # With WAL, it reads the state at its beginning.
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
        Operation: add a message, unless its key is known.

        @return: Its id, or that of the earlier message with the same key.

        @raise ValueError: As L{accepted} and L{acceptedBody}.
        """
        known = self.index.known(envelope.key) if envelope.key else None
        if known is not None:
            return known
        envelope = accepted(envelope)
        size = self.files.write(messageID, acceptedBody(envelope, body))
        self.index.add(messageID, envelope, size, now)
        return messageID

    def staleFiles(self, now: float) -> list[str]:
        """
        Operation that reads: names of files left behind by processes that died.
        """
        return [name for name in self.files.stale(now) if not self.index.contains(name)]

    def removeFiles(self, names: Sequence[str]) -> None:
        """
        Operation: remove files that L{staleFiles} found.
        """
        for name in names:
            if not self.index.contains(name):
                self.files.remove(name)

    def forgetKeys(self, now: float) -> None:
        """
        Operation: delete keys past their lifetime.
        """
        self.index.forgetKeys(now - KEY_LIFETIME, KEYS_BATCH)

    def _recoverFrom(self, journal: ResultJournal) -> None:
        lines = journal.lines()
        whole = [line for line in lines if isJournalLine(line)]
        if len(whole) < len(lines):
            self.log.error(
                "Spool {root}: {number} unreadable lines of the journal are ignored",
                root=str(self._root),
                number=len(lines) - len(whole),
            )
        if whole:
            (failure,) = self.perform([lambda spool: spool.index.recordLines(whole)])
            if failure is not None:
                raise failure
        journal.clear()

    def _perform(self, operation: Operation) -> Exception | None:
        mark = self.files.savepoint()
        self._db.execute("SAVEPOINT operation")
        raised = None
        try:
            operation(self)
        except Exception as error:
            raised = error
            # Some errors make SQLite roll back the whole transaction.
            if not self._db.in_transaction:
                raise
            self._db.execute("ROLLBACK TO operation")
            self.files.rollbackTo(mark)
        self._db.execute("RELEASE operation")
        return raised

    def _commit(self) -> None:
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error:
            # The commit may be on disk or not; a file too many does no harm.
            self._rollback()
            self.files.uncertain()
            raise

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def examine(root: Path) -> None:
    """
    Check that a spool can be opened, without changing anything.

    @raise SpoolUnusable: It can't be opened.
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
    True if a process delivers from a spool.
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
    True if there is a spool.
    """
    return (root / INDEX).exists()


def _connect(path: Path) -> sqlite3.Connection:
    makePrivate(path)
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    # With NORMAL, which is usual for WAL, a power cut would lose the latest commits.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
