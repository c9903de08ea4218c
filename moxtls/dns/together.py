# -*- test-case-name: tests.dns.test_resolver -*-
"""
Waits for several things at a time, and for inquiries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

from moxtls.dns.inquiry import LookupGenerator
from moxtls.interfaces import IResolver

T = TypeVar("T")


async def gather(pending: Sequence[Deferred[T]]) -> list[T]:
    """
    The results of all, in order.  When this is cancelled, all are; and who
    waits sees a C{CancelledError}, where C{gatherResults} alone would hide it
    in a C{FirstError}.
    """
    if all(each.called for each in pending):
        # As with answers out of a cache.
        return [await each for each in pending]
    try:
        return await gatherResults(pending, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()


async def resolve(resolver: IResolver, inquiry: LookupGenerator[T]) -> T:
    """
    Ask what an inquiry wants to know, and return what it found.
    """
    try:
        questions = next(inquiry)
        while True:
            pending = [resolver.lookup(each.name, each.kind) for each in questions]
            questions = inquiry.send(tuple(await gather(pending)))
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        inquiry.close()
