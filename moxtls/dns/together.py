# -*- test-case-name: tests.dns.test_resolver -*-
"""
Waits for several things at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

T = TypeVar("T")


async def together(pending: Sequence[Deferred[T]]) -> list[T]:
    """
    The results of all, in order.  When this is cancelled, all are; and who
    waits sees a C{CancelledError}, where C{gatherResults} alone would hide it
    in a C{FirstError}.
    """
    try:
        return await gatherResults(pending, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
