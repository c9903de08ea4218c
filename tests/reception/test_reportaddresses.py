"""
Tests for L{moxtls.reception.reportaddresses}.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.config import parse
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Address, Domain
from moxtls.reception.recipients import Directory
from moxtls.reception.reportaddresses import (
    CACHE_TTL,
    MAX_WAIT,
    RETRY,
    ReportAddresses,
    lowerCased,
)

A = Domain("a.example")
MAIL = Domain("mail.a.example")
CONFIG = """
Hostname = "mx.a.example"
[Domains."a.example"]
[Domains."mail.a.example"]
[Accounts.anna.Destinations]
"anna@a.example" = {}
"""


class ReportAddressesTests(SynchronousTestCase):
    """
    Tests for L{ReportAddresses}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = MemoryResolver()
        self.directory = Directory(parse(CONFIG, "moxtls.toml"))

    def make(self, *named: str) -> ReportAddresses:
        made = ReportAddresses(
            self.clock,
            self.resolver,
            (A, MAIL),
            map(Address.parse, named),
            self.directory.equivalents,
        )
        self.addCleanup(made.stop)
        return made

    def dmarc(self, tags: str, domain: Domain = A) -> None:
        self.resolver.put(f"_dmarc.{domain}", RRType.TXT, f"v=DMARC1; p=none; {tags}")

    def tls(self, rua: str, domain: Domain = A) -> None:
        text = f"v=TLSRPTv1; rua={rua}"
        self.resolver.put(f"_smtp._tls.{domain}", RRType.TXT, text)

    def assertIncluded(
        self, addresses: ReportAddresses, included: Sequence[str], *others: str
    ) -> None:
        found = [
            each
            for each in (*included, *others)
            if self.successResultOf(addresses.include(Address.parse(each)))
        ]
        self.assertEqual(found, list(included))

    def test_records(self) -> None:
        """
        The addresses of C{rua} and C{ruf} (RFC 9989 4.7), and of C{rua} of the TLSRPT
        record (RFC 8460 3), of each local domain, in any spelling; but no others,
        even at the same domain.
        """
        self.dmarc("rua=mailto:Dmarc@a.example!10m,mailto:x@else.example")
        self.dmarc("ruf=mailto:failures@a.example", MAIL)
        self.tls("mailto:tls@mail.a.example,https://a.example/reports")
        self.assertIncluded(
            self.make(),
            [
                "dmarc@a.example",
                "DMARC+1@A.example",
                "failures@a.example",
                "tls@mail.a.example",
            ],
            "anna@a.example",
            "tls@a.example",
            "x@else.example",
        )

    def test_withSuffix(self) -> None:
        """
        An address with a suffix after a separator doesn't include the address without
        it.
        """
        self.dmarc("rua=mailto:anna+dmarc@a.example")
        included = ["anna+dmarc@a.example"]
        self.assertIncluded(self.make(), included, "anna@a.example", "anna+1@a.example")

    def test_organizational(self) -> None:
        """
        The record that applies to a domain may be one above it (RFC 9989
        4.10).
        """
        self.dmarc("rua=mailto:dmarc@mail.a.example")
        made = ReportAddresses(self.clock, self.resolver, (MAIL,))
        self.assertIncluded(made, ["dmarc@mail.a.example"], "x@mail.a.example")

    def test_named(self) -> None:
        """
        Addresses in the configuration count, whatever the DNS has.
        """
        self.assertIncluded(
            self.make("reports@a.example"), ["Reports@a.example"], "anna@a.example"
        )

    def test_remembered(self) -> None:
        """
        Records are looked up again after an hour, and only then; the former
        ones count until there are others, and if they can't be looked up.
        """
        self.dmarc("rua=mailto:old@a.example")
        made = self.make()
        self.assertIncluded(made, ["old@a.example"], "new@a.example")
        self.dmarc("rua=mailto:new@a.example")
        count = len(self.resolver.asked)
        self.clock.advance(CACHE_TTL - 1)
        self.assertIncluded(made, ["old@a.example"], "new@a.example")
        self.assertEqual(len(self.resolver.asked), count)
        self.clock.advance(1)
        self.assertIncluded(made, ["new@a.example"], "old@a.example")
        self.resolver.fail(f"_dmarc.{A}", RRType.TXT, ExtendedError(22))
        self.clock.advance(CACHE_TTL)
        self.assertIncluded(made, ["new@a.example"], "old@a.example")

    def test_failed(self) -> None:
        """
        Failed lookups are retried soon.
        """
        self.resolver.fail(f"_smtp._tls.{A}", RRType.TXT, ExtendedError(22))
        made = self.make()
        self.assertIncluded(made, [], "tls@a.example")
        self.tls("mailto:tls@a.example")
        self.clock.advance(RETRY)
        self.assertIncluded(made, ["tls@a.example"])

    def test_slow(self) -> None:
        """
        Mail waits a limited time for the first lookups, and not for later ones;
        cancelling a waiter doesn't cancel them.
        """
        self.resolver.hang(f"_dmarc.{A}", RRType.TXT)
        made = self.make()
        address = Address.parse("dmarc@a.example")
        gone, waiting = made.include(address), made.include(address)
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.assertNoResult(waiting)
        self.clock.advance(MAX_WAIT)
        self.assertFalse(self.successResultOf(waiting))
        late = made.include(address)
        self.dmarc("rua=mailto:dmarc@a.example")
        self.resolver.release(f"_dmarc.{A}", RRType.TXT)
        self.assertTrue(self.successResultOf(late))

    def test_stop(self) -> None:
        """
        Stopping cancels lookups.
        """
        self.resolver.hang(f"_dmarc.{A}", RRType.TXT)
        made = self.make()
        waiting = made.include(Address.parse("dmarc@a.example"))
        self.successResultOf(made.stop())
        self.assertFalse(self.successResultOf(waiting))

    def test_asSpelled(self) -> None:
        """
        Without a directory, case doesn't matter.
        """
        address = Address.parse("Dmarc@a.example")
        self.assertEqual(lowerCased(address), (Address.parse("dmarc@a.example"),))
