# -*- test-case-name: tests.queue.test_attempts -*-
"""
Active delivery attempts: their results, and the selection of messages for further ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.interfaces import IResultRecorder
from moxtls.queue.index import journalLine
from moxtls.queue.schedule import (
    DeliveryGroup,
    GroupLimits,
    RetryDecision,
    deliveryGroup,
)
from moxtls.queue.spool import Spool
from moxtls.queue.types import DeliveryStatus, QueuedMessage, Result

T = TypeVar("T")

#: RFC 3463 3.4: other or undefined mail system status.
NO_RESULT = "4.3.0"


class DeliveryAttempt:
    """
    An attempt to deliver a group of messages.

    @ivar isDelivering: False once its courier has answered.
    @ivar keys: Message id and address of each recipient.
    @ivar done: Fires once the attempt is over and its results are stored.
    @ivar decisions: The decisions about recipients that have results.
    @ivar unrecorded: Those that the index doesn't have yet, as lines of the journal.
    """

    def __init__(self, group: DeliveryGroup) -> None:
        self.group = group
        self.isDelivering = True
        self.decisions: list[RetryDecision] = []
        self.unrecorded: list[str] = []
        self.done: Deferred[None] = Deferred()
        self._pending = {
            (message.messageID, message.recipients[0].recipient): message
            for message in group.due
        }
        self.keys = frozenset(self._pending)
        self._cancellers: set[Callable[[], None]] = set()

    @property
    def destination(self) -> str:
        return self.group.batch.destination

    @property
    def messageIDs(self) -> set[str]:
        return {message.messageID for message in self.group.batch.messages}

    def matchNew(self, results: Iterable[Result]) -> list[tuple[QueuedMessage, Result]]:
        """
        Match results to the messages that have none yet.  Others are ignored.
        """
        pairs = []
        for result in results:
            message = self._pending.pop((result.messageID, result.recipient), None)
            if message is not None:
                pairs.append((message, result))
        return pairs

    def matchMissing(self) -> list[tuple[QueuedMessage, Result]]:
        """
        The messages without a result, each with a temporary failure.
        """
        return self.matchNew([_noResult(*key) for key in self._pending])

    def decided(self, decisions: Sequence[RetryDecision]) -> list[str]:
        """
        Add decisions.

        @return: Their lines for the journal.
        """
        lines = [journalLine(each) for each in decisions]
        self.decisions += decisions
        self.unrecorded += lines
        return lines

    def markRecorded(self, number: int) -> None:
        """
        Note that the index has the first of C{unrecorded}.
        """
        del self.unrecorded[:number]

    def cancellable(
        self, result: Deferred[T], canceller: Callable[[], None]
    ) -> Deferred[T]:
        """
        Have L{cancel} call C{canceller} until C{result} fires.
        """

        def over(value: T | Failure) -> T | Failure:
            self._cancellers.discard(canceller)
            return value

        self._cancellers.add(canceller)
        return result.addBoth(over)

    def cancel(self) -> None:
        """
        End the attempt soon.
        """
        for canceller in tuple(self._cancellers):
            canceller()


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Groups of messages whose attempts may start now.

    @ivar damaged: Ids of messages whose files differ from the submitted messages, with
        the fault.
    """

    groups: tuple[DeliveryGroup, ...]
    damaged: dict[str, str]


@dataclass(frozen=True, slots=True)
class ActiveAttempts:
    """
    A summary of the active attempts.

    @ivar attempts: Their number, by destination.
    @ivar retries: The number of those that are retries.
    @ivar recipients: Message id and address of each recipient.
    @ivar allUntil: By destination, a time at which nothing else was due for it.
    """

    attempts: Counter[str]
    retries: int
    recipients: frozenset[tuple[str, str]]
    allUntil: Mapping[str, float]

    @classmethod
    def of(cls, attempts: Iterable[DeliveryAttempt]) -> ActiveAttempts:
        attempts = tuple(attempts)
        groups = [attempt.group for attempt in attempts]
        return cls(
            Counter(group.batch.destination for group in groups),
            sum(group.isRetry for group in groups),
            frozenset().union(*(attempt.keys for attempt in attempts)),
            {
                group.batch.destination: group.allUntil
                for group in groups
                if group.allUntil
            },
        )

    def select(
        self, spool: Spool, limits: GroupLimits, now: float, newFirst: bool
    ) -> Selection:
        """
        Operation that reads: the attempts that may start at C{now}.

        New messages and those that have waited longest take turns, so that neither
        kind waits for all of the other.  Destinations all of whose messages are in
        active attempts, as is most often the case, are skipped.

        @param newFirst: True to begin with new messages.
        """
        number = limits.maxConcurrent - self.attempts.total() + len(self.attempts)
        newest, longest = (
            [
                (destination, isNewest)
                for destination, latest in spool.index.dueDestinations(
                    now, number, isNewest
                )
                if self.attempts[destination] < limits.maxPerDestination
                and latest >= self.allUntil.get(destination, 0)
            ]
            for isNewest in (True, False)
        )
        turns = zip_longest(*((newest, longest) if newFirst else (longest, newest)))
        selector = _Selector(spool, limits, now, self)
        for candidate in (each for turn in turns for each in turn if each is not None):
            if selector.isFull:
                break
            selector.add(*candidate)
        return Selection(tuple(selector.groups), selector.damaged)


