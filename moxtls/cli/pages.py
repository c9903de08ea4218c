# -*- test-case-name: tests.cli.test_results -*-
"""
Reads long lists a page at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")

#: The page size: values in memory at a time.
AT_ONCE = 1000


async def paged(
    load: Callable[[T | None, int], Deferred[tuple[T, ...]]], atOnce: int = 0
) -> AsyncIterator[T]:
    """
    Iterate over all values of a paged list.

    @param load: Loads at most the given number of values after the last value of the
        page before.
    @param atOnce: The page size; 0 for the default.
    """
    last: T | None = None
    while found := await load(last, atOnce or AT_ONCE):
        for each in found:
            yield each
        last = found[-1]
