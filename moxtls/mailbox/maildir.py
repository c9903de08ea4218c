# -*- test-case-name: tests.mailbox -*-
"""
Mailboxes in Maildir++ format, which IMAP servers and mail readers use, and the writers
that store messages in them without making the reactor wait for the disk.

A worker process writes most messages, in batches; a thread writes the others.  A thread
could write all of them, but it and the reactor's thread would pass the interpreter lock
back and forth with each system call, which takes longer than the writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import (
    HOST_ACCOUNT,
    InvalidMailbox,
    MailboxUnavailable,
    splitMailbox,
)
from moxtls.mailbox.write import MaildirWrite, QuotaUsage, removeStaleTemp, writeBatch
from moxtls.threads import FunctionJob, Job, ThreadQueue
from moxtls.workers.batches import Batches
from moxtls.workers.process import NoWorker, Worker, fitsWorker, sizeOf


@implementer(IMailbox)
class Maildir:
    """
    The mailboxes of one account: the inbox in a folder, each of the others in a
    subfolder whose name begins with a dot.

    A message is written under C{tmp} and moved when it is complete, so that
    readers never see part of one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        root: Path,
        hostname: str,
        newID: Callable[[], str],
        quota: int = 0,
        writer: IMailWriter | None = None,
    ) -> None:
        """
        @param root: Created if it doesn't exist.
        @param newID: Returns a unique string of letters and digits.
        @param quota: Limit on the octets of all messages; 0 for none.
        @param writer: Writes; without one, the caller waits for the disk.
        """
        self._clock = clock
        self._root = root
        # The Maildir format's escapes.
        self._host = hostname.replace("/", r"\057").replace(":", r"\072")
        self._newID = newID
        self._quota = quota
        self._writer = writer or InlineWriter()

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        """
        Store a message.
        """
        try:
            parts = splitMailbox(mailbox)
        except InvalidMailbox:
            return fail()
        now = self._clock.seconds()
        unique = f"{int(now)}.{self._newID()}.{self._host}"
        write = MaildirWrite(self._root, parts, message, seen, unique, self._quota, now)
        return self._writer.write(write)

    def hasRoom(self, size: int) -> Deferred[bool]:
        """
        Check the quota, if there is one.
        """
        if not self._quota:
            return succeed(True)
        usage = QuotaUsage(self._root, self._quota, self._clock.seconds())
        return self._writer.run(lambda: usage.has(size))


