# -*- test-case-name: tests.queue.test_service -*-
"""
The delivery queue: accepts messages into a spool, starts delivery attempts when they
are due, and stores the results.

The queue selects due messages in one pass at a time, of bounded size.  A submission
or the end of an attempt starts a pass; a periodic one finds messages that become due
later or that other processes changed.

The methods follow a message from L{QueueService.submit} through selection and an
attempt to its result; periodic tasks come after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    execute,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import HOUR, MINUTE
from moxtls.interfaces import ICourier, IQueue, IResultRecorder
from moxtls.queue.attempts import (
    ActiveAttempts,
    DeliveryAttempt,
    ResultLog,
    ResultRecorder,
    Selection,
)
from moxtls.queue.executor import QueueClient, SpoolExecutor
from moxtls.queue.files import STALE_AFTER
from moxtls.queue.schedule import (
    DeliveryGroup,
    GroupLimits,
    Notify,
    RetryDecision,
    bounded,
)
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.spool import Spool
from moxtls.queue.types import Batch, DeliveryStatus, Envelope, QueuedMessage, Result
from moxtls.smtp.rates import LogLimiter
from moxtls.tasks import CoalescedTask, TimeLimit
from moxtls.workers.batches import Batches

T = TypeVar("T")

#: Seconds between passes that look for due messages.
SELECT_INTERVAL = 1.0
#: Seconds between passes in which the index takes over the results in the journal.  A
#: listing of the queue lacks the results since the last pass; a power cut loses them.
CHECKPOINT_INTERVAL = 0.25
#: Seconds between attempts to notify report observers.
NOTIFY_INTERVAL = MINUTE
#: Seconds between passes that delete the submission keys of old messages.
KEYS_INTERVAL = HOUR
#: Seconds before a failed write of results is repeated.
WRITE_RETRY = 10.0
#: Seconds that a cancelled attempt has to report its results.
CANCEL_TIMEOUT = 15.0
#: Seconds after the end of a message's lifetime, and after a start, in which its last
#: attempt may still be made.
GRACE = HOUR
#: Recipients deferred in one transaction, for which other operations have to wait.
DEFER_BATCH = 2000


@implementer(IQueue)
class QueueService(Service):
    """
    L{IQueue} over a spool, for the process that delivers from it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        spool: SpoolExecutor,
        route: Callable[[Batch], ICourier],
        settlement: Settlement,
        notifier: ReportStatusNotifier,
        newID: Callable[[], str],
        jitter: Callable[[], float],
        limits: GroupLimits,
    ) -> None:
        """
        @param route: Chooses the courier that delivers a batch.
        @param newID: As of L{QueueClient}.
        @param jitter: Random numbers from 0 up to 1.
        """
        self._clock = clock
        self._spool = spool
        self._client = QueueClient(clock, spool, newID)
        self._route = route
        self._settlement = settlement
        self._notifier = notifier
        self._jitter = jitter
        self._limits = limits
        self._active: set[DeliveryAttempt] = set()
        self._results = ResultLog(self._logResult, self._logDeferred)
        self._logLimiter = LogLimiter()
        self._settling = Batches[DeliveryAttempt, None](
            lambda attempts: Deferred.fromCoroutine(self._settleTogether(attempts)),
            lambda attempt: 1,
            limits.maxConcurrent,
            maxRunning=1,
        )
        self._started = 0
        self._startedAt = 0.0
        self._isRepaired = False
        self._selecting = CoalescedTask(self._startDue, "Selecting due messages")
        self._notifying = CoalescedTask(
            self._notifyObservers, "Notifying observers of sent reports"
        )
        self._intervals = self._periodicTasks()
        self._loops: list[LoopingCall] = []

    def _periodicTasks(self) -> dict[CoalescedTask, float]:
        """
        The periodic tasks, with the seconds between their runs.
        """
        others = (
            (
                self._checkpoint,
                "Checkpoint of the journal",
                CHECKPOINT_INTERVAL,
            ),
            (self._expire, "Sending delay DSNs and giving up old messages", MINUTE),
            (self._removeStaleFiles, "Removing stale files of the spool", STALE_AFTER),
            (self._forgetKeys, "Deleting old submission keys", KEYS_INTERVAL),
        )
        return {
            self._selecting: SELECT_INTERVAL,
            self._notifying: NOTIFY_INTERVAL,
        } | {CoalescedTask(function, name): each for function, name, each in others}

    # --- start and stop -----------------------------------------------------------

    def startService(self) -> None:
        """
        @raise SpoolUnusable: Such as when another process delivers from the spool.
        """
        self._spool.open(delivering=True)
        super().startService()
        self._startedAt = self._clock.seconds()
        self._isRepaired = False
        for task, seconds in self._intervals.items():
            task.start()
            loop = LoopingCall(task.schedule)
            loop.clock = self._clock
            self._loops.append(loop)
            loop.start(seconds)

    def stopService(self) -> Deferred[None]:
        """
        @return: Fires once nothing is in progress.  Recipients whose attempts were
            cancelled count as not attempted.
        """
        super().stopService()
        for loop in self._loops:
            loop.stop()
        self._loops.clear()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ending = [task.stop() for task in self._intervals]
        ending += [attempt.done for attempt in self._active]
        for attempt in tuple(self._active):
            attempt.cancel()
        await DeferredList(ending)
        self._results.minutePassed()
        await self._spool.close()

    @property
    def _isRunning(self) -> bool:
        return bool(self.running)

    # --- IQueue -------------------------------------------------------------------

    def submit(self, envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        return self._thenSelect(self._client.submit(envelope, body))

    def messages(self) -> Deferred[tuple[QueuedMessage, ...]]:
        return self._client.messages()

    def page(
        self, after: int, limit: int
    ) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        return self._client.page(after, limit)

    def retry(self, messageID: str) -> Deferred[bool]:
        return self._thenSelect(self._client.retry(messageID))

    def hold(self, messageID: str, held: bool) -> Deferred[bool]:
        return self._thenSelect(self._client.hold(messageID, held))

    def drop(self, messageID: str) -> Deferred[bool]:
        return self._client.drop(messageID)

    def _thenSelect(self, result: Deferred[T]) -> Deferred[T]:
        def select(value: T) -> T:
            self._selecting.schedule()
            return value

        return result.addCallback(select)

    # --- selection of due messages ------------------------------------------------

    async def _startDue(self) -> None:
        if not self._isRepaired:
            await self._repair()
        while len(self._active) < self._limits.maxConcurrent:
            selection = await self._spool.read(self._select())
            await self._holdDamaged(selection.damaged)
            for group in selection.groups:
                self._start(group)
            if not selection.groups:
                break

    async def _repair(self) -> None:
        """
        Complete the work of a process that died: before the first attempt.

        @raise Exception: Some is left, as the disk is full.
        """
        now = self._clock.seconds()
        try:
            await self._spool.run(lambda spool: spool.index.repair(now))
            await self._spool.run(lambda spool: self._settlement.resume(spool, now))
        except CancelledError:
            raise
        except Exception:
            await deferLater(self._clock, WRITE_RETRY)
            raise
        self._isRepaired = True

    def _select(self) -> Callable[[Spool], Selection]:
        active, now = ActiveAttempts.of(self._active), self._clock.seconds()
        limits, newFirst = self._limits, self._started % 2 == 0
        return lambda spool: active.select(spool, limits, now, newFirst)

    async def _holdDamaged(self, damaged: Mapping[str, str]) -> None:
        for messageID, fault in damaged.items():
            await self._client.hold(messageID, True)
            self.log.error(
                "{messageID} is held: its file in the spool is damaged ({fault})",
                messageID=messageID,
                fault=fault,
            )

    # --- a delivery attempt -------------------------------------------------------

    def _start(self, group: DeliveryGroup) -> None:
        attempt = DeliveryAttempt(group)
        self._active.add(attempt)
        self._started += 1
        self._logged(Deferred.fromCoroutine(self._run(attempt)))

    async def _run(self, attempt: DeliveryAttempt) -> None:
        recorder = ResultRecorder(attempt, lambda pairs: self._record(attempt, pairs))
        try:
            results = await self._deliver(attempt, recorder)
            if not self._isRunning:
                # The service cancelled the attempt: it doesn't count for recipients
                # without a final result, unless some of their mailboxes have it.
                results = tuple(
                    each
                    for each in results
                    if each.ending is not DeliveryStatus.TEMPORARY or each.stored
                )
            pairs = attempt.matchNew(results)
            if self._isRunning:
                pairs += attempt.matchMissing()
            attempt.decided(self._decide(pairs))
            await recorder.finished()
            attempt.isDelivering = False
            await self._settle(attempt)
            for result in results:
                if result.unreachable:
                    await self._deferDestination(attempt.destination, result)
                    break
        finally:
            self._active.discard(attempt)
            attempt.done.callback(None)
            self._selecting.schedule()

    async def _deliver(
        self, attempt: DeliveryAttempt, recorder: IResultRecorder
    ) -> tuple[Result, ...]:
        batch = attempt.group.batch
        seconds = self._limits.maxMessageTime * len(batch.messages)
        try:
            delivering = self._route(batch).deliver(batch, recorder)
            limit = TimeLimit(self._clock, delivering, seconds)
            return await attempt.cancellable(
                limit.result, lambda: limit.cancel(CANCEL_TIMEOUT)
            )
        except (CancelledError, TimeoutError):
            self.log.warn(
                "Delivery attempt for {to!r} was cancelled", to=batch.destination
            )
        except Exception:
            self.log.failure("Delivery attempt for {to!r} failed", to=batch.destination)
        return ()

    # --- results ------------------------------------------------------------------

    def _record(
        self, attempt: DeliveryAttempt, pairs: Sequence[tuple[QueuedMessage, Result]]
    ) -> Deferred[None]:
        """
        Store results during the attempt.

        @return: Fires once they are in the journal, or can't be stored.
        """
        lines = attempt.decided(self._decide(pairs))
        # Called for each SMTP transaction: no coroutine unless writing fails.
        try:
            self._spool.journal.add(lines)
        except Exception:
            return Deferred.fromCoroutine(
                self._writeUntilDone(
                    attempt, lambda: execute(self._spool.journal.add, lines)
                )
            )
        return succeed(None)

    async def _checkpoint(self) -> None:
        """
        Have the index take over the results in the journal.
        """
        numbers = {attempt: len(attempt.unrecorded) for attempt in self._active}
        lines = [line for attempt in numbers for line in attempt.unrecorded]
        if not lines:
            return
        journal = self._spool.journal
        journal.beginCheckpoint()
        try:
            await self._spool.run(lambda spool: spool.index.recordLines(lines))
            journal.endCheckpoint()
        except CancelledError:
            raise
        except Exception:
            self.log.failure("Checkpoint of the journal failed")
            await deferLater(self._clock, WRITE_RETRY)
            return
        for attempt, number in numbers.items():
            attempt.markRecorded(number)

    def _decide(
        self, pairs: Iterable[tuple[QueuedMessage, Result]]
    ) -> list[RetryDecision]:
        now = self._clock.seconds()
        decisions = []
        for message, result in pairs:
            self._results.ended(bounded(result))
            decisions.append(
                self._limits.schedule.decide(message, result, now, self._jitter())
            )
        return decisions

    async def _settle(self, attempt: DeliveryAttempt) -> None:
        """
        Carry out the decisions after an attempt: states, DSNs, removal.
        """
        if attempt.decisions:
            await self._writeUntilDone(attempt, lambda: self._settling.put(attempt))
        if any(each.notify is Notify.OBSERVERS for each in attempt.decisions):
            self._notifying.schedule()

    async def _settleTogether(
        self, attempts: list[DeliveryAttempt]
    ) -> Sequence[Exception | None]:
        """
        Carry out the decisions after C{attempts} in one operation, or, if that fails,
        in one for each.
        """
        busy, now = self._busy(), self._clock.seconds()
        decisions = [each for attempt in attempts for each in attempt.decisions]
        lines = [line for attempt in attempts for line in attempt.unrecorded]
        try:
            await self._spool.run(
                lambda spool: self._settlement.attempted(
                    spool, decisions, lines, busy, now
                )
            )
        except Exception as error:
            if len(attempts) == 1:
                return [error]
            outcomes = [await self._settleTogether([each]) for each in attempts]
            return [error for (error,) in outcomes]
        return [None] * len(attempts)

    async def _writeUntilDone(
        self, attempt: DeliveryAttempt, write: Callable[[], Deferred[None]]
    ) -> None:
        """
        Write results, repeatedly until that succeeds or the service stops: without
        them, messages would be delivered twice.
        """
        while True:
            try:
                await write()
                return
            except Exception:
                failures = self._logLimiter.due("write", self._clock.seconds())
                if failures:
                    self.log.failure(
                        "Writing results of the delivery attempt for {to!r} failed"
                        " ({failures} failures so far)",
                        to=attempt.destination,
                        failures=failures,
                    )
            if not self._isRunning:
                return
            with suppress(CancelledError):
                pause: Deferred[None] = deferLater(self._clock, WRITE_RETRY)
                await attempt.cancellable(pause, pause.cancel)

    async def _deferDestination(self, destination: str, result: Result) -> None:
        """
        Count all other due recipients of a destination as attempted: none of its hosts
        can be reached.
        """
        now, chance = self._clock.seconds(), self._jitter()
        result, schedule = bounded(result), self._limits.schedule
        until = await self._spool.run(
            lambda spool: self._settlement.backOff(
                spool, destination, schedule, now, chance
            )
        )
        deferred = DEFER_BATCH
        while deferred == DEFER_BATCH:
            deferred = await self._spool.run(
                lambda spool: spool.index.defer(
                    destination, result, until, now, DEFER_BATCH
                )
            )
            self._results.deferred(result, deferred)

    def _logResult(self, result: Result) -> None:
        self.log.info(
            "{id} to {to!r}: {ending} {status} {host!r} {text!r}",
            id=result.messageID,
            to=result.recipient,
            ending=result.ending.value,
            status=result.status,
            host=result.host,
            text=result.text,
        )

    def _logDeferred(self, host: str, number: int, last: Result) -> None:
        self.log.info(
            "{number} more recipients deferred by {host!r} within a minute, the last: "
            "{status} {text!r}",
            number=number,
            host=host,
            status=last.status,
            text=last.text,
        )

    # --- periodic tasks -----------------------------------------------------------

    async def _expire(self) -> None:
        """
        Send delay DSNs, and give up messages that had no attempt in time.
        """
        self._results.minutePassed()
        now, schedule = self._clock.seconds(), self._limits.schedule
        if schedule.noticeAfter:
            before = now - schedule.noticeAfter
            await self._repeat(self._settlement.sendDelayed, before=before)
        if now < self._startedAt + GRACE:
            return
        for age, brief in ((schedule.maxAge, False), (schedule.maxBriefAge, True)):
            before = now - age - GRACE
            await self._repeat(self._settlement.giveUp, before=before, brief=brief)
        self._notifying.schedule()

    async def _repeat(self, operation: Callable[..., bool], **more: object) -> None:
        isMore = True
        while isMore:
            busy, now = self._busy(), self._clock.seconds()
            isMore = await self._spool.run(
                partial(operation, busy=busy, now=now, **more)
            )

    async def _removeStaleFiles(self) -> None:
        now = self._clock.seconds()
        stale = await self._spool.read(lambda spool: spool.staleFiles(now))
        if stale:
            await self._spool.run(lambda spool: spool.removeFiles(stale))

    async def _notifyObservers(self) -> None:
        await self._notifier.notifyAll(self._spool, self._settlement)

    async def _forgetKeys(self) -> None:
        now = self._clock.seconds()
        await self._spool.run(lambda spool: spool.forgetKeys(now))

    # --- helpers ------------------------------------------------------------------

    def _busy(self) -> set[str]:
        """
        Ids of messages with recipients in an active attempt.
        """
        return {
            messageID
            for attempt in self._active
            if attempt.isDelivering
            for messageID in attempt.messageIDs
        }

    def _logged(self, result: Deferred[None]) -> None:
        result.addErrback(
            lambda failure: self.log.failure("Queue operation failed", failure)
        )
