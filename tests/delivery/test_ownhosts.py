"""
Tests for L{moxtls.delivery.ownhosts}, and for deliveries that would lead back.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.lookups import isLocalAddress
from moxtls.delivery.ownhosts import OwnHosts
from moxtls.dns.types import RRType
from moxtls.domain import AddressLiteral, Domain
from moxtls.queue.types import BatchMessage, DeliveryStatus
from tests.delivery.deliveries import IP4, MX, SECOND, SECOND_IP, DeliveryCase

OURS = Domain("mail.example.org")
INTERFACE4, INTERFACE6 = "192.0.2.25", "2001:db8::25"


def own(*listening: str) -> OwnHosts:
    return OwnHosts(OURS, frozenset(listening), {INTERFACE4, INTERFACE6}.__contains__)


class OwnHostsTests(SynchronousTestCase):
    """
    Tests for L{OwnHosts} (RFC 5321 5.1).
    """

    def test_special(self) -> None:
        """
        Loopback addresses, and those that stand for any, lead to this host
        wherever it listens, however they are written.
        """
        for ip in (
            *("127.0.0.1", "127.255.0.9", "0.0.0.0", "::1", "::"),
            *("::ffff:127.0.0.1", "::ffff:0.0.0.0", "0:0:0:0:0:0:0:1"),
        ):
            self.assertTrue(own().hasAddress(ip), ip)

    def test_listening(self) -> None:
        """
        The addresses of listeners are addresses of this host.
        """
        hosts = own("198.51.100.9", "2001:db8::9")
        for ip in ("198.51.100.9", "::ffff:198.51.100.9", "2001:db8:0::9"):
            self.assertTrue(hosts.hasAddress(ip), ip)
        for ip in ("198.51.100.8", "2001:db8::8", INTERFACE4, INTERFACE6):
            self.assertFalse(hosts.hasAddress(ip), ip)

    def test_any(self) -> None:
        """
        A listener on all addresses of a family listens on those that the host
        has, of that family.
        """
        for listening, ours, others in [
            ("0.0.0.0", INTERFACE4, INTERFACE6),
            ("::", INTERFACE6, INTERFACE4),
        ]:
            self.assertTrue(own(listening).hasAddress(ours))
            self.assertFalse(own(listening).hasAddress(others))
        self.assertTrue(own("0.0.0.0").hasAddress(f"::ffff:{INTERFACE4}"))
        self.assertFalse(own("0.0.0.0", "::").hasAddress("198.51.100.9"))

    def test_names(self) -> None:
        """
        The host name is a name of this host, and so are literals of its addresses.
        """
        self.assertTrue(own().hasName(OURS))
        self.assertFalse(own().hasName(Domain("example.org")))
        self.assertTrue(own().hasName(AddressLiteral.parse("[127.0.0.1]")))
        self.assertFalse(own().hasName(AddressLiteral.parse("[198.51.100.9]")))

    def test_interfaces(self) -> None:
        """
        The system knows which addresses it has.
        """
        self.assertTrue(isLocalAddress("127.0.0.1"))
        # RFC 5737 3, RFC 3849: nobody's.
        self.assertFalse(isLocalAddress("198.51.100.9"))
        self.assertFalse(isLocalAddress("2001:db8::9"))


class DeliveryTests(DeliveryCase):
    """
    Deliveries of a host that knows which it is.
    """

    def setUp(self) -> None:
        super().setUp()
        self.context = replace(self.context, own=own("0.0.0.0", "::"))

    def assertLoop(self, *parcels: BatchMessage, **choices: object) -> None:
        """
        A delivery fails at once, without a connection.
        """
        [result] = self.deliver(*parcels, **choices)
        self.assertEqual(
            (result.ending, result.status), (DeliveryStatus.PERMANENT, "5.4.6")
        )
        self.assertEqual(self.network.dialed, [])

    def test_addresses(self) -> None:
        """
        A host at an address of this host, or at a loopback address.
        """
        for kind, ip in [
            *((RRType.A, each) for each in ("127.0.0.1", "0.0.0.0", INTERFACE4)),
            *((RRType.AAAA, each) for each in ("::1", "::", INTERFACE6)),
            (RRType.AAAA, "::ffff:127.0.0.1"),
        ]:
            self.resolver.put(MX, RRType.A)
            self.resolver.put(MX, RRType.AAAA)
            self.resolver.put(MX, kind, ip)
            self.assertLoop()

    def test_oneOfSeveral(self) -> None:
        """
        One such address among others is enough.
        """
        self.resolver.put(MX, RRType.A, IP4, INTERFACE4)
        self.assertLoop()

    def test_name(self) -> None:
        """
        A host with the name of this one, whatever its addresses, also without MX
        records.
        """
        self.resolver.put(OURS.ascii, RRType.A, IP4)
        self.resolver.put("example.com", RRType.MX, f"10 {OURS}")
        self.assertLoop()
        self.resolver.put("example.com", RRType.MX)
        self.resolver.put("example.com", RRType.A, "127.0.0.1")
        self.assertLoop()

    def test_alias(self) -> None:
        """
        RFC 5321 5.1: a host whose CNAME target is the name of this host is this host,
        and so is a domain without MX records that is an alias of it, whatever its
        address.
        """
        self.resolver.put(OURS.ascii, RRType.A, IP4)
        self.resolver.put(MX, RRType.A)
        self.resolver.put(MX, RRType.CNAME, OURS.ascii)
        self.assertLoop()
        self.resolver.put("example.com", RRType.MX)
        self.resolver.put("example.com", RRType.CNAME, OURS.ascii)
        self.assertLoop()

    def test_lessPreferred(self) -> None:
        """
        Hosts that are preferred to us are tried; those that are not, neither
        we nor others, are not (RFC 5321 5.1).
        """
        for name in (OURS.ascii, "other.example.org"):
            self.resolver.put(name, RRType.A, INTERFACE4)
            self.resolver.put("example.com", RRType.MX, f"10 {name}", f"20 {MX}")
            self.assertLoop()
            self.resolver.put(
                "example.com", RRType.MX, f"10 {SECOND}", f"20 {name}", f"30 {MX}"
            )
            self.resolver.put(SECOND, RRType.A, SECOND_IP)
            self.deliver()
            self.assertEqual(self.network.dialed, [SECOND_IP])
            self.network.dialed.clear()

    def test_allowed(self) -> None:
        """
        With C{AllowOwnHosts}, such hosts are used like others.
        """
        self.context = replace(self.context, own=None)
        self.resolver.put(MX, RRType.A, "127.0.0.1")
        self.deliver()
        self.assertEqual(self.network.dialed, ["127.0.0.1"])

    def test_literal(self) -> None:
        """
        An address literal of this host.
        """
        for literal in ("[127.0.0.1]", f"[IPv6:{INTERFACE6}]"):
            batchMessage = self.batchMessage(f"user@{literal}")
            self.assertLoop(batchMessage, destination=literal)
