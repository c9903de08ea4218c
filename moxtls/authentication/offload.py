# -*- test-case-name: tests.authentication.test_offload -*-
"""
Verifies DKIM signatures in a worker process.  In a thread, the reactor and
verification would compete for the interpreter lock.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from moxtls.authentication.check import Offload
from moxtls.authentication.dkim.verify import DKIMJob, DKIMResults, verifyAll
from moxtls.workers.batches import Batches
from moxtls.workers.process import NoWorker, Worker, fitsWorker, sizeOf

#: Octets in one batch, and batches in progress: results must not wait for a long queue.
MAX_BATCH_SIZE = 64 * 1024
MAX_BATCHES = 4
#: Seconds within which any batch is finished, whatever is in it.
TIMEOUT = 60
#: The least size that a message counts for.
_MIN_SIZE = MAX_BATCH_SIZE // 16


class SignatureVerifier:
    """
    Verifies small messages in the worker process and large ones in threads; all of
    them in threads if there is no worker.
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
        # Most of the time of a large message is hashing, which releases the interpreter
        # lock.
        if fitsWorker(job.body):
            results = self._batches.put(job)
            return results.addErrback(self._fallBack, job)
        return self._threads(job)

    def _fallBack(self, why: Failure, job: DKIMJob) -> Deferred[DKIMResults]:
        # Not if the worker was lost: this very message may have crashed it.
        why.trap(NoWorker)
        return self._threads(job)

    def stop(self) -> Deferred[None]:
        """
        Fires once the process has ended.  No more jobs are to be passed.
        """
        return self._worker.stop()


def _size(job: DKIMJob) -> int:
    return max(_MIN_SIZE, sizeOf(job.body))
