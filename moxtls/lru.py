# -*- test-case-name: tests.authentication.test_check -*-
"""
What was found out a moment ago.  No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """
    So many of them, each for so long.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K, now: float) -> V | None:
        """
        @return: C{None} if it isn't remembered, or not any more.
        """
        known = self._known.get(key)
        # What seems to be from the future is of a clock that was set back since.
        if known is None or not 0 <= now - known[0] <= self._seconds:
            return None
        return known[1]

    def put(self, key: K, value: V, now: float) -> tuple[V, ...]:
        """
        In place of what was remembered; what has been for longest may go.

        @return: What isn't remembered any more.
        """
        gone = [self._known.pop(key)] if key in self._known else []
        self._known[key] = now, value
        if len(self._known) > self._most:
            gone.append(self._known.popitem(last=False)[1])
        return tuple(each for _, each in gone)
