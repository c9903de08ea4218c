# -*- test-case-name: tests.delivery.test_attempt -*-
"""
Delivers mail directly to the hosts in a domain's MX records, with DANE and
MTA-STS, and records how TLS went.

L{DirectAttempt} makes the lookups and connections; the decisions are in
L{moxtls.delivery.mx}, L{moxtls.delivery.tls},
L{moxtls.delivery.results} and L{moxtls.tls.session}.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.delivery.mx import Host, HostAddresses, NextHop, NextHopFailure, OwnHosts
from moxtls.delivery.results import (
    MAX_SESSIONS,
    DeliveryError,
    RecipientResults,
    noNextHop,
    ownHost,
    policyRefused,
    requireTLSNotOffered,
    sessionLimitReached,
    tlsFailed,
    unreachableHost,
)
from moxtls.delivery.sessions import (
    connectOrder,
    deliverBatch,
    lookUpAddresses,
    lookUpNextHop,
    lookUpTLSA,
    sessionError,
)
from moxtls.delivery.tls import (
    OutcomeBuilder,
    PolicyCounter,
    PolicyRefusal,
    SessionRequirements,
    hostCounter,
    lookupFailure,
    messageRequirements,
    mismatchFailure,
    mustWait,
    recipientCounter,
    sessionRequirements,
    unvalidatedHostCounter,
)
from moxtls.dns.types import RRType
from moxtls.domain import AddressLiteral, Domain, InvalidDomain, parseHost
from moxtls.interfaces import (
    ICourier,
    IPolicyCache,
    IResolver,
    IResultRecorder,
    ISessionObserver,
)
from moxtls.mtasts.policy import STSLookup, STSPolicy
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import Batch, BatchMessage, Result
from moxtls.smtp.client.connection import (
    ClientSettings,
    ConnectFailed,
    SessionFailed,
    TLSFailed,
)
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.types import TLSMode
from moxtls.tls.dane import TLSALookup
from moxtls.tls.session import SessionRecord

#: Opens a session with an IP address.
Dial = Callable[[str, ClientSettings], Deferred[ClientSession]]


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """
    The dependencies of direct delivery, shared by all attempts.

    @ivar observer: Is told the TLS outcome of each attempt.
    @ivar dial: Opens a session with an IP address, at C{port}.
    @ivar release: Ends a session that is no longer needed, without waiting.
    @ivar settings: The settings that all sessions have in common.
    @ivar port: The port of mail hosts, for the names of TLSA records.
    @ivar families: The types of address records, in order of preference.
    @ivar jitter: Random numbers in [0, 1).
    @ivar own: Identifies this host, to which no mail may be sent; C{None} if
        it may be sent to any host.
    """

    resolver: IResolver
    policies: IPolicyCache
    observer: ISessionObserver
    dial: Dial
    release: Callable[[ClientSession], None]
    settings: ClientSettings
    port: int
    families: tuple[RRType, ...]
    jitter: Callable[[], float]
    own: OwnHosts | None = None


@dataclass(frozen=True, slots=True)
class HostAttempt:
    """
    The attempt to deliver messages to one host.

    @ivar host: Its name, for results and the log.
    @ivar plaintextFallback: If TLS fails, connect again without TLS.
    @ivar counter: Counts the sessions with this host; C{None} for an address
        literal.
    @ivar lenient: As in L{RecipientResults.addReplies}.
    """

    host: str
    settings: ClientSettings
    plaintextFallback: bool
    messages: tuple[BatchMessage, ...]
    counter: PolicyCounter | None
    lenient: bool = False


@implementer(ICourier)
class DirectCourier:
    """
    Delivers mail to the hosts in a domain's MX records.
    """

    def __init__(self, context: DeliveryContext) -> None:
        self._context = context

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        attempt = DirectAttempt(self._context, batch, recorder)
        return Deferred.fromCoroutine(attempt.run())


class DirectAttempt:
    """
    One attempt to deliver one batch.
    """

    log = Logger()

    def __init__(
        self, context: DeliveryContext, batch: Batch, recorder: IResultRecorder
    ) -> None:
        """
        @param recorder: As in L{ICourier.deliver}.
        """
        self._context = context
        self._batch = batch
        self._recorder = recorder
        self._results = RecipientResults(batch)
        self._outcome = OutcomeBuilder()
        self._requirements = messageRequirements(batch)

    async def run(self) -> tuple[Result, ...]:
        """
        Make the attempt, and have its TLS outcome recorded.

        @return: One result for each recipient.  If the attempt is cancelled,
            recipients without a final result get a temporary one.
        """
        try:
            domain = parseHost(self._batch.destination)
        except InvalidDomain:
            self._results.failAll(DeliveryError("5.1.2", "not a domain"))
            return self._results.final()
        try:
            await self._tryDomain(domain)
        except CancelledError:
            # Messages that a host has accepted must not be sent again.
            self._results.expire()
            if isinstance(domain, Domain) and self._outcome.hasCounts:
                self._record(domain)
            return self._results.final()
        except Exception:
            # A defect of ours: replies received before it remain valid.
            self.log.failure("delivery to {domain} failed", domain=domain)
            self._results.addHostError(
                DeliveryError("4.3.0", "something is wrong here")
            )
        self._results.finish()
        if isinstance(domain, Domain):
            with suppress(CancelledError):
                await self._record(domain)
        return self._results.final()

    def _record(self, domain: Domain) -> Deferred[None]:
        """
        Record the TLS outcome.

        @return: Fires once it is recorded, or a failure to do so is logged.
            Cancelling ends the waiting, not the recording: the ledger stops
            last, after it has written everything it was given.
        """
        batch = self._batch
        outcome = self._outcome.outcome(domain, batch.report, batch.causesReports)
        recorded: Deferred[None] = Deferred()
        recording = maybeDeferred(self._context.observer.sessionEnded, outcome)
        recording.addErrback(
            lambda failure: logUnlessOutage(
                self.log, "recording TLS outcome for {domain}", failure, domain=domain
            )
        )
        recording.addCallback(recorded.callback)
        return recorded

    # --- hosts -------------------------------------------------------------------

    async def _tryDomain(self, domain: Host) -> None:
        context = self._context
        hop = await lookUpNextHop(context.resolver, domain, context.jitter, context.own)
        if hop.failure is not None:
            self._noNextHop(domain, hop.failure)
            return
        policy = None
        if isinstance(domain, Domain):
            lookup = await context.policies.get(domain)
            isRequired = self._requirements.requireTLS is not False
            if lookup.unavailable and isRequired:
                why = "ledger unavailable: remembered MTA-STS policies can't be read"
                self._results.deferAll(DeliveryError("4.3.0", why))
                return
            self._outcome.recipient = recipientCounter(lookup)
            if mustWait(lookup, self._requirements, self._batch.attempt):
                # A fault of ours is no failure of the domain's TLS policy.
                if lookup.failure is not None:
                    self._outcome.count(None, failed=1)
                self._results.deferAll(DeliveryError("4.4.3", "MTA-STS lookup failed"))
                return
            policy = lookup.policy
        for host in hop.hosts:
            isOwn = await self._tryHost(host, hop, policy)
            # RFC 5321 5.1: hosts less preferred than this one are discarded too.
            if isOwn or self._isComplete():
                return

    def _isComplete(self) -> bool:
        """
        True if no other host needs to be tried.
        """
        return self._results.complete

    def _noNextHop(self, domain: Host, failure: NextHopFailure) -> None:
        self._results.failAll(noNextHop(failure))
        if failure.dnssecError is not None and isinstance(domain, Domain):
            recipient = recipientCounter(STSLookup(domain))
            recipient.addFailures([lookupFailure(failure.dnssecError)])
            self._outcome.recipient = recipient
            self._outcome.count(None, failed=1)

    async def _tryHost(
        self, host: Host, hop: NextHop, policy: STSPolicy | None
    ) -> bool:
        """
        @return: True if C{host} is this host, so that no connection was made.
        """
        context = self._context
        name = host if isinstance(host, Domain) else None
        if self._refuseMismatch(name, policy):
            return False
        found = await lookUpAddresses(context.resolver, host, self._families())
        if not found.addresses:
            self._unreachableHost(found)
            return False
        if self._isOwn(found):
            self._results.addHostError(ownHost(str(host)))
            return True
        tlsa = await lookUpTLSA(context.resolver, hop, found, context.port)
        required = sessionRequirements(name, policy, tlsa, self._requirements)
        counter = None
        if name is not None:
            counter = self._outcome.addHost(hostCounter(name, tlsa))
        if required.refuse is not None:
            self._refuse(required.refuse, counter, str(host))
            return False
        attempt = HostAttempt(
            str(host),
            _clientSettings(context.settings, host, tlsa, required),
            required.plaintextFallback,
            self._batch.messages,
            counter,
        )
        await self._tryAddresses(found.addresses, attempt)
        return False

    def _isOwn(self, found: HostAddresses) -> bool:
        """
        Return true if a host is this one by its addresses, or by the name at the end
        of its CNAMEs (RFC 5321 5.1).
        """
        own, name = self._context.own, found.expanded
        if own is None:
            return False
        isNamed = name is not None and own.hasName(name)
        return isNamed or any(map(own.hasAddress, found.addresses))

    def _families(self) -> tuple[RRType, ...]:
        """
        The address families, reversed in every other attempt: a host that is
        unreachable over one, or refuses it, may accept mail over the other.
        """
        families = self._context.families
        return families if self._batch.attempt % 2 else families[::-1]

    def _refuseMismatch(self, name: Domain | None, policy: STSPolicy | None) -> bool:
        """
        Refuse a host that the MTA-STS policy alone forbids (RFC 8461 4.1),
        before any lookup.

        @return: True if it was refused.
        """
        required = sessionRequirements(
            name, policy, TLSALookup(name), self._requirements
        )
        if required.mxMismatch and self._outcome.recipient is not None:
            self._outcome.recipient.addFailures([mismatchFailure(str(name))])
        if required.refuse is not PolicyRefusal.MX_MISMATCH:
            return False
        self._results.addHostError(policyRefused(required.refuse, str(name)))
        self._outcome.count(None, failed=1)
        return True

    def _unreachableHost(self, found: HostAddresses) -> None:
        self._results.addHostError(unreachableHost(found))
        if found.dnssecError is not None and isinstance(found.host, Domain):
            unvalidated = unvalidatedHostCounter(found.host, found.dnssecError)
            self._outcome.count(self._outcome.addHost(unvalidated), failed=1)

    def _refuse(
        self, refusal: PolicyRefusal, counter: PolicyCounter | None, host: str
    ) -> None:
        self._results.addHostError(policyRefused(refusal, host))
        if refusal is PolicyRefusal.TLSA_LOOKUP:
            self._outcome.count(counter, failed=1)

    # --- connections -------------------------------------------------------------

    async def _tryAddresses(
        self, addresses: tuple[str, ...], attempt: HostAttempt
    ) -> None:
        families = {":" in each for each in addresses}
        if self._batch.attempt == 1 and len(families) > 1:
            attempt = replace(attempt, lenient=True)
        for ip in connectOrder(addresses):
            try:
                await self._tryAddress(ip, attempt)
            except ConnectFailed as failed:
                error = DeliveryError("4.4.1", f"{ip}: {failed.reason}", attempt.host)
                self._results.addHostError(error)
            else:
                return

    async def _tryAddress(self, ip: str, attempt: HostAttempt) -> None:
        """
        Connect to one address, and again in plaintext if TLS fails and
        plaintext is allowed, and again for messages beyond the limits of the
        previous session.

        @raise ConnectFailed: No connection could be made.
        """
        for _ in range(MAX_SESSIONS):
            try:
                rest = await self._session(ip, attempt)
            except TLSFailed as failed:
                await self._fallBackToPlaintext(ip, attempt, failed)
                return
            if not rest:
                return
            attempt = replace(attempt, messages=rest)
        self._results.addHostError(sessionLimitReached(attempt.host))

    async def _fallBackToPlaintext(
        self, ip: str, attempt: HostAttempt, failed: TLSFailed
    ) -> None:
        """
        Continue in plaintext, where that is allowed.  The outcome is that of
        the connection before: the plaintext one says nothing about TLS.
        """
        error = tlsFailed(failed.reason, failed.reply, attempt.host)
        if not attempt.plaintextFallback:
            self._results.addHostError(error)
            return
        self.log.info(
            "no TLS with {host!r} ({why!r}): going on in plaintext",
            host=attempt.host,
            why=error.text,
        )
        plain = replace(attempt.settings, mode=TLSMode.SKIP)
        await self._tryAddress(
            ip, replace(attempt, settings=plain, plaintextFallback=False)
        )

    async def _session(self, ip: str, attempt: HostAttempt) -> tuple[BatchMessage, ...]:
        """
        @return: As L{deliverBatch}.
        """
        try:
            session = await self._context.dial(ip, attempt.settings)
        except SessionFailed as failed:
            self._countSession(failed.record, attempt)
            self._results.addHostError(
                sessionError(failed, attempt.host, attempt.lenient)
            )
            return ()
        except TLSFailed as failed:
            self._countSession(failed.record, attempt)
            raise
        try:
            # The TLS record is complete: errors about our side of the handshake
            # arrive before the second EHLO reply.
            self._countSession(session.record, attempt)
            return await self._deliver(session, attempt)
        finally:
            self._context.release(session)

    async def _deliver(
        self, session: ClientSession, attempt: HostAttempt
    ) -> tuple[BatchMessage, ...]:
        offered = session.secure and session.extensions.requireTLS
        if self._requirements.requireTLS and not offered:
            # RFC 8689 4.2.1: the next host may support REQUIRETLS.
            self._results.addHostError(requireTLSNotOffered(attempt.host))
            return ()
        return await deliverBatch(
            session,
            attempt.messages,
            self._results,
            self._recorder,
            attempt.host,
            requireTLS=self._batch.requireTLS is True and offered,
            lenient=attempt.lenient,
        )

    def _countSession(self, record: SessionRecord, attempt: HostAttempt) -> None:
        self._outcome.addSession(record, attempt.counter)


def _clientSettings(
    common: ClientSettings,
    host: Host,
    tlsa: TLSALookup,
    required: SessionRequirements,
) -> ClientSettings:
    if isinstance(host, AddressLiteral):
        names: tuple[str, ...] = (host.ip,)
        webName = host.ip
    else:
        names = tuple(name.ascii for name in tlsa.names) or (host.ascii,)
        # RFC 8461 4.1: the Web PKI certificate is for the name in the MX record.
        webName = host.ascii
    return replace(
        common,
        mode=required.tlsMode,
        names=names,
        enforcePKIX=required.enforcePKIX,
        dane=required.dane,
        ignoreVerifyErrors=required.ignoreVerifyErrors,
        webNames=(webName,),
    )
