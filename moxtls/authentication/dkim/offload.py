# -*- test-case-name: tests.authentication.dkim.test_offload -*-
"""
Signatures are verified by another process: in a thread of this one, the
interpreter would be the reactor's or that thread's, but never both's.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from moxtls.authentication.check import Offload
from moxtls.authentication.dkim.verify import DKIMJob, DKIMResults, verifyAll
from moxtls.workers.batches import Batches
from moxtls.workers.process import NoWorker, Worker, fitsWorker, sizeOf

#: Bytes that are verified together, and how many such batches are under way: what
#: is done shall not wait for what isn't.
MAX_BATCH_SIZE = 64 * 1024
MAX_BATCHES = 4
#: Seconds that none takes, however it was made.
TIMEOUT = 60
#: What a message counts at least.
_MIN_SIZE = MAX_BATCH_SIZE // 16


class SignatureVerifier:
    """
    Has a process verify small messages, and threads large ones; all of them
    while there is no process.
    """

    def __init__(self, worker: Worker, threads: Offload) -> None:
        self._worker = worker
        self._threads = threads
        self._batches = Batches[DKIMJob, DKIMResults](
            lambda jobs: worker.call(verifyAll, jobs),
            _size,
            MAX_BATCH_SIZE,
            MAX_BATCHES,
        )

    def __call__(self, job: DKIMJob) -> Deferred[DKIMResults]:
        """
        See L{Offload}.
        """
        # Hashing a large one takes most of the time, without the interpreter.
        if fitsWorker(job.body):
            results = self._batches.put(job)
            return results.addErrback(self._fallBack, job)
        return self._threads(job)

    def _fallBack(self, why: Failure, job: DKIMJob) -> Deferred[DKIMResults]:
        # Not if it was lost: it may have died of this very message.
        why.trap(NoWorker)
        return self._threads(job)

    def stop(self) -> Deferred[None]:
        """
        Fires once the process is gone.  Nothing is to be verified any more.
        """
        return self._worker.stop()


def _size(job: DKIMJob) -> int:
    return max(_MIN_SIZE, sizeOf(job.body))
