# -*- test-case-name: tests.dns.test_resolver -*-
"""
Resolver that queries recursive servers, caches their answers, and probes the servers
for DNSSEC validation; and limits on concurrent queries for each client.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.dates import MINUTE
from moxtls.dns.answers import (
    MAX_ENTRIES,
    Cache,
    needsSteps,
    stepQuestions,
    withStepAuthenticity,
)
from moxtls.dns.transport import NoReply, SendQuery
from moxtls.dns.types import Answer, ExtendedError, NameServer, RRType
from moxtls.dns.validation import ROOT, Diagnosis, ServerStatus, diagnose
from moxtls.dns.wire import (
    MAX_ERRORS,
    Question,
    failedAnswer,
    invalidNameAnswer,
    makeQuestion,
)
from moxtls.interfaces import IResolver
from moxtls.tasks import SharedTask, gather

#: Seconds to wait for each server, in each round.  A recursive server mostly answers
#: within the first; a slower one has the answer ready for the second query.
SERVER_TIMEOUTS = (2.0, 5.0)
#: Seconds for a lookup altogether, including the wait for a slot: a delivery rather
#: retries later.
QUERY_TIMEOUT = 20.0
#: Concurrent queries, each with a socket; a process may have 1024 open files.
MAX_QUERIES = 100
#: Seconds until a change of the servers is noticed.
PROBE_INTERVAL = MINUTE
#: Concurrent queries for all clients, of those that a resolver makes: the rest is
#: for outgoing mail.
MAX_SHARED_QUERIES = MAX_QUERIES * 4 // 5
#: Concurrent queries for one client.  A message mostly needs some ten.
MAX_QUERIES_PER_CLIENT = MAX_SHARED_QUERIES // 4

T = TypeVar("T")


@implementer(IResolver)
class Resolver:
    """
    Queries servers one after the other, until one answers.

    As long as any server is known to validate, only such servers are queried:
    otherwise an attacker could make them fail, and forge the answer of a server
    that doesn't validate.

    @param servers: In order of preference; the one that answered last is
        queried first.
    @param ask: Sends a query, as L{moxtls.dns.transport.DNSTransport.ask} does.
    @ivar validating: True if a probe found a trusted server that validates.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        servers: Sequence[NameServer],
        ask: SendQuery,
        maxQueries: int = MAX_QUERIES,
        maxEntries: int = MAX_ENTRIES,
    ) -> None:
        self._clock = clock
        self._servers = tuple(servers)
        self._ask = ask
        self._slots = DeferredSemaphore(maxQueries)
        self._cache = Cache(maxEntries)
        self._pending: dict[Question, SharedTask[Answer]] = {}
        self._statuses: dict[NameServer, ServerStatus] = {}
        self._answeredLast: NameServer | None = None

    @property
    def validating(self) -> bool:
        return ServerStatus.VALIDATING in self._statuses.values()

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        asked = makeQuestion(name, kind)
        if asked is None:
            return succeed(invalidNameAnswer(name, kind))
        known = self._cache.get(asked, self._clock.seconds())
        if known is None or self._needsSteps(known):
            return Deferred.fromCoroutine(self._lookup(asked))
        return succeed(known)

    def probe(self, name: str = ROOT) -> Deferred[Diagnosis]:
        """
        Find out which servers validate.  A server that doesn't answer keeps its
        status.

        @param name: A zone that is signed.

        @return: Fires, after some seconds at most, with a L{Diagnosis}.
        """
        return Deferred.fromCoroutine(self._probe(name))

    async def _probe(self, name: str) -> Diagnosis:
        diagnosis = await diagnose(self._askFirst, self._servers, name)
        before = self.validating
        for each in diagnosis.reports:
            if each.status is not ServerStatus.NOT_ANSWERING:
                self._statuses[each.server] = each.status
        if self.validating != before:
            self._cache.clear()  # answers with another authenticity
        return diagnosis

    async def _lookup(self, asked: Question) -> Answer:
        answer = await self._known(asked)
        if not self._needsSteps(answer):
            return answer
        parts = await gather([self._known(each) for each in stepQuestions(answer)])
        return withStepAuthenticity(answer, parts)

    def _needsSteps(self, answer: Answer) -> bool:
        return needsSteps(answer) and any(
            each.trustsAD
            and self._statuses.get(each) is not ServerStatus.NOT_VALIDATING
            for each in self._inUse()
        )

    def _known(self, asked: Question) -> Deferred[Answer]:
        """
        The answer from the cache or from servers.
        """
        known = self._cache.get(asked, self._clock.seconds())
        if known is not None:
            return succeed(known)
        if asked in self._pending:
            return self._pending[asked].join()
        shared = self._pending[asked] = SharedTask[Answer]()
        answer = shared.join()
        query = Deferred.fromCoroutine(self._query(asked))
        query.addTimeout(QUERY_TIMEOUT, self._clock)
        query.addErrback(self._queryFailed, asked)
        shared.start(query.addBoth(self._queryEnded, asked))
        return answer

    def _queryFailed(self, reason: Failure, asked: Question) -> Answer | Failure:
        if reason.check(TimeoutError):
            return failedAnswer(asked, "no answer in time")
        if reason.check(CancelledError):
            return reason
        self.log.failure("DNS query for {asked!r} failed", reason, asked=asked)
        return failedAnswer(asked, "internal error")

    def _queryEnded(
        self, result: Answer | Failure, asked: Question
    ) -> Answer | Failure:
        del self._pending[asked]
        if isinstance(result, Answer):
            self._cache.put(asked, result, self._clock.seconds())
        return result

    async def _query(self, asked: Question) -> Answer:
        async with self._slots:
            return await self._queryServers(asked)

    async def _queryServers(self, asked: Question) -> Answer:
        failures = _Failures()
        servers = self._inUse()
        for timeout in SERVER_TIMEOUTS:
            for server in servers:
                reply = await self._askOne(server, asked, timeout)
                if isinstance(reply, Answer) and not reply.failed:
                    self._answeredLast = server
                    return reply
                failures.add(server, reply)
                if failures.areFinal:
                    return failures.answer(asked)
            # The others have answered that they failed.
            servers = tuple(each for each in servers if each in failures.silent)
        return failures.answer(asked)

    async def _askOne(
        self, server: NameServer, asked: Question, timeout: float
    ) -> Answer | NoReply:
        reply = self._ask(server, asked).addTimeout(timeout, self._clock)
        try:
            return await reply
        except TimeoutError:
            return NoReply(f"no answer within {timeout:g} s")

    def _askFirst(
        self, server: NameServer, asked: Question
    ) -> Deferred[Answer | NoReply]:
        return Deferred.fromCoroutine(self._askOne(server, asked, SERVER_TIMEOUTS[0]))

    def _inUse(self) -> tuple[NameServer, ...]:
        best = [
            each
            for each in self._servers
            if self._statuses.get(each) is ServerStatus.VALIDATING
        ]
        if not best and not self._statuses:
            # Not known yet.
            best = [each for each in self._servers if each.trustsAD]
        inUse = best or self._servers
        return tuple(sorted(inUse, key=lambda each: each != self._answeredLast))


