# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Writers that store messages in Maildirs without making the reactor wait for the disk.

A worker process writes most messages, in batches; a thread writes the others.  A thread
could write all of them, but it and the reactor's thread would pass the interpreter lock
back and forth with each system call, which takes longer than the writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from moxtls.mailbox.names import MailboxUnavailable
from moxtls.mailbox.write import MaildirWrite, writeBatch
from moxtls.threads import FunctionJob, Job, ThreadQueue
from moxtls.workers.batches import Batches
from moxtls.workers.process import NoWorker, Worker, fitsWorker, sizeOf

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