class MailStore:
    """
    The mailboxes of all accounts and of this host, with one writer.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        host: Path,
        accounts: Path,
        quotas: Mapping[str, int],
        hostname: str,
        newID: Callable[[], str],
        writer: IMailWriter | None = None,
    ) -> None:
        """
        @param host: The Maildir of this host.
        @param accounts: The directory with a Maildir for each account.
        @param quotas: The quota of each account in octets; 0 for none.
        @param newID: Returns a unique string of letters and digits.
        @param writer: Writes; without one, the caller waits for the disk.
        """
        self._clock = clock
        self._writer = writer or InlineWriter()
        roots = {name: accounts / name for name in quotas} | {HOST_ACCOUNT: host}
        self._roots = roots
        self._mailboxes = {
            name: Maildir(
                clock, root, hostname, newID, quotas.get(name, 0), self._writer
            )
            for name, root in roots.items()
        }

    def mailboxOf(self, account: str) -> IMailbox:
        """
        @param account: A name, or L{HOST_ACCOUNT}.

        @raise KeyError: There is no such account.
        """
        return self._mailboxes[account]

    def removeStaleTemp(self) -> Deferred[None]:
        """
        Remove incomplete messages that earlier processes left behind.  To be called at
        start; a failure is logged.
        """
        now, roots = self._clock.seconds(), list(self._roots.values())
        removed = self._writer.run(
            lambda: sum(removeStaleTemp(root, now) for root in roots)
        )
        return removed.addCallbacks(self._logRemoved, self._logFailure)

    def stop(self) -> Deferred[None]:
        """
        Accept no more messages.  Fires once all accepted ones are stored.
        """
        return self._writer.stop()

    def _logRemoved(self, count: int) -> None:
        if count:
            self.log.info(
                "Removed {count} incomplete messages from mailboxes", count=count
            )

    def _logFailure(self, why: Failure) -> None:
        self.log.failure("Removing incomplete messages from mailboxes failed", why)


# --- writers ---

T = TypeVar("T")

#: Messages in one batch: enough to share the waits for the disk, few enough that none
#: waits long for the others, and that their files can all be open.
MAX_BATCH = 64
#: Messages that may wait, which limits the memory that a stalled disk costs.
MAX_WAITING = 5000


class WriterClosed(MailboxUnavailable):
    """
    A writer is stopped, or its queue is full.
    """


class IMailWriter(Protocol):
    """
    Stores messages in Maildirs, and performs other operations on the disk.
    """

    def write(self, message: MaildirWrite) -> Deferred[None]:
        """
        Fires once the message would survive a power cut; fails if it isn't stored.
        """

    def run(self, operation: Callable[[], T]) -> Deferred[T]:
        """
        Fires with the result of C{operation}; fails with what it raises.
        """

    def stop(self) -> Deferred[None]:
        """
        Accept no more.  Fires once all that was accepted is done.
        """


class InlineWriter:
    """
    Writes in the caller's thread: for commands and tests.
    """

    def write(self, message: MaildirWrite) -> Deferred[None]:
        [error] = writeBatch([message])
        return succeed(None) if error is None else fail(error)

    def run(self, operation: Callable[[], T]) -> Deferred[T]:
        try:
            return succeed(operation())
        except Exception:
            return fail()

    def stop(self) -> Deferred[None]:
        return succeed(None)


class _WriteJob(Job[None]):
    """
    A message to be stored.
    """

    __slots__ = ("message",)

    def __init__(self, message: MaildirWrite) -> None:
        super().__init__()
        self.message = message
        self.result = None


class ThreadWriter:
    """
    L{IMailWriter} with a thread of its own, so that the reactor never waits for the
    disk.
    """

    def __init__(
        self, reactor: IReactorFromThreads, maxWaiting: int = MAX_WAITING
    ) -> None:
        self._queue = ThreadQueue(
            reactor,
            _perform,
            "mailboxes",
            WriterClosed,
            batchSize=MAX_BATCH,
            maxWaiting=maxWaiting,
        )
        self.stop = self._queue.stop

    def write(self, message: MaildirWrite) -> Deferred[None]:
        return self._queue.submit(_WriteJob(message))

    def run(self, operation: Callable[[], T]) -> Deferred[T]:
        return self._queue.submit(FunctionJob(operation))


def _perform(jobs: Sequence[_WriteJob | FunctionJob[Any]]) -> None:
    writes = [job for job in jobs if isinstance(job, _WriteJob)]
    for job in jobs:
        if isinstance(job, FunctionJob):
            job.perform()
    try:
        errors = writeBatch([job.message for job in writes])
    except Exception as error:
        for job in writes:
            job.error = error
    else:
        for job, outcome in zip(writes, errors, strict=True):
            job.error = outcome


#: Bytes in one batch for the worker process.
MAX_BATCH_SIZE = 1024 * 1024
#: Seconds from one response of the worker process to the next, after which it is
#: replaced: far more than a busy disk needs for two batches, and less than the ten
#: minutes that a client waits for the reply to its message (RFC 5321 4.5.3.2.6).
MAX_SILENCE = 120
#: Size that a small message counts as, to limit the number in a batch.
_MIN_SIZE = MAX_BATCH_SIZE // 64


class ProcessWriter:
    """
    L{IMailWriter} with a worker process.  Large messages and other operations go to a
    fallback writer, and so does everything while there is no worker process.
    """

    def __init__(
        self, worker: Worker, fallback: IMailWriter, maxWaiting: int = MAX_WAITING
    ) -> None:
        self._worker = worker
        self._fallback = fallback
        self._maxWaiting = maxWaiting
        self._isStopping = False
        self._batches = Batches[MaildirWrite, None](
            lambda messages: worker.call(writeBatch, messages), _size, MAX_BATCH_SIZE
        )

    def write(self, message: MaildirWrite) -> Deferred[None]:
        if not fitsWorker(message.content):
            return self._fallback.write(message)
        if self._isStopping or self._batches.waiting >= self._maxWaiting:
            why = "it is closed" if self._isStopping else "too many messages wait"
            return fail(WriterClosed(f"mailboxes: {why}"))
        return self._batches.put(message).addErrback(self._writeWithout, message)

    def run(self, operation: Callable[[], T]) -> Deferred[T]:
        return self._fallback.run(operation)

    def stop(self) -> Deferred[None]:
        self._isStopping = True
        return Deferred.fromCoroutine(self._stop())

    def _writeWithout(self, failure: Failure, message: MaildirWrite) -> Deferred[None]:
        failure.trap(NoWorker)
        return self._fallback.write(message)

    async def _stop(self) -> None:
        await self._batches.idle()
        await self._worker.stop()
        await self._fallback.stop()


def _size(message: MaildirWrite) -> int:
    return max(_MIN_SIZE, sizeOf(message.content))
