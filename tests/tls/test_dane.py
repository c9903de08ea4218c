"""
Tests for L{moxtls.tls.dane}.
"""

from __future__ import annotations

from dataclasses import replace
from time import process_time

from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.types import TLSA
from moxtls.domain import Domain
from moxtls.tls.dane import (
    MAX_RECORDS,
    DANEVerdict,
    TLSALookup,
    TLSALookupError,
    policyStrings,
    strongest,
    usableRecords,
    verifyDANE,
)
from tests.tls.chains import DAY, NOW, Made, Traits, authority, leaf, make

HOST = Domain("mx.example")
ROOT = authority("Root")
MIDDLE = authority("Middle", ROOT)
LEAF = leaf("mx.example", MIDDLE)
OTHER = leaf("mx.example")

BOUNDED = settings(max_examples=100, deadline=None)
records = st.builds(
    TLSA,
    st.integers(0, 4),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from([LEAF.der, LEAF.spki, ROOT.der, b"\x30\x03\x02\x01\x01", b""])
    | st.binary(max_size=70)
    | st.sampled_from([32, 64]).map(bytes),
)


def verdict(*asked: TLSA, chain: tuple[Made, ...] = (LEAF, MIDDLE)) -> DANEVerdict:
    """
    The result of TLSA records for a chain of L{HOST}.
    """
    certificates = [each.certificate for each in chain]
    return verifyDANE(asked, certificates, (HOST,), NOW)


class UsableTests(SynchronousTestCase):
    """
    Tests for L{usableRecords}.
    """

    def test_all(self) -> None:
        """
        RFC 7672 3.1: DANE-TA and DANE-EE with either selector and any
        matching type.
        """
        for usage in (2, 3):
            for selector in (0, 1):
                for matching in (0, 1, 2):
                    record = LEAF.record(usage, selector, matching)
                    self.assertEqual(usableRecords([record]), (record,))

    def test_unusable(self) -> None:
        """
        RFC 6698 4.1, RFC 7672 3.1.3: other and malformed records are unusable.
        """
        good = LEAF.record(3, 1, 1)
        full = LEAF.record(3, 1, 0)
        for record in (
            replace(good, usage=0),
            replace(good, usage=1),
            replace(good, usage=4),
            replace(good, usage=255),
            replace(good, selector=2),
            replace(good, matching=3),
            replace(good, matching=2),
            replace(good, data=good.data[:-1]),
            replace(good, data=good.data + b"x"),
            replace(good, data=b""),
            replace(full, selector=0),
            replace(full, data=full.data[:-1]),
            replace(full, data=b""),
            replace(LEAF.record(3, 0, 0), selector=1),
        ):
            self.assertEqual(usableRecords([record]), (), record)

    def test_bounded(self) -> None:
        """
        A set of records without end costs no more than a large one.
        """
        many = [TLSA(3, 1, 1, bytes([each]) * 32) for each in range(200)]
        self.assertEqual(usableRecords(many), tuple(many[:MAX_RECORDS]))
        self.assertEqual(usableRecords(many[:1] * 3), (many[0],))


class StrongestTests(SynchronousTestCase):
    """
    Tests for L{strongest}.
    """

    def test_agility(self) -> None:
        """
        RFC 7671 9: 3 1 1 is ignored next to 3 1 2; 3 1 0 stays.
        """
        weak, strong, full = (LEAF.record(3, 1, each) for each in (1, 2, 0))
        self.assertEqual(strongest((weak, strong, full)), (strong, full))
        self.assertEqual(strongest((weak, full)), (weak, full))

    def test_apart(self) -> None:
        """
        RFC 7671 9: it is decided for each usage and selector.
        """
        kept = (LEAF.record(3, 0, 1), LEAF.record(3, 1, 2), LEAF.record(2, 1, 1))
        self.assertEqual(strongest(kept), kept)

    def test_unusable(self) -> None:
        """
        RFC 7671 9: "after first discarding any unusable or malformed
        records": a broken strong one doesn't hide the weak one.
        """
        weak = LEAF.record(3, 1, 1)
        broken = replace(LEAF.record(3, 1, 2), data=b"short")
        self.assertIs(verdict(weak, broken), DANEVerdict.MATCHED)

    def test_verdict(self) -> None:
        """
        RFC 7671 9: a chain that matches only the weaker digest doesn't match.
        """
        stale = OTHER.record(3, 1, 2)
        found = verdict(LEAF.record(3, 1, 1), stale)
        self.assertIs(found, DANEVerdict.NO_MATCH)


