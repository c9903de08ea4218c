# -*- test-case-name: tests.smtp.test_tlscontext -*-
"""
Certificates for servers: the one that a client asks for, read again when its
files change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from moxtls.smtp.certificates import CertifiedKey, matches
from moxtls.smtp.tls import TLSConnection


@implementer(IOpenSSLServerConnectionCreator)
class ReloadingContext:
    """
    Does TLS 1.2 and later with the certificates that are in the files now.

    Whoever renews certificates replaces the files, and nothing else has to
    happen.  Clients that ask for a name (RFC 6066 3) get the first certificate
    that is for it; those that ask for none, or for one that is unknown, get
    the default.
    """

    def __init__(
        self, certFile: Path, keyFile: Path, more: Sequence[tuple[Path, Path]] = ()
    ) -> None:
        """
        @param certFile: PEM: the default certificate, and those between it and
            a root.
        @param keyFile: PEM, without a passphrase.
        @param more: Such pairs for other names.

        @raise OSError: A file can't be read.
        @raise SSL.Error: They are no certificate and key that go together.
        """
        choose = self._choose if more else None
        self._default = CertifiedKey(certFile, keyFile, choose)
        self._more = [CertifiedKey(*pair) for pair in more]

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        Begin one handshake.
        """
        self._default.refresh()
        return TLSConnection(self._default.context, None)

    def _choose(self, connection: SSL.Connection) -> None:
        """
        Called by OpenSSL in the middle of a handshake.
        """
        asked = connection.get_servername()
        if asked is None:
            return
        # RFC 6066 3: A-labels.  What isn't finds nothing.
        host = asked.decode("latin-1").lower()
        if matches(self._default.names, host):
            return
        for each in self._more:
            # A new certificate may have other names.  Looking at the files
            # costs little beside the handshake.
            each.refresh()
            if matches(each.names, host):
                connection.set_context(each.context)
                return
