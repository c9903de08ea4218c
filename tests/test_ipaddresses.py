"""
Tests for L{moxtls.ipaddresses}.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from twisted.trial.unittest import SynchronousTestCase

from moxtls.ipaddresses import canonicalIP, ipOrEmpty, parseIP, parseNetwork
from moxtls.message.header import ClientInfo


class AddressTests(SynchronousTestCase):
    """
    Tests for L{parseIP}, L{canonicalIP} and L{ipOrEmpty}.
    """

    def test_mapped(self) -> None:
        """
        An IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) is IPv4, in any spelling; an
        IPv4-compatible one (2.5.5.1) isn't.
        """
        for text in ("::ffff:192.0.2.1", "::FFFF:c000:201", "::ffff:192.0.2.1%eth0"):
            self.assertEqual(parseIP(text), ip_address("192.0.2.1"), text)
            self.assertEqual(canonicalIP(text), "192.0.2.1", text)
        self.assertEqual(canonicalIP("::192.0.2.1"), "::c000:201")

    def test_others(self) -> None:
        """
        Other addresses are in the one spelling of RFC 5952 4, without a zone; names
        are no addresses.
        """
        self.assertEqual(canonicalIP("2001:DB8:0::1%1"), "2001:db8::1")
        self.assertEqual(canonicalIP("192.0.2.1"), "192.0.2.1")
        for text in ("", "/run/socket", "mx.example", "192.0.2.256", "::ffff:1.2.3"):
            self.assertIsNone(parseIP(text), text)
            self.assertEqual(canonicalIP(text), text)
            self.assertEqual(ipOrEmpty(text), "")
        self.assertEqual(ipOrEmpty("fe80::1%eth0"), "fe80::1")

    def test_client(self) -> None:
        """
        A client's address is never a mapped one, whatever its source.
        """
        self.assertEqual(ClientInfo("::ffff:192.0.2.1"), ClientInfo("192.0.2.1"))


class NetworkTests(SynchronousTestCase):
    """
    Tests for L{parseNetwork}.
    """

    def test_mapped(self) -> None:
        """
        A network of mapped addresses is one of IPv4.
        """
        for text, network in (
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", None),
            ("2001:db8::/32", "2001:db8::/32"),
            ("198.51.100.0/24", "198.51.100.0/24"),
            ("198.51.100.1/24", None),
            ("::/0", "::/0"),
        ):
            expected = None if network is None else ip_network(network)
            self.assertEqual(parseNetwork(text), expected, text)