class StringTests(SynchronousTestCase):
    """
    Tests for L{policyStrings}.
    """

    def test_sorted(self) -> None:
        """
        RFC 8460 4.4: the same records make the same policy in any order.
        """
        one, two = TLSA(3, 1, 1, b"\xab"), TLSA(2, 0, 1, b"\x01")
        expected = ("2 0 1 01", "3 1 1 ab")
        self.assertEqual(policyStrings([one, two]), expected)
        self.assertEqual(policyStrings([two, one]), expected)


class TLSALookupTests(SynchronousTestCase):
    """
    Tests for L{TLSALookup}.
    """

    def test_required(self) -> None:
        """
        RFC 7672 2.2.3: unusable records require TLS too.
        """
        unusable = (TLSA(0, 0, 0, b""),)
        self.assertFalse(TLSALookup(HOST).required)
        self.assertTrue(TLSALookup(HOST, records=unusable).required)
        self.assertTrue(TLSALookup(HOST, error=TLSALookupError("")).required)


class EETests(SynchronousTestCase):
    """
    Tests for L{verifyDANE} with DANE-EE.
    """

    def test_matched(self) -> None:
        """
        RFC 7672 3.1.1: the leaf matches, by certificate or key, whole or
        digested.
        """
        for selector in (0, 1):
            for matching in (0, 1, 2):
                record = LEAF.record(3, selector, matching)
                self.assertIs(verdict(record), DANEVerdict.MATCHED, record)

    def test_leafOnly(self) -> None:
        """
        RFC 7672 3.1.1: an issuer isn't the end entity.
        """
        self.assertIs(verdict(MIDDLE.record(3, 1, 1)), DANEVerdict.NO_MATCH)

    def test_nothingElse(self) -> None:
        """
        RFC 7672 3.1.1, 3.2.1: names, dates and issuers don't matter.
        """
        odd = make(Traits("odd", ("other.example",), (-9, -8)), ROOT)
        found = verdict(odd.record(3, 1, 1), chain=(odd, OTHER))
        self.assertIs(found, DANEVerdict.MATCHED)

    def test_anyOf(self) -> None:
        """
        RFC 6698 2.1: one match is enough, so that keys can be changed.
        """
        old, new = OTHER.record(3, 1, 1), LEAF.record(3, 1, 1)
        self.assertIs(verdict(old, new), DANEVerdict.MATCHED)
        self.assertIs(verdict(old), DANEVerdict.NO_MATCH)

    def test_notAsked(self) -> None:
        """
        Without usable records there is nothing to match; without a chain,
        nothing matches.
        """
        unusable = TLSA(1, 1, 1, b"x" * 32)
        self.assertIs(verdict(), DANEVerdict.NOT_ASKED)
        self.assertIs(verdict(unusable), DANEVerdict.NOT_ASKED)
        found = verdict(LEAF.record(3, 1, 1), chain=())
        self.assertIs(found, DANEVerdict.NO_MATCH)


