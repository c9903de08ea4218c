# -*- test-case-name: tests.smtp.test_tlscontext -*-
"""
Certificates for servers, read again when their files change.
"""

from __future__ import annotations

import os
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

# RFC 9325 4.2.1: nothing without authentication, nothing known to be broken;
# OpenSSL orders the rest.
CIPHERS = b"HIGH:!aNULL:!eNULL:!PSK:!SRP:!MD5:!3DES"
# RFC 9325 3.3, and nobody renegotiates in SMTP.
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION


@implementer(IOpenSSLServerConnectionCreator)
class ReloadingContext:
    """
    Does TLS 1.2 and later with the certificate that is in the files now.

    Whoever renews certificates replaces the files, and nothing else has to
    happen.  What can't be used is logged, and the certificate before it goes
    on being used.
    """

    log = Logger()

    def __init__(self, certFile: Path, keyFile: Path) -> None:
        """
        @param certFile: PEM: the certificate, and those between it and a root.
        @param keyFile: PEM, without a passphrase.

        @raise OSError: A file can't be read.
        @raise SSL.Error: They are no certificate and key that go together.
        """
        self._certFile = certFile
        self._keyFile = keyFile
        self._seen = self._look()
        self._context = self._load()

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        Begin one handshake.
        """
        self._refresh()
        return SSL.Connection(self._context, None)

    def _refresh(self) -> None:
        try:
            now = self._look()
            if now != self._seen:
                self._seen = now
                self._context = self._load()
                self.log.info("using the new {file!r}", file=str(self._certFile))
        except (OSError, SSL.Error) as error:
            self.log.error(
                "can't use the new {file!r}: {error!r}",
                file=str(self._certFile),
                error=error,
            )

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        stats = [os.stat(path) for path in (self._certFile, self._keyFile)]
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in stats)

    def _load(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(_OPTIONS)
        context.set_cipher_list(CIPHERS)
        # OpenSSL would ask for a passphrase on the terminal.
        context.set_passwd_cb(lambda *asked: b"")
        for path in (self._certFile, self._keyFile):
            path.read_bytes()  # OpenSSL's error doesn't name the file
        context.use_certificate_chain_file(str(self._certFile))
        context.use_privatekey_file(str(self._keyFile))
        context.check_privatekey()
        return context
