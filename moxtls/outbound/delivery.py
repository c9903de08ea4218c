# -*- test-case-name: tests.outbound.test_delivery -*-
"""
Delivers straight to the hosts of a recipient domain, and says how TLS went.

A shell: L{Attempt} gathers what the DNS, MTA-STS and the sessions say, and
L{moxtls.outbound.candidates}, L{moxtls.policy.require} and
L{moxtls.outbound.classify} decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dns.answers import Kind
from moxtls.domain import AddressLiteral, Domain, parseHost
from moxtls.interfaces import ICourier, IPolicyCache, IResolver, ISessionObserver
from moxtls.outbound.candidates import Host, HostAddresses, NextHop, NextHopFailure
from moxtls.outbound.carry import carry, troubleOf
from moxtls.outbound.classify import classify
from moxtls.outbound.endings import (
    Progress,
    Trouble,
    nowhere,
    refused,
    unreachable,
)
from moxtls.outbound.hosts import gather, gatherAddresses
from moxtls.outbound.outcome import (
    Tallying,
    hostTallying,
    lookupFailure,
    mismatchFailure,
    recipientTallying,
    sessionOutcome,
    unvalidatedHost,
)
from moxtls.outbound.records import SessionRecord
from moxtls.outbound.tlsa import findTLSA
from moxtls.policy.dane import TLSAFinding
from moxtls.policy.mtasts import STSLookup, STSPolicy
from moxtls.policy.require import Demands, Refusal, Wishes, demands
from moxtls.queue.values import Batch, ReportKind, Result
from moxtls.smtp.session import Session
from moxtls.smtp.settings import (
    ConnectFailed,
    SessionError,
    SessionFailed,
    TLSFailed,
)
from moxtls.smtp.values import TLSMode

#: Opens a session with an IP address under the given terms.
Dial = Callable[[str, "Terms"], Deferred[Session]]

#: Of one host: more only delay the next host.
MOST_DIALED = 4


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What a session with a host has to be like.

    @ivar names: The first is said in SNI; the certificate may be for any.
    """

    tlsMode: TLSMode
    names: tuple[str, ...]
    demands: Demands


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    What a courier needs of the rest, shared by all its attempts.

    @ivar families: In order of preference.
    """

    resolver: IResolver
    policies: IPolicyCache
    observer: ISessionObserver
    dial: Dial
    leave: Callable[[Session], None]
    port: int
    families: tuple[Kind, ...]
    jitter: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Visit:
    """
    Going to one host.

    @ivar tallying: Where to count; C{None} for an address literal.
    @ivar counted: Whether what is seen of TLS counts at all.
    @ivar lenient: As in L{Progress.answered}.
    """

    host: str
    terms: Terms
    tallying: Tallying | None
    counted: bool = True
    lenient: bool = False


@implementer(ICourier)
class DirectCourier:
    """
    Takes mail to the hosts in a domain's MX records.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings

    def deliver(self, batch: Batch) -> Deferred[tuple[Result, ...]]:
        return Deferred.fromCoroutine(Attempt(self._surroundings, batch).run())


