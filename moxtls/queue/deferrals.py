# -*- test-case-name: tests.queue.test_deferrals -*-
"""
Logs delivery results: one line for each final one, and for deferrals one line for each
host and minute.  No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moxtls.queue.types import DeliveryStatus, Result

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
    Chooses the results that are logged.
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
                # One line in the next minute as well, not two.
                self._counts[host] = _Count(count.last)

    def _host(self, result: Result) -> str:
        host = result.host or result.recipient.rpartition("@")[2]
        isFull = host not in self._counts and len(self._counts) >= MAX_HOSTS
        return _OTHERS if isFull else host
