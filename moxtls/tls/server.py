# -*- test-case-name: tests.tls.test_server -*-
"""
Server certificates, chosen by SNI and reloaded when their files change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from moxtls.regularfiles import checkedFile
from moxtls.tls.openssl import TLSConnection, tlsErrorOf
from moxtls.tls.session import TLSError

# RFC 9325 4.2.1: no ciphers without authentication, none that are broken; OpenSSL
# orders the rest.
CIPHERS = b"HIGH:!aNULL:!eNULL:!PSK:!SRP:!MD5:!3DES"
# RFC 9325 3.3; SMTP has no use for renegotiation.
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION


#: Names of a certificate that are listed in a message.
MAX_LISTED = 5


class IServerTLSObserver(Interface):
    """
    Is told of the TLS events of one listener.  Methods must not fail.
    """

    def handshakeFailed(error: TLSError) -> None:
        """
        Called when a handshake that the client began has failed.
        """

    def certificateUsed(certificate: x509.Certificate, isDefault: bool) -> None:
        """
        Called when a certificate begins to be used, at the start too.

        @param isDefault: False if it is used only for clients that ask for its name.
        """


class _ServerConnection(TLSConnection):
    """
    A connection that tells an observer if its handshake fails.
    """

    observer: IServerTLSObserver | None = None
    _calls = 0

    def do_handshake(self) -> None:
        self._calls += 1
        try:
            super().do_handshake()
        except (SSL.WantReadError, SSL.WantWriteError):
            raise
        except SSL.Error:
            self._failed(tlsErrorOf(Failure()))
            raise
        self.observer = None

    def bio_shutdown(self) -> None:
        # The transport is lost.  Twisted continues the handshake when data arrives: a
        # connection without any, as of clients that only look whether the port is open,
        # is no handshake.
        if self._calls > 1:
            self._failed(TLSError(TLSError.Kind.CLOSED))
        super().bio_shutdown()

    def _failed(self, error: TLSError) -> None:
        observer, self.observer = self.observer, None
        if observer is not None:
            observer.handshakeFailed(error)


class CertifiedKey:
    """
    A certificate and its key, in files.

    If changed files can't be used, that is logged, and the previous certificate
    stays in use.

    @ivar context: The context with the certificate.
    @ivar names: The DNS names of the certificate: lower case, perhaps with a
        wildcard.
    """

    log = Logger()

    def __init__(
        self,
        certFile: Path,
        keyFile: Path,
        choose: Callable[[SSL.Connection], None] | None = None,
        used: Callable[[x509.Certificate], None] | None = None,
    ) -> None:
        """
        @param certFile: PEM: the certificate, and those between it and a root.
        @param keyFile: PEM, without a passphrase.
        @param choose: Called during each handshake, after the client has sent SNI.
        @param used: Called when a certificate begins to be used, if it can be read.

        @raise OSError: A file can't be read.
        @raise SSL.Error: They are no certificate and key that go together.
        """
        self._certFile = certFile
        self._keyFile = keyFile
        self._choose = choose
        self._used = used
        self._seen = self._look()
        self._lastError = ""
        self.context, self.names = self._load()

    def refresh(self) -> None:
        """
        Load the files again if they have changed.
        """
        try:
            now = self._look()
            if now != self._seen:
                self._seen = now
                self.context, self.names = self._load()
                self.log.info("using the new {file!r}", file=str(self._certFile))
            self._lastError = ""
        except (OSError, SSL.Error) as error:
            self._logOnce(repr(error))

    def _logOnce(self, error: str) -> None:
        """
        Log an error once, not at each handshake: clients choose how many there are.
        """
        if error != self._lastError:
            self._lastError = error
            self.log.error(
                "can't use the new {file!r}: {error}",
                file=str(self._certFile),
                error=error,
            )

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        # OpenSSL would block on a named pipe.
        stats = [checkedFile(path).stat() for path in (self._certFile, self._keyFile)]
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in stats)

    def _load(self) -> tuple[SSL.Context, frozenset[str]]:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(_OPTIONS)
        context.set_cipher_list(CIPHERS)
        # OpenSSL would ask for a passphrase on the terminal.
        context.set_passwd_cb(lambda *asked: b"")
        # OpenSSL's error doesn't name the file.
        pem, _ = (path.read_bytes() for path in (self._certFile, self._keyFile))
        context.use_certificate_chain_file(str(self._certFile))
        context.use_privatekey_file(str(self._keyFile))
        context.check_privatekey()
        if self._choose is not None:
            context.set_tlsext_servername_callback(self._choose)
        certificate = _certificate(pem)
        if certificate is None:
            return context, frozenset()
        if self._used is not None:
            self._used(certificate)
        return context, certificateNames(certificate)


def coversHost(names: frozenset[str], host: str) -> bool:
    """
    True if a certificate for C{names} is valid for C{host} (RFC 9525 6.3: a wildcard
    matches one whole label).

    @param host: Lower case.
    """
    label, dot, parent = host.partition(".")
    return host in names or bool(label and dot and f"*.{parent}" in names)


def certificateProblems(
    certificate: x509.Certificate, host: str, now: float
) -> Iterator[str]:
    """
    Reasons why clients that verify may not accept a certificate of ours.

    @param host: Lower case; a name that it should have, or empty.
    @param now: In Unix seconds.
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= end.timestamp():
        yield f"the certificate expired on {end:%Y-%m-%d}"
    if now < begin.timestamp():
        yield f"the certificate is not valid before {begin:%Y-%m-%d}"
    names = certificateNames(certificate)
    if host and not coversHost(names, host):
        listed = ", ".join(sorted(names)[:MAX_LISTED]) or "no name at all"
        yield f"the certificate is for {listed}, and not for Hostname"


