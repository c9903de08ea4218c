"""
Tests for L{moxtls.dmarc.verdict}: alignment.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import Authentication, AuthResult, SPFScope
from moxtls.dmarc.discovery import PublicSuffixes, discover
from moxtls.dmarc.verdict import MAX_WALKS, Aligned, align, alignWithoutLookups
from moxtls.dns.types import LookupGenerator
from moxtls.domain import Domain, InvalidDomain
from tests.corpus import corpus
from tests.dmarc.zone import FAIL, PASS, Zone, checked, signature

RELAXED = "v=DMARC1; p=reject"
STRICT = "v=DMARC1; p=reject; adkim=s; aspf=s"


def both(
    author: str, authentication: Authentication, suffixes: PublicSuffixes | None = None
) -> LookupGenerator[Aligned]:
    """
    Discovery, then alignment.
    """
    discovery = yield from discover(Domain(author), suffixes)
    return (yield from align(discovery, authentication, suffixes))


class AlignTests(SynchronousTestCase):
    """
    Tests for L{align}.
    """

    def setUp(self) -> None:
        self.zone = Zone({"_dmarc.example.com": RELAXED})

    def aligned(
        self, author: str, authentication: Authentication, zone: Zone | None = None
    ) -> Aligned:
        return (zone or self.zone).find(both(author, authentication))

    def test_relaxed(self) -> None:
        """
        Relaxed alignment: the same organizational domain (RFC 9989 3.2.10.1),
        whatever the result of the check.
        """
        domains = ("example.com", "a.b.example.com", "news.example.com", "example.net")
        signatures = [signature(each, FAIL) for each in domains]
        message = checked(*signatures, spf="mail.example.com", status=PASS)
        found = self.aligned("news.example.com", message)
        self.assertEqual(found.dkim, (True, True, True, False))
        self.assertTrue(found.spf)

    def test_strict(self) -> None:
        """
        Strict alignment: the same domain (RFC 9989 3.2.10.2).
        """
        zone = Zone({"_dmarc.example.com": STRICT})
        message = checked(
            signature("a.example.com"), signature("b.example.com"), spf="b.example.com"
        )
        found = self.aligned("a.example.com", message, zone)
        self.assertEqual((found.dkim, found.spf), ((True, False), False))

    def test_ownWalk(self) -> None:
        """
        A domain between that is its own organization isn't aligned, although
        the author's organization is above it (RFC 9989 4.10.2).
        """
        zone = Zone(
            {"_dmarc.example.com": RELAXED, "_dmarc.b.example.com": RELAXED + "; psd=n"}
        )
        message = checked(signature("a.b.example.com"), signature("c.example.com"))
        found = self.aligned("example.com", message, zone)
        self.assertEqual(found.dkim, (False, True))

    def test_publicSuffix(self) -> None:
        """
        A domain registered below a public suffix doesn't align with the suffix, even
        if that sends mail itself.
        """
        zone = Zone({"_dmarc.bank.example": RELAXED + "; psd=y"})
        message = checked(signature("mega.bank.example"), signature("bank.example"))
        found = self.aligned("bank.example", message, zone)
        self.assertEqual(found.dkim, (False, True))

    def test_unneeded(self) -> None:
        """
        No lookups are made for the author's own domain (RFC 9989 4.10.2), for domains
        outside its organization, or without a record.
        """
        strangers = [signature(f"s{number}.example") for number in range(10)]
        message = checked(*strangers, signature("example.com"), spf="example.com")
        found = self.aligned("example.com", message)
        self.assertEqual(found.dkim, (False,) * 10 + (True,))
        self.assertEqual(self.zone.rounds, [2])
        zone = Zone({})
        found = self.aligned("example.com", message, zone)
        self.assertEqual(zone.rounds, [2])
        self.assertFalse(any(found.dkim) or found.spf)
        self.assertEqual(len(found.dkim), 11)

    def test_atOnce(self) -> None:
        """
        Alignment is known without lookups if none would be made, and only then.
        """
        discovery = self.zone.find(discover(Domain("example.com")))
        message = checked(
            signature("s.example"), signature("example.com"), spf="example.com"
        )
        found = alignWithoutLookups(discovery, message)
        self.assertEqual(found, self.aligned("example.com", message))
        other = checked(signature("example.com"), signature("a.example.com"))
        self.assertIsNone(alignWithoutLookups(discovery, other))
        spf = checked(spf="a.example.com", status=PASS)
        self.assertIsNone(alignWithoutLookups(discovery, spf))

    def test_oneRound(self) -> None:
        """
        All tree walks share rounds of lookups, and no name is queried twice.
        """
        message = checked(
            signature("a.example.com"),
            signature("b.example.com"),
            signature("a.example.com"),
            spf="c.example.com",
            status=PASS,
        )
        self.aligned("example.com", message)
        self.assertEqual(self.zone.rounds, [2, 5])

    def test_bounded(self) -> None:
        """
        There is an end to walks, and those that can decide come first.
        """
        signatures = [signature(f"a{n}.example.com", FAIL) for n in range(50)]
        message = checked(*signatures, signature("good.example.com"))
        found = self.aligned("example.com", message)
        self.assertTrue(found.dkim[-1])
        self.assertEqual(sum(found.dkim), MAX_WALKS)

    def test_helo(self) -> None:
        """
        With an empty MAIL FROM, it is the domain of HELO (RFC 9989 4.4.2),
        which may be none.
        """
        for name, aligned in [("mail.example.com", True), ("[192.0.2.1]", False)]:
            message = checked(spf=name, status=PASS, scope=SPFScope.HELO)
            self.assertEqual(self.aligned("example.com", message).spf, aligned)

    def test_failed(self) -> None:
        """
        A failed lookup only matters for identifiers that passed, or may have passed.
        """
        for status, matters in [
            (PASS, True),
            (AuthResult.TEMPERROR, True),
            (FAIL, False),
            (AuthResult.PERMERROR, False),
        ]:
            zone = Zone({"_dmarc.example.com": RELAXED}, {"_dmarc.a.example.com"})
            found = self.aligned(
                "example.com", checked(signature("a.example.com", status)), zone
            )
            self.assertEqual((found.dkim, found.temporary), ((False,), matters), status)
            found = self.aligned(
                "example.com", checked(spf="a.example.com", status=status), zone
            )
            self.assertEqual((found.spf, found.temporary), (False, matters), status)

    def test_discoveryFailed(self) -> None:
        """
        Without the author's organization, the author's own domain is aligned, and
        domains without a common label aren't; the rest is undecided.
        """
        zone = Zone({"_dmarc.example.com": RELAXED}, {"_dmarc.com"})
        for domain, aligned, temporary in [
            ("example.com", True, False),
            ("a.example.com", False, True),
            ("example.net", False, False),
        ]:
            found = self.aligned("example.com", checked(signature(domain)), zone)
            self.assertEqual(found.dkim, (aligned,), domain)
            self.assertEqual(found.temporary, temporary, domain)

    def test_legacy(self) -> None:
        """
        With the public suffix list, no lookups are made (RFC 7489 3.1).
        """
        suffixes = PublicSuffixes(lambda: lambda name: ".".join(name.split(".")[-2:]))
        message = checked(signature("b.example.com"), spf="example.com", status=PASS)
        found = self.zone.find(both("a.example.com", message, suffixes))
        self.assertEqual((found.dkim, found.spf), ((True,), True))
        self.assertEqual(self.zone.rounds, [2])

    def test_corpus(self) -> None:
        """
        The table of OpenDMARC, which knows organizations by a list; but for
        names with empty labels, which are no domains and so never get here.
        """
        table = json.loads(corpus("records", "opendmarc-alignment.json").read_text())
        suffixes = PublicSuffixes()
        count = 0
        for case in table["cases"]:
            try:
                author, other = (
                    Domain.parse(case["domain"]),
                    Domain.parse(case["other"]),
                )
            except InvalidDomain:
                continue
            record = RELAXED if case["mode"] == "relaxed" else STRICT
            zone = Zone({f"_dmarc.{author}": record})
            found = zone.find(
                both(author.ascii, checked(signature(other.ascii)), suffixes)
            )
            self.assertEqual(found.dkim, (case["expect"]["aligned"],), case)
            count += 1
        self.assertEqual(count, 7)
