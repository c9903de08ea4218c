# -*- test-case-name: tests.tls.test_openssl,tests.smtp.client.test_session -*-
"""
Certificate verification for clients that records errors instead of aborting the
handshake, and the errors of OpenSSL for a lost connection as L{TLSError}.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from ssl import get_default_verify_paths

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    UnsupportedGeneralNameType,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import (
    DNS_ID,
    CertificatePattern,
    IPAddress_ID,
    ServiceID,
    verify_service_identity,
)
from twisted.internet.error import ConnectionClosed
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.tls.session import CLOSE_NOTIFY, Alert, CertificateVerification, TLSError

# Where distributions keep the roots: Debian, Fedora, SUSE, Alpine and BSD.
_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# Exceptions of cryptography for certificates that OpenSSL accepts: extensions that are
# malformed, duplicate, or have unsupported names.
_UNREADABLE = (
    ValueError,
    DuplicateExtension,
    UnsupportedAlgorithm,
    UnsupportedGeneralNameType,
)
# RFC 7435 1.2: weak encryption is better than none, the alternative with servers that
# have old parameters.
_CIPHERS = b"DEFAULT:@SECLEVEL=1"
# RFC 8446 6: the level of an alert.
_FATAL = 2


@dataclass(frozen=True, slots=True)
class TrustStore:
    """
    The trusted roots, shared by all TLS clients: loading them is expensive.

    @ivar noRoots: True if there are no trusted roots, for lack of a file.
    """

    context: SSL.Context
    noRoots: bool = False


def loadTrustStore(roots: str | None = None) -> TrustStore:
    """
    Load trusted roots.

    @param roots: A file of certificates in PEM; C{None} for those of the
        system.

    @raise OSError: C{roots} can't be read.
    @raise ValueError: There is no certificate in C{roots}.
    """
    context = _context()
    if roots is not None:
        _load(context, roots)
        return TrustStore(context)
    return TrustStore(context, not _loadSystem(context))


def noTrust() -> TrustStore:
    """
    A store for sessions without TLS.
    """
    return TrustStore(_context(), noRoots=True)


def trustStoreOf(roots: Iterable[Certificate]) -> TrustStore:
    """
    A trust store with the given roots.
    """
    context = _context()
    store = _store(context)
    known = [X509.from_cryptography(each) for each in roots]
    for each in known:
        store.add_cert(each)
    return TrustStore(context, not known)


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # RFC 8996, RFC 9325 3.1.1.
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # A resumed session has no certificate to verify.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_cipher_list(_CIPHERS)
    return context


def _store(context: SSL.Context) -> X509Store:
    store = context.get_cert_store()
    assert store is not None
    return store


def _load(context: SSL.Context, roots: str) -> None:
    # OpenSSL doesn't tell why it can't read a file.
    open(roots, "rb").close()
    try:
        context.load_verify_locations(roots)
    except SSL.Error:
        raise ValueError(f"no certificates in {roots}") from None


def _loadSystem(context: SSL.Context) -> bool:
    python = get_default_verify_paths()
    for path in (python.cafile or python.openssl_cafile, *_SYSTEM_ROOTS):
        try:
            _load(context, path)
        except (OSError, ValueError):
            continue
        return True
    return False


@implementer(IOpenSSLClientConnectionCreator)
class RecordingVerifier:
    """
    Completes one handshake, and records the errors of OpenSSL's verification.

    Delivery without a policy continues with any certificate (RFC 7435), and a TLS
    report has to name the error.  C{optionsForClientTLS} can do neither: it aborts
    the handshake with "certificate verify failed".

    It rejects no certificate: its user has to do so after the handshake, before
    anything is sent.

    @ivar alert: The alert that ended the connection, if any.
    """

    def __init__(
        self, trust: TrustStore, names: Sequence[str], serverName: str = ""
    ) -> None:
        """
        @param names: The names of which the certificate needs one.
        @param serverName: The name to send in SNI; the first of C{names} if empty.
        """
        self._trust = trust
        self._names = names
        self._serverName = serverName or "".join(names[:1])
        self._verifyErrors: list[tuple[int, int]] = []
        self._connection: SSL.Connection | None = None
        self.alert: Alert | None = None

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = TLSConnection(self._trust.context, None)
        connection.set_verify(SSL.VERIFY_PEER, self._recordError)
        connection.set_info_callback(self._recordAlert)
        # RFC 6066 3: no addresses.
        if self._serverName and not _isAddress(self._serverName):
            connection.set_tlsext_host_name(self._serverName.encode("ascii"))
        self._connection = connection
        return connection

    def _recordError(
        self, connection: SSL.Connection, seen: X509, error: int, depth: int, ok: int
    ) -> bool:
        if not ok:
            self._verifyErrors.append((error, depth))
        return True

    def _recordAlert(self, connection: SSL.Connection, where: int, code: int) -> None:
        # OpenSSL's errors have no numbers for unknown alerts, nor for sent ones.
        if self.alert is not None or not where & SSL.SSL_CB_ALERT:
            return
        isRemote = bool(where & SSL.SSL_CB_READ)
        level, number = divmod(code, 256)
        if level == _FATAL or (isRemote and number == CLOSE_NOTIFY):
            self.alert = Alert(number, isRemote)

    def verification(self) -> CertificateVerification:
        """
        The result.  To be called once, after the handshake.
        """
        connection, self._connection = self._connection, None
        chain = peerChain(connection) if connection else ()
        return CertificateVerification(
            chain,
            tuple(self._verifyErrors),
            bool(chain) and matchesName(chain[0], self._names),
            self._trust.noRoots,
        )


def peerChain(connection: SSL.Connection) -> tuple[Certificate, ...]:
    """
    The chain that the peer sent, leaf first, up to the first unreadable certificate.
    """
    chain: list[Certificate] = []
    for each in connection.get_peer_cert_chain() or ():
        try:
            chain.append(each.to_cryptography())
        except ValueError:
            # OpenSSL accepts certificates in invalid DER.
            break
    return tuple(chain)


def verifyChain(
    trust: TrustStore, names: Sequence[str], chain: Sequence[Certificate]
) -> CertificateVerification:
    """
    Verify a chain after its handshake, as a L{RecordingVerifier} does in one.
    """
    verifyErrors: tuple[tuple[int, int], ...] = ()
    if chain:
        leaf, *others = [X509.from_cryptography(each) for each in chain]
        try:
            X509StoreContext(_store(trust.context), leaf, others).verify_certificate()
        except X509StoreContextError as why:
            verifyErrors = ((why.errors[0], why.errors[1]),)
    matches = bool(chain) and matchesName(chain[0], names)
    return CertificateVerification(tuple(chain), verifyErrors, matches, trust.noRoots)


def matchesName(leaf: Certificate, names: Sequence[str]) -> bool:
    """
    True if a certificate has one of C{names} (RFC 9525 6).
    """
    try:
        patterns = extract_patterns(leaf)
    except (CertificateError, *_UNREADABLE):
        return False
    return any(_matches(patterns, name) for name in names)


def _matches(patterns: Sequence[CertificatePattern], name: str) -> bool:
    try:
        wanted: ServiceID = IPAddress_ID(name) if _isAddress(name) else DNS_ID(name)
        verify_service_identity(patterns, [wanted], [])
    except (CertificateError, VerificationError, ValueError):
        # ValueError: an invalid name.
        return False
    return True


def _isAddress(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


_Kind = TLSError.Kind

# How OpenSSL names alerts that were received; releases differ in the prefix.
_ALERT = re.compile(r"(?:tls|ssl/tls|sslv3|tlsv1|tlsv13) (?:alert )?(.+)\Z")
_ALERT_NUMBERS = {
    "unexpected message": 10,
    "bad record mac": 20,
    "decryption failed": 21,
    "record overflow": 22,
    "decompression failure": 30,
    "handshake failure": 40,
    "no certificate": 41,
    "bad certificate": 42,
    "unsupported certificate": 43,
    "certificate revoked": 44,
    "certificate expired": 45,
    "certificate unknown": 46,
    "illegal parameter": 47,
    "unknown ca": 48,
    "access denied": 49,
    "decode error": 50,
    "decrypt error": 51,
    "export restriction": 60,
    "protocol version": 70,
    "insufficient security": 71,
    "internal error": 80,
    "inappropriate fallback": 86,
    "user cancelled": 90,
    "no renegotiation": 100,
    "missing extension": 109,
    "unsupported extension": 110,
    "certificate unobtainable": 111,
    "unrecognized name": 112,
    "bad certificate status response": 113,
    "bad certificate hash value": 114,
    "unknown psk identity": 115,
    "certificate required": 116,
    "general error": 117,
    "no application protocol": 120,
    "ech required": 121,
}
# The peer sent something other than a TLS record.
_NOT_TLS = frozenset(
    {
        "wrong version number",
        "packet length too long",
        "data length too long",
        "http request",
        "https proxy request",
        "unknown protocol",
        "record length mismatch",
    }
)
_CLOSE_NOTIFY = "close notify"
_VERIFY_FAILED = "certificate verify failed"
# The alerts that OpenSSL sends with its own errors (RFC 8446 6.2): it doesn't tell
# them.
_LOCAL_ALERTS = {
    "unexpected message": 10,
    "bad record mac": 20,
    "decryption failed or bad record mac": 20,
    "dh key too small": 40,
    "no shared cipher": 40,
    _VERIFY_FAILED: 42,
    "wrong cipher returned": 47,
    "bad signature": 51,
    "length mismatch": 50,
    "unsupported protocol": 70,
    "wrong ssl version": 70,
    "inappropriate fallback": 86,
}


class TLSConnection(SSL.Connection):
    """
    A connection whose peer may end the handshake with C{close_notify} (RFC 8446
    6.1): Twisted expects a reason in the error, and OpenSSL gives none.
    """

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except SSL.ZeroReturnError:
            raise SSL.Error([("SSL routines", "", _CLOSE_NOTIFY)]) from None


def tlsErrorOf(failure: Failure, alert: Alert | None = None) -> TLSError:
    """
    The error of a failed handshake, by the reason of the lost connection.

    @param failure: As given to C{connectionLost}, or of a call to OpenSSL.
    @param alert: The alert that was sent or received; without it, the error is
        found from OpenSSL's reason.
    """
    error = _ofFailure(failure)
    if alert is None or error.kind in (_Kind.TIMEOUT, _Kind.NOT_TLS):
        return error
    if alert.isRemote:
        return replace(error, kind=_Kind.REMOTE_ALERT, alert=alert.number)
    if error.kind in (_Kind.LOCAL_ALERT, _Kind.OTHER):
        return replace(error, kind=_Kind.LOCAL_ALERT, alert=alert.number)
    return error


def _ofFailure(failure: Failure) -> TLSError:
    error = failure.value
    if isinstance(error, (TimeoutError, ConnectTimeout)):
        return TLSError(_Kind.TIMEOUT)
    if isinstance(error, (ConnectionClosed, SSL.SysCallError, SSL.ZeroReturnError)):
        return TLSError(_Kind.CLOSED)
    if not isinstance(error, SSL.Error):
        return TLSError(_Kind.OTHER, None, type(error).__name__)
    reasons = _reasons(error)
    if not reasons:
        # OpenSSL 4: the peer closed the connection.
        return TLSError(_Kind.CLOSED)
    return _ofReasons(reasons)


def isCertificateRefusal(failure: Failure) -> bool:
    """
    True if the connection was lost because our side rejected the certificate.
    """
    error = failure.value
    if isinstance(error, (CertificateError, VerificationError)):
        return True
    return isinstance(error, SSL.Error) and _VERIFY_FAILED in _reasons(error)


def _reasons(error: SSL.Error) -> list[str]:
    """
    The reasons in OpenSSL's error queue, in lower case.
    """
    queue = error.args[0] if error.args else ()
    if not isinstance(queue, list):
        return []
    return [str(each[-1]).lower() for each in queue]


def _ofReasons(reasons: list[str]) -> TLSError:
    text = ", ".join(reasons)
    if _CLOSE_NOTIFY in reasons or any(
        each.startswith("unexpected eof") for each in reasons
    ):
        return TLSError(_Kind.CLOSED, None, text)
    if any(each in _NOT_TLS for each in reasons):
        return TLSError(_Kind.NOT_TLS, None, text)
    for reason in reasons:
        alert = _ALERT.match(reason)
        if not reason or (alert and alert[1] in _ALERT_NUMBERS):
            # OpenSSL has no reason for unknown alerts.
            number = _ALERT_NUMBERS[alert[1]] if alert else None
            return TLSError(_Kind.REMOTE_ALERT, number, text)
    for reason in reasons:
        if reason in _LOCAL_ALERTS:
            return TLSError(_Kind.LOCAL_ALERT, _LOCAL_ALERTS[reason], text)
    return TLSError(_Kind.OTHER, None, text)
