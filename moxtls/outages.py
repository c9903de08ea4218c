# -*- test-case-name: tests.test_outages -*-
"""
Outages of the ledger: log lines about them, and a backlog of entries to be written
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.dates import MINUTE
from moxtls.interfaces import StoreUnavailable

I = TypeVar("I")  # noqa: E741

#: Seconds between log lines about one outage.
PAUSE = MINUTE
#: Seconds between attempts to write the backlog.
RETRY = 5.0
#: Entries of a backlog, a few kB each: tens of megabytes.
MAX_WAITING = 10_000
#: Entries of a backlog written concurrently.
MAX_BATCH = 500


def logUnlessOutage(
    log: Logger, format: str, failure: Failure | None = None, **values: Any
) -> None:
    """
    Log a failure, unless it is that the ledger is unavailable: L{OutageLog} reports
    outages once for all operations.

    @param failure: By default the current exception.
    """
    failure = failure or Failure()
    if failure.check(StoreUnavailable) is None:
        log.failure(format, failure, **values)


class OutageLog:
    """
    Logs outages of the ledger: their begin, once a minute the number of operations
    that failed, and their end.
    """

    log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: Returns the time in seconds; only used for durations.
        """
        self._seconds = seconds
        self._began: float | None = None
        self._lastLogged = 0.0
        self._failed = 0
        self._total = 0

    def failed(self, error: StoreUnavailable, count: int) -> None:
        """
        Count C{count} operations that failed with C{error}.
        """
        now = self._seconds()
        self._failed += count
        self._total += count
        if self._began is None:
            self._began = now
            self.log.error("the ledger is unavailable: {why!r}", why=str(error))
        elif now - self._lastLogged >= PAUSE:
            self.log.error(
                "the ledger is unavailable for {seconds} seconds, and {count} "
                "operations failed since the last such line: {why!r}",
                seconds=round(now - self._began),
                count=self._failed,
                why=str(error),
            )
        else:
            return
        self._lastLogged = now
        self._failed = 0

    def succeeded(self) -> None:
        """
        Note that an operation succeeded, which ends an outage.
        """
        if self._began is None:
            return
        self.log.info(
            "the ledger is available again after {seconds} seconds; {count} "
            "operations failed",
            seconds=round(self._seconds() - self._began),
            count=self._total,
        )
        self._began = None
        self._failed = self._total = 0


class Backlog(Generic[I]):
    """
    Writes entries to the ledger; while it is unavailable, keeps them in memory and
    writes them later.

    Equal entries are counted.  Beyond a limit they are lost, and the log says how many.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        what: str,
        write: Callable[[I, int], Deferred[None]],
        maxWaiting: int = MAX_WAITING,
    ) -> None:
        """
        @param what: Plural name of the entries, for the log.
        @param write: Writes an entry, given its count.
        @param maxWaiting: Maximum number of different entries that wait.
        """
        self._clock = clock
        self._what = what
        self._writeEntry = write
        self._maxWaiting = maxWaiting
        self._waiting: dict[I, int] = {}
        self._retryCall: IDelayedCall | None = None
        self._emptying: Deferred[None] = succeed(None)
        self._lost = 0
        self._uncertain = 0

    def __len__(self) -> int:
        return sum(self._waiting.values())

    def record(self, entry: I, count: int = 1) -> Deferred[None]:
        """
        Write an entry now or, during an outage, later.

        @return: Fires once the entry is written or waiting; fails if it can't be
            written for another reason than an outage.
        """
        if self._waiting:
            # During an outage, attempts are left to the retries.
            self._keep(entry, count)
            return succeed(None)
        return self._write(entry, count)

    async def stop(self) -> None:
        """
        Make a last attempt to write the waiting entries; those left are lost.
        """
        call, self._retryCall = self._retryCall, None
        if call is not None:
            call.cancel()
        await self._emptying
        await self._empty()
        call, self._retryCall = self._retryCall, None
        if call is not None:
            call.cancel()
        self._lost += len(self)
        self._waiting.clear()
        self._logResults(0)

    def _write(self, entry: I, count: int) -> Deferred[None]:
        writing = self._writeEntry(entry, count)
        return writing.addErrback(self._failed, entry, count)

    def _failed(self, failure: Failure, entry: I, count: int) -> None:
        error = failure.value
        if not isinstance(error, StoreUnavailable):
            failure.raiseException()
        elif error.uncertain:
            # It may have been committed: writing it again might count it twice.
            self._uncertain += count
        else:
            self._keep(entry, count)

    def _keep(self, entry: I, count: int) -> None:
        if entry in self._waiting or len(self._waiting) < self._maxWaiting:
            self._waiting[entry] = self._waiting.get(entry, 0) + count
        else:
            self._lost += count
        if self._retryCall is None:
            self._retryCall = self._clock.callLater(RETRY, self._retry)

    def _retry(self) -> None:
        self._retryCall = None
        self._emptying = Deferred.fromCoroutine(self._logFailures())

    async def _logFailures(self) -> None:
        try:
            await self._empty()
        except CancelledError:
            raise
        except Exception:
            self.log.failure("writing the backlog of {what} failed", what=self._what)

    async def _empty(self) -> None:
        """
        Write waiting entries until that fails: one first, then many at a time.
        """
        atOnce, written = 1, 0
        while self._waiting:
            batch = dict(islice(self._waiting.items(), atOnce))
            before = len(self) - sum(batch.values())
            for entry in batch:
                del self._waiting[entry]
            results = [self._write(entry, count) for entry, count in batch.items()]
            outcomes = await DeferredList(results, consumeErrors=True)
            for success, result in outcomes:
                if not success:
                    self.log.failure(
                        "writing one of {what} failed", result, what=self._what
                    )
            kept = max(0, len(self) - before)
            written += max(0, sum(batch.values()) - kept)
            if kept:
                return
            atOnce = MAX_BATCH
        self._logResults(written)

    def _logResults(self, written: int) -> None:
        if written:
            self.log.info(
                "the backlog of {count} {what} is written to the ledger",
                count=written,
                what=self._what,
            )
        if self._lost or self._uncertain:
            self.log.error(
                "{lost} {what} are lost, as the ledger was unavailable; another "
                "{uncertain} may be lost, as the connection to it broke",
                lost=self._lost,
                uncertain=self._uncertain,
                what=self._what,
            )
        self._lost = self._uncertain = 0
