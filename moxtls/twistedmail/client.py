# -*- test-case-name: tests.twistedmail.test_client -*-
"""
Records TLS outcomes of clients made with C{twisted.mail.smtp}, and protects them
against plaintext injected after STARTTLS.  For servers, see C{filterServer}.

The wrapper sits between the transport and the application's protocol, and changes
neither the data sent nor the application's verification of certificates.
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
from moxtls.ipaddresses import ipOrEmpty, parseIP
from moxtls.smtp.client.replies import (
    MalformedReply,
    ReplyReader,
    parseExtensions,
    parseReply,
)
from moxtls.tls.openssl import (
    TrustStore,
    isCertificateRefusal,
    loadTrustStore,
    peerChain,
    tlsErrorOf,
    verifyChain,
)
from moxtls.tls.session import (
    UNSPECIFIED,
    SessionRecord,
    STARTTLSResult,
    TLSError,
    classify,
)
from moxtls.tlsrpt.types import PolicyTally, PolicyType, SessionOutcome, TLSPolicy


@dataclass(frozen=True, slots=True)
class _RecordingSettings:
    """
    The settings of recorded sessions.

    @ivar recipient: The policy applied for the recipient domain.
    @ivar host: The policy applied for the host; C{None} if it has no name.
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
    Report the TLS outcome of each connection of a client to C{observer}.

    @param factory: Builds protocols such as C{twisted.mail.smtp.ESMTPClient},
        which do STARTTLS themselves.
    @param recipientDomain: The domain of the addresses that mail is for.
    @param host: The name of the server; empty if it has none.
    @param policies: Two: those applied for the recipient domain and for the host; by
        default, none were found.
    @param trust: Trusted roots for the record.  By default those of the
        application, or of the system if the application verifies nothing.

    @param sendReport: False for sessions that don't cause a report by themselves,
        such as those that carry reports.

    @return: To be connected in place of C{factory}.

    @raise InvalidDomain: C{recipientDomain} is not a domain.
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
    # An IP address is no policy domain (RFC 8460 3).
    if parseIP(host) is not None:
        return None
    try:
        return Domain.parse(host)
    except InvalidDomain:
        return None


def _noPolicy(domain: Domain | None) -> TLSPolicy | None:
    return TLSPolicy(PolicyType.NO_POLICY, domain) if domain else None


# The argument of startTLS.
_ContextFactory = IOpenSSLClientConnectionCreator | IOpenSSLContextFactory


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionKeeper:
    """
    Makes the application's TLS connection, and keeps a reference to it.
    """

    connection: SSL.Connection

    def __init__(self, factory: _ContextFactory) -> None:
        self._factory = factory

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        factory = self._factory
        if IOpenSSLClientConnectionCreator.providedBy(factory):
            self.connection = factory.clientConnectionForTLS(tlsProtocol)
        else:
            self.connection = SSL.Connection(factory.getContext(), None)
        return self.connection