class Attempt:
    """
    One attempt to deliver one batch.
    """

    log = Logger()

    def __init__(self, surroundings: Surroundings, batch: Batch) -> None:
        self._around = surroundings
        self._batch = batch
        self._progress = Progress(batch)
        self._wishes = Wishes(
            batch.requireTLS, noFallback=batch.report is ReportKind.DMARC
        )
        self._recipient: Tallying | None = None
        self._hosts: list[Tallying] = []

    async def run(self) -> tuple[Result, ...]:
        domain = parseHost(self._batch.destination)
        await self._toDomain(domain)
        if isinstance(domain, Domain):
            await self._tell(domain)
        return self._progress.results()

    async def _tell(self, domain: Domain) -> None:
        outcome = sessionOutcome(
            domain, self._recipient, self._hosts, self._batch.report
        )
        try:
            await self._around.observer.sessionEnded(outcome)
        except CancelledError:
            raise
        except Exception:
            self.log.failure("recording TLS outcome for {domain}", domain=domain)

    async def _toDomain(self, domain: Host) -> None:
        hop = await gather(self._around.resolver, domain, self._around.jitter)
        if hop.failure is not None:
            self._nowhere(domain, hop.failure)
            return
        policy = None
        if isinstance(domain, Domain):
            lookup = await self._around.policies.get(domain)
            self._recipient = recipientTallying(lookup)
            if lookup.temporary and self._wishes.requireTLS is not False:
                # RFC 8461 5.1: there may be a policy that is to be enforced.
                self._recipient.failed += 1
                self._progress.endAll(Trouble("4.4.3", "MTA-STS lookup failed"))
                return
            policy = lookup.policy
        await self._toHosts(hop, policy)

    def _nowhere(self, domain: Host, failure: NextHopFailure) -> None:
        self._progress.endAll(nowhere(failure))
        if failure.dnssecError is not None and isinstance(domain, Domain):
            self._recipient = recipientTallying(STSLookup(domain))
            self._recipient.failed += 1
            self._recipient.saw([lookupFailure(failure.dnssecError)])

    async def _toHosts(self, hop: NextHop, policy: STSPolicy | None) -> None:
        for host in hop.hosts:
            await self._toHost(host, hop, policy)
            if self._over():
                return
        self._progress.endRest()

    async def _toHost(self, host: Host, hop: NextHop, policy: STSPolicy | None) -> None:
        around = self._around
        found = await gatherAddresses(around.resolver, host, self._families())
        if not found.addresses:
            self._unreachable(found)
            return
        finding = await findTLSA(around.resolver, hop, found, around.port)
        name = host if isinstance(host, Domain) else None
        asked = demands(name, policy, finding, self._wishes)
        if asked.mxMismatch and self._recipient is not None:
            self._recipient.saw([mismatchFailure(str(host))])
        tallying = None
        if name is not None:
            tallying = hostTallying(name, finding)
            self._hosts.append(tallying)
        if asked.refuse is not None:
            self._refused(asked.refuse, tallying, str(host), finding)
            return
        terms = Terms(asked.tlsMode, _names(host, finding), asked)
        await self._toAddresses(found, Visit(str(host), terms, tallying))

    def _over(self) -> bool:
        """
        Whether no other host needs to be asked.
        """
        return self._progress.over

    def _families(self) -> tuple[Kind, ...]:
        """
        The other family first in every other attempt: a host that can't be
        reached over one, or refuses it, may do better over the other.
        """
        families = self._around.families
        return families if self._batch.attempt % 2 else families[::-1]

    def _unreachable(self, found: HostAddresses) -> None:
        self._progress.hostFailed(unreachable(found))
        if found.dnssecError is not None and isinstance(found.host, Domain):
            tallying = unvalidatedHost(found.host, found.dnssecError)
            self._hosts.append(tallying)
            self._count(tallying, failed=1)

    def _refused(
        self,
        refusal: Refusal,
        tallying: Tallying | None,
        host: str,
        finding: TLSAFinding,
    ) -> None:
        self._progress.hostFailed(refused(refusal, host))
        if refusal is Refusal.MX_MISMATCH:
            self._count(None, failed=1)
        error = finding.trouble.error if finding.trouble else None
        if refusal is Refusal.TLSA_LOOKUP and error is not None and error.isDNSSEC:
            self._count(tallying, failed=1)

    async def _toAddresses(self, found: HostAddresses, visit: Visit) -> None:
        families = {":" in each for each in found.addresses}
        lenient = self._batch.attempt == 1 and len(families) > 1
        for ip in found.addresses[:MOST_DIALED]:
            try:
                await self._toAddress(ip, replace(visit, lenient=lenient))
            except ConnectFailed as failed:
                trouble = Trouble("4.4.1", f"{ip}: {failed.reason}", visit.host)
                self._progress.hostFailed(trouble)
            else:
                return

    async def _toAddress(self, ip: str, visit: Visit) -> None:
        """
        One connection to one address; if TLS fails, another one without where
        that is allowed.  What the second sees of TLS isn't counted: a session
        is one session.

        @raise ConnectFailed: There is nobody at C{ip}.
        """
        try:
            await self._session(ip, visit)
        except TLSFailed as failed:
            self._progress.hostFailed(Trouble("4.7.5", failed.reason, visit.host))
            if visit.terms.demands.plaintextFallback:
                plain = replace(visit.terms, tlsMode=TLSMode.SKIP)
                await self._toAddress(
                    ip, replace(visit, terms=plain, tallying=None, counted=False)
                )

    async def _session(self, ip: str, visit: Visit) -> None:
        try:
            session = await self._around.dial(ip, visit.terms)
        except CancelledError:
            raise
        except SessionError as failed:
            self._classify(failed.record, visit)
            if not isinstance(failed, SessionFailed):
                raise
            self._progress.hostFailed(troubleOf(failed, visit.host))
            return
        try:
            await self._carry(session, visit)
        finally:
            # As late as this: a server may object to TLS right after it.
            self._classify(session.record, visit)
            self._around.leave(session)

    async def _carry(self, session: Session, visit: Visit) -> None:
        if self._wishes.requireTLS and not session.extensions.requireTLS:
            # RFC 8689 4.2.1: the next host may know how to pass it on.
            self._progress.hostFailed(refused(Refusal.REQUIRETLS, visit.host))
            return
        await carry(
            session, self._batch, self._progress, visit.host, lenient=visit.lenient
        )

    def _classify(self, record: SessionRecord, visit: Visit) -> None:
        if not visit.counted:
            return
        seen = classify(record)
        self._count(visit.tallying, seen.succeeded, seen.failed)
        if self._recipient is not None:
            self._recipient.failures.update(seen.recipientFailures)
        if visit.tallying is not None:
            visit.tallying.failures.update(seen.hostFailures)

    def _count(
        self, tallying: Tallying | None, succeeded: int = 0, failed: int = 0
    ) -> None:
        """
        Sessions count for both kinds of policy domain (RFC 8460 3).
        """
        for each in (self._recipient, tallying):
            if each is not None:
                each.succeeded += succeeded
                each.failed += failed


def _names(host: Host, finding: TLSAFinding) -> tuple[str, ...]:
    if isinstance(host, AddressLiteral):
        return (host.ip,)
    return tuple(name.ascii for name in finding.names) or (host.ascii,)
