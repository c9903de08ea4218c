"""
Tests for L{moxtls.lab.hosts} and L{moxtls.lab.zones}, over real sockets, with
third-party mail and HTTP clients.
"""

from __future__ import annotations

import http.client
import random
import smtplib
import socket
import ssl
import struct

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from moxtls.lab.hosts import (
    MAX_REPORT,
    POLICY_PATH,
    DNSServer,
    MailDestination,
    WebHost,
    respondTo,
)
from moxtls.lab.keys import Identity
from moxtls.lab.plan import MailHost, anyNetwork, policyText
from moxtls.lab.scenario import DESTINATIONS, Certificate, Records
from tests import MAX_WAIT
from tests.lab.fixtures import LabTestCase
from tests.lab.grove import ask, authority, validator

HOST = "mx.good.test"
MESSAGE = b"Subject: hello\r\n\r\n.dot\r\n"


class MailDestinationTests(LabTestCase):
    """
    Tests for the mail hosts, which keep all mail.
    """

    def begin(self, identity: Identity | None) -> None:
        address = self.network.address(1)
        self.endpoint = (address, self.network.smtpPort)
        host = MailHost(HOST, address, Certificate.GOOD, Records.NONE)
        server = MailDestination(
            reactor, host, self.network.smtpPort, identity, self.arrivals
        )
        server.startService()
        self.addCleanup(server.stopService)

    def send(self, startTLS: bool) -> bytes:
        """
        @return: The answer to EHLO.
        """
        client = smtplib.SMTP(*self.endpoint, timeout=MAX_WAIT)
        if startTLS:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.load_verify_locations(
                cadata=self.ca.identity.certificatePEM().decode("ascii")
            )
            client.starttls(context=context)
        client.sendmail("alice@sender.test", ["bob@good.test"], MESSAGE)
        answer = client.ehlo_resp or b""
        client.quit()
        return answer

    def test_withTLS(self) -> Deferred[None]:
        """
        Mail over STARTTLS is kept unchanged, with the properties of its session.
        """

        def check(ehlo: bytes) -> None:
            self.assertTrue(ehlo.startswith(HOST.encode()))
            (arrival,) = self.arrivals.at("good.test")
            self.assertEqual(MESSAGE, arrival.content)
            self.assertEqual("alice@sender.test", arrival.sender)
            self.assertEqual(HOST, arrival.host)
            self.assertIn("TLSv1.3", arrival.tls)

        self.begin(self.ca.issue([HOST]))
        return deferToThread(self.send, True).addCallback(check)

    def test_withoutTLS(self) -> Deferred[None]:
        """
        Without a certificate there is no STARTTLS, and mail in the clear.
        """

        def check(ehlo: bytes) -> None:
            (arrival,) = self.arrivals.at("good.test")
            self.assertEqual("", arrival.tls)

        self.begin(None)
        return deferToThread(self.send, False).addCallback(check)

    def test_notOffered(self) -> Deferred[None]:
        """
        STARTTLS fails on a host that doesn't offer it.
        """
        self.begin(None)
        sending = deferToThread(self.send, True)
        failure = self.assertFailure(sending, smtplib.SMTPNotSupportedError)
        return failure.addCallback(lambda error: None)


