"""
Tests for L{moxtls.smtp.tlscontext}.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.smtp.tlscontext import ReloadingContext
from tests.smtp.pem import writeCertificate


def shakeHands(server: SSL.Connection, newest: int = 0) -> SSL.Connection:
    """
    @param newest: The highest version that the client knows; 0 for any.

    @return: The client's end.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(newest)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    for end, other in ((client, server), (server, client)) * 4:
        with contextlib.suppress(SSL.WantReadError):
            end.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            other.bio_write(end.bio_read(65536))
    return client


class ReloadingContextTests(SynchronousTestCase):
    """
    Tests for L{ReloadingContext}.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.files = writeCertificate(self.folder, "one.example")
        self.context = ReloadingContext(*self.files)
        factory = TLSMemoryBIOFactory(self.context, False, Factory(), clock=Clock())
        self.protocol = TLSMemoryBIOProtocol(factory, None)

    def presented(self) -> str:
        """
        The name in the certificate that a client gets to see.
        """
        client = shakeHands(self.context.serverConnectionForTLS(self.protocol))
        certificate = client.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        return certificate.subject.rfc4514_string()

    def test_interface(self) -> None:
        """
        Twisted's C{startTLS} and C{listenSSL} take it.
        """
        verifyObject(IOpenSSLServerConnectionCreator, self.context)

    def test_reload(self) -> None:
        """
        The next connection has the new certificate.
        """
        self.assertEqual(self.presented(), "CN=one.example")
        writeCertificate(self.folder, "two.example")
        self.assertEqual(self.presented(), "CN=two.example")

    def test_halfway(self) -> None:
        """
        While the files are missing, don't go together or are no certificates,
        what was there before goes on being used.
        """
        certFile, keyFile = self.files
        old = certFile.read_bytes()
        for text in (b"", b"no certificate", keyFile.read_bytes()):
            certFile.write_bytes(text)
            self.assertEqual(self.presented(), "CN=one.example")
        certFile.unlink()
        self.assertEqual(self.presented(), "CN=one.example")
        writeCertificate(self.folder, "two.example")
        certFile.write_bytes(old)
        self.assertEqual(self.presented(), "CN=one.example")

    def test_atStart(self) -> None:
        """
        At the start, what can't be used is an error.
        """
        certFile, keyFile = self.files
        missing = self.folder / "missing"
        self.assertRaises(OSError, ReloadingContext, missing, keyFile)
        self.assertRaises(SSL.Error, ReloadingContext, certFile, certFile)

    def test_floor(self) -> None:
        """
        TLS 1.2 is the lowest version (RFC 8996, RFC 9325 3.1.1).
        """
        server = self.context.serverConnectionForTLS(self.protocol)
        client = shakeHands(server, SSL.TLS1_2_VERSION)
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.2")
        server = self.context.serverConnectionForTLS(self.protocol)
        self.assertRaises(SSL.Error, shakeHands, server, SSL.TLS1_1_VERSION)
