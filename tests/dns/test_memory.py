"""
Tests for L{moxtls.dns.memory}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import (
    IP,
    MX,
    TLSA,
    TXT,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    RRType,
)
from moxtls.interfaces import IResolver

BOGUS = ExtendedError(6, "no valid signature")


class MemoryResolverTests(SynchronousTestCase):
    """
    Tests for L{MemoryResolver}.
    """

    def lookup(self, resolver: MemoryResolver, name: str, kind: RRType) -> Answer:
        return self.successResultOf(resolver.lookup(name, kind))

    def test_interface(self) -> None:
        """
        The resolver provides its interface.
        """
        self.assertTrue(verifyObject(IResolver, MemoryResolver()))

    def test_records(self) -> None:
        """
        Records are found by any spelling of the name, and may be given as in a zone
        file.
        """
        resolver = MemoryResolver(
            {
                ("Example.COM.", RRType.MX): [
                    "10 MX.example.com.",
                    MX(20, "b.example"),
                ],
                ("example.com", RRType.TXT): ["v=STSv1; id=1;"],
                ("mx.example.com", RRType.AAAA): ["2001:DB8:0::1"],
                ("_25._tcp.mx.example.com", RRType.TLSA): ["3 1 1 AB01"],
            }
        )
        mx = self.lookup(resolver, "EXAMPLE.com.", RRType.MX)
        self.assertEqual((mx.name, mx.status), ("example.com", LookupStatus.RECORDS))
        self.assertEqual(mx.mx, (MX(10, "mx.example.com"), MX(20, "b.example")))
        self.assertEqual(
            [
                self.lookup(resolver, name, kind).records
                for name, kind in (
                    ("example.com", RRType.TXT),
                    ("mx.example.com", RRType.AAAA),
                    ("_25._tcp.mx.example.com", RRType.TLSA),
                )
            ],
            [
                (TXT(b"v=STSv1; id=1;"),),
                (IP("2001:db8::1"),),
                (TLSA(3, 1, 1, b"\xab\x01"),),
            ],
        )

    def test_nothing(self) -> None:
        """
        A name that has something at it or below it exists (RFC 8020 2).
        """
        resolver = MemoryResolver({("a.b.example", RRType.A): ["192.0.2.1"]})
        found = [
            self.lookup(resolver, name, RRType.MX).status
            for name in ("a.b.example", "b.example", "c.example", "x" * 64)
        ]
        self.assertEqual(
            found,
            [
                LookupStatus.NO_RECORDS,
                LookupStatus.NO_RECORDS,
                LookupStatus.NO_NAME,
                LookupStatus.NO_NAME,
            ],
        )

    def test_asked(self) -> None:
        """
        Lookups are noted; those of impossible names never were made.
        """
        resolver = MemoryResolver()
        self.lookup(resolver, "A.example.", RRType.A)
        self.lookup(resolver, "a..example", RRType.A)
        self.assertEqual(resolver.asked, [("a.example", RRType.A)])

    def test_chain(self) -> None:
        """
        Each step of a chain, and the end of it, is authentic or not by itself
        (RFC 7672 2.2.2).
        """
        resolver = MemoryResolver(
            {
                ("www.signed.example", RRType.CNAME): ["a.plain.example"],
                ("a.plain.example", RRType.CNAME): [NameRecord("b.signed.example")],
                ("b.signed.example", RRType.A): ["192.0.2.1"],
            },
            authentic={"signed.example"},
        )
        answer = self.lookup(resolver, "www.signed.example", RRType.A)
        self.assertEqual(
            answer.chain,
            (
                CNAMELink("www.signed.example", "a.plain.example", True),
                CNAMELink("a.plain.example", "b.signed.example", False),
            ),
        )
        self.assertEqual(answer.addresses, ("192.0.2.1",))
        self.assertEqual((answer.authentic, answer.endAuthentic), (False, True))
        alias = self.lookup(resolver, "www.signed.example", RRType.CNAME)
        self.assertEqual((alias.chain, alias.authentic), ((), True))
        self.assertEqual(alias.names, ("a.plain.example",))

    def test_longestZoneDecides(self) -> None:
        """
        The closest zone above a name decides its authenticity; absence is authentic
        as well.
        """
        resolver = MemoryResolver(authentic={"."}, inauthentic={"plain.example"})
        resolver.trust("signed.plain.example")
        self.assertEqual(
            [
                self.lookup(resolver, name, RRType.A).authentic
                for name in ("x.example", "x.plain.example", "signed.plain.example")
            ],
            [True, False, True],
        )
        resolver.validating = False
        self.assertFalse(self.lookup(resolver, "x.example", RRType.A).authentic)

    def test_failing(self) -> None:
        """
        A failure carries its error, also at the end of a chain, and is never
        authentic.
        """
        resolver = MemoryResolver(
            {("www.example", RRType.CNAME): ["bad.example"]},
            authentic={"."},
            failing={("bad.example", RRType.A): BOGUS},
        )
        answer = self.lookup(resolver, "www.example", RRType.A)
        self.assertTrue(answer.failed)
        self.assertEqual((answer.dnssecError, answer.authentic), (BOGUS, False))
        resolver.put("bad.example", RRType.A, "192.0.2.1")
        self.assertFalse(self.lookup(resolver, "www.example", RRType.A).failed)

    def test_loop(self) -> None:
        """
        CNAMEs that go round in circles are a failure.
        """
        resolver = MemoryResolver(
            {
                ("a.example", RRType.CNAME): ["b.example"],
                ("b.example", RRType.CNAME): ["a.example"],
            }
        )
        self.assertTrue(self.lookup(resolver, "a.example", RRType.A).failed)

    def test_hang(self) -> None:
        """
        A lookup can be made to wait; the others aren't disturbed when one is
        given up.
        """
        resolver = MemoryResolver({("a.example", RRType.A): ["192.0.2.1"]})
        resolver.hang("a.example", RRType.A)
        first = resolver.lookup("a.example", RRType.A)
        second = resolver.lookup("a.example", RRType.A)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        resolver.release("a.example", RRType.A)
        self.assertEqual(self.successResultOf(second).addresses, ("192.0.2.1",))
