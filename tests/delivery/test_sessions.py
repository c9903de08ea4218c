"""
Tests for L{moxtls.delivery.sessions}.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.mx import Host
from moxtls.delivery.sessions import (
    Dialer,
    connectOrder,
    lookUpAddresses,
    lookUpNextHop,
    lookUpTLSA,
)
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import TLSA, ExtendedError, RRType
from moxtls.domain import AddressLiteral, Domain
from moxtls.smtp.client.connection import ClientSettings, ConnectFailed
from moxtls.smtp.client.session import ClientSession
from moxtls.tls.dane import TLSALookup
from tests.delivery.deliveries import IP4, TRUST
from tests.network import SMTP, Network
from tests.smtp.scripted import Scripted

RECORD = TLSA(3, 1, 1, b"x" * 32)
OTHER = TLSA(3, 1, 1, b"y" * 32)
UNUSABLE = TLSA(1, 1, 1, b"x" * 32)

DIRECT = Domain("d.example")
MX_ZONE, HOST_ZONE, ALIAS_ZONE, TLSA_ZONE = (
    "d.example",
    "h.example",
    "a.example",
    "t.example",
)


@dataclass(frozen=True)
class Case:
    """
    A combination of zones of d.example, its host mx.h.example, the alias mx.a.example
    and a zone for shared TLSA records.

    @ivar secure: The signed zones.
    @ivar alias: Whether the host is an alias.
    @ivar tlsa: TLSA records by name.
    @ivar failing: Names whose TLSA lookup fails.
    @ivar base: The expected base domain; the next ones are expected too.
    @ivar asked: Names whose TLSA records were looked up.
    """

    why: str
    secure: tuple[str, ...] = (MX_ZONE, HOST_ZONE)
    alias: bool = False
    tlsa: tuple[tuple[str, TLSA], ...] = ()
    shared: bool = False
    failing: tuple[str, ...] = ()
    base: str = "mx.h.example"
    records: tuple[TLSA, ...] = ()
    required: bool = False
    asked: tuple[str, ...] = ()


ALL = (MX_ZONE, HOST_ZONE, ALIAS_ZONE, TLSA_ZONE)
AT_HOST = ("_25._tcp.mx.h.example", RECORD)
AT_ALIAS = ("_25._tcp.mx.a.example", OTHER)

CASES = (
    Case(
        "2.2.2 non-CNAME, secure: records at the host",
        tlsa=(AT_HOST,),
        records=(RECORD,),
        required=True,
        asked=("mx.h.example",),
    ),
    Case("2.2.2 non-CNAME, secure: no records", asked=("mx.h.example",)),
    Case(
        "2.2.1 insecure MX records: DANE is not for this destination",
        secure=(HOST_ZONE,),
        tlsa=(AT_HOST,),
    ),
    Case(
        "2.2.2 insecure addresses: TLSA records aren't asked for, as servers "
        "of unsigned zones may not answer that",
        secure=(MX_ZONE,),
        failing=("mx.h.example",),
    ),
    Case(
        "2.2.2 insecure CNAME to a secure zone: DANE does not apply",
        secure=(MX_ZONE, ALIAS_ZONE),
        alias=True,
        tlsa=(AT_HOST, AT_ALIAS),
    ),
    Case(
        "2.2.2 secure CNAME into an unsigned zone: as if it were no alias, and "
        "the unsigned zone isn't asked",
        alias=True,
        tlsa=(AT_HOST, AT_ALIAS),
        failing=("mx.a.example",),
        records=(RECORD,),
        required=True,
        asked=("mx.h.example",),
    ),
    Case(
        "2.2.2 secure CNAME into an unsigned zone, no records",
        alias=True,
        asked=("mx.h.example",),
    ),
    Case(
        "2.2.2 secure CNAME, all secure: the expanded name is preferred",
        secure=ALL,
        alias=True,
        tlsa=(AT_HOST, AT_ALIAS),
        base="mx.a.example",
        records=(OTHER,),
        required=True,
        asked=("mx.a.example",),
    ),
    Case(
        "2.2.3 secure CNAME, all secure: failing that, the original name",
        secure=ALL,
        alias=True,
        tlsa=(AT_HOST,),
        records=(RECORD,),
        required=True,
        asked=("mx.a.example", "mx.h.example"),
    ),
    Case(
        "2.2.3 secure CNAME, all secure: no records at either",
        secure=ALL,
        alias=True,
        asked=("mx.a.example", "mx.h.example"),
    ),
    Case(
        "2.1.2 an error at the expanded name is no reason to try the other",
        secure=ALL,
        alias=True,
        tlsa=(AT_HOST,),
        failing=("mx.a.example",),
        base="mx.a.example",
        required=True,
        asked=("mx.a.example",),
    ),
    Case(
        "2.1.2 SERVFAIL for TLSA: the host counts as unreachable",
        failing=("mx.h.example",),
        required=True,
        asked=("mx.h.example",),
    ),
    Case(
        "2.2.3 a CNAME at the TLSA name: the base domain stays",
        secure=ALL,
        tlsa=(("shared.t.example", RECORD),),
        shared=True,
        records=(RECORD,),
        required=True,
        asked=("mx.h.example",),
    ),
    Case(
        "2.2.3 a CNAME at the TLSA name into an unsigned zone: insecure "
        "records are none",
        tlsa=(("shared.t.example", RECORD),),
        shared=True,
        asked=("mx.h.example",),
    ),
    Case(
        "2.2.3 insecure records at the host of a secure zone are none",
        secure=(MX_ZONE, "mx.h.example"),
        tlsa=(AT_HOST,),
        asked=("mx.h.example",),
    ),
)


class LookUpTLSAWithMXTests(SynchronousTestCase):
    """
    Tests for L{lookUpTLSA} with a host from MX records.
    """

    def find(self, case: Case) -> tuple[TLSALookup, MemoryResolver]:
        """
        The TLSA lookup of the host of d.example.
        """
        dns = MemoryResolver(authentic=case.secure)
        dns.put(MX_ZONE, RRType.MX, "10 mx.h.example")
        if case.alias:
            dns.put("mx.h.example", RRType.CNAME, "mx.a.example")
            dns.put("mx.a.example", RRType.A, "192.0.2.1")
        else:
            dns.put("mx.h.example", RRType.A, "192.0.2.1")
        if case.shared:
            dns.put("_25._tcp.mx.h.example", RRType.CNAME, "shared.t.example")
        for name, record in case.tlsa:
            dns.put(name, RRType.TLSA, record)
        for name in case.failing:
            dns.fail(f"_25._tcp.{name}", RRType.TLSA)
        if "mx.h.example" in case.secure:
            dns.distrust("_25._tcp.mx.h.example")
        return self.successResultOf(lookUp(dns, Domain(MX_ZONE))), dns

    def test_matrix(self) -> None:
        """
        RFC 7672 2.1.2, 2.2: the cases of L{CASES}.
        """
        for case in CASES:
            found, dns = self.find(case)
            base = Domain(case.base)
            self.assertEqual(found.base, base, case.why)
            self.assertEqual(found.names[0], base, case.why)
            self.assertEqual(found.records, case.records, case.why)
            self.assertEqual(found.required, case.required, case.why)
            broken = case.required and not case.records
            self.assertEqual(found.error is not None, broken, case.why)
            asked = [name for name, kind in dns.asked if kind is RRType.TLSA]
            expected = [f"_25._tcp.{name}" for name in case.asked]
            self.assertEqual(asked, expected, case.why)

    def test_names(self) -> None:
        """
        RFC 7672 3.2.2: with records the next-hop domain will do for a name
        too; RFC 8461 4.2: without, the host has to be named.
        """
        host, domain = Domain("mx.h.example"), Domain(MX_ZONE)
        found, _ = self.find(CASES[0])
        self.assertEqual(found.names, (host, domain))
        found, _ = self.find(CASES[1])
        self.assertEqual(found.names, (host,))


def lookUp(dns: MemoryResolver, domain: Host, port: int = 25) -> Deferred[TLSALookup]:
    """
    The TLSA lookup of the first host of C{domain}.
    """

    async def run() -> TLSALookup:
        hop = await lookUpNextHop(dns, domain, lambda: 0.0)
        found = await lookUpAddresses(dns, hop.hosts[0])
        return await lookUpTLSA(dns, hop, found, port)

    return Deferred.fromCoroutine(run())


class LookUpTLSAWithoutMXTests(SynchronousTestCase):
    """
    Tests for L{lookUpTLSA} with a domain that is its own host.
    """

    def setUp(self) -> None:
        self.dns = MemoryResolver(authentic=("d.example", "a.example"))
        self.dns.put("d.example", RRType.A, "192.0.2.1")

    def find(self, host: Host = DIRECT, port: int = 25) -> TLSALookup:
        """
        The TLSA lookup of a host.
        """
        return self.successResultOf(lookUp(self.dns, host, port))

    def test_own(self) -> None:
        """
        RFC 7672 2.2.2: without MX records the domain's name is its host's.
        """
        self.dns.put("_25._tcp.d.example", RRType.TLSA, RECORD)
        found = self.find()
        expected = TLSALookup(
            Domain("d.example"), (Domain("d.example"),), (RECORD,), (RECORD,)
        )
        self.assertEqual(found, expected)

    def test_expanded(self) -> None:
        """
        RFC 7672 3.2.2: the original next-hop domain is the second reference name if
        the base domain is its CNAME target.
        """
        self.dns.put("d.example", RRType.CNAME, "a.example")
        self.dns.put("a.example", RRType.A, "192.0.2.1")
        self.dns.put("_25._tcp.a.example", RRType.TLSA, RECORD)
        found = self.find()
        self.assertEqual(found.base, Domain("a.example"))
        self.assertEqual(found.names, (Domain("a.example"), Domain("d.example")))

    def test_insecureExpansion(self) -> None:
        """
        RFC 7672 2.2.2: a secure CNAME into an unsigned zone leaves the
        original name.
        """
        self.dns.put("d.example", RRType.CNAME, "u.example")
        self.dns.put("u.example", RRType.A, "192.0.2.1")
        self.dns.put("_25._tcp.d.example", RRType.TLSA, RECORD)
        found = self.find()
        self.assertEqual(found.names, (Domain("d.example"),))
        self.assertEqual(found.usable, (RECORD,))

    def test_port(self) -> None:
        """
        RFC 7672 2.2.3: the port is that of the connection.
        """
        self.dns.put("_2525._tcp.d.example", RRType.TLSA, RECORD)
        self.assertEqual(self.find(port=2525).records, (RECORD,))
        self.assertEqual(self.find().records, ())

    def test_unusable(self) -> None:
        """
        RFC 7672 2.2.3: unusable records are found, and promise TLS.
        """
        self.dns.put("_25._tcp.d.example", RRType.TLSA, UNUSABLE)
        found = self.find()
        self.assertEqual((found.records, found.usable), ((UNUSABLE,), ()))
        self.assertTrue(found.required)

    def test_error(self) -> None:
        """
        RFC 8914: the resolver's extended error about the failure is kept.
        """
        for extended in (ExtendedError(6), ExtendedError(22), None):
            self.dns.fail("_25._tcp.d.example", RRType.TLSA, extended)
            error = self.find().error
            assert error is not None
            self.assertEqual(error.error, extended)
            self.assertEqual(error.name, "_25._tcp.d.example")

    def test_notValidating(self) -> None:
        """
        RFC 7672 2.1.1: without a validating resolver there is no DANE, and no
        lookup that could fail.
        """
        self.dns.validating = False
        self.dns.fail("_25._tcp.d.example", RRType.TLSA)
        self.assertFalse(self.find().required)

    def test_literal(self) -> None:
        """
        RFC 7672 2.2: DANE does not apply to address literals.
        """
        self.assertEqual(self.find(AddressLiteral("192.0.2.1")), TLSALookup(None))
        self.assertEqual(self.dns.asked, [])


class ConnectOrderTests(SynchronousTestCase):
    """
    Tests for L{connectOrder}.
    """

    def test_order(self) -> None:
        """
        Two of each family, in the order they come (RFC 5321 5.1).
        """
        addresses = ("::1", "::2", "192.0.2.1", "::3", "192.0.2.2", "192.0.2.3")
        self.assertEqual(
            list(connectOrder(addresses)), ["::1", "::2", "192.0.2.1", "192.0.2.2"]
        )


class DialerTests(SynchronousTestCase):
    """
    Tests for L{Dialer}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.dialer = Dialer(self.clock, self.network.endpoint)

    def session(self, quit: str = "221 bye") -> ClientSession:
        """
        A session with a server that expects C{quit} at the end.
        """
        self.network.serve(IP4, Scripted(replies={"QUIT": quit}))
        opening = self.dialer.dial(IP4, SMTP, ClientSettings("us.example", TRUST))
        self.network.flush()
        return self.successResultOf(opening)

    def test_pause(self) -> None:
        """
        An address that doesn't answer isn't tried again for a while; the previous
        error is reported instead. Other addresses are tried.
        """
        dialer = Dialer(self.clock, self.network.endpoint, pause=60)
        settings = ClientSettings("us.example", TRUST)

        def fails(ip: str) -> str:
            dialing = dialer.dial(ip, SMTP, settings)
            why = self.failureResultOf(dialing, ConnectFailed).value
            assert isinstance(why, ConnectFailed)
            return why.reason

        first = fails(IP4)
        self.clock.advance(59)
        self.assertEqual(fails(IP4), f"{first} (59 seconds ago)")
        self.assertEqual(self.network.dialed, [IP4])
        fails("192.0.2.77")
        self.assertEqual(len(self.network.dialed), 2)
        self.clock.advance(1)
        self.assertEqual(fails(IP4), first)
        self.assertEqual(len(self.network.dialed), 3)

    def test_cancelled(self) -> None:
        """
        Sessions end with QUIT (RFC 5321 4.1.1.10).
        """
        self.dialer.release(self.session())
        self.network.flush()
        (call,) = self.network.calls
        self.assertFalse(call.open)
        self.assertIn("QUIT", call.server.protocol.commands)
        self.successResultOf(self.dialer.stop())

    def test_slow(self) -> None:
        """
        A server that doesn't answer is waited for no longer than a few
        seconds.
        """
        self.dialer.release(self.session(quit=""))
        self.network.flush()
        self.assertEqual(len(self.network.open), 1)
        self.clock.advance(5)
        self.network.flush()
        self.assertEqual(self.network.open, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.dialer.stop())

    def test_stop(self) -> None:
        """
        Stopping cuts goodbyes short, and fires when the connections are
        closed, not before.
        """
        self.dialer.release(self.session(quit=""))
        self.dialer.release(self.session(quit=""))
        stopped = self.dialer.stop()
        self.assertNoResult(stopped)
        self.assertEqual(len(self.network.open), 2)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.network.open, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """
        A session whose connection is gone already is left without a trace.
        """
        session = self.session()
        self.network.calls[0].hangUp()
        self.dialer.release(session)
        self.successResultOf(self.dialer.stop())