class _Selector:
    """
    Groups of messages, selected within the limits.
    """

    def __init__(
        self, spool: Spool, limits: GroupLimits, now: float, active: ActiveAttempts
    ) -> None:
        self._spool = spool
        self._limits = limits
        self._now = now
        self._attempts = Counter(active.attempts)
        self._retries = active.retries
        self._recipients = set(active.recipients)
        self._exhausted: set[str] = set()
        self.groups: list[DeliveryGroup] = []
        self.damaged: dict[str, str] = {}

    @property
    def isFull(self) -> bool:
        return self._attempts.total() >= self._limits.maxConcurrent

    def add(self, destination: str, newest: bool) -> None:
        """
        Add one group for a destination, if it has due messages in no attempt.
        """
        if (
            destination in self._exhausted
            or self._attempts[destination] >= self._limits.maxPerDestination
        ):
            return
        # Read more rows: those of active attempts are skipped.
        number = self._limits.maxRecipients
        if self._attempts[destination]:
            number += len(self._recipients)
        due = self._spool.index.due(destination, self._now, newest)
        sound = (
            each
            for each in islice(due, number)
            if self._isFree(each) and self._isSound(each)
        )
        group, isAll = deliveryGroup(destination, sound, self._limits)
        if group is None:
            return
        if (
            isAll
            and next(due, None) is None
            and not (newest and self._spool.index.hasRetries(destination, self._now))
        ):
            group = replace(group, allUntil=self._now)
            self._exhausted.add(destination)
        if group.isRetry and self._retries >= self._limits.maxRetries:
            return
        self._attempts[destination] += 1
        self._retries += group.isRetry
        self._recipients |= group.keys
        self.groups.append(group)

    def _isFree(self, message: QueuedMessage) -> bool:
        key = message.messageID, message.recipients[0].recipient
        return key not in self._recipients

    def _isSound(self, message: QueuedMessage) -> bool:
        fault = self._spool.files.fault(message.messageID, message.size)
        if fault:
            self.damaged[message.messageID] = fault
        return not fault


def _noResult(messageID: str, recipient: str) -> Result:
    return Result(
        messageID,
        recipient,
        DeliveryStatus.TEMPORARY,
        NO_RESULT,
        text="the attempt ended without a result",
    )


_Pairs = list[tuple[QueuedMessage, Result]]


@implementer(IResultRecorder)
class ResultRecorder:
    """
    L{IResultRecorder} of one attempt.
    """

    log = Logger()

    def __init__(
        self,
        attempt: DeliveryAttempt,
        write: Callable[[_Pairs], Deferred[None]],
    ) -> None:
        """
        @param write: Stores results; fires once they are on disk, or can't be stored.
        """
        self._attempt = attempt
        self._write = write
        self._writing: set[Deferred[None]] = set()

    def record(self, results: Sequence[Result]) -> Deferred[None]:
        pairs = self._attempt.matchNew(results)
        if not pairs:
            return succeed(None)
        writing = self._write(pairs)
        waiting: Deferred[None] = Deferred()

        def written(result: object) -> None:
            self._writing.discard(writing)
            # The courier may have cancelled the wait.
            if not waiting.called:
                waiting.callback(None)

        self._writing.add(writing)
        writing.addErrback(
            lambda failure: self.log.failure(
                "Recording delivery results failed", failure
            )
        )
        writing.addCallback(written)
        return waiting

    def finished(self) -> Deferred[None]:
        """
        Fires once all results that were accepted are stored.
        """
        done = DeferredList(tuple(self._writing))
        return done.addCallback(lambda results: None)


#: Hosts counted separately.
MAX_HOSTS = 1000
_OTHERS = "other hosts"


@dataclass(slots=True)
class _Count:
    """
    @ivar last: The last result.
    @ivar number: Recipients deferred since the last line.
    """

    last: Result
    number: int = 0


class ResultLog:
    """
    Logs final results one by one, and counts of deferred recipients by host.
    """

    def __init__(
        self,
        logResult: Callable[[Result], None],
        logDeferred: Callable[[str, int, Result], None],
    ) -> None:
        """
        @param logResult: Logs one result.
        @param logDeferred: Logs a number of further recipients deferred by a host, and
            the last result.
        """
        self._logResult = logResult
        self._logDeferred = logDeferred
        self._counts: dict[str, _Count] = {}

    def ended(self, result: Result) -> None:
        """
        Log or count the result for one recipient.
        """
        if result.ending is DeliveryStatus.TEMPORARY:
            host = self._host(result)
            if host in self._counts:
                self.deferred(result, 1)
                return
            self._counts[host] = _Count(result)
        self._logResult(result)

    def deferred(self, result: Result, number: int) -> None:
        """
        Count a number of recipients deferred with C{result}.
        """
        count = self._counts.setdefault(self._host(result), _Count(result))
        count.number += number
        count.last = result

    def minutePassed(self) -> None:
        """
        Log the deferrals counted since the last call.  To be called each minute.
        """
        counts, self._counts = self._counts, {}
        for host, count in counts.items():
            if count.number:
                self._logDeferred(host, count.number, count.last)
                # Count the next deferral instead of logging it at once.
                self._counts[host] = _Count(count.last)

    def _host(self, result: Result) -> str:
        host = result.host or result.recipient.rpartition("@")[2]
        isFull = host not in self._counts and len(self._counts) >= MAX_HOSTS
        return _OTHERS if isFull else host
