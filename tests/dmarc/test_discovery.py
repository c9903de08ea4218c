"""
Tests for L{moxtls.dmarc.discovery}.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.discovery import (
    MAX_FINDING_LENGTH,
    PublicSuffixes,
    Registered,
    discover,
    organizationalDomain,
    printable,
    requestedPolicy,
    treeWalkNames,
)
from moxtls.dmarc.types import Discovery, DiscoveryMethod, DMARCPolicy, DMARCRecord
from moxtls.dns.types import Answer, CNAMELink, LookupQuestion, runWithAnswers
from moxtls.domain import Domain
from tests.dmarc.zone import Zone

NONE = "v=DMARC1; p=none"
QUARANTINE = "v=DMARC1; p=quarantine"
REJECT = "v=DMARC1; p=reject"
LONG = Domain(".".join(["a" * 49] * 5) + ".com")


class DiscoverTests(SynchronousTestCase):
    """
    Tests for L{discover} as RFC 9989 has it.
    """

    def found(self, author: str, zone: Zone) -> Discovery:
        return zone.find(discover(Domain(author)))

    def test_preference(self) -> None:
        """
        The author's record is preferred, then the organization's, then that of the
        public suffix; records between them don't count (RFC 9989 4.10.1).
        """
        records = {
            "_dmarc.a.b.example.com": NONE,
            "_dmarc.b.example.com": QUARANTINE,
            "_dmarc.example.com": REJECT,
            "_dmarc.com": "v=DMARC1; p=none; psd=y",
        }
        for author, policyDomain in [
            ("a.b.example.com", "a.b.example.com"),
            ("b.example.com", "b.example.com"),
            ("x.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("other.com", "com"),
            ("a.other.com", "com"),
            ("com", "com"),
        ]:
            found = self.found(author, Zone(records))
            self.assertEqual(found.policyDomain, Domain(policyDomain), author)

    def test_organizational(self) -> None:
        """
        By C{psd=n}, one below C{psd=y}, or the shortest name with a record
        (RFC 9989 4.10.2).
        """
        for records, author, organizational in [
            ({}, "a.example.com", "a.example.com"),
            ({"example.com": NONE}, "a.example.com", "example.com"),
            ({"b.example.com": NONE + "; psd=n"}, "a.b.example.com", "b.example.com"),
            ({"com": NONE + "; psd=y"}, "a.b.example.com", "example.com"),
            ({"com": NONE}, "a.b.example.com", "com"),
            # A public suffix that sends mail: not one below itself, ...
            ({"com": NONE + "; psd=y"}, "com", "com"),
            # ... and one below it is reckoned from the start of the walk, also
            # if that jumped over the name.
            (
                {"c.d.e.f.g.h.example": NONE + "; psd=y"},
                "x.a.b.c.d.e.f.g.h.example",
                "b.c.d.e.f.g.h.example",
            ),
            # Records above the stop aren't looked up.
            (
                {"b.example.com": NONE + "; psd=n", "example.com": REJECT},
                "a.b.example.com",
                "b.example.com",
            ),
            # A record that can't be used still says where it is.
            ({"example.com": "v=DMARC1; p=x"}, "a.example.com", "example.com"),
            (
                {"example.com": "v=DMARC1; p=x; psd=y"},
                "a.b.example.com",
                "b.example.com",
            ),
        ]:
            zone = Zone({f"_dmarc.{name}": text for name, text in records.items()})
            found = self.found(author, zone)
            self.assertEqual(found.organizational, Domain(organizational), author)
            alone = zone.find(organizationalDomain(Domain(author)))
            self.assertEqual(alone, Domain(organizational), author)

    def test_several(self) -> None:
        """
        Several records at a name count as none, and the walk goes on (RFC 9989 4.10
        step 2); they are a problem if there is no other record.
        """
        several = {"_dmarc.a.example.com": (REJECT, NONE, "v=spf1 -all")}
        found = self.found("a.example.com", Zone(several))
        self.assertEqual((found.record, found.unusable), (None, False))
        self.assertIn("more than one DMARC record", found.problem)
        zone = Zone({**several, "_dmarc.example.com": QUARANTINE})
        found = self.found("a.example.com", zone)
        self.assertEqual(found.policyDomain, Domain("example.com"))
        self.assertEqual(found.problem, "")

    def test_unusable(self) -> None:
        """
        An applicable but unusable record ends the discovery: no other record applies
        (RFC 9989 4.10.1).
        """
        zone = Zone(
            {"_dmarc.a.example.com": "v=DMARC1; p=x", "_dmarc.example.com": NONE}
        )
        found = self.found("a.example.com", zone)
        self.assertIsNone(found.record)
        self.assertTrue(found.unusable)
        self.assertIn("_dmarc.a.example.com", found.problem)

    def test_nothing(self) -> None:
        """
        No record at all is no trouble.
        """
        found = self.found("example.com", Zone({}))
        self.assertEqual((found.record, found.problem), (None, ""))
        self.assertFalse(found.temporary)

    def test_failed(self) -> None:
        """
        A failed lookup leaves the policy undecided, but found records are kept;
        beyond the end of the walk, it doesn't matter.
        """
        records = {"_dmarc.example.com": REJECT}
        found = self.found("a.example.com", Zone(records, {"_dmarc.a.example.com"}))
        self.assertTrue(found.temporary)
        self.assertEqual(found.policyDomain, Domain("example.com"))
        self.assertIn("no answer", found.problem)
        failing = {"_dmarc.com"}
        alone = Zone(records, failing).find(organizationalDomain(Domain("example.com")))
        self.assertIsNone(alone)
        records = {"_dmarc.example.com": REJECT + "; psd=n"}
        self.assertFalse(self.found("example.com", Zone(records, failing)).temporary)

    def test_oneRound(self) -> None:
        """
        All names are queried at once, and no others.
        """
        zone = Zone({"_dmarc.example.com": REJECT})
        self.found("a.example.com", zone)
        self.assertEqual(
            zone.asked, ["_dmarc.a.example.com", "_dmarc.example.com", "_dmarc.com"]
        )
        self.assertEqual(zone.rounds, [3])

    def test_steps(self) -> None:
        """
        The steps of the tree walk are kept, so that they can be shown.
        """
        zone = Zone({"_dmarc.example.com": "v=DMARC1; p=none; \x1b[2Jü" + "x" * 999})
        last = self.found("a.example.com", zone).steps
        self.assertEqual([each.name for each in last], zone.asked)
        self.assertEqual(last[0].found, "nothing")
        self.assertEqual(last[1].found[:31], "v=DMARC1; p=none; ?[2J\\xc3\\xbcx")
        self.assertEqual(len(last[1].found), MAX_FINDING_LENGTH)

    def test_longName(self) -> None:
        """
        A name with no room for C{_dmarc} isn't queried.
        """
        zone = Zone({"_dmarc." + LONG.ascii.partition(".")[2]: REJECT + "; np=none"})
        found = self.found(LONG.ascii, zone)
        self.assertEqual(
            found.record, DMARCRecord(DMARCPolicy.REJECT, np=DMARCPolicy.NONE)
        )
        self.assertFalse(found.exists)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.sampled_from(["a", "b", "com"]), min_size=1, max_size=14),
        st.dictionaries(
            st.integers(1, 14),
            st.sampled_from(
                [NONE, REJECT + "; psd=n", NONE + "; psd=y; np=reject", "x"]
            ),
        ),
        st.sets(st.integers(1, 14)),
        st.booleans(),
    )
    def test_bounds(
        self, labels: list[str], at: dict[int, str], failing: set[int], isThere: bool
    ) -> None:
        """
        Any records: at most eight lookups, three more for existence, and an
        organizational domain at or above the author's.
        """
        author = ".".join(labels)
        names = {count: "_dmarc." + ".".join(labels[-count:]) for count in range(1, 15)}
        records = {names[count]: text for count, text in at.items()}
        hosts = [author] if isThere else []
        zone = Zone(records, {names[count] for count in failing}, hosts)
        found = self.found(author, zone)
        self.assertLessEqual(len([n for n in zone.asked if n[:7] == "_dmarc."]), 8)
        self.assertLessEqual(len(zone.asked), 11)
        self.assertTrue(found.author.isUnder(found.organizational))
        self.assertEqual(found.record is None, found.policyDomain is None)


class ExistenceTests(SynchronousTestCase):
    """
    Whether the author domain exists (RFC 9989 3.2.13).
    """

    RECORD = "v=DMARC1; p=none; sp=quarantine; np=reject"

    def found(self, zone: Zone, author: str = "x.example.com") -> Discovery:
        return zone.find(discover(Domain(author)))

    def test_missing(self) -> None:
        """
        If existence matters and isn't known, three types of record are queried.
        """
        zone = Zone({"_dmarc.example.com": self.RECORD})
        found = self.found(zone)
        self.assertFalse(found.exists)
        self.assertEqual(requestedPolicy(found), DMARCPolicy.REJECT)
        self.assertEqual(
            zone.asked[3:], [f"x.example.com {k}" for k in ("A", "AAAA", "MX")]
        )

    def test_there(self) -> None:
        """
        A name that has records, or a name below it, exists.
        """
        for hosts in (["x.example.com"], ["y.x.example.com"], ["_dmarc.x.example.com"]):
            found = self.found(Zone({"_dmarc.example.com": self.RECORD}, (), hosts))
            self.assertTrue(found.exists)
            self.assertEqual(requestedPolicy(found), DMARCPolicy.QUARANTINE)

    def test_alias(self) -> None:
        """
        A name with a CNAME exists, even if its target doesn't.
        """
        zone = Zone({"_dmarc.example.com": self.RECORD})

        def answer(question: LookupQuestion) -> Answer:
            found = zone.answer(question)
            chain = (CNAMELink("x.example.com", "gone.example.net", False),)
            return (
                replace(found, chain=chain) if found.name == "x.example.com" else found
            )

        found = runWithAnswers(discover(Domain("x.example.com")), answer)
        self.assertTrue(found.exists)

    def test_unneeded(self) -> None:
        """
        Existence isn't looked up if it makes no difference: no C{np}, the same C{np},
        a record of the author's own, or none.
        """
        for record in (
            REJECT,
            REJECT + "; np=reject",
            QUARANTINE + "; sp=none; np=none",
        ):
            zone = Zone({"_dmarc.example.com": record})
            self.found(zone)
            self.assertEqual(len(zone.asked), 3)
        zone = Zone({"_dmarc.example.com": self.RECORD})
        self.found(zone, "example.com")
        self.assertEqual(len(zone.asked), 2)

    def test_failed(self) -> None:
        """
        If that isn't known, neither is the policy.
        """
        zone = Zone({"_dmarc.example.com": self.RECORD}, {"x.example.com"})
        found = self.found(zone)
        self.assertTrue(found.temporary)
        self.assertIn("x.example.com: could not be looked up", found.problem)


class DiscoverWithSuffixListTests(SynchronousTestCase):
    """
    Tests for L{discover} with a public suffix list (RFC 7489 6.6.3).
    """

    def setUp(self) -> None:
        # The last two labels of each name.
        self.suffixes = PublicSuffixes(
            lambda: lambda name: ".".join(name.split(".")[-2:])
        )

    def found(self, author: str, zone: Zone) -> Discovery:
        return zone.find(discover(Domain(author), self.suffixes))

    def test_two(self) -> None:
        """
        The author's record, else the organization's; never another's.
        """
        zone = Zone({"_dmarc.b.example.com": REJECT, "_dmarc.example.com": NONE})
        found = self.found("a.b.example.com", zone)
        self.assertEqual(found.policyDomain, Domain("example.com"))
        self.assertEqual(found.method, DiscoveryMethod.PSL)
        self.assertEqual(zone.asked, ["_dmarc.a.b.example.com", "_dmarc.example.com"])
        self.assertEqual(
            self.found("b.example.com", zone).policyDomain, Domain("b.example.com")
        )

    def test_several(self) -> None:
        """
        Several records, or an unusable one, end it (steps 3, 5, 6).
        """
        for record in ((NONE, NONE), ("v=DMARC1; p=x",)):
            zone = Zone({"_dmarc.a.example.com": record, "_dmarc.example.com": NONE})
            found = self.found("a.example.com", zone)
            self.assertIsNone(found.record)
            self.assertIn("_dmarc.a.example.com", found.problem)

    def test_failed(self) -> None:
        """
        The second lookup may fail if the first has found a record.
        """
        zone = Zone({"_dmarc.a.example.com": REJECT}, {"_dmarc.example.com"})
        self.assertFalse(self.found("a.example.com", zone).temporary)
        self.assertTrue(self.found("b.example.com", zone).temporary)

    def test_np(self) -> None:
        """
        RFC 7489 knows no C{np}.
        """
        zone = Zone({"_dmarc.example.com": "v=DMARC1; p=none; np=reject"})
        found = self.found("x.example.com", zone)
        self.assertEqual(
            requestedPolicy(replace(found, exists=False)), DMARCPolicy.NONE
        )
        self.assertEqual(len(zone.asked), 2)

    def test_organizational(self) -> None:
        """
        No lookup is made.
        """
        zone = Zone({})
        lookups = organizationalDomain(Domain("a.b.example.com"), self.suffixes)
        self.assertEqual(zone.find(lookups), Domain("example.com"))
        self.assertEqual(zone.asked, [])


class SuffixesTests(SynchronousTestCase):
    """
    Tests for L{PublicSuffixes}.
    """

    def test_packaged(self) -> None:
        """
        RFC 7489 3.2, with the packaged list: rules, wildcards, exceptions, domains of
        private registries, A-labels, and unlisted names.
        """
        suffixes = PublicSuffixes()
        for name, organizational in [
            ("a.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("com", "com"),
            ("a.example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("a.b.example.ck", "b.example.ck"),
            ("a.www.ck", "www.ck"),
            ("a.b.github.io", "b.github.io"),
            ("a.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
            ("a.example.unlisted", "example.unlisted"),
        ]:
            found = suffixes.organizational(Domain(name))
            self.assertEqual(found, Domain(organizational), name)

    def test_lazy(self) -> None:
        """
        The list is read once, and not before it is needed.
        """
        loads: list[str] = []

        def load() -> Registered:
            loads.append("load")
            return lambda name: name

        suffixes = PublicSuffixes(load)
        self.assertEqual(loads, [])
        for _ in range(2):
            suffixes.organizational(Domain("example.org"))
        self.assertEqual(loads, ["load"])


class WalkTests(SynchronousTestCase):
    """
    Tests for L{treeWalkNames}.
    """

    def test_names(self) -> None:
        """
        From the start up to the top level, with a jump that leaves seven
        labels (RFC 9989 4.10 steps 3 to 7).
        """
        for start, names in [
            ("com", ["com"]),
            ("example.com", ["example.com", "com"]),
            (
                "a.b.c.d.e.f.example.com",
                [
                    "a.b.c.d.e.f.example.com",
                    "b.c.d.e.f.example.com",
                    "c.d.e.f.example.com",
                    "d.e.f.example.com",
                    "e.f.example.com",
                    "f.example.com",
                    "example.com",
                    "com",
                ],
            ),
            (
                "x.a.b.c.d.e.f.example.com",
                [
                    "x.a.b.c.d.e.f.example.com",
                    "b.c.d.e.f.example.com",
                    "c.d.e.f.example.com",
                    "d.e.f.example.com",
                    "e.f.example.com",
                    "f.example.com",
                    "example.com",
                    "com",
                ],
            ),
        ]:
            self.assertEqual(
                [each.ascii for each in treeWalkNames(Domain(start))], names
            )


class PrintableTests(SynchronousTestCase):
    """
    Tests for L{printable}.
    """

    def test_line(self) -> None:
        """
        The text is one line of printable ASCII.
        """
        self.assertEqual(printable("a\r\nb\x7fü"), "a??b??")