class RespondToTests(SynchronousTestCase):
    """
    Bytes in, bytes out.
    """

    def answer(
        self, query: dns.message.Message, datagram: bool = True
    ) -> dns.message.Message:
        wire = respondTo(authority(), query.to_wire(), datagram)
        assert wire is not None
        self.wire = wire
        return dns.message.from_wire(wire)

    def test_truncated(self) -> None:
        """
        A response that exceeds a datagram is truncated and marked (RFC 2181 9).
        """
        response = self.answer(ask("big.test", "TXT"))
        self.assertTrue(response.flags & dns.flags.TC)
        self.assertLessEqual(len(self.wire), 1232)
        response = self.answer(ask("big.test", "TXT"), datagram=False)
        self.assertFalse(response.flags & dns.flags.TC)
        self.assertGreater(len(self.wire), 2000)

    def test_withoutEDNS(self) -> None:
        """
        Without EDNS a datagram has 512 bytes (RFC 1035 4.2.1), which is also the
        minimum with EDNS (RFC 6891 6.2.3).
        """
        self.answer(dns.message.make_query("big.test", "TXT"))
        self.assertLessEqual(len(self.wire), 512)
        tiny = dns.message.make_query("dane-ee.test", "MX", use_edns=0, payload=10)
        self.assertTrue(self.answer(tiny).answer)

    def test_refused(self) -> None:
        """
        Queries other than for records are not implemented (RFC 1035 4.1.1).
        """
        notify = ask("good.test", "SOA")
        notify.set_opcode(dns.opcode.NOTIFY)
        for query in (notify, ask("good.test", "AXFR"), ask("good.test", "ANY")):
            self.assertEqual(dns.rcode.NOTIMP, self.answer(query).rcode())

    def test_denial(self) -> None:
        """
        With DO, a denial brings its proof (RFC 4035 3.1.3); without, it
        brings the SOA only (RFC 2308 3).
        """
        response = self.answer(ask("nope.dane-ee.test", "A"))
        kinds = [each.rdtype for each in response.authority]
        self.assertIn(dns.rdatatype.NSEC, kinds)
        self.assertEqual(dns.rcode.NXDOMAIN, response.rcode())
        response = self.answer(ask("nope.dane-ee.test", "A", dnssec=False))
        self.assertEqual(
            [dns.rdatatype.SOA], [each.rdtype for each in response.authority]
        )

    def test_notAnswered(self) -> None:
        """
        Responses and scraps get no answer; broken queries get FORMERR.
        """
        response = dns.message.make_response(ask("good.test", "MX")).to_wire()
        self.assertIsNone(respondTo(authority(), response, True))
        self.assertIsNone(respondTo(authority(), b"\0\1", True))
        broken = respondTo(authority(), ask("good.test", "MX").to_wire()[:20], True)
        assert broken is not None
        self.assertEqual(dns.rcode.FORMERR, dns.message.from_wire(broken).rcode())
        none = respondTo(authority(), dns.message.Message(7).to_wire(), True)
        assert none is not None
        self.assertEqual(7, dns.message.from_wire(none).id)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200))
    def test_anything(self, noise: bytes) -> None:
        """
        No bytes raise an error.
        """
        respondTo(validator(), noise, True)
        header = struct.pack("!6H", 1, 0, 1, 0, 0, 0)
        respondTo(validator(), header + noise, False)


def _askUDP(address: str, port: int, wire: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(MAX_WAIT)
        client.sendto(wire, (address, port))
        return client.recv(65535)


def _askTCP(address: str, port: int, wires: list[bytes]) -> list[bytes]:
    """
    Several queries in one connection, cut in the middle of a length.
    """
    stream = b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)
    with socket.create_connection((address, port), timeout=MAX_WAIT) as client:
        client.sendall(stream[:1])
        client.sendall(stream[1:])
        reader = client.makefile("rb")
        return [reader.read(*struct.unpack("!H", reader.read(2))) for _ in wires]


