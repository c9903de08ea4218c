# -*- test-case-name: tests.dns.test_fairshare -*-
"""
Look-ups for strangers, of whom none is to use up what there is for all.

Whoever sends mail says which names are looked up for it, and has them answered as
slowly as he likes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.dns.resolver import MAX_QUERIES
from moxtls.dns.types import Answer, RRType
from moxtls.interfaces import IResolver

#: Look-ups for strangers at a time, of those that a resolver makes: some are left
#: for our own mail.
MAX_SHARED_QUERIES = MAX_QUERIES * 4 // 5
#: Of them for one stranger.  A message mostly needs some ten.
MAX_QUERIES_PER_CLIENT = MAX_SHARED_QUERIES // 4

T = TypeVar("T")


class FairResolver:
    """
    So many look-ups at a time, and so many for each stranger; others wait, and
    strangers take turns.  What a resolver remembers costs nothing.
    """

    def __init__(
        self,
        resolver: IResolver,
        maxQueries: int = MAX_SHARED_QUERIES,
        maxPerClient: int = MAX_QUERIES_PER_CLIENT,
    ) -> None:
        self.resolver = resolver
        self._maxQueries = maxQueries
        self._maxPerClient = maxPerClient
        self._running: Counter[str] = Counter()
        self._total = 0
        self._waiting: OrderedDict[str, OrderedDict[Deferred[None], None]]
        self._waiting = OrderedDict()

    def of(self, stranger: str) -> IResolver:
        """
        A resolver that asks for one of them.
        """
        return _ClientResolver(self, stranger)

    def lookup(self, stranger: str, name: str, kind: RRType) -> Deferred[Answer]:
        """
        As L{IResolver.lookup}, in turn.
        """
        if self._hasRoom(stranger):
            return self._begin(None, stranger, name, kind)
        turn: Deferred[None] = Deferred(lambda turn: self._leave(stranger, turn))
        self._waiting.setdefault(stranger, OrderedDict())[turn] = None
        return turn.addCallback(self._begin, stranger, name, kind)

    def _hasRoom(self, stranger: str) -> bool:
        return (
            self._total < self._maxQueries
            and self._running[stranger] < self._maxPerClient
        )

    def _begin(
        self, turn: None, stranger: str, name: str, kind: RRType
    ) -> Deferred[Answer]:
        answer = self.resolver.lookup(name, kind)
        if answer.called and not answer.paused:
            return answer
        self._running[stranger] += 1
        self._total += 1
        return answer.addBoth(self._ended, stranger)

    def _ended(self, result: T, stranger: str) -> T:
        self._total -= 1
        self._running[stranger] -= 1
        if not self._running[stranger]:
            del self._running[stranger]
        self._next()
        return result

    def _next(self) -> None:
        """
        Let those begin for whom there is room, of each stranger one, and again.
        """
        while stranger := next(filter(self._hasRoom, self._waiting), None):
            turns = self._waiting.pop(stranger)
            turn, _ = turns.popitem(last=False)
            if turns:
                self._waiting[stranger] = turns
            turn.callback(None)

    def _leave(self, stranger: str, turn: Deferred[None]) -> None:
        turns = self._waiting[stranger]
        del turns[turn]
        if not turns:
            del self._waiting[stranger]


@implementer(IResolver)
@dataclass(frozen=True, slots=True)
class _ClientResolver:
    _shares: FairResolver
    _stranger: str

    @property
    def validating(self) -> bool:
        return self._shares.resolver.validating

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        return self._shares.lookup(self._stranger, name, kind)
