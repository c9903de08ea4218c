# -*- test-case-name: tests.dns.test_resolver -*-
"""
An L{IResolver} that asks recursive servers, and remembers what they say.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.dns.cache import MAX_ENTRIES, Cache
from moxtls.dns.cname import needsSteps, stepQuestions, withStepAuthenticity
from moxtls.dns.resolvconf import NameServer
from moxtls.dns.transport import Ask, NoReply
from moxtls.dns.types import Answer, ExtendedError, RRType
from moxtls.dns.validation import ROOT, Diagnosis, ServerStatus, diagnose
from moxtls.dns.wire import MAX_ERRORS, Question, failure, noName, question
from moxtls.interfaces import IResolver
from moxtls.tasks import gather

#: For how many seconds each server is waited for, in each round.  A recursive
#: server that is alive mostly answers within the first; those that take longer
#: have it ready when they are asked again.
TIMEOUT = (2.0, 5.0)
#: For how many seconds a question is pursued altogether, waiting for its turn
#: included: whoever delivers mail rather tries again later.
MAX_QUERY_LENGTH = 20.0
#: Sockets in use at a time; a process may have 1024 open files.
MAX_QUERIES = 100


@implementer(IResolver)
class Resolver:
    """
    Asks servers one after the other, until one can say.

    As long as any server is known to validate, only such servers are asked:
    if asking went on to one that doesn't validate, an attacker would only have
    to make the others fail to have his forgeries believed.

    @param servers: In order of preference; the one that answered last is
        asked first.
    @param ask: How to ask, such as L{moxtls.dns.transport.Exchange.ask}.
    @ivar validating: Whether a probe found that a server validates which is
        trusted to do so.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        servers: Sequence[NameServer],
        ask: Ask,
        mostQueries: int = MAX_QUERIES,
        mostEntries: int = MAX_ENTRIES,
    ) -> None:
        self._clock = clock
        self._servers = tuple(servers)
        self._ask = ask
        self._slots = DeferredSemaphore(mostQueries)
        self._cache = Cache(mostEntries)
        self._flights: dict[Question, _Flight] = {}
        self._standings: dict[NameServer, ServerStatus] = {}
        self._answeredLast: NameServer | None = None

    @property
    def validating(self) -> bool:
        return ServerStatus.VALIDATING in self._standings.values()

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        asked = question(name, kind)
        if asked is None:
            return succeed(noName(name, kind))
        known = self._cache.get(asked, self._clock.seconds())
        if known is None or self._isUnclear(known):
            return Deferred.fromCoroutine(self._lookup(asked))
        return succeed(known)

    def probe(self, name: str = ROOT) -> Deferred[Diagnosis]:
        """
        Find out which servers validate.  What was known about a server stays
        if it doesn't answer now.

        @param name: Of a zone that is signed.

        @return: Fires, after some seconds at most, with a L{Diagnosis}.
        """
        return Deferred.fromCoroutine(self._probe(name))

    async def _probe(self, name: str) -> Diagnosis:
        diagnosis = await diagnose(self._askFirst, self._servers, name)
        before = self.validating
        for each in diagnosis.reports:
            if each.standing is not ServerStatus.NOT_ANSWERING:
                self._standings[each.server] = each.standing
        if self.validating != before:
            self._cache.clear()  # what others said, or could not vouch for
        return diagnosis

    async def _lookup(self, asked: Question) -> Answer:
        answer = await self._known(asked)
        if not self._isUnclear(answer):
            return answer
        parts = await gather([self._known(each) for each in stepQuestions(answer)])
        return withStepAuthenticity(answer, parts)

    def _isUnclear(self, answer: Answer) -> bool:
        return needsSteps(answer) and any(
            each.believed
            and self._standings.get(each) is not ServerStatus.NOT_VALIDATING
            for each in self._inUse()
        )

    def _known(self, asked: Question) -> Deferred[Answer]:
        """
        What servers say, or said not long ago.
        """
        known = self._cache.get(asked, self._clock.seconds())
        if known is not None:
            return succeed(known)
        if asked in self._flights:
            return self._flights[asked].join()
        flight = self._flights[asked] = _Flight()
        answer = flight.join()
        query = Deferred.fromCoroutine(self._query(asked))
        query.addTimeout(MAX_QUERY_LENGTH, self._clock)
        flight.depart(query)
        query.addErrback(self._broken, asked)
        query.addCallback(self._arrived, asked, flight)
        return answer

    def _broken(self, reason: Failure, asked: Question) -> Answer | None:
        if reason.check(TimeoutError):
            return failure(asked, "no answer in time")
        if reason.check(CancelledError):
            return None
        self.log.failure("asking for {asked!r}", reason, asked=asked)
        return failure(asked, "internal error")

    def _arrived(self, answer: Answer | None, asked: Question, flight: _Flight) -> None:
        """
        @param answer: C{None} if nobody waits for it any more.
        """
        del self._flights[asked]
        if answer is not None:
            self._cache.put(asked, answer, self._clock.seconds())
            flight.land(answer)

    async def _query(self, asked: Question) -> Answer:
        async with self._slots:
            return await self._askAround(asked)

    async def _askAround(self, asked: Question) -> Answer:
        failures = _Failures()
        servers = self._inUse()
        for patience in TIMEOUT:
            for server in servers:
                reply = await self._askOne(server, asked, patience)
                if isinstance(reply, Answer) and not reply.failed:
                    self._answeredLast = server
                    return reply
                failures.add(server, reply)
                if failures.areFinal:
                    return failures.answer(asked)
            # The others had their say.
            servers = tuple(each for each in servers if each in failures.silent)
        return failures.answer(asked)

    async def _askOne(
        self, server: NameServer, asked: Question, patience: float
    ) -> Answer | NoReply:
        reply = self._ask(server, asked).addTimeout(patience, self._clock)
        try:
            return await reply
        except TimeoutError:
            return NoReply(f"no answer within {patience:g} s")

    def _askFirst(
        self, server: NameServer, asked: Question
    ) -> Deferred[Answer | NoReply]:
        return Deferred.fromCoroutine(self._askOne(server, asked, TIMEOUT[0]))

    def _inUse(self) -> tuple[NameServer, ...]:
        best = [
            each
            for each in self._servers
            if self._standings.get(each) is ServerStatus.VALIDATING
        ]
        if not best and not self._standings:
            # Not known yet.
            best = [each for each in self._servers if each.believed]
        inUse = best or self._servers
        return tuple(sorted(inUse, key=lambda each: each != self._answeredLast))