class _Failures:
    """
    Collects the failures of servers.

    @ivar silent: The servers that didn't answer, and might still.
    @ivar areFinal: True if no other server needs to be queried: a trusted server
        has found that DNSSEC validation fails.
    """

    def __init__(self) -> None:
        self.silent: set[NameServer] = set()
        self.areFinal = False
        self._reasons: dict[NameServer, str] = {}
        self._errors: dict[ExtendedError, None] = {}

    def add(self, server: NameServer, reply: Answer | NoReply) -> None:
        self._reasons[server] = reply.reason
        if isinstance(reply, NoReply):
            self.silent.add(server)
            return
        self.silent.discard(server)
        self._errors.update(dict.fromkeys(reply.errors))
        self.areFinal = server.trustsAD and reply.dnssecError is not None

    def answer(self, asked: Question) -> Answer:
        reasons = (f"{server}: {reason}" for server, reason in self._reasons.items())
        reason = "; ".join(reasons) or "no DNS server is configured"
        return failedAnswer(asked, reason, tuple(self._errors)[:MAX_ERRORS])


@implementer(IResolver)
class ProbedResolver(Service):
    """
    Probes the servers at the start and every L{PROBE_INTERVAL} seconds, and logs
    each change of the result.

    Lookups wait for the end of the first probe: otherwise the first messages after
    a start would be sent without DANE.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, resolver: Resolver) -> None:
        self._resolver = resolver
        self._description: str | None = None
        self._waiting: set[Deferred[None]] = set()
        self._probing: Deferred[None] = succeed(None)
        self._loop = LoopingCall(self._probe)
        self._loop.clock = clock

    @property
    def validating(self) -> bool:
        return self._resolver.validating

    def startService(self) -> None:
        super().startService()
        self._loop.start(PROBE_INTERVAL)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._probing.cancel()
        return self._probing

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        if self._description is not None:
            return self._resolver.lookup(name, kind)
        return Deferred.fromCoroutine(self._lookupLater(name, kind))

    def probe(self) -> Deferred[Diagnosis]:
        """
        Probe now.

        @return: Fires with the diagnosis.
        """
        return self._resolver.probe().addCallback(self._diagnosed)

    async def _lookupLater(self, name: str, kind: RRType) -> Answer:
        waiting: Deferred[None] = Deferred(self._waiting.discard)
        self._waiting.add(waiting)
        await waiting
        return await self._resolver.lookup(name, kind)

    def _probe(self) -> None:
        self._probing = Deferred.fromCoroutine(self._probeAndLog())

    async def _probeAndLog(self) -> None:
        try:
            await self.probe()
        except CancelledError:
            pass  # stopService
        except Exception:
            self.log.failure("probing DNS servers failed")

    def _diagnosed(self, diagnosis: Diagnosis) -> Diagnosis:
        description = diagnosis.describe()
        if description != self._description:
            self._description = description
            log = self.log.info if diagnosis.validating else self.log.critical
            log("{diagnosis}", diagnosis=description)
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            each.callback(None)
        return diagnosis


class FairResolver:
    """
    Limits concurrent queries, in all and for each client.  Further lookups wait,
    and are started for one client after the other.  Cached answers don't count.

    The client that sends a message chooses the names that are looked up for it, and
    may operate name servers that answer slowly.
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
