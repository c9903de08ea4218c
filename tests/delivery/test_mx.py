"""
Tests for L{moxtls.delivery.mx} and L{moxtls.delivery.sessions}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.mx import (
    MAX_ADDRESSES,
    MAX_HOSTS,
    Host,
    HostAddresses,
    NextHop,
    OwnHosts,
    baseDomains,
    isDANECandidate,
    referenceNames,
)
from moxtls.delivery.sessions import isLocalAddress, lookUpAddresses, lookUpNextHop
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ADDRESS_TYPES, ExtendedError, RRType
from moxtls.domain import AddressLiteral, Domain
from moxtls.queue.types import BatchMessage, DeliveryStatus
from tests.delivery.deliveries import IP4, MX, SECOND, SECOND_IP, DeliveryCase

DOMAIN = Domain("example.com")
HOST = Domain("mx.example.com")
EDE_BOGUS = ExtendedError(6)

OURS = Domain("mail.example.org")
INTERFACE4, INTERFACE6 = "192.0.2.25", "2001:db8::25"


def steady() -> float:
    """
    No chance at all.
    """
    return 0.5


def rolling(*values: float) -> Callable[[], float]:
    """
    Chance that is known.
    """
    return iter(values).__next__


class LookUpNextHopTests(SynchronousTestCase):
    """
    Tests for L{lookUpNextHop}.
    """

    def setUp(self) -> None:
        self.dns = MemoryResolver()

    def hop(self, host: Host = DOMAIN, jitter: Callable[[], float] = steady) -> NextHop:
        """
        The next hop for C{host}.
        """
        running = Deferred.fromCoroutine(lookUpNextHop(self.dns, host, jitter))
        return self.successResultOf(running)

    def names(self, jitter: Callable[[], float] = steady) -> list[str]:
        """
        The hosts of L{DOMAIN}.
        """
        return [str(host) for host in self.hop(jitter=jitter).hosts]

    def mx(self, *records: str) -> None:
        """
        Publish MX records of L{DOMAIN}.
        """
        self.dns.put("example.com", RRType.MX, *records)

    def test_preference(self) -> None:
        """
        RFC 5321 5.1: the lowest preference first.
        """
        self.mx("20 b.example", "10 a.example", "30 c.example")
        self.assertEqual(self.names(), ["a.example", "b.example", "c.example"])

    def test_equalPreference(self) -> None:
        """
        RFC 5321 5.1: "the sender-SMTP MUST randomize them to spread the load".
        """
        self.mx("10 a.example", "10 b.example", "5 c.example")
        found = self.names(jitter=rolling(0.1, 0.2, 0.9))
        self.assertEqual(found, ["c.example", "a.example", "b.example"])
        found = self.names(jitter=rolling(0.2, 0.1, 0.9))
        self.assertEqual(found, ["c.example", "b.example", "a.example"])

    def test_noMX(self) -> None:
        """
        RFC 5321 5.1: a domain without MX records is its own host; also behind
        a CNAME it is so by the name that the sender knows.
        """
        self.dns.put("example.com", RRType.A, "192.0.2.1")
        hop = self.hop()
        self.assertEqual((hop.hosts, hop.haveMX), ((DOMAIN,), False))
        self.dns.put("example.com", RRType.CNAME, "other.example")
        self.dns.put("other.example", RRType.A, "192.0.2.1")
        hop = self.hop()
        self.assertEqual(
            (hop.hosts, hop.expanded), ((DOMAIN,), Domain("other.example"))
        )

    def test_cname(self) -> None:
        """
        RFC 5321 5.1: the MX records are those behind all CNAMEs.
        """
        self.dns.put("example.com", RRType.CNAME, "a.example")
        self.dns.put("a.example", RRType.CNAME, "b.example")
        self.dns.put("b.example", RRType.MX, "10 mx.b.example")
        hop = self.hop()
        self.assertEqual(hop.hosts, (Domain("mx.b.example"),))
        self.assertEqual((hop.domain, hop.expanded), (DOMAIN, Domain("b.example")))
        self.assertTrue(hop.haveMX)

    def test_authentic(self) -> None:
        """
        RFC 7672 2.1.3: an insecure step makes all behind it insecure, but
        not the one before it.
        """
        self.dns.put("example.com", RRType.CNAME, "other.example")
        self.dns.put("other.example", RRType.MX, "10 mx.example")
        for trusted, authentic, everything in (
            ((), False, False),
            (("example.com",), True, False),
            (("other.example",), False, False),
            (("example.com", "other.example"), True, True),
        ):
            self.dns.distrust("example.com", "other.example")
            self.dns.trust(*trusted)
            hop = self.hop()
            found = (hop.authentic, hop.expandedAuthentic)
            self.assertEqual(found, (authentic, everything), trusted)

    def test_nullMX(self) -> None:
        """
        RFC 7505 3, 4.2: mail to the domain fails permanently.
        """
        self.mx("0 .")
        failure = self.hop().failure
        assert failure is not None
        self.assertEqual((failure.permanent, failure.status), (True, "5.1.10"))
        self.assertEqual(self.hop().hosts, ())

    def test_nullMXAmongOthers(self) -> None:
        """
        RFC 7505 3: "A domain that advertises a null MX MUST NOT advertise any other
        MX RR"; the null MX is ignored then.
        """
        self.mx("0 .", "10 mx.example")
        self.assertEqual(self.names(), ["mx.example"])

    def test_underscores(self) -> None:
        """
        RFC 2181 11: the DNS allows any name; hosts with underscores get mail.
        """
        self.mx("10 mx_1.und.example", "20 _.example")
        self.assertEqual(self.names(), ["mx_1.und.example", "_.example"])

    def test_invalid(self) -> None:
        """
        RFC 5321 5.1: names that can't be hosts, and addresses in place of
        names, are passed over.
        """
        self.mx("5 -bad.example", "6 192.0.2.1", "10 mx.example")
        self.assertEqual(self.names(), ["mx.example"])
        self.mx("5 -bad.example", "6 192.0.2.1")
        failure = self.hop().failure
        assert failure is not None
        self.assertFalse(failure.permanent)

    def test_bounded(self) -> None:
        """
        RFC 5321 5.1: there is a limit, and no host is tried twice.
        """
        self.mx(*(f"{n} mx{n}.example" for n in range(MAX_HOSTS * 2)))
        found = self.names()
        self.assertEqual(found, [f"mx{n}.example" for n in range(MAX_HOSTS)])
        self.mx(*(f"{600 - n} mx{n}.example" for n in range(600)))
        best = [f"mx{n}.example" for n in range(599, 599 - MAX_HOSTS, -1)]
        self.assertEqual(self.names(), best)
        self.mx("10 mx.example", "20 mx.example")
        self.assertEqual(self.names(), ["mx.example"])

    def test_noDomain(self) -> None:
        """
        RFC 5321 5.1: "If a non-existent domain error is returned, this
        situation MUST be reported as an error".
        """
        failure = self.hop().failure
        assert failure is not None
        self.assertEqual((failure.permanent, failure.status), (True, "5.1.2"))

    def test_lookupFailed(self) -> None:
        """
        RFC 5321 5.1: "If a temporary error is returned, the message MUST be
        queued and retried later".
        """
        self.dns.fail("example.com", RRType.MX)
        failure = self.hop().failure
        assert failure is not None
        self.assertEqual((failure.permanent, failure.dnssecError), (False, None))

    def test_dnssec(self) -> None:
        """
        RFC 7672 2.1.2: delivery is delayed if the MX records are bogus; that
        they were, is kept for the report.
        """
        self.dns.fail("example.com", RRType.MX, EDE_BOGUS)
        failure = self.hop().failure
        assert failure is not None
        self.assertFalse(failure.permanent)
        self.assertEqual(failure.dnssecError, EDE_BOGUS)
        self.dns.fail("example.com", RRType.MX, ExtendedError(22))
        failure = self.hop().failure
        assert failure is not None
        self.assertIsNone(failure.dnssecError)

    def test_literal(self) -> None:
        """
        RFC 5321 4.1.3: an address literal is its own host, without lookups.
        """
        literal = AddressLiteral("192.0.2.1")
        hop = self.hop(literal)
        self.assertEqual(
            (hop.hosts, hop.haveMX, hop.authentic), ((literal,), False, False)
        )
        self.assertEqual(self.dns.asked, [])


class AddressTests(SynchronousTestCase):
    """
    Tests for L{lookUpAddresses}.
    """

    def setUp(self) -> None:
        self.dns = MemoryResolver()

    def found(
        self, host: Host = HOST, families: Sequence[RRType] = ADDRESS_TYPES
    ) -> HostAddresses:
        """
        The addresses of C{host}.
        """
        running = Deferred.fromCoroutine(lookUpAddresses(self.dns, host, families))
        return self.successResultOf(running)

    def put(self, kind: RRType, *addresses: str) -> None:
        """
        Publish addresses of L{HOST}.
        """
        self.dns.put("mx.example.com", kind, *addresses)

    def test_order(self) -> None:
        """
        The preferred family comes first; lookups may be restricted to one.
        """
        self.put(RRType.A, "192.0.2.1")
        self.put(RRType.AAAA, "2001:db8::1")
        self.assertEqual(self.found().addresses, ("2001:db8::1", "192.0.2.1"))
        v4first = self.found(families=(RRType.A, RRType.AAAA))
        self.assertEqual(v4first.addresses, ("192.0.2.1", "2001:db8::1"))
        self.assertEqual(self.found(families=(RRType.A,)).addresses, ("192.0.2.1",))

    def test_bounded(self) -> None:
        """
        The number of addresses tried of a host is limited.
        """
        self.put(RRType.A, *(f"192.0.2.{n}" for n in range(100)))
        self.assertEqual(len(self.found().addresses), MAX_ADDRESSES)

    def test_nowhere(self) -> None:
        """
        No name and no addresses are no failed lookup.
        """
        self.assertEqual((self.found().addresses, self.found().failed), ((), False))
        self.put(RRType.MX, "0 .")
        self.assertEqual((self.found().addresses, self.found().failed), ((), False))

    def test_oneFailed(self) -> None:
        """
        RFC 7672 2.1.2: a failed lookup makes a host unreachable if it
        prevents tlsa addresses, not if there are others.
        """
        self.dns.fail("mx.example.com", RRType.AAAA, EDE_BOGUS)
        self.assertTrue(self.found().failed)
        self.assertEqual(self.found().dnssecError, EDE_BOGUS)
        self.dns.trust("example.com")
        self.put(RRType.A, "192.0.2.1")
        found = self.found()
        self.assertEqual((found.failed, found.addresses), (False, ("192.0.2.1",)))
        self.assertTrue(found.authentic)

    def test_authentic(self) -> None:
        """
        RFC 7672 2.2.2: the authenticity of the first step and of the whole are
        separate.
        """
        self.put(RRType.CNAME, "host.example.net")
        self.dns.put("host.example.net", RRType.A, "192.0.2.1")
        for trusted, authentic, everything in (
            ((), False, False),
            (("example.com",), True, False),
            (("example.net",), False, False),
            (("example.com", "example.net"), True, True),
        ):
            self.dns.distrust("example.com", "example.net")
            self.dns.trust(*trusted)
            found = self.found()
            self.assertEqual(
                (found.authentic, found.expandedAuthentic),
                (authentic, everything),
                trusted,
            )
            self.assertEqual(found.expanded, Domain("host.example.net"))

    def test_cancelled(self) -> None:
        """
        Cancellation cancels both lookups.
        """
        for kind in ADDRESS_TYPES:
            self.dns.hang("mx.example.com", kind)
        running = Deferred.fromCoroutine(lookUpAddresses(self.dns, HOST))
        running.cancel()
        self.failureResultOf(running, CancelledError)
        for kind in ADDRESS_TYPES:
            self.dns.release("mx.example.com", kind)

    def test_literal(self) -> None:
        """
        An address literal is the address, which authenticates nothing.
        """
        found = self.found(AddressLiteral("2001:db8::1"))
        self.assertEqual(found.addresses, ("2001:db8::1",))
        self.assertFalse(found.authentic)


def hop(
    haveMX: bool = True, authentic: bool = True, expandedAuthentic: bool = True
) -> NextHop:
    """
    The next hop of L{DOMAIN}.
    """
    return NextHop(DOMAIN, DOMAIN, (HOST,), haveMX, authentic, expandedAuthentic)


def at(
    host: Host = HOST,
    authentic: bool = True,
    expanded: Domain | None = None,
    expandedAuthentic: bool = True,
    addresses: tuple[str, ...] = ("192.0.2.1",),
) -> HostAddresses:
    """
    A host with an address.
    """
    return HostAddresses(host, addresses, authentic, expanded, expandedAuthentic)


class CandidateTests(SynchronousTestCase):
    """
    Tests for the functions that decide about DANE.
    """

    def test_candidate(self) -> None:
        """
        RFC 7672 2.2.1, 2.2.2: each step before the TLSA lookup has to be
        secure; of a host's CNAME only the first.
        """
        alias = Domain("host.example.net")
        for theHop, found, expected in (
            (hop(), at(), True),
            (hop(), at(authentic=False), False),
            (hop(), at(addresses=()), False),
            (hop(), at(AddressLiteral("192.0.2.1")), False),
            (hop(authentic=False, expandedAuthentic=False), at(), False),
            # The MX records are behind an insecure CNAME.
            (hop(expandedAuthentic=False), at(), False),
            # There are none, and the host's own CNAME is secure.
            (hop(haveMX=False, expandedAuthentic=False), at(), True),
            (hop(haveMX=False, authentic=False), at(), False),
            (hop(), at(expanded=alias, expandedAuthentic=False), True),
        ):
            self.assertEqual(isDANECandidate(theHop, found), expected, (theHop, found))

    def test_bases(self) -> None:
        """
        RFC 7672 2.2.3: the expanded name first, if all of it is secure, then
        the original; never anything in between.
        """
        alias = Domain("host.example.net")
        self.assertEqual(baseDomains(at()), (HOST,))
        self.assertEqual(baseDomains(at(expanded=HOST)), (HOST,))
        self.assertEqual(baseDomains(at(expanded=alias)), (alias, HOST))
        insecure = at(expanded=alias, expandedAuthentic=False)
        self.assertEqual(baseDomains(insecure), (HOST,))
        self.assertEqual(baseDomains(at(AddressLiteral("192.0.2.1"))), ())

    def test_names(self) -> None:
        """
        RFC 7672 3.2.2: base domain, next-hop domain, and its CNAME target; without MX
        records only base and next-hop domain.
        """
        alias, expanded = Domain("host.example.net"), Domain("example.net")
        full = NextHop(DOMAIN, expanded, (HOST,), True, True, True)
        self.assertEqual(referenceNames(full, HOST, HOST), (HOST, DOMAIN, expanded))
        self.assertEqual(
            referenceNames(full, HOST, alias), (alias, HOST, DOMAIN, expanded)
        )
        direct = NextHop(DOMAIN, expanded, (DOMAIN,), False, True, True)
        self.assertEqual(referenceNames(direct, DOMAIN, DOMAIN), (DOMAIN,))
        self.assertEqual(referenceNames(direct, DOMAIN, expanded), (expanded, DOMAIN))
        self.assertEqual(referenceNames(hop(), HOST, HOST), (HOST, DOMAIN))


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


class LoopDetectionTests(DeliveryCase):
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
