# -*- test-case-name: tests.queue.test_service -*-
"""
Delivers what is in the spool: looks for what is due, has couriers attempt it,
and carries out what comes of it.

One look is under way at a time, and each is bounded; the end of an attempt
and every submission cause another, a clock's tick does for what comes due or
is changed by other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import HOUR, MINUTE
from moxtls.interfaces import ICourier, IQueue, IResultRecorder
from moxtls.queue.attempts import (
    LAST_WORDS,
    ActiveAttempts,
    DeliveryAttempt,
    Pick,
    ResultRecorder,
)
from moxtls.queue.batches import DeliveryGroup, GroupLimits
from moxtls.queue.client import QueueClient
from moxtls.queue.deferrals import ResultLog
from moxtls.queue.files import STALE_AFTER
from moxtls.queue.reportstatus import ReportStatusNotifier
from moxtls.queue.retry import Notify, RetryDecision, bounded
from moxtls.queue.settle import Settlement
from moxtls.queue.spool import Spool, SpoolExecutor
from moxtls.queue.types import Batch, DeliveryStatus, Envelope, QueuedMessage, Result
from moxtls.tasks import CoalescedTask, TimeLimit
from moxtls.workers.batches import Batches

T = TypeVar("T")

#: Seconds between looks for what came due.
TICK = 1.0
#: Seconds after which a result is written again if it couldn't be: the disk
#: is full, and delivering again would be worse.
WRITE_AGAIN = 10.0
NOTIFY_AGAIN = MINUTE
FORGET_KEYS = HOUR
#: Seconds after the end of a message's time, and after a start, in which its
#: last attempt may still be made.
GRACE = HOUR
#: Recipients deferred in one transaction, which others have to wait for.
DEFERRED_AT_ONCE = 2000
#: Results recorded in one transaction, those of all attempts together.
MAX_NOTED = 10_000


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
        notices: Settlement,
        teller: ReportStatusNotifier,
        newID: Callable[[], str],
        jitter: Callable[[], float],
        limits: GroupLimits,
    ) -> None:
        """
        @param route: Says who is to attempt a batch.
        @param newID: As of L{QueueClient}.
        """
        self._clock = clock
        self._spool = spool
        self._stored = QueueClient(clock, spool, newID)
        self._route = route
        self._notices = notices
        self._teller = teller
        self._jitter = jitter
        self._limits = limits
        self._flights: set[DeliveryAttempt] = set()
        self._results = ResultLog(self._tellResult, self._tellDeferred)
        self._noting = Batches[list[RetryDecision], None](
            self._writeNotes, len, MAX_NOTED, running=1
        )
        self._launched = 0
        self._startedAt = 0.0
        self._look = CoalescedTask(self._lookAround, "looking for what is due")
        self._tell = CoalescedTask(self._tellReports, "telling about reports")
        self._keys = CoalescedTask(self._forgetKeys, "forgetting keys")
        self._old = CoalescedTask(self._lookForOld, "looking for old mail")
        self._tidying = CoalescedTask(
            self._tidy, "clearing away files that nobody needs"
        )
        self._turns = {
            self._look: TICK,
            self._old: MINUTE,
            self._tidying: STALE_AFTER,
            self._tell: NOTIFY_AGAIN,
            self._keys: FORGET_KEYS,
        }
        self._loops: list[LoopingCall] = []

    def startService(self) -> None:
        """
        @raise SpoolUnusable: Such as when another process delivers from it.
        """
        self._spool.open(delivering=True)
        super().startService()
        now = self._startedAt = self._clock.seconds()
        self._logged(self._spool.run(lambda spool: spool.index.repair(now)))
        self._logged(
            self._spool.run(lambda spool: self._notices.tellFailures(spool, now))
        )
        for turns, seconds in self._turns.items():
            turns.start()
            loop = LoopingCall(turns.schedule)
            loop.clock = self._clock
            self._loops.append(loop)
            loop.start(seconds)

    def stopService(self) -> Deferred[None]:
        """
        @return: Fires once nothing is under way.  What was broken off counts
            as not attempted.
        """
        super().stopService()
        for loop in self._loops:
            loop.stop()
        self._loops.clear()
        return Deferred.fromCoroutine(self._land())

    def submit(self, envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        return self._thenLook(self._stored.submit(envelope, body))

    def messages(self) -> Deferred[tuple[QueuedMessage, ...]]:
        return self._stored.messages()

    def page(
        self, after: int, limit: int
    ) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        return self._stored.page(after, limit)

    def retry(self, messageID: str) -> Deferred[bool]:
        return self._thenLook(self._stored.retry(messageID))

    def hold(self, messageID: str, held: bool) -> Deferred[bool]:
        return self._thenLook(self._stored.hold(messageID, held))

    def drop(self, messageID: str) -> Deferred[bool]:
        return self._stored.drop(messageID)

    # --- what repeats -------------------------------------------------------------

    async def _lookAround(self) -> None:
        while len(self._flights) < self._limits.total:
            picked = await self._spool.read(self._pick())
            await self._holdDamaged(picked.damaged)
            for load in picked.loads:
                self._launch(load)
            if not picked.loads:
                break

    def _pick(self) -> Callable[[Spool], Pick]:
        sky, now = ActiveAttempts.of(self._flights), self._clock.seconds()
        limits, newFirst = self._limits, self._launched % 2 == 0
        return lambda spool: sky.pick(spool, limits, now, newFirst)

    async def _holdDamaged(self, damaged: Mapping[str, str]) -> None:
        for messageID, fault in damaged.items():
            await self._stored.hold(messageID, True)
            self.log.error(
                "{messageID}: its file in the spool is damaged ({fault}); it is held",
                messageID=messageID,
                fault=fault,
            )

    async def _lookForOld(self) -> None:
        """
        Tell of delays, and give up what there was no attempt for in time.
        """
        self._results.minutePassed()
        now, backoff = self._clock.seconds(), self._limits.backoff
        if backoff.noticeAfter:
            before = now - backoff.noticeAfter
            await self._repeat(self._notices.tellDelays, before=before)
        if now < self._startedAt + GRACE:
            return
        for age, brief in ((backoff.maxAge, False), (backoff.maxBriefAge, True)):
            before = now - age - GRACE
            await self._repeat(self._notices.giveUp, before=before, brief=brief)
        self._tell.schedule()

    async def _repeat(self, operation: Callable[..., bool], **more: object) -> None:
        isMore = True
        while isMore:
            busy, now = self._busy(), self._clock.seconds()
            isMore = await self._spool.run(
                partial(operation, busy=busy, now=now, **more)
            )

    async def _tidy(self) -> None:
        now = self._clock.seconds()
        found = await self._spool.read(lambda spool: spool.abandoned(now))
        if found:
            await self._spool.run(lambda spool: spool.tidy(found))

    async def _tellReports(self) -> None:
        await self._teller.tell(self._spool, self._notices)

    async def _forgetKeys(self) -> None:
        now = self._clock.seconds()
        await self._spool.run(lambda spool: spool.forgetKeys(now))

    # --- an attempt ---------------------------------------------------------------

    def _launch(self, load: DeliveryGroup) -> None:
        flight = DeliveryAttempt(load)
        self._flights.add(flight)
        self._launched += 1
        self._logged(Deferred.fromCoroutine(self._fly(flight)))

    async def _fly(self, flight: DeliveryAttempt) -> None:
        recorder = ResultRecorder(flight, lambda pairs: self._note(flight, pairs))
        try:
            results = await self._attempt(flight, recorder)
            if not self._goesOn:
                # It is we who broke it off: it counts as not made for whom it
                # hasn't come to an end, or to a part of it.
                results = tuple(
                    each
                    for each in results
                    if each.ending is not DeliveryStatus.TEMPORARY or each.stored
                )
            pairs = flight.take(results)
            if self._goesOn:
                pairs += flight.takeRest()
            flight.steps += self._steps(pairs)
            await recorder.finished()
            flight.delivering = False
            await self._settle(flight)
            for result in results:
                if result.unreachable:
                    await self._deferRest(flight.load.batch.destination, result)
                    break
        finally:
            self._flights.discard(flight)
            flight.done.callback(None)
            self._look.schedule()

    async def _attempt(
        self, flight: DeliveryAttempt, recorder: IResultRecorder
    ) -> tuple[Result, ...]:
        batch = flight.load.batch
        seconds = self._limits.parcelTime * len(batch.parcels)
        try:
            begun = self._route(batch).deliver(batch, recorder)
            limit = TimeLimit(self._clock, begun, seconds)
            return await flight.wait(limit.result, lambda: limit.cancel(LAST_WORDS))
        except (CancelledError, TimeoutError):
            self.log.warn("mail for {to!r}: broken off", to=batch.destination)
        except Exception:
            self.log.failure("mail for {to!r}", to=batch.destination)
        return ()

    async def _deferRest(self, destination: str, result: Result) -> None:
        """
        Count whatever else is due for a destination as attempted: no host of
        it can be reached.
        """
        now, chance = self._clock.seconds(), self._jitter()
        said, backoff = bounded(result), self._limits.backoff
        until = await self._spool.run(
            lambda spool: self._notices.backOff(
                spool, destination, backoff, now, chance
            )
        )
        deferred = DEFERRED_AT_ONCE
        while deferred == DEFERRED_AT_ONCE:
            deferred = await self._spool.run(
                lambda spool: spool.index.defer(
                    destination, said, until, now, DEFERRED_AT_ONCE
                )
            )
            self._results.deferred(said, deferred)

    def _steps(
        self, pairs: Iterable[tuple[QueuedMessage, Result]]
    ) -> list[RetryDecision]:
        now = self._clock.seconds()
        steps = []
        for message, result in pairs:
            self._results.ended(bounded(result))
            steps.append(
                self._limits.backoff.step(message, result, now, self._jitter())
            )
        return steps

    def _tellResult(self, result: Result) -> None:
        self.log.info(
            "{id} to {to!r}: {ending} {status} {host!r} {text!r}",
            id=result.messageID,
            to=result.recipient,
            ending=result.ending.value,
            status=result.status,
            host=result.host,
            text=result.text,
        )

    def _tellDeferred(self, host: str, number: int, last: Result) -> None:
        self.log.info(
            "{number} more recipients deferred by {host!r} within a minute, the last: "
            "{status} {text!r}",
            number=number,
            host=host,
            status=last.status,
            text=last.text,
        )

    async def _note(
        self, flight: DeliveryAttempt, pairs: Sequence[tuple[QueuedMessage, Result]]
    ) -> None:
        """
        Note results while the attempt goes on.
        """
        steps = self._steps(pairs)
        flight.steps += steps
        await self._insist(flight, lambda: self._noting.put(steps))

    def _writeNotes(
        self, groups: list[list[RetryDecision]]
    ) -> Deferred[Sequence[Exception | None]]:
        steps = [step for group in groups for step in group]
        written: list[Exception | None] = [None] * len(groups)
        writing = self._spool.run(lambda spool: spool.index.note(steps))
        return writing.addCallback(lambda _: written)

    async def _settle(self, flight: DeliveryAttempt) -> None:
        """
        Carry out what the results lead to.
        """

        def write() -> Deferred[None]:
            steps, busy, now = flight.steps, self._busy(), self._clock.seconds()
            return self._spool.run(
                lambda spool: self._notices.attempted(spool, steps, busy, now)
            )

        if flight.steps:
            await self._insist(flight, write)
        if any(step.tell is Notify.OBSERVER for step in flight.steps):
            self._tell.schedule()

    async def _insist(
        self, flight: DeliveryAttempt, write: Callable[[], Deferred[None]]
    ) -> None:
        """
        Write results, even if it takes until the disk has room again: they
        tell what has happened.
        """
        while True:
            try:
                await write()
                return
            except Exception:
                to = flight.load.batch.destination
                self.log.failure("writing results of mail for {to!r}", to=to)
            if not self._goesOn:
                return
            with suppress(CancelledError):
                pause: Deferred[None] = deferLater(self._clock, WRITE_AGAIN)
                await flight.wait(pause, pause.cancel)

    # --- helpers --------------------------------------------------------------------

    def _busy(self) -> set[str]:
        """
        Messages with recipients that are being attempted.
        """
        return {
            messageID
            for flight in self._flights
            if flight.delivering
            for messageID in flight.messageIDs
        }

    @property
    def _goesOn(self) -> bool:
        return bool(self.running)

    def _thenLook(self, result: Deferred[T]) -> Deferred[T]:
        def look(value: T) -> T:
            self._look.schedule()
            return value

        return result.addCallback(look)

    def _logged(self, result: Deferred[None]) -> None:
        result.addErrback(lambda failure: self.log.failure("in the queue", failure))

    async def _land(self) -> None:
        ending = [turns.stop() for turns in self._turns]
        ending += [flight.done for flight in self._flights]
        for flight in tuple(self._flights):
            flight.breakOff()
        await DeferredList(ending)
        self._results.minutePassed()
        await self._spool.close()
