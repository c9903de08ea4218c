# -*- test-case-name: tests.delivery.test_attempt -*-
"""
Delivers straight to the hosts of a recipient domain, and says how TLS went.

A shell: L{DirectAttempt} gathers what the DNS, MTA-STS and the sessions say, and
L{moxtls.delivery.mx}, L{moxtls.delivery.requirements} and
L{moxtls.tls.resulttype} decide.

Hands parcels over in a session that is open.

What deliveries straight to hosts are given, and on which terms they attempt
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.delivery.connections import connectOrder
from moxtls.delivery.lookups import lookUpAddresses, lookUpNextHop, lookUpTLSA
from moxtls.delivery.mx import Host, HostAddresses, NextHop, NextHopFailure
from moxtls.delivery.ownhosts import OwnHosts
from moxtls.delivery.requirements import (
    MessageRequirements,
    PolicyRefusal,
    SessionRequirements,
    mustWait,
    sessionRequirements,
)
from moxtls.delivery.results import (
    MAX_SESSIONS,
    DeliveryError,
    RecipientResults,
    noNextHop,
    ownHost,
    policyRefused,
    requireTLSNotOffered,
    sessionLimitReached,
    smtpError,
    tlsFailed,
    unreachableHost,
)
from moxtls.delivery.tlsoutcome import (
    OutcomeBuilder,
    PolicyCounter,
    hostCounter,
    lookupFailure,
    mismatchFailure,
    recipientCounter,
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
from moxtls.queue.types import Batch, BatchMessage, ReportKind, Result
from moxtls.smtp.client.extensions import splitByLimits
from moxtls.smtp.client.session import (
    ClientSession,
    ClientSettings,
    ConnectFailed,
    SessionFailed,
    TLSFailed,
)
from moxtls.smtp.types import RecipientReply, TLSMode, Transaction
from moxtls.tls.dane import TLSALookup
from moxtls.tls.session import SessionRecord


@implementer(ICourier)
class DirectCourier:
    """
    Takes mail to the hosts in a domain's MX records.
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
        @param recorder: As of L{ICourier.deliver}.
        """
        self._context = context
        self._batch = batch
        self._recorder = recorder
        self._results = RecipientResults(batch)
        self._outcome = OutcomeBuilder()
        self._requirements = messageRequirements(batch)

    async def run(self) -> tuple[Result, ...]:
        """
        Make the attempt, and have its outcome recorded.

        @return: One result for each recipient, also if it was cancelled: then
            a temporary one for whom there was no answer yet.
        """
        try:
            domain = parseHost(self._batch.destination)
        except InvalidDomain:
            self._results.failAll(DeliveryError("5.1.2", "not a domain"))
            return self._results.final()
        try:
            await self._tryDomain(domain)
        except CancelledError:
            # What hosts took they have: nobody shall give it to them again.
            self._results.expire()
            if isinstance(domain, Domain) and self._outcome.hasCounts:
                self._record(domain)
            return self._results.final()
        except Exception:
            # Of our own making.  What hosts said until then holds.
            self.log.failure("mail for {domain}", domain=domain)
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
        Have the outcome recorded.

        @return: Fires once it is, or that it can't be is logged.  Cancelling
            ends the waiting, not the recording: the ledger is the last to
            stop, when all that it was given is written.
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

    # --- where it goes ---------------------------------------------------------

    async def _tryDomain(self, domain: Host) -> None:
        context = self._context
        hop = await lookUpNextHop(context.resolver, domain, context.jitter, context.own)
        if hop.failure is not None:
            self._noNextHop(domain, hop.failure)
            return
        policy = None
        if isinstance(domain, Domain):
            lookup = await self._context.policies.get(domain)
            isRequired = self._requirements.requireTLS is not False
            if lookup.unavailable and isRequired:
                why = "ledger unavailable: remembered MTA-STS policies can't be read"
                self._results.failAll(DeliveryError("4.3.0", why))
                return
            self._outcome.recipient = recipientCounter(lookup)
            if mustWait(lookup, self._requirements, self._batch.attempt):
                # It says nothing about TLS that something of ours is broken.
                if lookup.failure is not None:
                    self._outcome.count(None, failed=1)
                self._results.deferAll(DeliveryError("4.4.3", "MTA-STS lookup failed"))
                return
            policy = lookup.policy
        for host in hop.hosts:
            isOwn = await self._tryHost(host, hop, policy)
            # RFC 5321 5.1: nor do those count that are preferred less than we.
            if isOwn or self._isComplete():
                return

    def _isComplete(self) -> bool:
        """
        Whether no other host needs to be session.
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
        @return: Whether it is this host, so that there was no connection.
        """
        context = self._context
        name = host if isinstance(host, Domain) else None
        if self._refuseMismatch(name, policy):
            return False
        found = await lookUpAddresses(context.resolver, host, self._families())
        if not found.addresses:
            self._unreachable(found)
            return False
        if context.own is not None and any(
            map(context.own.hasAddress, found.addresses)
        ):
            self._results.addHostError(ownHost(str(host)))
            return True
        tlsa = await lookUpTLSA(context.resolver, hop, found, context.port)
        session = sessionRequirements(name, policy, tlsa, self._requirements)
        counter = None
        if name is not None:
            counter = self._outcome.addHost(hostCounter(name, tlsa))
        if session.refuse is not None:
            self._refused(session.refuse, counter, str(host))
            return False
        attempt = HostAttempt(
            str(host),
            _clientSettings(context.settings, host, tlsa, session),
            session.plaintextFallback,
            self._batch.messages,
            counter,
        )
        await self._tryAddresses(found.addresses, attempt)
        return False

    def _families(self) -> tuple[RRType, ...]:
        """
        The other family first in every other attempt: a host that can't be
        reached over one, or refuses it, may do better over the other.
        """
        families = self._context.families
        return families if self._batch.attempt % 2 else families[::-1]

    def _refuseMismatch(self, name: Domain | None, policy: STSPolicy | None) -> bool:
        """
        Whether a host isn't worth looking up, because the MTA-STS policy
        alone forbids to use it (RFC 8461 4.1).
        """
        session = sessionRequirements(
            name, policy, TLSALookup(name), self._requirements
        )
        if session.mxMismatch and self._outcome.recipient is not None:
            self._outcome.recipient.addFailures([mismatchFailure(str(name))])
        if session.refuse is not PolicyRefusal.MX_MISMATCH:
            return False
        self._results.addHostError(policyRefused(session.refuse, str(name)))
        self._outcome.count(None, failed=1)
        return True

    def _unreachable(self, found: HostAddresses) -> None:
        self._results.addHostError(unreachableHost(found))
        if found.dnssecError is not None and isinstance(found.host, Domain):
            unvalidated = unvalidatedHostCounter(found.host, found.dnssecError)
            self._outcome.count(self._outcome.addHost(unvalidated), failed=1)

    def _refused(
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
        Connections to one address: another one if TLS fails and plaintext is
        allowed, and for parcels that the last one had no room for.

        @raise ConnectFailed: There is nobody at C{ip}.
        """
        for _ in range(MAX_SESSIONS):
            try:
                rest = await self._session(ip, attempt)
            except TLSFailed as failed:
                await self._fallBackToPlaintext(ip, attempt, failed)
                return
            if not rest:
                return
            attempt = replace(attempt, parcels=rest)
        self._results.addHostError(sessionLimitReached(attempt.host))

    async def _fallBackToPlaintext(
        self, ip: str, attempt: HostAttempt, failed: TLSFailed
    ) -> None:
        """
        Go on in plaintext, where that is allowed.  Nothing is seen of TLS
        there, so that what counts is the connection before.
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
            # All that can be seen of TLS was: what a server has to say about
            # our part of the handshake comes before its second EHLO reply.
            self._countSession(session.record, attempt)
            return await self._deliver(session, attempt)
        finally:
            self._context.release(session)

    async def _deliver(
        self, session: ClientSession, attempt: HostAttempt
    ) -> tuple[BatchMessage, ...]:
        offered = session.secure and session.extensions.requireTLS
        if self._requirements.requireTLS and not offered:
            # RFC 8689 4.2.1: the next host may know how to pass it on.
            self._results.addHostError(requireTLSNotOffered(attempt.host))
            return ()
        require = self._batch.requireTLS is True and offered
        return await deliverBatch(
            session,
            attempt.parcels,
            self._results,
            self._recorder,
            attempt.host,
            require,
            attempt.lenient,
        )

    def _countSession(self, record: SessionRecord, attempt: HostAttempt) -> None:
        self._outcome.addSession(record, attempt.counter)


def messageRequirements(batch: Batch) -> MessageRequirements:
    """
    What a batch says about TLS.
    """
    requireTLS = batch.requireTLS
    if requireTLS and not any(message.sender for message in batch.messages):
        # RFC 8689 5: a bounce isn't discarded for want of REQUIRETLS; its
        # body was left out when it was made.
        requireTLS = None
    return MessageRequirements(requireTLS, noFallback=batch.report is ReportKind.DMARC)


def _clientSettings(
    common: ClientSettings,
    host: Host,
    tlsa: TLSALookup,
    session: SessionRequirements,
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
        mode=session.tlsMode,
        names=names,
        enforcePKIX=session.enforcePKIX,
        dane=session.dane,
        ignoreVerifyErrors=session.ignoreVerifyErrors,
        webNames=(webName,),
    )


#: RFC 5321 3.8: the host is about to close the connection.
CLOSING = 421


async def deliverBatch(
    session: ClientSession,
    parcels: tuple[BatchMessage, ...],
    results: RecipientResults,
    recorder: IResultRecorder,
    host: str,
    requireTLS: bool = False,
    lenient: bool = False,
) -> tuple[BatchMessage, ...]:
    """
    One transaction for each message that has recipients without an answer; as
    many as it takes to keep to the host's limits on recipients (RFC 9422).

    @param recorder: Has recorded the final results of each transaction
        before the data of the next message is sent: recording takes place while
        the host answers the commands before it.
    @param requireTLS: Say REQUIRETLS.
    @param lenient: As in L{RecipientResults.addReplies}.

    @return: What another session with the same host may take, after this one
        took at least one message, or some recipients of it, and takes no more.
    """
    begun = False
    recorded: Deferred[None] = succeed(None)
    for index, message in enumerate(parcels):
        recipients = results.undecidedRecipients(message)
        whole = _transaction(message, recipients, requireTLS)
        parts = splitByLimits(whole, session.extensions) if recipients else ()
        for number, part in enumerate(parts):
            if begun and not session.usable:
                await recorded
                rest = tuple(to for each in parts[number:] for to in each.recipients)
                return (replace(message, recipients=rest), *parcels[index + 1 :])
            begun = True
            results.messageStarted()
            try:
                replies = await session.deliver(part, recorded)
                ended = _closingError(replies, host)
            except SessionFailed as failed:
                replies, ended = failed.decided, sessionError(failed, host, lenient)
            except OSError as why:
                results.failMessage(message, _unreadableMessage(why))
                continue
            results.addReplies(message, replies, host, lenient)
            if not results.complete:
                # Without another transaction, what the attempt returns is soon
                # recorded: that saves a commit for most messages.
                # It has fired, unless this transaction ended before its data.
                await recorded
                recorded = recorder.record(results.takeNew())
            if ended is not None:
                results.addHostError(ended)
                await recorded
                return ()
    await recorded
    return ()


def sessionError(
    failed: SessionFailed, host: str, lenient: bool = False
) -> DeliveryError:
    """
    What to say about a session that ended before its time.

    @param lenient: Take it as temporary in any case.
    """
    if failed.reply is None:
        return DeliveryError("4.4.2", failed.reason, host)
    if failed.reply.accepted:
        # RFC 3463 3.6: it said yes to something else than it was session.
        return DeliveryError("4.5.0", f"{failed.reason}: {failed.reply}", host)
    error = smtpError(failed.reply, host)
    return error.asTemporary() if lenient else error


def _unreadableMessage(why: OSError) -> DeliveryError:
    # Without its path, for this goes into a DSN.
    return DeliveryError("4.3.0", f"the message can't be read: {why.strerror}")


def _closingError(replies: Iterable[RecipientReply], host: str) -> DeliveryError | None:
    """
    Why the host takes nothing more, if it has said so.
    """
    said = (each.reply for each in replies)
    closing = next((reply for reply in said if reply.code == CLOSING), None)
    return None if closing is None else smtpError(closing, host)


def _transaction(
    message: BatchMessage, recipients: tuple[str, ...], requireTLS: bool
) -> Transaction:
    return Transaction(
        message.sender,
        recipients,
        message.path,
        message.size,
        message.eightBit,
        message.smtputf8,
        requireTLS,
    )


#: Opens a session with an IP address.
Dial = Callable[[str, ClientSettings], Deferred[ClientSession]]


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """
    What a courier needs of the rest, shared by all its attempts.

    @ivar families: In order of preference.
    @ivar own: Says to which hosts no mail may go, as they are this one; C{None}
        if it may go to all.
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
    Going to one host.

    @ivar parcels: What to bring.
    @ivar counter: Where to count; C{None} for an address literal.
    @ivar lenient: As in L{Progress.addReplies}.
    """

    host: str
    settings: ClientSettings
    plaintextFallback: bool
    parcels: tuple[BatchMessage, ...]
    counter: PolicyCounter | None
    lenient: bool = False