def _certificate(pem: bytes) -> x509.Certificate | None:
    """
    A certificate; C{None} if it can't be read: OpenSSL accepts such a certificate, and
    it works for clients without SNI.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None


def certificateNames(certificate: x509.Certificate) -> frozenset[str]:
    """
    The DNS names of a certificate, in lower case.
    """
    try:
        found = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        names = found.value.get_values_for_type(x509.DNSName)
    except (ValueError, x509.ExtensionNotFound):
        return frozenset()
    return frozenset(name.lower() for name in names)


@implementer(IOpenSSLServerConnectionCreator)
class ReloadingContext:
    """
    Makes server connections for TLS 1.2 and later, with the current certificates in
    files: to renew a certificate it is enough to replace its files.

    A client that sends SNI (RFC 6066 3) gets the first certificate that has the
    name; without SNI, or with an unknown name, it gets the default.
    """

    def __init__(
        self,
        certFile: Path,
        keyFile: Path,
        more: Sequence[tuple[Path, Path]] = (),
        observer: IServerTLSObserver | None = None,
    ) -> None:
        """
        @param certFile: PEM: the default certificate, and those between it and
            a root.
        @param keyFile: PEM, without a passphrase.
        @param more: Such pairs for other names.
        @param observer: Of the listener.

        @raise OSError: A file can't be read.
        @raise SSL.Error: They are no certificate and key that go together.
        """
        choose = self._choose if more else None
        self._observer = observer
        self._default = CertifiedKey(certFile, keyFile, choose, self._used(True))
        self._more = [CertifiedKey(*pair, used=self._used(False)) for pair in more]

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        Begin one handshake.
        """
        self._default.refresh()
        connection = _ServerConnection(self._default.context, None)
        connection.observer = self._observer
        return connection

    def _used(self, isDefault: bool) -> Callable[[x509.Certificate], None]:
        def used(certificate: x509.Certificate) -> None:
            if self._observer is not None:
                self._observer.certificateUsed(certificate, isDefault)

        return used

    def _choose(self, connection: SSL.Connection) -> None:
        """
        Called by OpenSSL in the middle of a handshake.
        """
        asked = connection.get_servername()
        if asked is None:
            return
        # RFC 6066 3: A-labels.  Anything else matches nothing.
        host = asked.decode("latin-1").lower()
        if coversHost(self._default.names, host):
            return
        for each in self._more:
            # A new certificate may have other names.  To check the files costs
            # little beside the handshake.
            each.refresh()
            if coversHost(each.names, host):
                connection.set_context(each.context)
                return
