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
from moxtls.dns.transport import NoReply, SendQuery
from moxtls.dns.types import Answer, ExtendedError, RRType
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

#: For how many seconds each server is waited for, in each round.  A recursive
#: server that is alive mostly answers within the first; those that take longer
#: have it ready when they are asked again.
SERVER_TIMEOUTS = (2.0, 5.0)
#: For how many seconds a question is pursued altogether, waiting for its turn
#: included: whoever delivers mail rather tries again later.
QUERY_TIMEOUT = 20.0
#: Sockets in use at a time; a process may have 1024 open files.
MAX_QUERIES = 100


@implementer(IResolver)
class Resolver:
    """
    Asks servers one after the other, until one can say.

    As long as any server is known to validate, only such servers are asked:
    if asking went on to one that doesn't validate, an attacker would only have
    to make the others fail to have his forgeries trustsAD.

    @param servers: In order of preference; the one that answered last is
        asked first.
    @param ask: How to ask, such as L{moxtls.dns.transport.DNSTransport.ask}.
    @ivar validating: Whether a probe found that a server validates which is
        trusted to do so.
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
            if each.status is not ServerStatus.NOT_ANSWERING:
                self._statuses[each.server] = each.status
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
            each.trustsAD
            and self._statuses.get(each) is not ServerStatus.NOT_VALIDATING
            for each in self._inUse()
        )

    def _known(self, asked: Question) -> Deferred[Answer]:
        """
        What servers say, or said not long ago.
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
            return await self._askAround(asked)

    async def _askAround(self, asked: Question) -> Answer:
        failures = _Failures()
        servers = self._inUse()
        for patience in SERVER_TIMEOUTS:
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
        self.areFinal = server.trustsAD and reply.dnssecError is not None

    def answer(self, asked: Question) -> Answer:
        reasons = (f"{server}: {reason}" for server, reason in self._reasons.items())
        reason = "; ".join(reasons) or "no DNS server is configured"
        return failedAnswer(asked, reason, tuple(self._errors)[:MAX_ERRORS])
