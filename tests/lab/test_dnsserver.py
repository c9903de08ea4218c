"""
Tests for L{moxtls.lab.hosts} and L{moxtls.lab.zones}, over real
sockets.
"""

from __future__ import annotations

import random
import socket
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

from moxtls.lab.hosts import DNSServer, respondTo
from moxtls.lab.network import anyNetwork
from tests import MAX_WAIT
from tests.lab.grove import ask, authority, validator


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
        What doesn't fit a datagram is cut, and says so (RFC 2181 9).
        """
        response = self.answer(ask("big.test", "TXT"))
        self.assertTrue(response.flags & dns.flags.TC)
        self.assertLessEqual(len(self.wire), 1232)
        response = self.answer(ask("big.test", "TXT"), datagram=False)
        self.assertFalse(response.flags & dns.flags.TC)
        self.assertGreater(len(self.wire), 2000)

    def test_withoutEDNS(self) -> None:
        """
        Without EDNS a datagram has 512 bytes (RFC 1035 4.2.1), whatever a
        client with EDNS says it has at least (RFC 6891 6.2.3).
        """
        self.answer(dns.message.make_query("big.test", "TXT"))
        self.assertLessEqual(len(self.wire), 512)
        tiny = dns.message.make_query("dane-ee.test", "MX", use_edns=0, payload=10)
        self.assertTrue(self.answer(tiny).answer)

    def test_refused(self) -> None:
        """
        What isn't a query for records is not implemented (RFC 1035 4.1.1).
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
        self.place = (network.resolver, network.dnsPort)
        server = DNSServer(reactor, *self.place, validator())
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
        return deferToThread(_askUDP, *self.place, query.to_wire()).addCallback(check)

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
        return deferToThread(_askTCP, *self.place, wires).addCallback(check)