class DNSServerTests(TestCase):
    """
    Over real sockets.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        network = anyNetwork(random.randint)
        self.endpoint = (network.resolver, network.dnsPort)
        server = DNSServer(reactor, *self.endpoint, validator())
        server.startService()
        self.addCleanup(server.stopService)

    def test_datagram(self) -> Deferred[None]:
        """
        A query is answered over UDP.
        """

        def check(wire: bytes) -> None:
            response = dns.message.from_wire(wire)
            self.assertTrue(query.is_response(response))
            self.assertTrue(response.flags & dns.flags.AD)

        query = ask("dane-ee.test", "MX")
        return deferToThread(_askUDP, *self.endpoint, query.to_wire()).addCallback(
            check
        )

    def test_stream(self) -> Deferred[None]:
        """
        Queries are answered over TCP, several in one connection (RFC 7766
        6.2.1).
        """

        def check(wires: list[bytes]) -> None:
            for query, wire in zip(queries, wires, strict=True):
                self.assertTrue(query.is_response(dns.message.from_wire(wire)))

        queries = [ask("big.test", "TXT"), ask("good.test", "MX")]
        wires = [query.to_wire() for query in queries]
        return deferToThread(_askTCP, *self.endpoint, wires).addCallback(check)


Answer = tuple[int, bytes]


class _Connection(http.client.HTTPSConnection):
    """
    To an address that isn't in the system's DNS.
    """

    def __init__(self, endpoint: tuple[str, int], name: str, roots: str) -> None:
        self._context_ = ssl.create_default_context(cadata=roots)
        super().__init__(name, endpoint[1], timeout=MAX_WAIT)
        self._place = endpoint

    def connect(self) -> None:
        plain = socket.create_connection(self._place, timeout=MAX_WAIT)
        self.sock = self._context_.wrap_socket(plain, server_hostname=self.host)


class WebHostTests(LabTestCase):
    """
    Policies, and a place for reports.
    """

    def setUp(self) -> None:
        super().setUp()
        self.endpoint = (self.network.webHost, self.network.httpsPort)
        host = WebHost(reactor, self.endpoint, DESTINATIONS, self.ca, self.arrivals)
        host.startService()
        self.addCleanup(host.stopService)

    def ask(
        self, name: str, path: str, content: bytes | None = None
    ) -> Deferred[Answer]:
        def blocking() -> Answer:
            roots = self.ca.identity.certificatePEM().decode("ascii")
            client = _Connection(self.endpoint, name, roots)
            try:
                method = "GET" if content is None else "POST"
                headers = {"Content-Type": "application/tlsrpt+gzip"}
                client.request(method, path, content, headers)
                response = client.getresponse()
                return response.status, response.read()
            finally:
                client.close()

        return deferToThread(blocking)

    async def check(
        self, expected: Answer, name: str, path: str, content: bytes | None = None
    ) -> None:
        self.assertEqual(expected, await self.ask(name, path, content))

    async def test_policies(self) -> None:
        """
        Policies are served by name (RFC 8461 3.3), with a certificate for it;
        some aren't there, and some hosts are broken.
        """
        good = next(each for each in DESTINATIONS if each.name == "good")
        await self.check(
            (200, policyText(good) or b""), "mta-sts.good.test", POLICY_PATH
        )
        await self.check((404, b""), "mta-sts.no-policy.test", POLICY_PATH)
        await self.check((500, b""), "mta-sts.fetch-error.test", POLICY_PATH)
        await self.check((404, b""), "mta-sts.good.test", "/")

    async def test_badCertificate(self) -> None:
        """
        One policy host presents an untrusted certificate.
        """
        asking = self.ask("mta-sts.policy-cert.test", POLICY_PATH)
        await self.assertFailure(asking, ssl.SSLCertVerificationError)

    async def test_reports(self) -> None:
        """
        Reports are accepted at one URI (RFC 8460 5.4), and not elsewhere.
        """
        await self.check(
            (200, b""), "intake.reports.test", "/tlsrpt/good.test", b"report"
        )
        await self.check((404, b""), "intake.reports.test", "/other", b"report")
        await self.check(
            (404, b""), "mta-sts.good.test", "/tlsrpt/good.test", b"report"
        )
        (arrival,) = self.arrivals.all
        self.assertEqual(b"report", arrival.content)
        self.assertEqual("application/tlsrpt+gzip", arrival.contentType)
        self.assertEqual(
            "https://intake.reports.test/tlsrpt/good.test", arrival.recipient
        )

    async def test_tooLarge(self) -> None:
        """
        A body that is too large for a report is refused.
        """
        huge = bytes(MAX_REPORT + 1)
        await self.check((413, b""), "intake.reports.test", "/tlsrpt/good.test", huge)
        self.assertEqual((), self.arrivals.all)
