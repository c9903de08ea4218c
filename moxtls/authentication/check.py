# -*- test-case-name: tests.authentication -*-
"""
Authenticates messages by iprev, SPF, DKIM and DMARC, with all DNS lookups in parallel
and started while the message is still being received.

Without a server, as in C{moxtls auth}::

    outcome = await authenticate(authenticator, client, sender, message)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.authentication.deadline import OVERDUE, Deadline, Task
from moxtls.authentication.dkim.signature import SignatureClaim
from moxtls.authentication.dkim.verify import (
    DKIMCheck,
    DKIMJob,
    DKIMResults,
    findSignatures,
    verifyAll,
    withKey,
)
from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.authentication.results import (
    Authentication,
    AuthResult,
    DKIMResult,
    IPRevResult,
    SPFResult,
)
from moxtls.authentication.spf.evaluate import (
    SPFRequest,
    checkHost,
    heloRequest,
    lookUp,
    mailFromRequest,
)
from moxtls.authentication.spf.record import printable
from moxtls.dmarc.discovery import discover
from moxtls.dmarc.types import Discovery, DiscoveryMethod, DMARCPolicy
from moxtls.dmarc.verdict import (
    Aligned,
    LocalPolicy,
    MessageContext,
    align,
    alignWithoutLookups,
    evaluate,
)
from moxtls.dns.resolver import FairResolver
from moxtls.dns.types import Answer, LookupGenerator, RRType
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain
from moxtls.interfaces import IResolver
from moxtls.ipaddresses import parseIP
from moxtls.message.addresses import authorDomains
from moxtls.message.header import ClientInfo, Header, splitHeader, splitMessage
from moxtls.smtp.rates import networkOf
from moxtls.tasks import resolve
from moxtls.workers.batches import Batches
from moxtls.workers.process import NoWorker, Worker, fitsWorker, sizeOf

K = TypeVar("K")
V = TypeVar("V")

#: Seconds to wait at the end of a message for lookups still in progress, which are
#: temporary errors then.  Longer than two lookups can take: the names of the client's
#: address are under its own control, as are those in some policies.  RFC 7208 4.6.4
#: wants at least 20.
MAX_WAIT = 45
#: Seconds for which the results for a client and sender, for an author domain and for a
#: key name are cached: most connections with several messages are over by then.
CACHE_TTL = 60
#: Entries in each of these caches.
MAX_CACHED = 1000
#: The problem in the result if verification itself failed.
VERIFICATION_FAILED = "it could not be verified"

#: Runs a job without blocking the reactor, such as C{deferToThread}.
Offload = Callable[[DKIMJob], Deferred[DKIMResults]]


class MessageAuthenticator:
    """
    Creates the checks of messages, and caches their results.
    """

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        localPolicy: LocalPolicy,
        hostname: str,
        offload: Offload,
        chance: Callable[[], float],
    ) -> None:
        """
        @param hostname: The name of this host.
        @param chance: Returns a random number from 0 to less than 1.
        """
        self.clock = clock
        self._fairResolver = FairResolver(resolver)
        self.localPolicy = localPolicy
        self.hostname = hostname
        self.offload = offload
        self.chance = chance
        self._connections: TTLCache[tuple[str, str, str], ConnectionChecks]
        self._connections = TTLCache(MAX_CACHED, CACHE_TTL)
        self._discoveries: TTLCache[Domain, Discovery]
        self._discoveries = TTLCache(MAX_CACHED, CACHE_TTL)
        self._keys: TTLCache[str, tuple[bytes, ...]]
        self._keys = TTLCache(MAX_CACHED, CACHE_TTL)

    def prefetch(self, client: ClientInfo, sender: str) -> None:
        """
        Start the lookups for a sender before its message is received.
        """
        self.connectionChecks(client, sender)

    def startMessage(self, client: ClientInfo, sender: str) -> MessageAuthentication:
        """
        Start the checks of a message.
        """
        return MessageAuthentication(self, self.connectionChecks(client, sender))

    def connectionChecks(self, client: ClientInfo, sender: str) -> ConnectionChecks:
        """
        The checks of a client and sender, done or in progress.
        """
        key = (client.address, client.helo, sender)
        now = self.clock.seconds()
        known = self._connections.get(key, now)
        if known is None or known.failed:
            resolver = self.resolverFor(client.address)
            known = ConnectionChecks(resolver, client, sender, self.hostname, now)
            for forgotten in self._connections.put(key, known, now):
                forgotten.giveUp()
        return known

    def resolverFor(self, address: str) -> IResolver:
        """
        The resolver with the lookups of the client's network limited to its share.
        """
        return self._fairResolver.forClient(networkOf(address).network)

    async def discover(self, author: Domain, resolver: IResolver) -> Discovery:
        """
        The DMARC policy for C{author}.
        """
        now = self.clock.seconds()
        known = self._discoveries.get(author, now)
        if known is None:
            lookups = discover(author, self.localPolicy.suffixes)
            known = await resolve(resolver, lookups)
            if not known.temporary:
                self._discoveries.put(author, known, now)
        return known

    async def findKey(self, claim: SignatureClaim, resolver: IResolver) -> DKIMCheck:
        """
        The check of a signature with the key records it needs.
        """
        name, now = claim.keyName, self.clock.seconds()
        known = self._keys.get(name, now)
        if known is not None:
            return DKIMCheck(claim, known)
        check = withKey(claim, await resolver.lookup(name, RRType.TXT))
        if not check.problem:
            self._keys.put(name, check.records, now)
        return check


class MessageAuthentication:
    """
    The checks of one message.  Either C{finish} or C{cancel} is called last.
    """

    log = Logger()

    def __init__(
        self, authenticator: MessageAuthenticator, connection: ConnectionChecks
    ) -> None:
        self._checks = authenticator
        self._connection = connection
        self._resolver = authenticator.resolverFor(connection.address)
        connection.use()
        self._deadline = Deadline(authenticator.clock, MAX_WAIT)
        self._lookups: list[Task[Any]] = []
        self._isUnverified = False

    def begin(self, header: Header) -> None:
        """
        Start the lookups that depend on the header.  To be called once, before
        C{finish}.
        """
        authenticator = self._checks
        self._header = header
        self._authors = authorDomains(header)
        self._since = authenticator.clock.seconds()
        # One lookup for each key, so that a slow name server affects its own signatures
        # only.
        signatures = findSignatures(header, self._authors.domains)
        self._unreadable = signatures.problems
        self._keys = [self._findKey(each) for each in signatures.claims]
        self._lookups.extend(self._keys)
        self._discovery: Task[Discovery] | None = None
        if len(self._authors.domains) == 1:
            self._discovery = self._discover(self._authors.domains[0])
            self._lookups.append(self._discovery)

    async def finish(self, body: Sequence[bytes]) -> AuthenticationOutcome:
        """
        Finish the checks of a complete message.

        @param body: The body in chunks, which may be read in a thread, and must stay
            readable until this returns.

        @return: The outcome, after L{MAX_WAIT} seconds of lookups at most; nothing is
            raised.
        """
        try:
            return await self._outcome(body)
        finally:
            self._deadline.close()
            self.cancel()

    def cancel(self) -> None:
        """
        Cancel lookups that nothing else waits for.
        """
        self._connection.release()
        for each in self._lookups:
            each.cancel()

    async def _outcome(self, body: Sequence[bytes]) -> AuthenticationOutcome:
        connection, resultOf = self._connection, self._deadline.resultOf
        dkim = await self._verified(body)
        authentication = Authentication(
            connection.address,
            await resultOf(connection.iprev),
            await resultOf(connection.helo),
            await resultOf(connection.spf),
            dkim,
            self._unreadable,
        )
        discovery = aligned = None
        if self._discovery is not None:
            discovery = await resultOf(self._discovery)
            aligned = await self._aligned(discovery, authentication)
        localPolicy = self._checks.localPolicy
        context = MessageContext(self._header.isFromList, self._chance(discovery))
        froms = self._authors.domains
        verdict = evaluate(
            froms, discovery, aligned, authentication, context, localPolicy
        )
        # With Enforcement "none" no message is refused for it.
        isEnforcing = localPolicy.enforcement is not DMARCPolicy.NONE
        overdue = (self._deadline.expired or self._isUnverified) and isEnforcing
        return AuthenticationOutcome(authentication, verdict, self._authors, overdue)

    def _chance(self, discovery: Discovery | None) -> float:
        """
        A random number, drawn only if the policy has a percentage.
        """
        record = None if discovery is None else discovery.record
        return self._checks.chance() if record and record.percent < 100 else 0.0

    async def _verified(self, body: Sequence[bytes]) -> tuple[DKIMResult, ...]:
        """
        The DKIM results.  Verification isn't subject to the time limit: it doesn't
        depend on other hosts, and a sender that keeps this host busy must not turn
        the signatures of others into temporary errors.
        """
        authenticator = tuple(
            [await self._deadline.resultOf(each) for each in self._keys]
        )
        if not authenticator:
            return ()
        job = DKIMJob(self._header.data, body, authenticator, self._since)
        try:
            return await self._verify(job)
        except CancelledError:
            raise
        except Exception:
            self.log.failure("verification of DKIM signatures failed")
            self._isUnverified = True
            return job.failed(VERIFICATION_FAILED)

    async def _verify(self, job: DKIMJob) -> DKIMResults:
        if not any(each.records for each in job.checks):
            return job()
        return await self._checks.offload(job)

    async def _aligned(
        self, discovery: Discovery, authentication: Authentication
    ) -> Aligned | None:
        if discovery.record is None:
            return None
        known = alignWithoutLookups(discovery, authentication)
        if known is not None:
            return known
        lookups = align(discovery, authentication, self._checks.localPolicy.suffixes)
        lookup = Task(resolve(self._resolver, lookups), lambda: Aligned(temporary=True))
        self._lookups.append(lookup)
        return await self._deadline.resultOf(lookup)

    def _findKey(self, claim: SignatureClaim) -> Task[DKIMCheck]:
        looking = self._checks.findKey(claim, self._resolver)
        return Task(looking, lambda: DKIMCheck(claim, (), OVERDUE))

    def _discover(self, author: Domain) -> Task[Discovery]:
        authenticator = self._checks
        isByTree = authenticator.localPolicy.suffixes is None
        method = DiscoveryMethod.TREE_WALK if isByTree else DiscoveryMethod.PSL

        def overdue() -> Discovery:
            return Discovery(author, author, method, temporary=True, problem=OVERDUE)

        return Task(authenticator.discover(author, self._resolver), overdue)


def authenticate(
    authenticator: MessageAuthenticator,
    client: ClientInfo,
    sender: str,
    message: Sequence[bytes],
) -> Deferred[AuthenticationOutcome]:
    """
    All checks of a complete message.

    @param client: The SMTP client; only C{address} and C{helo} are used.
    @param sender: MAIL FROM; empty for the null one.
    @param message: Chunks with CRLF line ends, without dot-stuffing.

    @return: Fires with the outcome, and never fails.
    """
    header, body = splitMessage(b"".join(message))
    checks = authenticator.startMessage(client, sender)
    checks.begin(splitHeader(header))
    return Deferred.fromCoroutine(checks.finish([body]))


class ConnectionChecks:
    """
    The checks that don't need the message: iprev and SPF.

    @ivar since: The time of their start, in Unix seconds.
    """

    def __init__(
        self,
        resolver: IResolver,
        client: ClientInfo,
        sender: str,
        hostname: str,
        since: float,
    ) -> None:
        """
        @param hostname: The name of this host.
        """
        self.since = since
        self.address = client.address
        self._users = 0
        address, helo = client.address, client.helo
        self.iprev = Task(resolve(resolver, checkIPRev(address)), _overdueIPRev)
        self.helo = _spfOf(resolver, heloRequest(address, helo, hostname, since))
        self.spf = self.helo
        if sender:
            request = mailFromRequest(address, helo, sender, hostname, since)
            self.spf = _spfOf(resolver, request)

    @property
    def failed(self) -> bool:
        """
        True if another attempt may have a better result.
        """
        return any(
            each.failed or (each.isDone and each.value.status is AuthResult.TEMPERROR)
            for each in (self.iprev, self.helo, self.spf)
        )

    def use(self) -> None:
        """
        Add a user.
        """
        self._users += 1

    def release(self) -> None:
        """
        Remove a user; lookups without users are cancelled.
        """
        self._users -= 1
        self.giveUp()

    def giveUp(self) -> None:
        """
        Cancel the lookups if there is no user.  Called when the checks leave the
        cache, as a client may say MAIL and nothing more.
        """
        if self._users == 0:
            for each in (self.iprev, self.helo, self.spf):
                each.cancel()


def _spfOf(resolver: IResolver, request: SPFRequest) -> Task[SPFResult]:
    domain = request.sender.rpartition("@")[2]
    status = AuthResult.TEMPERROR
    return Task(
        resolve(resolver, checkHost(request)),
        lambda: SPFResult(request.scope, domain, status, problem=OVERDUE),
    )


def _overdueIPRev() -> IPRevResult:
    return IPRevResult(AuthResult.TEMPERROR, problem=OVERDUE)


# --- iprev (RFC 8601 3) ---

#: RFC 8601 3 asks for a limit, as the owner of an address can publish any number of
#: names; hosts have one, or a few.
MAX_PTR_NAMES = 5

_MAX_PROBLEM_LENGTH = 300


def checkIPRev(ip: str) -> LookupGenerator[IPRevResult]:
    """
    RFC 8601 2.7.3, 3.

    @param ip: An IPv4 address mapped into IPv6 is taken as IPv4.
    """
    address = parseIP(ip)
    if address is None:
        return _iprevFailed(AuthResult.PERMERROR, "not an IP address")
    found = yield from lookUp((address.reverse_pointer,), RRType.PTR)
    for each in found:
        if each.failed:
            return _iprevLookupFailed(each)
    names = [name for each in found for name in each.names][:MAX_PTR_NAMES]
    if not names:
        return _iprevFailed(AuthResult.PERMERROR, f"{address} has no name")
    kind = RRType.A if address.version == 4 else RRType.AAAA
    answers = yield from lookUp(names, kind)
    for each in answers:
        if address in map(parseIP, each.addresses):
            return IPRevResult(AuthResult.PASS, each.name)
    for each in answers:
        if each.failed:
            return _iprevLookupFailed(each)
    shown = ", ".join(printable(name, MAX_DOMAIN_LENGTH) for name in names)
    return _iprevFailed(AuthResult.FAIL, f"{address} is not an address of {shown}")


def _iprevLookupFailed(answer: Answer) -> IPRevResult:
    question = f"{answer.kind} at {answer.name}"
    return _iprevFailed(
        AuthResult.TEMPERROR, f"lookup of {question} failed: {answer.reason}"
    )


def _iprevFailed(status: AuthResult, problem: str) -> IPRevResult:
    return IPRevResult(status, problem=printable(problem, _MAX_PROBLEM_LENGTH))


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


# --- verification in a worker process ---

#: Octets in one batch, and batches in progress: results must not wait for a long queue.
MAX_BATCH_SIZE = 64 * 1024
MAX_BATCHES = 4
#: Seconds within which any batch is finished, whatever is in it.
WORKER_TIMEOUT = 60
#: The least size that a message counts for.
_MIN_SIZE = MAX_BATCH_SIZE // 16


class SignatureVerifier:
    """
    Verifies small messages in the worker process, as the reactor and a thread would
    compete for the interpreter lock, and large ones in threads; all of them in threads
    if there is no worker.
    """

    def __init__(self, worker: Worker, threads: Offload) -> None:
        self._worker = worker
        self._threads = threads
        self._batches = Batches[DKIMJob, DKIMResults](
            lambda jobs: worker.call(verifyAll, jobs),
            _countedSize,
            MAX_BATCH_SIZE,
            MAX_BATCHES,
        )

    def __call__(self, job: DKIMJob) -> Deferred[DKIMResults]:
        """
        See L{Offload}.
        """
        # Most of the time of a large message is hashing, which releases the interpreter
        # lock.
        if fitsWorker(job.body):
            results = self._batches.put(job)
            return results.addErrback(self._fallBack, job)
        return self._threads(job)

    def _fallBack(self, why: Failure, job: DKIMJob) -> Deferred[DKIMResults]:
        # Not if the worker was lost: this very message may have crashed it.
        why.trap(NoWorker)
        return self._threads(job)

    def stop(self) -> Deferred[None]:
        """
        Fires once the process has ended.  No more jobs are to be passed.
        """
        return self._worker.stop()


def _countedSize(job: DKIMJob) -> int:
    return max(_MIN_SIZE, sizeOf(job.body))