@implementer(IHandshakeListener)
class TLSRecordingWrapper(ProtocolWrapper):
    """
    Records the TLS outcome of one connection of a client.
    """

    _log = Logger()

    factory: TLSRecordingFactory

    def __init__(self, factory: TLSRecordingFactory, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self._settings = factory.settings
        self._record = SessionRecord(host=self._settings.hostname)
        # None once TLS starts: data isn't parsed here any longer.  Twisted's clients
        # only accept CRLF as line ends.
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
        See C{ITLSTransport}.
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
        Pass one reply to the application, unless plaintext follows the reply to
        STARTTLS: the application would process it as if it had come over TLS (RFC
        3207 6).
        """
        verb, self._verb = self._verb, b""
        if verb == b"STARTTLS" and lines[0].startswith(b"220") and more:
            self._record = replace(self._record, starttls=STARTTLSResult.INJECTED)
            self._stop("plaintext after the reply to STARTTLS")
            return
        self._note(verb, lines)
        length = sum(len(line) + 2 for line in lines)
        reply, self._raw = self._raw[:length], self._raw[length:]
        super().dataReceived(reply)
        if self._verb == b"STARTTLS" and more:
            self._noReply(TLSError(TLSError.Kind.NOT_SMTP))
            self._stop("a reply to STARTTLS before the command")

    def _note(self, verb: bytes, lines: tuple[bytes, ...]) -> None:
        reply = parseReply(lines, enhanced=False)
        if verb == b"CONNECT":
            helo = next(iter(reply.text.split()), "")
            self._record = replace(self._record, helo=helo)
        elif verb == b"EHLO":
            self._ehloRefused = reply.permanent
            self._offers(reply.code == 250, parseExtensions(lines).startTLS)
        elif verb == b"HELO":
            # RFC 5321 4.1.1.1: a client that sends HELO without trying EHLO asks for
            # no extensions; if EHLO was refused, the server has none.
            self._offers(reply.code == 250 and self._ehloRefused, False)
        elif verb == b"STARTTLS" and reply.code != 220:
            self._record = replace(
                self._record, starttls=STARTTLSResult.REFUSED, code=reply.code
            )

    def _offers(self, isKnown: bool, startTLS: bool) -> None:
        """
        Record that the server doesn't offer STARTTLS, if that is known.
        """
        lacking = isKnown and not startTLS
        result = STARTTLSResult.NOT_OFFERED if lacking else STARTTLSResult.NOT_TRIED
        self._record = replace(self._record, starttls=result)

    def _noReply(self, error: TLSError) -> None:
        self._record = replace(
            self._record, starttls=STARTTLSResult.UNANSWERED, error=error
        )

    def _stop(self, why: str) -> None:
        self._log.warn(
            "closing the session with {host!r}: {why}",
            host=self._settings.hostname,
            why=why,
        )
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
            # If the application closed the connection, the reason is unknown.
            self._noReply(TLSError(TLSError.Kind.CLOSED))
        self._keeper = None
        self._report()
        super().connectionLost(reason)

    # --- the record ---------------------------------------------------------------

    def _verify(self) -> None:
        """
        Verify the certificate for the record.  The application decides on its own
        verification.
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
        error = tlsErrorOf(reason)
        if isCertificateRefusal(reason):
            self._verify()
            self._refused()
            return
        rejected = not self._hasReceived and error.kind is TLSError.Kind.REMOTE_ALERT
        if rejected or self._record.starttls is STARTTLSResult.BROKEN:
            self._record = replace(self._record, error=error)

    def _refused(self) -> None:
        """
        Record that the application rejected the certificate.
        """
        verification = self._record.verification
        if verification is not None and verification.ok:
            # The application's reason is unknown.
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
            lambda why: self._log.failure(
                "recording the TLS outcome of a session with {host!r} failed",
                why,
                host=self._settings.hostname,
            )
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
        The trusted roots to verify the certificate of a connection with.
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
    The outcome of a session to report, if any.
    """
    if record.starttls is STARTTLSResult.NOT_TRIED:
        return None
    # RFC 8460 4.4: omit anything that isn't a host name in A-labels.
    host = _domain(record.host)
    seen = classify(replace(record, host=host.ascii if host else ""))
    tallies = [
        PolicyTally(policy, seen.succeeded, seen.failed, failures)
        for policy, failures in (
            (settings.recipient, seen.recipientFailures),
            (settings.host or _noPolicy(host), seen.hostFailures),
        )
        if policy is not None
    ]
    return SessionOutcome(
        settings.domain, tallies[0], tuple(tallies[1:]), settings.sendReport
    )


def _ip(address: object) -> str:
    """
    The IP address; empty for other kinds of addresses.
    """
    return ipOrEmpty(str(getattr(address, "host", "")))


def _sni(connection: SSL.Connection) -> str:
    return (connection.get_servername() or b"").decode("ascii", "replace")
