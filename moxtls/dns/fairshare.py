# -*- test-case-name: tests.dns.test_fairshare -*-
"""
Limits concurrent DNS queries per client network.

The client that sends a message chooses the names that are looked up for it, and may
operate name servers that answer slowly.
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

#: Concurrent queries for all clients, of those that a resolver makes: the rest is
#: for outgoing mail.
MAX_SHARED_QUERIES = MAX_QUERIES * 4 // 5
#: Concurrent queries for one client.  A message mostly needs some ten.
MAX_QUERIES_PER_CLIENT = MAX_SHARED_QUERIES // 4

T = TypeVar("T")


class FairResolver:
    """
    Limits concurrent queries, in all and for each client.  Further lookups wait,
    and are started for one client after the other.  Cached answers don't count.
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

    def forClient(self, client: str) -> IResolver:
        """
        A resolver for the lookups of one client.
        """
        return _ClientResolver(self, client)

    def lookup(self, client: str, name: str, kind: RRType) -> Deferred[Answer]:
        """
        As L{IResolver.lookup}, within the limits.
        """
        if self._hasRoom(client):
            return self._start(None, client, name, kind)
        turn: Deferred[None] = Deferred(lambda turn: self._leave(client, turn))
        self._waiting.setdefault(client, OrderedDict())[turn] = None
        return turn.addCallback(self._start, client, name, kind)

    def _hasRoom(self, client: str) -> bool:
        return (
            self._total < self._maxQueries
            and self._running[client] < self._maxPerClient
        )

    def _start(
        self, turn: None, client: str, name: str, kind: RRType
    ) -> Deferred[Answer]:
        answer = self.resolver.lookup(name, kind)
        if answer.called and not answer.paused:
            return answer
        self._running[client] += 1
        self._total += 1
        return answer.addBoth(self._ended, client)

    def _ended(self, result: T, client: str) -> T:
        self._total -= 1
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._next()
        return result

    def _next(self) -> None:
        """
        Start waiting lookups while there is room, one for each client in turn.
        """
        while client := next(filter(self._hasRoom, self._waiting), None):
            turns = self._waiting.pop(client)
            turn, _ = turns.popitem(last=False)
            if turns:
                self._waiting[client] = turns
            turn.callback(None)

    def _leave(self, client: str, turn: Deferred[None]) -> None:
        turns = self._waiting[client]
        del turns[turn]
        if not turns:
            del self._waiting[client]


@implementer(IResolver)
@dataclass(frozen=True, slots=True)
class _ClientResolver:
    _resolver: FairResolver
    _client: str

    @property
    def validating(self) -> bool:
        return self._resolver.resolver.validating

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        return self._resolver.lookup(self._client, name, kind)
