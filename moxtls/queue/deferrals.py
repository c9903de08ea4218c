# -*- test-case-name: tests.queue.test_deferrals -*-
"""
Logs how attempts ended: one line for each recipient that is done with, and one
for each host and minute that put some off.  No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moxtls.queue.types import DeliveryStatus, Result

#: Hosts counted one by one.
MAX_HOSTS = 1000
_OTHERS = "other hosts"


@dataclass(slots=True)
class _Count:
    """
    @ivar last: What was said last.
    @ivar number: Recipients put off since the last line.
    """

    last: Result
    number: int = 0


class ResultLog:
    """
    Says what became of recipients.
    """

    def __init__(
        self,
        say: Callable[[Result], None],
        sayDeferred: Callable[[str, int, Result], None],
    ) -> None:
        """
        @param say: Logs one result.
        @param sayDeferred: Logs that so many more recipients were put off by a
            host, and what was said to the last.
        """
        self._say = say
        self._sayDeferred = sayDeferred
        self._counts: dict[str, _Count] = {}

    def ended(self, result: Result) -> None:
        """
        An attempt for one recipient has ended.
        """
        if result.ending is DeliveryStatus.TEMPORARY:
            host = self._host(result)
            if host in self._counts:
                self.deferred(result, 1)
                return
            self._counts[host] = _Count(result)
        self._say(result)

    def deferred(self, result: Result, number: int) -> None:
        """
        So many recipients were put off with C{result}.
        """
        count = self._counts.setdefault(self._host(result), _Count(result))
        count.number += number
        count.last = result

    def minutePassed(self) -> None:
        """
        Say what was counted.
        """
        counts, self._counts = self._counts, {}
        for host, count in counts.items():
            if count.number:
                self._sayDeferred(host, count.number, count.last)
                # In the next minute there is to be one line again, not two.
                self._counts[host] = _Count(count.last)

    def _host(self, result: Result) -> str:
        host = result.host or result.recipient.rpartition("@")[2]
        isFull = host not in self._counts and len(self._counts) >= MAX_HOSTS
        return _OTHERS if isFull else host
