# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Where letters wait for a thread that writes them, so that the reactor never
waits for a disk.

Letters are written by another process, several at a time.

A thread does so as well, but it and the reactor's hand the interpreter to and
fro with each call of the system: that takes longer than to write.
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

#: Letters that share the waits for the disk: enough to share them, few enough
#: that none waits long for the others, and that their files can all be open.
MAX_BATCH = 64
#: A disk that stands still costs as much memory as those take, not more.
MAX_WAITING = 5000


class WriterClosed(MailboxUnavailable):
    """
    Nothing is stored any more, or not so much at a time.
    """


class IMailWriter(Protocol):
    """
    Somebody who writes letters and does other things on disks.
    """

    def post(self, letter: MaildirWrite) -> Deferred[None]:
        """
        Fires once it would survive a power cut.
        """

    def run(self, errand: Callable[[], T]) -> Deferred[T]:
        """
        Fires with what it returns, or fails with what it raises.
        """

    def stop(self) -> Deferred[None]:
        """
        Take no more.  Fires once all that was taken is answered.
        """


class InlineWriter:
    """
    Waits for the disk: for commands and tests.
    """

    def post(self, letter: MaildirWrite) -> Deferred[None]:
        [error] = writeBatch([letter])
        return succeed(None) if error is None else fail(error)

    def run(self, errand: Callable[[], T]) -> Deferred[T]:
        try:
            return succeed(errand())
        except Exception:
            return fail()

    def stop(self) -> Deferred[None]:
        return succeed(None)


class _WriteJob(Job[None]):
    """
    A message to be written.
    """

    __slots__ = ("write",)

    def __init__(self, write: MaildirWrite) -> None:
        super().__init__()
        self.write = write
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

    def post(self, write: MaildirWrite) -> Deferred[None]:
        return self._queue.submit(_WriteJob(write))

    def run(self, operation: Callable[[], T]) -> Deferred[T]:
        return self._queue.submit(FunctionJob(operation))


def _perform(jobs: Sequence[_WriteJob | FunctionJob[Any]]) -> None:
    writes = [job for job in jobs if isinstance(job, _WriteJob)]
    for job in jobs:
        if isinstance(job, FunctionJob):
            job.perform()
    try:
        errors = writeBatch([job.write for job in writes])
    except Exception as error:
        for job in writes:
            job.error = error
    else:
        for job, outcome in zip(writes, errors, strict=True):
            job.error = outcome


#: Bytes that are written together.
TOGETHER = 1024 * 1024
#: Seconds from one answer of the process to the next, after which it is replaced:
#: far more than a busy disk needs for as much, and less than the ten minutes that
#: a client waits for the answer to its message (RFC 5321 4.5.3.2.6).
MAX_SILENCE = 120
#: What a letter counts at least: so there are not too many together.
_LEAST = TOGETHER // 64


class ProcessWriter:
    """
    Has a process write letters, and a desk do everything else; all of it while
    there is no process.
    """

    def __init__(
        self, worker: Worker, desk: IMailWriter, most: int = MAX_WAITING
    ) -> None:
        self._worker = worker
        self._desk = desk
        self._most = most
        self._isStopping = False
        self._batches = Batches[MaildirWrite, None](
            lambda letters: worker.call(writeBatch, letters), _size, TOGETHER
        )

    def post(self, letter: MaildirWrite) -> Deferred[None]:
        if not fitsWorker(letter.message):
            return self._desk.post(letter)
        if self._isStopping or self._batches.waiting >= self._most:
            why = "it is closed" if self._isStopping else "too many messages wait"
            return fail(WriterClosed(f"mailboxes: {why}"))
        return self._batches.put(letter).addErrback(self._without, letter)

    def run(self, errand: Callable[[], T]) -> Deferred[T]:
        return self._desk.run(errand)

    def stop(self) -> Deferred[None]:
        self._isStopping = True
        return Deferred.fromCoroutine(self._stop())

    def _without(self, why: Failure, letter: MaildirWrite) -> Deferred[None]:
        why.trap(NoWorker)
        return self._desk.post(letter)

    async def _stop(self) -> None:
        await self._batches.idle()
        await self._worker.stop()
        await self._desk.stop()


def _size(letter: MaildirWrite) -> int:
    return max(_LEAST, sizeOf(letter.message))