class TATests(SynchronousTestCase):
    """
    Tests for L{verifyDANE} with DANE-TA.
    """

    def test_matched(self) -> None:
        """
        RFC 7672 3.1.2: an anchor that is sent along, by certificate or key.
        """
        for anchor in (LEAF, MIDDLE, ROOT):
            for selector in (0, 1):
                for matching in (0, 1, 2):
                    record = anchor.record(2, selector, matching)
                    found = verdict(record, chain=(LEAF, MIDDLE, ROOT))
                    self.assertIs(found, DANEVerdict.MATCHED, record)

    def test_notSent(self) -> None:
        """
        RFC 7671 5.2.2, 5.2.3: an anchor that isn't sent along is known only
        from whole records.
        """
        for selector in (0, 1):
            found = verdict(ROOT.record(2, selector, 0))
            self.assertIs(found, DANEVerdict.MATCHED, selector)
            found = verdict(ROOT.record(2, selector, 1))
            self.assertIs(found, DANEVerdict.NO_MATCH, selector)

    def test_names(self) -> None:
        """
        RFC 7672 3.2.2: the leaf may be for any reference identifier, and has
        to be for one.
        """
        record = MIDDLE.record(2, 0, 1)
        chain = [LEAF.certificate, MIDDLE.certificate]
        for names, expected in (
            ((Domain("a.example"), HOST), DANEVerdict.MATCHED),
            ((Domain("a.example"),), DANEVerdict.NO_MATCH_WITH_ERRORS),
            ((), DANEVerdict.NO_MATCH_WITH_ERRORS),
        ):
            self.assertIs(verifyDANE([record], chain, names, NOW), expected)

    def test_expired(self) -> None:
        """
        RFC 7672 3.1.2: dates count with DANE-TA.
        """
        chain = [LEAF.certificate, MIDDLE.certificate]
        record = MIDDLE.record(2, 0, 1)
        found = verifyDANE([record], chain, (HOST,), NOW + 30 * DAY)
        self.assertIs(found, DANEVerdict.NO_MATCH_WITH_ERRORS)

    def test_errorsAndMatch(self) -> None:
        """
        Faults under one record don't matter if another matches.
        """
        found = verdict(OTHER.record(2, 0, 0), LEAF.record(3, 1, 1))
        self.assertIs(found, DANEVerdict.MATCHED)

    def test_unrelatedAnchor(self) -> None:
        """
        An anchor in the record that is unrelated to the chain is an error, not a
        match: the chain has no path to it.
        """
        other = authority("Other")
        found = verdict(other.record(2, 0, 0))
        self.assertIs(found, DANEVerdict.NO_MATCH_WITH_ERRORS)
        found = verdict(other.record(2, 1, 0))
        self.assertIs(found, DANEVerdict.NO_MATCH)

    def test_malformedAnchor(self) -> None:
        """
        An anchor in a record (RFC 7671 5.2.2) whose name is invalid UTF-8, which
        shows only when it is compared, doesn't match.
        """
        named = authority("Malformed")
        der = named.der.replace(b"Malformed", b"\xffalformed")
        malformed = TLSA(2, 0, 0, der)
        self.assertEqual(usableRecords([malformed]), (malformed,))
        self.assertIs(verdict(malformed), DANEVerdict.NO_MATCH_WITH_ERRORS)
        self.assertIs(verdict(malformed, LEAF.record(3, 1, 1)), DANEVerdict.MATCHED)

    def test_manyWays(self) -> None:
        """
        Authorities that may all have issued each other, each with many constraints
        (RFC 5280 4.2.1.10), take bounded time, with any records.
        """
        constraints = x509.NameConstraints(
            None, [x509.DNSName(f"{each}.test") for each in range(500)]
        )
        traits = Traits("Any", ca=True, extensions=((constraints, True),))
        first = make(traits)
        others = [make(traits, first, first) for _ in range(14)]
        names = tuple(f"{each}.example" for each in range(500))
        host = make(Traits("Any", names), first)
        asked = [each.record(2, 0, matching) for each in others for matching in (0, 2)]
        begin = process_time()
        found = verdict(*asked, chain=(host, *others))
        self.assertIs(found, DANEVerdict.NO_MATCH_WITH_ERRORS)
        self.assertLess(process_time() - begin, 5)


class AnyRecordTests(SynchronousTestCase):
    """
    Tests with generated records.
    """

    @BOUNDED
    @given(st.lists(records, max_size=8))
    def test_anything(self, asked: list[TLSA]) -> None:
        """
        No set of records raises an exception, gives a verdict without usable records,
        or matches without a record about the chain.
        """
        usable = usableRecords(asked)
        found = verdict(*asked)
        self.assertEqual(found is DANEVerdict.NOT_ASKED, not usable)
        about = {LEAF.der, LEAF.spki, ROOT.der, ROOT.spki}
        if found is DANEVerdict.MATCHED:
            self.assertTrue(about & {record.data for record in usable})

    @BOUNDED
    @given(
        st.sampled_from([2, 3]),
        st.integers(0, 1),
        st.integers(1, 2),
        st.integers(0, 31),
        st.integers(1, 255),
    )
    def test_mutated(
        self, usage: int, selector: int, matching: int, at: int, flip: int
    ) -> None:
        """
        A digest that differs in any bit is that of another certificate.
        """
        anchor = LEAF if usage == 3 else MIDDLE
        record = anchor.record(usage, selector, matching)
        self.assertIs(verdict(record), DANEVerdict.MATCHED)
        data = bytearray(record.data)
        data[at] ^= flip
        mutated = replace(record, data=bytes(data))
        self.assertIs(verdict(mutated), DANEVerdict.NO_MATCH)

    @BOUNDED
    @given(
        st.permutations(
            [
                LEAF.record(3, 1, 1),
                *map(OTHER.record, (2,) * 4, (0, 1, 0, 1), (0, 0, 1, 2)),
            ]
        )
    )
    def test_order(self, asked: list[TLSA]) -> None:
        """
        The order of records, which is the resolver's, doesn't matter.
        """
        self.assertIs(verdict(*asked), DANEVerdict.MATCHED)
