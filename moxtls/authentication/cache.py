# -*- test-case-name: tests.authentication.test_check -*-
"""
A cache whose entries expire, bounded in size.  No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """
    Keeps at most C{maxEntries} values, each for at most C{seconds}.
    """

    def __init__(self, maxEntries: int, seconds: float) -> None:
        self._maxEntries = maxEntries
        self._seconds = seconds
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """
        @return: C{None} if there is no entry, or it has expired.
        """
        entry = self._entries.get(key)
        # An entry from the future was made before the clock was set back.
        if entry is None or not 0 <= now - entry[0] <= self._seconds:
            return None
        return entry[1]

    def put(self, key: K, value: V, now: float) -> tuple[V, ...]:
        """
        Add or replace an entry; beyond the limit, the oldest one is evicted.

        @return: The values that were replaced or evicted.
        """
        removed = [self._entries.pop(key)] if key in self._entries else []
        self._entries[key] = now, value
        if len(self._entries) > self._maxEntries:
            removed.append(self._entries.popitem(last=False)[1])
        return tuple(each for _, each in removed)
