# -*- test-case-name: tests.queue.test_service -*-
"""
One attempt that is under way, and which ones may start beside all of them.

Records the results of attempts while they go on, those of all attempts together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.interfaces import IResultRecorder
from moxtls.queue.batches import DeliveryGroup, GroupLimits, deliveryGroups
from moxtls.queue.retry import RetryDecision
from moxtls.queue.spool import Spool
from moxtls.queue.types import DeliveryStatus, QueuedMessage, Result

T = TypeVar("T")

#: Seconds for a courier to end what it can't break off.
LAST_WORDS = 15.0

#: RFC 3463 3.4: other or undefined mail system status.
NO_WORD = "4.3.0"


class DeliveryAttempt:
    """
    An attempt.

    @ivar delivering: Whether its courier has not answered yet.
    @ivar done: Fires once it is over.
    @ivar steps: What results lead to, as far as there are any.
    """

    def __init__(self, load: DeliveryGroup) -> None:
        self.load = load
        self.delivering = True
        self.steps: list[RetryDecision] = []
        self.done: Deferred[None] = Deferred()
        self._pending = {
            (message.messageID, message.recipients[0].recipient): message
            for message in load.due
        }
        self._waits: set[Callable[[], None]] = set()

    @property
    def messageIDs(self) -> set[str]:
        return {parcel.messageID for parcel in self.load.batch.parcels}

    def take(self, results: Iterable[Result]) -> list[tuple[QueuedMessage, Result]]:
        """
        Those of C{results} that are new, each with its message: they are the
        caller's to record.
        """
        pairs = []
        for result in results:
            message = self._pending.pop((result.messageID, result.recipient), None)
            if message is not None:
                pairs.append((message, result))
        return pairs

    def takeRest(self) -> list[tuple[QueuedMessage, Result]]:
        """
        The same for whatever was attempted without a result.
        """
        return self.take([_noWord(*key) for key in self._pending])

    def wait(self, result: Deferred[T], cancel: Callable[[], None]) -> Deferred[T]:
        """
        Have L{breakOff} call C{cancel} until C{result} fires.
        """

        def over(value: T | Failure) -> T | Failure:
            self._waits.discard(cancel)
            return value

        self._waits.add(cancel)
        return result.addBoth(over)

    def breakOff(self) -> None:
        """
        Have the attempt end soon.
        """
        for cancel in tuple(self._waits):
            cancel()


@dataclass(frozen=True, slots=True)
class Pick:
    """
    What may start now.

    @ivar damaged: Messages whose files aren't what was submitted, and what is
        wrong with them.
    """

    loads: tuple[DeliveryGroup, ...]
    damaged: dict[str, str]


@dataclass(frozen=True, slots=True)
class ActiveAttempts:
    """
    Which attempts are under way.

    @ivar attempts: How many, by destination.
    @ivar retries: How many of them aren't the first for what they carry.
    @ivar recipients: Message and address.
    @ivar allUntil: Destinations for which nothing else was due, and when.
    """

    attempts: Counter[str]
    retries: int
    recipients: frozenset[tuple[str, str]]
    allUntil: Mapping[str, float]

    @classmethod
    def of(cls, flights: Iterable[DeliveryAttempt]) -> ActiveAttempts:
        aloft = [flight.load for flight in flights]
        return cls(
            Counter(load.batch.destination for load in aloft),
            sum(load.isRetry for load in aloft),
            frozenset(key for load in aloft for key in load.keys),
            {load.batch.destination: load.allUntil for load in aloft if load.allUntil},
        )

    def pick(
        self, spool: Spool, limits: GroupLimits, now: float, newFirst: bool
    ) -> Pick:
        """
        Operation that reads: what can start at C{now}.

        New mail and whatever has waited longest take turns, so that neither
        waits for all of the other.  Destinations all of whose mail is under
        way, which most are most of the time, aren't looked at.

        @param newFirst: Whose turn it is.
        """
        most = limits.total - self.attempts.total() + len(self.attempts)
        newest, longest = (
            [
                (destination, isNewest)
                for destination, latest in spool.index.lanes(now, most, isNewest)
                if self.attempts[destination] < limits.perDestination
                and latest >= self.allUntil.get(destination, 0)
            ]
            for isNewest in (True, False)
        )
        turns = zip_longest(*((newest, longest) if newFirst else (longest, newest)))
        picking = _Picking(spool, limits, now, self)
        for place in (each for turn in turns for each in turn if each is not None):
            if picking.isFull:
                break
            picking.take(*place)
        return Pick(tuple(picking.loads), picking.damaged)


class _Picking:
    """
    Attempts that are being put together.
    """

    def __init__(
        self, spool: Spool, limits: GroupLimits, now: float, sky: ActiveAttempts
    ) -> None:
        self._spool = spool
        self._limits = limits
        self._now = now
        self._attempts = Counter(sky.attempts)
        self._retries = sky.retries
        self._recipients = set(sky.recipients)
        self.loads: list[DeliveryGroup] = []
        self.damaged: dict[str, str] = {}

    @property
    def isFull(self) -> bool:
        return self._attempts.total() >= self._limits.total

    def take(self, destination: str, newest: bool) -> None:
        """
        Add one attempt, if there is something left for it.
        """
        if self._attempts[destination] >= self._limits.perDestination:
            return
        most = self._limits.recipients
        if self._attempts[destination]:
            most += len(self._recipients)
        due = self._spool.index.due(destination, self._now, most, newest)
        sound = [each for each in due if self._isFree(each) and self._isSound(each)]
        isAll = len(due) < most and not (
            newest and self._spool.index.hasRetries(destination, self._now)
        )
        for load in deliveryGroups(destination, sound, self._limits, 1):
            if isAll and len(load.due) == len(sound):
                load = replace(load, allUntil=self._now)
            if load.isRetry and self._retries >= self._limits.retries:
                return
            self._attempts[destination] += 1
            self._retries += load.isRetry
            self._recipients |= load.keys
            self.loads.append(load)

    def _isFree(self, message: QueuedMessage) -> bool:
        key = message.messageID, message.recipients[0].recipient
        return key not in self._recipients

    def _isSound(self, message: QueuedMessage) -> bool:
        fault = self._spool.bodies.fault(message.messageID, message.size)
        if fault:
            self.damaged[message.messageID] = fault
        return not fault


def _noWord(messageID: str, recipient: str) -> Result:
    return Result(
        messageID,
        recipient,
        DeliveryStatus.TEMPORARY,
        NO_WORD,
        text="the attempt ended without a result",
    )


_Pairs = list[tuple[QueuedMessage, Result]]


@implementer(IResultRecorder)
class ResultRecorder:
    """
    L{IResultRecorder} for one attempt of the queue.
    """

    log = Logger()

    def __init__(
        self,
        flight: DeliveryAttempt,
        write: Callable[[_Pairs], Coroutine[Deferred[Any], Any, None]],
    ) -> None:
        """
        @param write: Records results, and returns once they are on disk, or
            never will be.
        """
        self._flight = flight
        self._write = write
        self._writing: set[Deferred[None]] = set()

    def record(self, results: Sequence[Result]) -> Deferred[None]:
        pairs = self._flight.take(results)
        if not pairs:
            return succeed(None)
        writing = Deferred.fromCoroutine(self._write(pairs))
        waiting: Deferred[None] = Deferred()

        def written(result: object) -> None:
            self._writing.discard(writing)
            # Unless it was cancelled.
            if not waiting.called:
                waiting.callback(None)

        self._writing.add(writing)
        writing.addErrback(
            lambda failure: self.log.failure("recording results", failure)
        )
        writing.addCallback(written)
        return waiting

    def finished(self) -> Deferred[None]:
        """
        Fires once whatever was taken is recorded.
        """
        done = DeferredList(tuple(self._writing))
        return done.addCallback(lambda results: None)
