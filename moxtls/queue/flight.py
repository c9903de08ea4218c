# -*- test-case-name: tests.queue.test_service -*-
"""
One attempt that is under way, and what is known of all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from moxtls.queue.loads import Limits, Load, loads
from moxtls.queue.spool import Spool
from moxtls.queue.values import Ending, QueuedMessage, Result

T = TypeVar("T")

#: RFC 3463 3.4: other or undefined mail system status.
NO_WORD = "4.3.0"


class Flight:
    """
    An attempt.

    @ivar done: Fires once it is over.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        self.done: Deferred[None] = Deferred()
        self._pending = {
            (message.messageID, message.recipients[0].recipient): message
            for message in load.due
        }
        self._waits: set[Deferred[Any]] = set()

    @property
    def messageIDs(self) -> set[str]:
        """
        Messages with recipients for whom there is no result yet.
        """
        return {messageID for messageID, _ in self._pending}

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

    def wait(self, result: Deferred[T]) -> Deferred[T]:
        """
        Have L{breakOff} cancel C{result}.
        """

        def over(value: T | Failure) -> T | Failure:
            self._waits.discard(result)
            return value

        self._waits.add(result)
        return result.addBoth(over)

    def breakOff(self) -> None:
        """
        Have the attempt end soon.
        """
        for result in tuple(self._waits):
            result.cancel()


@dataclass(frozen=True, slots=True)
class Sky:
    """
    Which attempts are under way.

    @ivar attempts: How many, by destination.
    @ivar recipients: Message and address.
    """

    attempts: Counter[str]
    recipients: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, flights: Iterable[Flight]) -> Sky:
        aloft = [flight.load for flight in flights]
        return cls(
            Counter(load.batch.destination for load in aloft),
            frozenset(
                (message.messageID, message.recipients[0].recipient)
                for load in aloft
                for message in load.due
            ),
        )

    def pick(self, spool: Spool, limits: Limits, now: float) -> list[Load]:
        """
        Operation: what can start at C{now}.
        """
        free = limits.total - self.attempts.total()
        picked: list[Load] = []
        # Destinations under way may be all that the first of them are.
        for destination in spool.index.lanes(now, len(self.attempts) + free):
            room = min(limits.perDestination - self.attempts[destination], free)
            if room > 0:
                found = self._pickFrom(spool, destination, limits, room, now)
                picked += found
                free -= len(found)
        return picked

    def _pickFrom(
        self, spool: Spool, destination: str, limits: Limits, room: int, now: float
    ) -> list[Load]:
        most = room * limits.recipients
        if self.attempts[destination]:
            most += len(self.recipients)
        due = [
            message
            for message in spool.index.due(destination, now, most)
            if (message.messageID, message.recipients[0].recipient)
            not in self.recipients
        ]
        return loads(destination, due, limits, room)


def limited(
    clock: IReactorTime,
    begin: Callable[[], Deferred[tuple[Result, ...]]],
    seconds: float,
) -> Deferred[tuple[Result, ...]]:
    """
    What C{begin} leads to; fails with C{TimeoutError} if that takes too long,
    whether or not what was begun can be cancelled.
    """
    begun = begin()
    result: Deferred[tuple[Result, ...]] = Deferred(lambda _: begun.cancel())
    end = clock.callLater(seconds, lambda: _endLate(begun, result))

    def answer(outcome: tuple[Result, ...] | Failure) -> None:
        if end.active():
            end.cancel()
        if result.called:
            return
        if isinstance(outcome, Failure):
            result.errback(outcome)
        else:
            result.callback(outcome)

    begun.addBoth(answer)
    return result


def _endLate(
    begun: Deferred[tuple[Result, ...]], result: Deferred[tuple[Result, ...]]
) -> None:
    begun.cancel()
    if not result.called:
        result.errback(Failure(TimeoutError()))


def _noWord(messageID: str, recipient: str) -> Result:
    return Result(
        messageID,
        recipient,
        Ending.TEMPORARY,
        NO_WORD,
        text="the attempt ended without a result",
    )
