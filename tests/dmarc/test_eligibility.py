"""
Tests for L{moxtls.dmarc.eligibility}.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.discovery import PublicSuffixes
from moxtls.dmarc.eligibility import (
    MAX_REASON_LENGTH,
    DMARCReporting,
    VerifiedDestinations,
    confirmationName,
    refusalReason,
    unreachableReason,
    verifyDestinations,
)
from moxtls.dmarc.record import parseURIs
from moxtls.dmarc.types import PeriodSummary
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Domain
from moxtls.reporting.destinations import MAX_DESTINATIONS, MAX_REASONS
from moxtls.tasks import resolve
from tests.dmarc.reports import PUBLISHED
from tests.dmarc.zone import Zone
from tests.reporting.support import SUBMITTER, A

OVERVIEW = PeriodSummary(PUBLISHED, 24, 0, 3, 2, 1)
SETTINGS = DMARCReporting(SUBMITTER)


class RefusalReasonTests(SynchronousTestCase):
    """
    Tests for L{refusalReason}.
    """

    def test_wantedMail(self) -> None:
        """
        A domain whose mail was wanted gets a report.
        """
        self.assertIsNone(refusalReason(OVERVIEW, False, SETTINGS))

    def test_unknownDomain(self) -> None:
        """
        A domain none of whose mail passed gets a report, as monitoring is the purpose
        of C{p=none}; unless history is required of all.
        """
        unwanted = replace(OVERVIEW, wanted=0)
        self.assertIsNone(refusalReason(unwanted, False, SETTINGS))
        strict = replace(SETTINGS, strangers=False)
        self.assertIn("unknown domain", refusalReason(unwanted, False, strict) or "")
        self.assertIsNone(refusalReason(unwanted, True, strict))
        self.assertIsNone(refusalReason(OVERVIEW, False, strict))

    def test_minimum(self) -> None:
        """
        A report needs a minimum number of messages.
        """
        for minimum, reported in [(1, True), (3, True), (4, False)]:
            found = refusalReason(OVERVIEW, True, replace(SETTINGS, minimum=minimum))
            self.assertEqual(found is None, reported)

    def test_lists(self) -> None:
        """
        A domain excluded from reports gets none, even if it is also on the list of
        included domains.
        """
        mine, other = frozenset({A}), frozenset({Domain("b.example")})
        for onlyTo, notTo, reported in [
            (frozenset(), other, True),
            (frozenset(), mine, False),
            (mine, frozenset(), True),
            (other, frozenset(), False),
            (mine, mine, False),
        ]:
            settings = replace(SETTINGS, onlyTo=onlyTo, notTo=notTo)
            self.assertEqual(refusalReason(OVERVIEW, True, settings) is None, reported)


class UnreachableReasonTests(SynchronousTestCase):
    """
    Tests for L{unreachableReason}.
    """

    def setUp(self) -> None:
        self.resolver = MemoryResolver()

    def reason(self) -> str:
        asking = resolve(self.resolver, unreachableReason(SUBMITTER))
        return self.successResultOf(Deferred.fromCoroutine(asking))

    def test_takes(self) -> None:
        """
        MX records, or an address (RFC 5321 5.1).
        """
        for kind, record in [
            (RRType.A, "192.0.2.1"),
            (RRType.AAAA, "2001:db8::1"),
            (RRType.MX, "10 mx.sender.example"),
        ]:
            self.resolver = MemoryResolver({(str(SUBMITTER), kind): [record]})
            self.assertEqual(self.reason(), "")

    def test_takesNone(self) -> None:
        """
        A domain without MX and addresses, or with a null MX (RFC 7505) and any
        addresses, can't receive mail.
        """
        self.assertIn("no MX and no address", self.reason())
        self.resolver.put(str(SUBMITTER), RRType.A, "192.0.2.1")
        self.resolver.put(str(SUBMITTER), RRType.MX, "0 .")
        self.assertIn("RFC 7505", self.reason())

    def test_failed(self) -> None:
        """
        A failed lookup is a reason, too, unless there is another address.
        """
        for kind in (RRType.MX, RRType.A, RRType.AAAA):
            failing = {(str(SUBMITTER), kind): ExtendedError(22)}
            self.resolver = MemoryResolver(failing=failing)
            self.assertIn("can't be looked up", self.reason())
        self.resolver = MemoryResolver(
            {(str(SUBMITTER), RRType.A): ["192.0.2.1"]}, failing=failing
        )
        self.assertEqual(self.reason(), "")


OURS = Domain("blue.example.com")
THEIRS = "mailto:reports@red.example.net"
NAME = "blue.example.com._report._dmarc.red.example.net"


class VerifyTests(SynchronousTestCase):
    """
    Tests for L{verifyDestinations}.
    """

    def found(
        self, zone: Zone, rua: str = THEIRS, suffixes: PublicSuffixes | None = None
    ) -> VerifiedDestinations:
        return zone.find(verifyDestinations(OURS, parseURIs(rua), suffixes))

    def test_internal(self) -> None:
        """
        Destinations within the organization need no confirmation (RFC 9990 4).
        """
        zone = Zone({"_dmarc.example.com": "v=DMARC1; p=none"})
        rua = (
            "mailto:a@blue.example.com!10m, mailto:b@example.com,"
            "mailto:c@mail.example.com"
        )
        found = self.found(zone, rua)
        self.assertEqual(
            found,
            VerifiedDestinations(
                (
                    ("mailto:a@blue.example.com", 10 << 20),
                    ("mailto:b@example.com", 0),
                    ("mailto:c@mail.example.com", 0),
                )
            ),
        )
        self.assertEqual(len(zone.rounds), 1)

    def test_own(self) -> None:
        """
        The domain's own host needs no lookup.
        """
        zone = Zone({})
        found = self.found(zone, "mailto:a@blue.example.com")
        self.assertEqual(found.accepted, (("mailto:a@blue.example.com", 0),))
        self.assertEqual(zone.asked, [])

    def test_confirmed(self) -> None:
        """
        A record with only a version is a confirmation, also beside others (RFC 9990 4
        steps 6 to 8), at the policy domain itself.
        """
        for records in (
            "v=DMARC1",
            "v=DMARC1;",
            ("v=DMARC1; p=x", "v=DMARC1", "v=spf1 -all", "DMARC1"),
        ):
            zone = Zone({NAME: records})
            self.assertEqual(self.found(zone), VerifiedDestinations(((THEIRS, 0),)))
            self.assertIn(NAME, zone.asked)
            self.assertEqual(len(zone.rounds), 1)

    def test_refused(self) -> None:
        """
        An unconfirmed destination gets nothing, and the report has the reason.
        """
        wrong = "example.com._report._dmarc.red.example.net"
        for records in ({}, {NAME: "v=dmarc1"}, {wrong: "v=DMARC1"}):
            found = self.found(Zone(records))
            self.assertEqual((found.accepted, found.temporary), ((), False))
            (error,) = found.errors
            self.assertIn(THEIRS, error)
            self.assertIn(NAME, error)

    def test_failed(self) -> None:
        """
        A failed lookup is a temporary refusal; a confirmation counts whatever other
        lookups failed.
        """
        walk = ("_dmarc.com", "_dmarc.net")
        for failing in (NAME, *walk):
            found = self.found(Zone({}, {failing}))
            self.assertEqual((found.accepted, found.temporary), ((), True), failing)
            self.assertEqual(len(found.errors), 1)
        found = self.found(Zone({NAME: "v=DMARC1"}, walk))
        self.assertEqual(found, VerifiedDestinations(((THEIRS, 0),)))
        zone = Zone({"_dmarc.example.com": "v=DMARC1"}, {NAME})
        self.assertFalse(self.found(zone, "mailto:a@example.com").temporary)

    def test_replaced(self) -> None:
        """
        The host may name other mailboxes of its own, with limits of their own; other
        destinations are refused (RFC 9990 4 step 9).
        """
        rua = (
            "rua=mailto:good1@red.example.net!1,mailto:good2@red.example.net!10t,"
            "mailto:bad@other.example,mailto:bad@red.example.net!10x"
        )
        found = self.found(Zone({NAME: f"v=DMARC1; {rua}"}))
        self.assertEqual(
            found.accepted,
            (
                ("mailto:good1@red.example.net", 1),
                ("mailto:good2@red.example.net", 10 << 40),
            ),
        )
        (error,) = found.errors
        self.assertIn("mailto:bad@other.example", error)

    def test_elsewhere(self) -> None:
        """
        A confirmation that names only other destinations excludes its own (RFC 9990
        4).
        """
        for other in ("mailto:a@example.net", "mailto:a@x.red.example.net"):
            found = self.found(Zone({NAME: f"v=DMARC1; rua={other}"}))
            self.assertEqual(found.accepted, ())
            self.assertEqual(len(found.errors), 1)

    def test_nonsense(self) -> None:
        """
        An invalid replacement is ignored.
        """
        for rua in ("nonsense", "https://red.example.net/", "mailto:a@b@c"):
            found = self.found(Zone({NAME: f"v=DMARC1; rua={rua}"}))
            self.assertEqual(found, VerifiedDestinations(((THEIRS, 0),)))

    def test_schemes(self) -> None:
        """
        Other schemes are ignored (RFC 9989 4.7); an invalid address is an error.
        """
        rua = "https://blue.example.com/x,ftp:x,mailto:x,MailTo:a@BLUE.example.com"
        found = self.found(Zone({}), rua)
        self.assertEqual(found.accepted, (("mailto:a@blue.example.com", 0),))
        self.assertEqual(len(found.errors), 1)

    def test_bounded(self) -> None:
        """
        At most ten destinations, however they are found, each once, and a bounded
        text about the others.
        """
        many = ",".join(f"mailto:a{n}@blue.example.com" for n in range(50))
        found = self.found(Zone({}), "mailto:a0@blue.example.com!1," + many)
        self.assertEqual(len(found.accepted), MAX_DESTINATIONS)
        self.assertEqual(found.accepted[0], ("mailto:a0@blue.example.com", 1))
        many = ",".join(f"mailto:a{n}@red.example.net" for n in range(50))
        found = self.found(Zone({NAME: f"v=DMARC1; rua={many}"}))
        self.assertEqual(len(found.accepted), MAX_DESTINATIONS)
        many = ",".join(f"mailto:a{n}@other.example" for n in range(50))
        found = self.found(Zone({NAME: f"v=DMARC1; rua={many}"}))
        self.assertEqual(len(found.errors), MAX_REASONS)

    def test_hosts(self) -> None:
        """
        Each host is looked up once, all in the same round.
        """
        rua = ",".join(f"mailto:{n}@h{n % 3}.example" for n in range(9))
        zone = Zone({})
        self.found(zone, rua)
        self.assertEqual(len(zone.rounds), 1)
        self.assertEqual(len(zone.asked), len(set(zone.asked)))
        self.assertEqual(sum("_report" in name for name in zone.asked), 3)

    def test_tooLong(self) -> None:
        """
        A name that is too long for a query confirms nothing (RFC 9990 4 step 4).
        """
        host = ".".join(["a" * 60] * 3) + ".example"
        policyDomain = Domain(".".join(["b" * 60] * 2) + ".example")
        zone = Zone({})
        uris = parseURIs(f"mailto:a@{host}")
        found = zone.find(verifyDestinations(policyDomain, uris))
        self.assertEqual((found.accepted, found.temporary), ((), False))
        self.assertLessEqual(len(found.errors[0]), MAX_REASON_LENGTH)
        name = confirmationName(policyDomain, Domain(host))
        self.assertNotIn(name, zone.asked)

    def test_legacy(self) -> None:
        """
        By the public suffix list (RFC 7489 7.1).
        """
        suffixes = PublicSuffixes(lambda: lambda name: ".".join(name.split(".")[-2:]))
        zone = Zone({NAME: "v=DMARC1"})
        found = self.found(zone, f"mailto:a@example.com,{THEIRS}", suffixes)
        self.assertEqual(len(found.accepted), 2)
        self.assertEqual(
            zone.asked, ["blue.example.com._report._dmarc.example.com", NAME]
        )

    @settings(max_examples=50, deadline=None)
    @given(st.text(max_size=60), st.text(max_size=60))
    def test_hostile(self, rua: str, other: str) -> None:
        """
        With any record, errors are printable.
        """
        confirmation = f"v=DMARC1; rua=mailto:{other}@red.example.net,{other}"
        zone = Zone({NAME: confirmation.encode("utf-8", "replace").decode()})
        found = self.found(zone, f"mailto:{rua}@red.example.net,mailto:{rua},{THEIRS}")
        for error in found.errors:
            self.assertTrue(error.isascii() and error.isprintable())
