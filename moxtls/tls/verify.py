# -*- test-case-name: tests.tls.test_verify -*-
"""
Certificate verification as something to write down, not something that hangs
up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from ssl import get_default_verify_paths

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    UnsupportedGeneralNameType,
)
from OpenSSL import SSL
from OpenSSL.crypto import (
    X509,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
)
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import (
    DNS_ID,
    CertificatePattern,
    IPAddress_ID,
    ServiceID,
    verify_service_identity,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from moxtls.tls.openssl import TLSConnection
from moxtls.tls.session import CLOSE_NOTIFY, Alert, CertificateVerification

# Where distributions keep the roots: Debian, Fedora, SUSE, Alpine and BSD.
_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# What cryptography raises where OpenSSL took no offence: extensions that are
# none, come twice, or hold names that nobody uses.
_UNREADABLE = (
    ValueError,
    DuplicateExtension,
    UnsupportedAlgorithm,
    UnsupportedGeneralNameType,
)
# RFC 7435 1.2: encryption that isn't the best beats none, which is what a
# server with old parameters would get instead.
_CIPHERS = b"DEFAULT:@SECLEVEL=1"
# RFC 8446 6: the level of an alert.
_FATAL = 2


@dataclass(frozen=True, slots=True)
class TrustStore:
    """
    What all TLS clients of ours share: making it is dear, using it is cheap.

    @ivar noRoots: Whether nobody is trusted, for lack of a file that says
        who is.
    """

    context: SSL.Context
    noRoots: bool = False


def loadTrustStore(roots: str | None = None) -> TrustStore:
    """
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
    As C{loadTrustStore}, for roots that are at hand.
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
    # A session resumed shows no certificate, so there is nothing to judge.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_cipher_list(_CIPHERS)
    return context


def _store(context: SSL.Context) -> X509Store:
    store = context.get_cert_store()
    assert store is not None
    return store


def _load(context: SSL.Context, roots: str) -> None:
    # OpenSSL doesn't say why it can't read a file.
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
    Completes one handshake and remembers what OpenSSL objected to.

    Delivery without a policy goes ahead whatever the certificate (RFC 7435),
    and a TLS report must name the objection.  C{optionsForClientTLS} can do
    neither: it hangs up, and all it leaves is "certificate verify failed".

    It refuses nobody: whoever uses it must decide, when the handshake is
    done and before anything is sent, whether to go on.

    @ivar alert: The first that ended the connection, if one did.
    """

    def __init__(
        self, trust: TrustStore, names: Sequence[str], serverName: str = ""
    ) -> None:
        """
        @param names: Those for which the certificate may be.
        @param serverName: To say in SNI; the first of C{names} if empty.
        """
        self._trust = trust
        self._names = names
        self._serverName = serverName or "".join(names[:1])
        self._verifyErrors: list[tuple[int, int]] = []
        self._connection: SSL.Connection | None = None
        self.alert: Alert | None = None

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = TLSConnection(self._trust.context, None)
        connection.set_verify(SSL.VERIFY_PEER, self._note)
        connection.set_info_callback(self._noteAlert)
        # RFC 6066 3: no addresses.
        if self._serverName and not _isAddress(self._serverName):
            connection.set_tlsext_host_name(self._serverName.encode("ascii"))
        self._connection = connection
        return connection

    def _note(
        self, connection: SSL.Connection, seen: X509, error: int, depth: int, ok: int
    ) -> bool:
        if not ok:
            self._verifyErrors.append((error, depth))
        return True

    def _noteAlert(self, connection: SSL.Connection, where: int, code: int) -> None:
        # OpenSSL's errors have no numbers for alerts that it doesn't know, nor
        # for those that we send.
        if self.alert is not None or not where & SSL.SSL_CB_ALERT:
            return
        isRemote = bool(where & SSL.SSL_CB_READ)
        level, number = divmod(code, 256)
        if level == _FATAL or (isRemote and number == CLOSE_NOTIFY):
            self.alert = Alert(number, isRemote)

    def verification(self) -> CertificateVerification:
        """
        To be called once, when the handshake has completed.
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
    What the other side presented, leaf first; as far as it can be read.
    """
    chain: list[Certificate] = []
    for each in connection.get_peer_cert_chain() or ():
        try:
            chain.append(each.to_cryptography())
        except ValueError:
            # OpenSSL takes certificates that are no good DER.
            break
    return tuple(chain)


def verifyChain(
    trust: TrustStore, names: Sequence[str], chain: Sequence[Certificate]
) -> CertificateVerification:
    """
    What a L{RecordingVerifier} would have said of a chain that somebody else accepted.
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
    Whether a certificate is for one of C{names} (RFC 9525 6).
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
        # ValueError: a name that can't be in a certificate.
        return False
    return True


def _isAddress(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
