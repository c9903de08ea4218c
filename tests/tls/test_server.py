"""
Tests for L{moxtls.tls.server}.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer, provider
from zope.interface.verify import verifyObject

from moxtls.smtp.server.transport import ServerTransport
from moxtls.tls.server import ReloadingContext, coversHost
from tests import certificates
from tests.smtp.pem import writeCertificate
from tests.starttls import Link


def shakeHands(
    server: SSL.Connection, newest: int = 0, host: str = ""
) -> SSL.Connection:
    """
    @param newest: The client's maximum version; 0 for any.
    @param host: The SNI name.
    @return: The client's connection.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(newest)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(context, None)
    if host:
        client.set_tlsext_host_name(host.encode("ascii"))
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
        The name in the presented certificate.
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

    def test_goodbye(self) -> None:
        """
        RFC 8446 6.1: a client that sends close_notify in place of a handshake is
        disconnected.
        """
        link = Link(Protocol(), Protocol(), Clock())
        link.server.startTLS(self.context)
        link.client.write(bytes((0x15, 3, 1, 0, 2, 1, 0)))
        link.flush()
        self.assertFalse(link.open)

    def test_reload(self) -> None:
        """
        The next connection has the new certificate.
        """
        self.assertEqual(self.presented(), "CN=one.example")
        writeCertificate(self.folder, "two.example")
        self.assertEqual(self.presented(), "CN=two.example")

    def test_halfway(self) -> None:
        """
        While the files are missing, don't match or are no certificates, the previous
        certificate stays in use.
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

    def test_notLogged(self) -> None:
        """
        Missing files are logged once, not for each client.
        """
        said: list[LogLevel] = []

        @provider(ILogObserver)
        def notice(event: LogEvent) -> None:
            said.append(event["log_level"])

        globalLogPublisher.addObserver(notice)
        self.addCleanup(globalLogPublisher.removeObserver, notice)
        for _ in range(2):
            self.files[0].unlink()
            for _ in range(5):
                self.presented()
            writeCertificate(self.folder, "two.example")
            self.presented()
        self.assertEqual(said, [LogLevel.error, LogLevel.info] * 2)

    def test_atStart(self) -> None:
        """
        At the start, unusable files are an error.
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


class NamedTests(SynchronousTestCase):
    """
    Tests for several certificates, with real handshakes.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.context = ReloadingContext(
            *self.write("default", "mx.example"),
            [
                self.write("other", "mx.other.example", "smtp.other.example"),
                self.write("wild", "*.wild.example", "MX.Upper.Example"),
            ],
        )

    def write(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """
        Write a certificate for C{hosts}, replacing one that is there.
        """
        file = self.folder / f"{name}.pem"
        new = file.with_suffix(".new")
        new.write_bytes(certificates.root().issue(*hosts).pem)
        new.rename(file)
        return file, file

    def asked(self, host: str | None) -> str:
        """
        The first name in the certificate for a client with the SNI name C{host},
        which begins TLS with STARTTLS.
        """
        clock, client = Clock(), Protocol()
        line = ServerTransport(clock, Protocol())
        link = Link(client, line, clock)
        line.startTLS(self.context)
        link.client.startTLS(SNIClient(host))
        link.flush()
        return subject(link.client.getPeerCertificate())

    def test_names(self) -> None:
        """
        Clients get the certificate for their SNI name (RFC 6066 3), in any case; a
        wildcard is one label (RFC 9525 6.3).
        """
        for host, name in (
            ("mx.example", "mx.example"),
            ("mx.other.example", "mx.other.example"),
            ("SMTP.Other.Example", "mx.other.example"),
            ("a.wild.example", "*.wild.example"),
            ("mx.upper.example", "*.wild.example"),
        ):
            self.assertEqual(self.asked(host), name)

    def test_default(self) -> None:
        """
        Without a server name, or with an unknown one, the host's certificate is
        presented.
        """
        for host in (None, "unknown.example", "wild.example", "a.b.wild.example"):
            self.assertEqual(self.asked(host), "mx.example")

    def test_immediate(self) -> None:
        """
        The same with implicit TLS (RFC 8314 3.3).
        """
        factory = TLSMemoryBIOFactory(self.context, False, Factory(), clock=Clock())
        protocol = TLSMemoryBIOProtocol(factory, None)
        for host, name in (
            ("smtp.other.example", "mx.other.example"),
            ("", "mx.example"),
        ):
            server = self.context.serverConnectionForTLS(protocol)
            client = shakeHands(server, host=host)
            self.assertEqual(subject(client.get_peer_certificate()), name)

    def test_reload(self) -> None:
        """
        A new certificate is used once it is there, also for names that the old one
        lacked.
        """
        self.write("other", "new.other.example", "mx.other.example")
        self.assertEqual(self.asked("mx.other.example"), "new.other.example")
        self.write("other", "newer.other.example")
        self.assertEqual(self.asked("newer.other.example"), "newer.other.example")
        self.assertEqual(self.asked("mx.other.example"), "mx.example")

    def test_broken(self) -> None:
        """
        An unusable new certificate leaves the previous one and all others in use.
        """
        (self.folder / "other.pem").write_bytes(b"no certificate")
        self.assertEqual(self.asked("mx.other.example"), "mx.other.example")
        (self.folder / "other.pem").unlink()
        self.assertEqual(self.asked("mx.other.example"), "mx.other.example")
        self.assertEqual(self.asked("a.wild.example"), "*.wild.example")

    def test_atStart(self) -> None:
        """
        At the start, each has to be right.
        """
        files = self.write("default", "mx.example")
        missing = self.folder / "missing"
        self.assertRaises(OSError, ReloadingContext, *files, [(missing, missing)])


class CoversHostTests(SynchronousTestCase):
    """
    Tests for L{coversHost}.
    """

    def test_table(self) -> None:
        """
        Exact names and wildcards of one label (RFC 9525 6.3), and no others.
        """
        names = frozenset({"mx.example", "*.wild.example", "*"})
        for host, isMatch in (
            ("mx.example", True),
            ("a.mx.example", False),
            ("a.wild.example", True),
            ("a.b.wild.example", False),
            (".wild.example", False),
            ("wild.example", False),
            ("example", False),
            ("", False),
        ):
            self.assertIs(coversHost(names, host), isMatch, host)


@implementer(IOpenSSLClientConnectionCreator)
class SNIClient:
    """
    A client with the SNI name C{host}.
    """

    def __init__(self, host: str | None) -> None:
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        if self._host is not None:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


def subject(certificate: X509 | None) -> str:
    """
    The common name.
    """
    assert certificate is not None
    name = certificate.get_subject().CN
    assert name is not None
    return name
