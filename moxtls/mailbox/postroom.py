# -*- test-case-name: tests.mailbox.test_postroom -*-
"""
Letters are written by another process, several at a time.

A thread does so as well, but it and the reactor's hand the interpreter to and
fro with each call of the system: that takes longer than to write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from moxtls.mailbox.desk import MAX_WAITING, IMailWriter, WriterClosed
from moxtls.mailbox.writing import MaildirWrite, writeBatch
from moxtls.worker.batches import Batches
from moxtls.worker.frames import fitsWorker, sizeOf
from moxtls.worker.worker import NoWorker, Worker

T = TypeVar("T")

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
