# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Where letters wait for a thread that writes them, so that the reactor never
waits for a disk.

Letters are written by another process, several at a time.

A thread does so as well, but it and the reactor's hand the interpreter to and
fro with each call of the system: that takes longer than to write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from moxtls.mailbox.names import MailboxUnavailable
from moxtls.mailbox.write import MaildirWrite, writeBatch
from moxtls.workers.batches import Batches
from moxtls.workers.process import NoWorker, Worker, fitsWorker, sizeOf

T = TypeVar("T")

#: Letters that share the waits for the disk: enough to share them, few enough
#: that none waits long for the others, and that their files can all be open.
GROUP = 64
#: A disk that stands still costs as much memory as those take, not more.
MAX_WAITING = 5000


class WriterClosed(MailboxUnavailable):
    """
    Nothing is stored any more, or not so much at a time.
    """

    @classmethod
    def because(cls, isStopping: bool) -> WriterClosed:
        why = "stopped" if isStopping else "too much is waiting for the disk"
        return cls(f"mailboxes: {why}")


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


class _Posted:
    """
    A letter, and who waits for it.
    """

    def __init__(self, letter: MaildirWrite) -> None:
        self.letter = letter
        self.deferred: Deferred[None] = Deferred()
        self.error: Exception | None = None

    def answer(self) -> None:
        if self.error is None:
            self.deferred.callback(None)
        else:
            self.deferred.errback(self.error)


class _Operation(Generic[T]):
    """
    Something that isn't a letter, and who waits for it.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self.deferred: Deferred[T] = Deferred()
        self._work = work
        self._failure: Failure | None = None

    def perform(self) -> None:
        try:
            self._result = self._work()
        except Exception:
            self._failure = Failure()

    def answer(self) -> None:
        if self._failure is None:
            self.deferred.callback(self._result)
        else:
            self.deferred.errback(self._failure)


_Job = _Posted | _Operation[Any]


class ThreadWriter:
    """
    Has a thread do it.
    """

    def __init__(self, reactor: IReactorFromThreads, most: int = MAX_WAITING) -> None:
        self._reactor = reactor
        self._most = most
        self._condition = Condition()
        self._waiting: deque[_Job] = deque()
        self._stopping = False
        self._stopped: Deferred[None] = Deferred()
        # What isn't done when the process ends wasn't acknowledged either.
        Thread(target=self._work, name="mailboxes", daemon=True).start()

    def post(self, letter: MaildirWrite) -> Deferred[None]:
        posted = _Posted(letter)
        return (
            posted.deferred
            if self._take(posted)
            else fail(WriterClosed.because(self._stopping))
        )

    def run(self, errand: Callable[[], T]) -> Deferred[T]:
        job = _Operation(errand)
        return (
            job.deferred
            if self._take(job)
            else fail(WriterClosed.because(self._stopping))
        )

    def stop(self) -> Deferred[None]:
        with self._condition:
            self._stopping = True
            self._condition.notify()
        return self._stopped

    def _take(self, job: _Job) -> bool:
        with self._condition:
            if self._stopping or len(self._waiting) >= self._most:
                return False
            self._waiting.append(job)
            self._condition.notify()
        return True

    def _work(self) -> None:
        while jobs := self._next():
            _perform(jobs)
            self._reactor.callFromThread(_answer, jobs)
        self._reactor.callFromThread(self._stopped.callback, None)

    def _next(self) -> list[_Job]:
        with self._condition:
            while not self._waiting and not self._stopping:
                self._condition.wait()
            number = min(GROUP, len(self._waiting))
            return [self._waiting.popleft() for _ in range(number)]


def _perform(jobs: Sequence[_Job]) -> None:
    posted = [each for each in jobs if isinstance(each, _Posted)]
    for errand in jobs:
        if isinstance(errand, _Operation):
            errand.perform()
    errors: Sequence[Exception | None]
    try:
        errors = writeBatch([each.letter for each in posted])
    except Exception as why:
        # Nobody else would ever be answered without this thread.
        errors = [why] * len(posted)
    for each, error in zip(posted, errors, strict=True):
        each.error = error


def _answer(jobs: Sequence[_Job]) -> None:
    for each in jobs:
        each.answer()


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
            return fail(WriterClosed.because(self._isStopping))
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