class _Flight:
    """
    A question that is being asked, and all those who wait for the answer.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[Answer]] = []
        self._query: Deferred[Answer] | None = None

    def join(self) -> Deferred[Answer]:
        waiting: Deferred[Answer] = Deferred(self._leave)
        self._waiting.append(waiting)
        return waiting

    def depart(self, query: Deferred[Answer]) -> None:
        """
        @param query: Is cancelled when nobody waits any more.
        """
        self._query = query

    def land(self, answer: Answer) -> None:
        # Whoever is told may make others leave.
        while self._waiting:
            self._waiting.pop(0).callback(answer)

    def _leave(self, waiting: Deferred[Answer]) -> None:
        self._waiting.remove(waiting)
        if not self._waiting and self._query is not None:
            self._query.cancel()


class _Failures:
    """
    Why servers could not say.

    @ivar silent: Those that might still answer.
    @ivar areFinal: Whether there is no point in asking others: a server that
        is trusted has found forgeries, or mistakes in the signatures.
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
        self.areFinal = server.believed and reply.dnssecError is not None

    def answer(self, asked: Question) -> Answer:
        reasons = (f"{server}: {reason}" for server, reason in self._reasons.items())
        reason = "; ".join(reasons) or "no DNS server is configured"
        return failure(asked, reason, tuple(self._errors)[:MAX_ERRORS])
