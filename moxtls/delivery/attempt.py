# -*- test-case-name: tests.delivery.test_attempt -*-
"""
Delivers straight to the hosts of a recipient domain, and says how TLS went.

A shell: L{Attempt} gathers what the DNS, MTA-STS and the sessions say, and
L{moxtls.delivery.mx}, L{moxtls.delivery.requirements} and
L{moxtls.tls.resulttype} decide.

Hands parcels over in a session that is open.

What deliveries straight to hosts are given, and on which terms they visit
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
from moxtls.delivery.lookups import findTLSA, lookUpAddresses, lookUpNextHop
from moxtls.delivery.mx import Host, HostAddresses, NextHop, NextHopFailure
from moxtls.delivery.ownhosts import OwnHosts
from moxtls.delivery.requirements import (
    MessageRequirements,
    PolicyRefusal,
    SessionRequirements,
    isToWait,
    sessionRequirements,
)
from moxtls.delivery.results import (
    MAX_SESSIONS,
    DeliveryError,
    RecipientResults,
    limitReached,
    noNextHop,
    ownHost,
    policyRefused,
    requireTLSNotOffered,
    smtpError,
    tlsFailed,
    unreachable,
)
from moxtls.delivery.tlsoutcome import (
    OutcomeBuilder,
    PolicyCounter,
    hostCounter,
    lookupFailure,
    mismatchFailure,
    recipientCounter,
    unvalidatedHost,
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
from moxtls.tls.dane import TLSAFinding
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
        attempt = Attempt(self._context, batch, recorder)
        return Deferred.fromCoroutine(attempt.run())


class Attempt:
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
        self._progress = RecipientResults(batch)
        self._account = OutcomeBuilder()
        self._wishes = messageRequirements(batch)

    async def run(self) -> tuple[Result, ...]:
        """
        Make the attempt, and have its outcome recorded.

        @return: One result for each recipient, also if it was cancelled: then
            a temporary one for whom there was no answer yet.
        """
        try:
            domain = parseHost(self._batch.destination)
        except InvalidDomain:
            self._progress.endAll(DeliveryError("5.1.2", "not a domain"))
            return self._progress.results()
        try:
            await self._toDomain(domain)
        except CancelledError:
            # What hosts took they have: nobody shall give it to them again.
            self._progress.breakOff()
            if isinstance(domain, Domain) and self._account.sawAnything:
                self._record(domain)
            return self._progress.results()
        except Exception:
            # Of our own making.  What hosts said until then holds.
            self.log.failure("mail for {domain}", domain=domain)
            self._progress.hostFailed(DeliveryError("4.3.0", "something is wrong here"))
        self._progress.endRest()
        if isinstance(domain, Domain):
            with suppress(CancelledError):
                await self._record(domain)
        return self._progress.results()

    def _record(self, domain: Domain) -> Deferred[None]:
        """
        Have the outcome recorded.

        @return: Fires once it is, or that it can't be is logged.  Cancelling
            ends the waiting, not the recording: the ledger is the last to
            stop, when all that it was given is written.
        """
        batch = self._batch
        outcome = self._account.outcome(domain, batch.report, batch.causesReports)
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

    async def _toDomain(self, domain: Host) -> None:
        context = self._context
        hop = await lookUpNextHop(context.resolver, domain, context.jitter, context.own)
        if hop.failure is not None:
            self._nowhere(domain, hop.failure)
            return
        policy = None
        if isinstance(domain, Domain):
            lookup = await self._context.policies.get(domain)
            isRequired = self._wishes.requireTLS is not False
            if lookup.unavailable and isRequired:
                why = "ledger unavailable: remembered MTA-STS policies can't be read"
                self._progress.endAll(DeliveryError("4.3.0", why))
                return
            self._account.recipient = recipientCounter(lookup)
            if isToWait(lookup, self._wishes, self._batch.attempt):
                # It says nothing about TLS that something of ours is broken.
                if lookup.failure is not None:
                    self._account.count(None, failed=1)
                self._progress.postpone(DeliveryError("4.4.3", "MTA-STS lookup failed"))
                return
            policy = lookup.policy
        for host in hop.hosts:
            isOwn = await self._toHost(host, hop, policy)
            # RFC 5321 5.1: nor do those count that are preferred less than we.
            if isOwn or self._over():
                return

    def _over(self) -> bool:
        """
        Whether no other host needs to be asked.
        """
        return self._progress.over

    def _nowhere(self, domain: Host, failure: NextHopFailure) -> None:
        self._progress.endAll(noNextHop(failure))
        if failure.dnssecError is not None and isinstance(domain, Domain):
            recipient = recipientCounter(STSLookup(domain))
            recipient.saw([lookupFailure(failure.dnssecError)])
            self._account.recipient = recipient
            self._account.count(None, failed=1)

    async def _toHost(self, host: Host, hop: NextHop, policy: STSPolicy | None) -> bool:
        """
        @return: Whether it is this host, so that there was no connection.
        """
        context = self._context
        name = host if isinstance(host, Domain) else None
        if self._mismatches(name, policy):
            return False
        found = await lookUpAddresses(context.resolver, host, self._families())
        if not found.addresses:
            self._unreachable(found)
            return False
        if context.own is not None and any(
            map(context.own.hasAddress, found.addresses)
        ):
            self._progress.hostFailed(ownHost(str(host)))
            return True
        finding = await findTLSA(context.resolver, hop, found, context.port)
        asked = sessionRequirements(name, policy, finding, self._wishes)
        tallying = None
        if name is not None:
            tallying = self._account.open(hostCounter(name, finding))
        if asked.refuse is not None:
            self._refused(asked.refuse, tallying, str(host))
            return False
        visit = HostAttempt(
            str(host),
            _clientSettings(context.settings, host, finding, asked),
            asked.plaintextFallback,
            self._batch.parcels,
            tallying,
        )
        await self._toAddresses(found.addresses, visit)
        return False

    def _families(self) -> tuple[RRType, ...]:
        """
        The other family first in every other attempt: a host that can't be
        reached over one, or refuses it, may do better over the other.
        """
        families = self._context.families
        return families if self._batch.attempt % 2 else families[::-1]

    def _mismatches(self, name: Domain | None, policy: STSPolicy | None) -> bool:
        """
        Whether a host isn't worth looking up, because the MTA-STS policy
        alone forbids to use it (RFC 8461 4.1).
        """
        asked = sessionRequirements(name, policy, TLSAFinding(name), self._wishes)
        if asked.mxMismatch and self._account.recipient is not None:
            self._account.recipient.saw([mismatchFailure(str(name))])
        if asked.refuse is not PolicyRefusal.MX_MISMATCH:
            return False
        self._progress.hostFailed(policyRefused(asked.refuse, str(name)))
        self._account.count(None, failed=1)
        return True

    def _unreachable(self, found: HostAddresses) -> None:
        self._progress.hostFailed(unreachable(found))
        if found.dnssecError is not None and isinstance(found.host, Domain):
            unvalidated = unvalidatedHost(found.host, found.dnssecError)
            self._account.count(self._account.open(unvalidated), failed=1)

    def _refused(
        self, refusal: PolicyRefusal, tallying: PolicyCounter | None, host: str
    ) -> None:
        self._progress.hostFailed(policyRefused(refusal, host))
        if refusal is PolicyRefusal.TLSA_LOOKUP:
            self._account.count(tallying, failed=1)

    # --- connections -------------------------------------------------------------

    async def _toAddresses(
        self, addresses: tuple[str, ...], visit: HostAttempt
    ) -> None:
        families = {":" in each for each in addresses}
        if self._batch.attempt == 1 and len(families) > 1:
            visit = replace(visit, lenient=True)
        for ip in connectOrder(addresses):
            try:
                await self._toAddress(ip, visit)
            except ConnectFailed as failed:
                trouble = DeliveryError("4.4.1", f"{ip}: {failed.reason}", visit.host)
                self._progress.hostFailed(trouble)
            else:
                return

    async def _toAddress(self, ip: str, visit: HostAttempt) -> None:
        """
        Connections to one address: another one if TLS fails and plaintext is
        allowed, and for parcels that the last one had no room for.

        @raise ConnectFailed: There is nobody at C{ip}.
        """
        for _ in range(MAX_SESSIONS):
            try:
                rest = await self._session(ip, visit)
            except TLSFailed as failed:
                await self._withoutTLS(ip, visit, failed)
                return
            if not rest:
                return
            visit = replace(visit, parcels=rest)
        self._progress.hostFailed(limitReached(visit.host))

    async def _withoutTLS(self, ip: str, visit: HostAttempt, failed: TLSFailed) -> None:
        """
        Go on in plaintext, where that is allowed.  Nothing is seen of TLS
        there, so that what counts is the connection before.
        """
        trouble = tlsFailed(failed.reason, failed.reply, visit.host)
        if not visit.plaintextFallback:
            self._progress.hostFailed(trouble)
            return
        self.log.info(
            "no TLS with {host!r} ({why!r}): going on in plaintext",
            host=visit.host,
            why=trouble.text,
        )
        plain = replace(visit.settings, mode=TLSMode.SKIP)
        await self._toAddress(
            ip, replace(visit, settings=plain, plaintextFallback=False)
        )

    async def _session(self, ip: str, visit: HostAttempt) -> tuple[BatchMessage, ...]:
        """
        @return: As L{deliverBatch}.
        """
        try:
            session = await self._context.dial(ip, visit.settings)
        except SessionFailed as failed:
            self._saw(failed.record, visit)
            self._progress.hostFailed(sessionError(failed, visit.host, visit.lenient))
            return ()
        except TLSFailed as failed:
            self._saw(failed.record, visit)
            raise
        try:
            # All that can be seen of TLS was: what a server has to say about
            # our part of the handshake comes before its second EHLO reply.
            self._saw(session.record, visit)
            return await self._carry(session, visit)
        finally:
            self._context.release(session)

    async def _carry(
        self, session: ClientSession, visit: HostAttempt
    ) -> tuple[BatchMessage, ...]:
        offered = session.secure and session.extensions.requireTLS
        if self._wishes.requireTLS and not offered:
            # RFC 8689 4.2.1: the next host may know how to pass it on.
            self._progress.hostFailed(requireTLSNotOffered(visit.host))
            return ()
        require = self._batch.requireTLS is True and offered
        return await deliverBatch(
            session,
            visit.parcels,
            self._progress,
            self._recorder,
            visit.host,
            require,
            visit.lenient,
        )

    def _saw(self, record: SessionRecord, visit: HostAttempt) -> None:
        self._account.saw(record, visit.tallying)


def messageRequirements(batch: Batch) -> MessageRequirements:
    """
    What a batch says about TLS.
    """
    requireTLS = batch.requireTLS
    if requireTLS and not any(parcel.sender for parcel in batch.parcels):
        # RFC 8689 5: a bounce isn't discarded for want of REQUIRETLS; its
        # body was left out when it was made.
        requireTLS = None
    return MessageRequirements(requireTLS, noFallback=batch.report is ReportKind.DMARC)


def _clientSettings(
    common: ClientSettings,
    host: Host,
    finding: TLSAFinding,
    asked: SessionRequirements,
) -> ClientSettings:
    if isinstance(host, AddressLiteral):
        names: tuple[str, ...] = (host.ip,)
        webName = host.ip
    else:
        names = tuple(name.ascii for name in finding.names) or (host.ascii,)
        # RFC 8461 4.1: the Web PKI certificate is for the name in the MX record.
        webName = host.ascii
    return replace(
        common,
        mode=asked.tlsMode,
        names=names,
        enforcePKIX=asked.enforcePKIX,
        dane=asked.dane,
        ignoreVerifyErrors=asked.ignoreVerifyErrors,
        webNames=(webName,),
    )


#: RFC 5321 3.8: the host is about to close the connection.
CLOSING = 421


async def deliverBatch(
    session: ClientSession,
    parcels: tuple[BatchMessage, ...],
    progress: RecipientResults,
    recorder: IResultRecorder,
    host: str,
    requireTLS: bool = False,
    lenient: bool = False,
) -> tuple[BatchMessage, ...]:
    """
    One transaction for each parcel that has recipients without an answer; as
    many as it takes to keep to the host's limits on recipients (RFC 9422).

    @param recorder: Has recorded the final results of each transaction
        before the data of the next message is sent: recording takes place while
        the host answers the commands before it.
    @param requireTLS: Say REQUIRETLS.
    @param lenient: As in L{RecipientResults.answered}.

    @return: What another session with the same host may take, after this one
        took at least one parcel, or some recipients of it, and takes no more.
    """
    begun = False
    recorded: Deferred[None] = succeed(None)
    for index, parcel in enumerate(parcels):
        recipients = progress.openRecipients(parcel)
        whole = _transaction(parcel, recipients, requireTLS)
        parts = splitByLimits(whole, session.extensions) if recipients else ()
        for number, part in enumerate(parts):
            if begun and not session.usable:
                await recorded
                rest = tuple(to for each in parts[number:] for to in each.recipients)
                return (replace(parcel, recipients=rest), *parcels[index + 1 :])
            begun = True
            progress.begin()
            try:
                replies = await session.deliver(part, recorded)
                ended = _ended(replies, host)
            except SessionFailed as failed:
                replies, ended = failed.decided, sessionError(failed, host, lenient)
            except OSError as why:
                progress.parcelFailed(parcel, _unreadable(why))
                continue
            progress.answered(parcel, replies, host, lenient)
            if not progress.over:
                # Without another transaction, what the attempt returns is soon
                # recorded: that saves a commit for most messages.
                # It has fired, unless this transaction ended before its data.
                await recorded
                recorded = recorder.record(progress.news())
            if ended is not None:
                progress.hostFailed(ended)
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
        # RFC 3463 3.6: it said yes to something else than it was asked.
        return DeliveryError("4.5.0", f"{failed.reason}: {failed.reply}", host)
    trouble = smtpError(failed.reply, host)
    return trouble.softened() if lenient else trouble


def _unreadable(why: OSError) -> DeliveryError:
    # Without its path, for this goes into a DSN.
    return DeliveryError("4.3.0", f"the message can't be read: {why.strerror}")


def _ended(replies: Iterable[RecipientReply], host: str) -> DeliveryError | None:
    """
    Why the host takes nothing more, if it has said so.
    """
    said = (each.reply for each in replies)
    closing = next((reply for reply in said if reply.code == CLOSING), None)
    return None if closing is None else smtpError(closing, host)


def _transaction(
    parcel: BatchMessage, recipients: tuple[str, ...], requireTLS: bool
) -> Transaction:
    return Transaction(
        parcel.sender,
        recipients,
        parcel.path,
        parcel.size,
        parcel.eightBit,
        parcel.smtputf8,
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
    @ivar tallying: Where to count; C{None} for an address literal.
    @ivar lenient: As in L{Progress.answered}.
    """

    host: str
    settings: ClientSettings
    plaintextFallback: bool
    parcels: tuple[BatchMessage, ...]
    tallying: PolicyCounter | None
    lenient: bool = False
