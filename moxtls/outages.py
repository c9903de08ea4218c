# -*- test-case-name: tests.test_outages -*-
"""
Times without the ledger: what is said of them, and what waits for their end.
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

#: Seconds from one log line to the next.
PAUSE = MINUTE
#: Seconds from one attempt to write to the next.
RETRY = 5.0
#: Entries that wait, a few kB each: tens of megabytes.
MAX_WAITING = 10_000
#: Written at a time.
MAX_BATCH = 500


def logUnlessOutage(
    log: Logger, format: str, failure: Failure | None = None, **values: Any
) -> None:
    """
    Log a failure; but not that the ledger is unavailable: L{OutageLog} does that for
    all together.

    @param failure: The current exception if not given.
    """
    failure = failure or Failure()
    if failure.check(StoreUnavailable) is None:
        log.failure(format, failure, **values)


class OutageLog:
    """
    Says that the ledger is unavailable: at once, then once a minute with the number
    of operations that failed, and when it is there again.
    """

    log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: The time, for durations only.
        """
        self._seconds = seconds
        self._began: float | None = None
        self._said = 0.0
        self._failed = 0
        self._all = 0

    def failed(self, error: StoreUnavailable, count: int) -> None:
        """
        So many operations failed.
        """
        now = self._seconds()
        self._failed += count
        self._all += count
        if self._began is None:
            self._began = now
            self.log.error("the ledger is unavailable: {why!r}", why=str(error))
        elif now - self._said >= PAUSE:
            self.log.error(
                "the ledger is unavailable for {seconds} seconds, and {count} "
                "operations failed since the last line like this: {why!r}",
                seconds=round(now - self._began),
                count=self._failed,
                why=str(error),
            )
        else:
            return
        self._said = now
        self._failed = 0

    def succeeded(self) -> None:
        """
        An operation succeeded.
        """
        if self._began is None:
            return
        self.log.info(
            "the ledger is available again after {seconds} seconds; {count} "
            "operations failed",
            seconds=round(self._seconds() - self._began),
            count=self._all,
        )
        self._began = None
        self._failed = self._all = 0


class Backlog(Generic[I]):
    """
    Entries to be written to the ledger, which wait where it is unavailable.

    Equal ones are counted.  There is a limit; beyond it they are lost, and the log
    says how many.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        what: str,
        write: Callable[[I, int], Deferred[None]],
        most: int = MAX_WAITING,
    ) -> None:
        """
        @param what: The name of the entries, in the plural.
        @param write: Writes an entry, given how many times it is to be counted.
        @param most: The number of different entries that may wait.
        """
        self._clock = clock
        self._what = what
        self._writeEntry = write
        self._most = most
        self._waiting: dict[I, int] = {}
        self._alarm: IDelayedCall | None = None
        self._emptying: Deferred[None] = succeed(None)
        self._lost = 0
        self._uncertain = 0

    def __len__(self) -> int:
        return sum(self._waiting.values())

    def record(self, entry: I, count: int = 1) -> Deferred[None]:
        """
        @return: Fires once it is written or waits to be; fails if it can't be
            written for another reason.
        """
        if self._waiting:
            # The ledger isn't there: no need to try that with each of them.
            self._keep(entry, count)
            return succeed(None)
        return self._write(entry, count)

    async def stop(self) -> None:
        """
        Write what waits if that is possible now.
        """
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        await self._emptying
        await self._empty()
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.cancel()
        self._lost += len(self)
        self._waiting.clear()
        self._say(0)

    def _write(self, entry: I, count: int) -> Deferred[None]:
        writing = self._writeEntry(entry, count)
        return writing.addErrback(self._failed, entry, count)

    def _failed(self, failure: Failure, entry: I, count: int) -> None:
        error = failure.value
        if not isinstance(error, StoreUnavailable):
            failure.raiseException()
        elif error.uncertain:
            # To write it again might count it twice.
            self._uncertain += count
        else:
            self._keep(entry, count)

    def _keep(self, entry: I, count: int) -> None:
        if entry in self._waiting or len(self._waiting) < self._most:
            self._waiting[entry] = self._waiting.get(entry, 0) + count
        else:
            self._lost += count
        if self._alarm is None:
            self._alarm = self._clock.callLater(RETRY, self._retry)

    def _retry(self) -> None:
        self._alarm = None
        self._emptying = Deferred.fromCoroutine(self._emptyQuietly())

    async def _emptyQuietly(self) -> None:
        try:
            await self._empty()
        except CancelledError:
            raise
        except Exception:
            self.log.failure("writing {what} that waited", what=self._what)

    async def _empty(self) -> None:
        """
        Write what waits, until that fails again: one first, then many at a time.
        """
        atOnce, written = 1, 0
        while self._waiting:
            some = dict(islice(self._waiting.items(), atOnce))
            before = len(self) - sum(some.values())
            for entry in some:
                del self._waiting[entry]
            results = [self._write(entry, count) for entry, count in some.items()]
            outcomes = await DeferredList(results, consumeErrors=True)
            for good, result in outcomes:
                if not good:
                    self.log.failure("writing {what}", result, what=self._what)
            kept = max(0, len(self) - before)
            written += max(0, sum(some.values()) - kept)
            if kept:
                return
            atOnce = MAX_BATCH
        self._say(written)

    def _say(self, written: int) -> None:
        if written:
            self.log.info(
                "{count} {what} that waited for the ledger are written",
                count=written,
                what=self._what,
            )
        if self._lost or self._uncertain:
            self.log.error(
                "{lost} {what} are lost, as the ledger was unavailable; of another "
                "{uncertain} nobody knows, as the connection to it broke",
                lost=self._lost,
                uncertain=self._uncertain,
                what=self._what,
            )
        self._lost = self._uncertain = 0
