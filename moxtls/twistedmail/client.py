# -*- test-case-name: tests.twistedmail.test_client -*-
"""
TLS outcomes of clients made with C{twisted.mail.smtp}, and the hole behind
STARTTLS closed for them.  For servers, see C{filterServer}.

The wrapper stands between the connection and the application's protocol, and
changes neither what is sent nor what the application makes of a certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLContextFactory,
    IProtocol,
    IProtocolFactory,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from moxtls.domain import Domain, InvalidDomain
from moxtls.interfaces import ISessionObserver
from moxtls.ipaddresses import ipOrEmpty
from moxtls.smtp.client.extensions import parseExtensions
from moxtls.smtp.client.replies import MalformedReply, ReplyReader, parseReply
from moxtls.tls.openssl import isCertificateRefusal, tlsErrorOf
from moxtls.tls.resulttype import UNSPECIFIED, classify
from moxtls.tls.session import SessionRecord, STARTTLSResult, TLSError
from moxtls.tls.verify import TrustStore, loadTrustStore, peerChain, verifyChain
from moxtls.tlsrpt.types import PolicyTally, PolicyType, SessionOutcome, TLSPolicy
from moxtls.twistedmail.server import filterServer

__all__ = ["TLSRecordingFactory", "TLSRecordingWrapper", "recordTLS", "filterServer"]


@dataclass(frozen=True, slots=True)
class _RecordingSettings:
    """
    What the sessions that are captured are about.

    @ivar recipient: The policy applied for the recipient domain.
    @ivar host: That for the host; C{None} if it has no name.
    """

    observer: ISessionObserver
    domain: Domain
    hostname: str
    recipient: TLSPolicy
    host: TLSPolicy | None
    trust: TrustStore | None
    sendReport: bool


def recordTLS(
    factory: IProtocolFactory,
    observer: ISessionObserver,
    recipientDomain: str,
    host: str = "",
    policies: Sequence[TLSPolicy] = (),
    trust: TrustStore | None = None,
    sendReport: bool = True,
) -> TLSRecordingFactory:
    """
    Have C{observer} reported of the TLS in each connection of a client.

    @param factory: Builds protocols such as C{twisted.mail.smtp.ESMTPClient},
        which do STARTTLS themselves.
    @param recipientDomain: The domain of the addresses that mail is for.
    @param host: The name of the host that is connected to.
    @param policies: Those that were applied, for the recipient domain and for
        the host; by default, none were found.
    @param trust: Who is to be trusted, for the record.  By default, whom the
        application trusts; or the system, if it trusts everybody.

    @raise InvalidDomain: C{recipientDomain} is none.
    """
    domain = Domain.parse(recipientDomain)
    hostDomain = _domain(host)
    recipient = TLSPolicy(PolicyType.NO_POLICY, domain)
    hostPolicy = _noPolicy(hostDomain)
    if policies:
        recipient, hostPolicy = policies
    hostname = hostDomain.ascii if hostDomain else host
    settings = _RecordingSettings(
        observer, domain, hostname, recipient, hostPolicy, trust, sendReport
    )
    return TLSRecordingFactory(factory, settings)


def _domain(host: str) -> Domain | None:
    try:
        return Domain.parse(host)
    except InvalidDomain:
        return None


def _noPolicy(domain: Domain | None) -> TLSPolicy | None:
    return TLSPolicy(PolicyType.NO_POLICY, domain) if domain else None


# What startTLS takes.
_ContextFactory = IOpenSSLClientConnectionCreator | IOpenSSLContextFactory


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionKeeper:
    """
    Makes the connection that the application wants, and keeps hold of it.
    """

    connection: SSL.Connection

    def __init__(self, wanted: _ContextFactory) -> None:
        self._wanted = wanted

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        wanted = self._wanted
        if IOpenSSLClientConnectionCreator.providedBy(wanted):
            self.connection = wanted.clientConnectionForTLS(tlsProtocol)
        else:
            self.connection = SSL.Connection(wanted.getContext(), None)
        return self.connection


@implementer(IHandshakeListener)
class TLSRecordingWrapper(ProtocolWrapper):
    """
    Watches one connection of a client.
    """

    _log = Logger()

    factory: TLSRecordingFactory

    def __init__(self, factory: TLSRecordingFactory, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self._settings = factory.settings
        self._record = SessionRecord(host=self._settings.hostname)
        # None as soon as TLS is wanted: from there on nothing is read here.
        # Twisted's clients know no line ends but CRLF.
        self._reader: ReplyReader | None = ReplyReader(onlyCRLF=True)
        self._raw = b""
        self._verb = b"CONNECT"
        self._ehloRefused = False
        self._isHungUp = False
        self._keeper: _ConnectionKeeper | None = None
        self._hasReceived = False

    # --- towards the server --------------------------------------------------

    def makeConnection(self, transport: ITransport) -> None:
        here, there = transport.getHost(), transport.getPeer()
        self._record = replace(
            self._record, sendingIP=_ip(here), receivingIP=_ip(there)
        )
        self._below: ITLSTransport = transport  # type: ignore[assignment]  # all are
        super().makeConnection(transport)

    def write(self, data: bytes) -> None:
        self._noteVerb(data)
        super().write(data)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        self._noteVerb(b"".join(data))
        super().writeSequence(data)

    def _noteVerb(self, data: bytes) -> None:
        if self._reader is not None:
            self._verb = data[:10].upper().partition(b" ")[0].strip()

    def loseConnection(self) -> None:
        self._isHungUp = True
        super().loseConnection()

    def abortConnection(self) -> None:
        self._isHungUp = True
        self._below.abortConnection()

    def startTLS(self, contextFactory: _ContextFactory) -> None:
        """
        As the transport's.
        """
        keeper = _ConnectionKeeper(contextFactory)
        self._below.startTLS(keeper)
        self._reader = None
        self._keeper = keeper
        self._record = replace(self._record, starttls=STARTTLSResult.BROKEN)
        directlyProvides(self, *providedBy(self.transport))

    # --- towards the application -----------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._reader is None:
            self._hasReceived = True
            super().dataReceived(data)
            return
        self._raw += data
        self._reader.feed(data)
        try:
            while self._reader is not None:
                lines = self._reader.next()
                if lines is None:
                    break
                self._pass(lines, self._reader.pending)
        except MalformedReply as why:
            if self._verb == b"STARTTLS":
                self._noReply(TLSError(TLSError.Kind.NOT_SMTP))
            self._stop(f"{why}")

    def _pass(self, lines: tuple[bytes, ...], more: bool) -> None:
        """
        Give one reply to the application, unless it is the one to STARTTLS
        and not the last: what comes behind that one would be taken for
        something said over TLS (RFC 3207 6).
        """
        verb, self._verb = self._verb, b""
        if verb == b"STARTTLS" and lines[0].startswith(b"220") and more:
            self._record = replace(self._record, starttls=STARTTLSResult.INJECTED)
            self._stop("plaintext behind the reply to STARTTLS")
            return
        self._note(verb, lines)
        length = sum(len(line) + 2 for line in lines)
        reply, self._raw = self._raw[:length], self._raw[length:]
        super().dataReceived(reply)
        if self._verb == b"STARTTLS" and more:
            self._noReply(TLSError(TLSError.Kind.NOT_SMTP))
            self._stop("a reply to STARTTLS before it was said")

    def _note(self, verb: bytes, lines: tuple[bytes, ...]) -> None:
        reply = parseReply(lines, enhanced=False)
        if verb == b"CONNECT":
            helo = next(iter(reply.text.split()), "")
            self._record = replace(self._record, helo=helo)
        elif verb == b"EHLO":
            self._ehloRefused = reply.permanent
            self._offers(reply.code == 250, parseExtensions(lines).startTLS)
        elif verb == b"HELO":
            # RFC 5321 4.1.1.1: a client that says HELO of its own accord asks
            # for no extensions; after EHLO was refused, the server has none.
            self._offers(reply.code == 250 and self._ehloRefused, False)
        elif verb == b"STARTTLS" and reply.code != 220:
            self._record = replace(
                self._record, starttls=STARTTLSResult.REFUSED, code=reply.code
            )

    def _offers(self, isKnown: bool, startTLS: bool) -> None:
        """
        Whether the server has STARTTLS, if that is known.
        """
        lacking = isKnown and not startTLS
        verification = (
            STARTTLSResult.NOT_OFFERED if lacking else STARTTLSResult.NOT_TRIED
        )
        self._record = replace(self._record, starttls=verification)

    def _noReply(self, trouble: TLSError) -> None:
        self._record = replace(
            self._record, starttls=STARTTLSResult.UNANSWERED, error=trouble
        )

    def _stop(self, why: str) -> None:
        self._log.warn("{host!r}: {why}", host=self._settings.hostname, why=why)
        self._reader = None
        self._raw = b""
        self._isHungUp = True
        self.disconnecting = 1
        self._below.abortConnection()

    def handshakeCompleted(self) -> None:
        self._verify()
        self._hasReceived = False
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._keeper is not None:
            self._noteLoss(reason)
        elif self._verb == b"STARTTLS" and not self._isHungUp:
            # If it was the application, nobody can say why.
            self._noReply(TLSError(TLSError.Kind.CLOSED))
        self._keeper = None
        self._report()
        super().connectionLost(reason)

    # --- what was verification ------------------------------------------------------------

    def _verify(self) -> None:
        """
        Look at the certificate.  The application does so itself, and has the
        say; this is for the record.
        """
        if self._keeper is None or self._record.verification is not None:
            return
        connection = self._keeper.connection
        trust = self.factory.trust(connection)
        name = self._settings.hostname or _sni(connection)
        verification = verifyChain(trust, [name], peerChain(connection))
        self._record = replace(
            self._record,
            host=name,
            starttls=STARTTLSResult.COMPLETED,
            verification=verification,
        )

    def _noteLoss(self, reason: Failure) -> None:
        trouble = tlsErrorOf(reason)
        if isCertificateRefusal(reason):
            self._verify()
            self._refused()
            return
        rejected = not self._hasReceived and trouble.kind is TLSError.Kind.REMOTE_ALERT
        if rejected or self._record.starttls is STARTTLSResult.BROKEN:
            self._record = replace(self._record, error=trouble)

    def _refused(self) -> None:
        """
        The application hung up over the certificate.
        """
        verification = self._record.verification
        if verification is not None and verification.ok:
            # For reasons of its own.
            verification = replace(verification, verifyErrors=((UNSPECIFIED, 0),))
        self._record = replace(self._record, verification=verification, enforced=True)

    def _report(self) -> None:
        outcome = _outcome(self._settings, self._record)
        if outcome is None:
            return
        reported: Deferred[None] = maybeDeferred(
            self._settings.observer.sessionEnded, outcome
        )
        reported.addErrback(
            lambda why: self._log.failure("a TLS outcome was not recorded", why)
        )


class TLSRecordingFactory(WrappingFactory[TLSRecordingWrapper]):
    """
    Wraps the protocols of a factory in L{TLSRecordingWrapper}.
    """

    noisy = False
    protocol = TLSRecordingWrapper

    def __init__(self, factory: IProtocolFactory, settings: _RecordingSettings) -> None:
        super().__init__(factory)
        self.settings = settings

    def trust(self, connection: SSL.Connection) -> TrustStore:
        """
        By whose word the certificate of a connection is judged.
        """
        if self.settings.trust is not None:
            return self.settings.trust
        if connection.get_verify_mode() & SSL.VERIFY_PEER:
            return TrustStore(connection.get_context())
        return self._system

    @cached_property
    def _system(self) -> TrustStore:
        return loadTrustStore()


def _outcome(
    settings: _RecordingSettings, record: SessionRecord
) -> SessionOutcome | None:
    """
    What there is to tell about a session, if anything.
    """
    if record.starttls is STARTTLSResult.NOT_TRIED:
        return None
    # RFC 8460 4.4: what isn't a host's name in A-labels is left out.
    host = _domain(record.host)
    verification = classify(replace(record, host=host.ascii if host else ""))
    tallies = [
        PolicyTally(policy, verification.succeeded, verification.failed, failures)
        for policy, failures in (
            (settings.recipient, verification.recipientFailures),
            (settings.host or _noPolicy(host), verification.hostFailures),
        )
        if policy is not None
    ]
    return SessionOutcome(
        settings.domain, tallies[0], tuple(tallies[1:]), settings.sendReport
    )


def _ip(address: object) -> str:
    """
    Empty where addresses are none of IP.
    """
    return ipOrEmpty(str(getattr(address, "host", "")))


def _sni(connection: SSL.Connection) -> str:
    return (connection.get_servername() or b"").decode("ascii", "replace")
