"""
Tests for L{moxtls.ledger.evaluationcounters}.

Tests for L{moxtls.ledger.evaluationcounters}.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import AuthResult
from moxtls.dates import HOUR
from moxtls.dmarc.types import (
    Alignment,
    DiscoveryMethod,
    Disposition,
    DMARCPolicy,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain
from moxtls.ledger.evaluationcounters import (
    BITS,
    decodePolicy,
    decodeRow,
    decodeTexts,
    encodePolicy,
    encodeRow,
    encodeTexts,
    endOfPrefix,
    keyAfter,
    keyPrefix,
    partOf,
    rowDigest,
    rowDigestOf,
    sumEvaluations,
)
from tests.ledger.values import EVALUATION, MIDNIGHT, PUBLISHED, ROW, evaluation

texts = st.text(max_size=20)
results = st.sampled_from(AuthResult)
policies = st.sampled_from(DMARCPolicy)
rows = st.builds(
    ReportRow,
    texts,
    st.sampled_from(Disposition),
    st.booleans(),
    st.booleans(),
    st.lists(st.builds(Override, st.sampled_from(OverrideKind), texts), max_size=3).map(
        tuple
    ),
    texts,
    texts,
    texts,
    st.lists(
        st.builds(ReportedSignature, texts, texts, results, texts), max_size=3
    ).map(tuple),
    st.none() | st.builds(ReportedSPF, texts, texts, results),
)
published = st.builds(
    PublishedPolicy,
    st.builds(Domain, texts),
    policies,
    st.none() | policies,
    st.none() | policies,
    st.sampled_from(Alignment),
    st.sampled_from(Alignment),
    st.booleans(),
    st.lists(texts, max_size=4).map(tuple),
    st.integers(0, 100),
    st.sampled_from(DiscoveryMethod),
)


class EncodingTests(SynchronousTestCase):
    """
    Tests for values as text.
    """

    @settings(max_examples=60, deadline=None)
    @given(rows, rows)
    def test_rows(self, one: ReportRow, other: ReportRow) -> None:
        """
        A row is read as it was written, and has a text of its own.
        """
        text = encodeRow(one)
        self.assertEqual(decodeRow(text), one)
        self.assertEqual(text == encodeRow(other), one == other)

    @settings(max_examples=60, deadline=None)
    @given(published, published)
    def test_policies(self, one: PublishedPolicy, other: PublishedPolicy) -> None:
        """
        A policy survives encoding.
        """
        text = encodePolicy(one)
        self.assertEqual(decodePolicy(text), one)
        self.assertEqual(text == encodePolicy(other), one == other)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(texts).map(tuple))
    def test_texts(self, several: tuple[str, ...]) -> None:
        """
        Addresses survive encoding.
        """
        self.assertEqual(decodeTexts(encodeTexts(several)), several)

    def test_ascii(self) -> None:
        """
        Any encoded text is valid for every database.
        """
        text = encodeRow(replace(ROW, headerFrom="\0\ud800é"))
        self.assertTrue(text.isascii())
        self.assertNotIn("\0", text)

    def test_lasting(self) -> None:
        """
        A ledger is read by later versions: the spelling stays as it is.
        """
        self.assertEqual(
            encodeRow(ROW),
            '["192.0.2.1","reject",false,false,[["local_policy","known"]],'
            '"www.example.org","bounce.example.org","example.com",'
            '[["example.org","s1","fail","body hash"]],'
            '["bounce.example.org","mfrom","softfail"]]',
        )
        self.assertEqual(
            encodePolicy(PUBLISHED),
            '["example.org","reject",null,null,"r","r",false,["0"],100,"treewalk"]',
        )

    def test_digests(self) -> None:
        """
        A part is short, fit for any name, and another for another interval or
        policy.
        """
        text = encodePolicy(PUBLISHED)
        parts = {partOf(text, 24), partOf(text, 12), partOf(text + " ", 24)}
        self.assertEqual({len(part) for part in parts}, {16})
        self.assertEqual(len(parts), 3)
        self.assertNotEqual(rowDigest("a"), rowDigest("b"))


class SumEvaluationsTests(SynchronousTestCase):
    """
    Tests for L{sumEvaluations}.
    """

    def test_nothing(self) -> None:
        """
        There are no sums of no evaluations.
        """
        self.assertEqual(sumEvaluations([]), [])

    def test_sums(self) -> None:
        """
        Equal evaluations are one row, of which the messages are counted, with
        the latest addresses.
        """
        later = replace(EVALUATION, addresses=("mailto:new@example.org",))
        (tally,) = sumEvaluations([(MIDNIGHT, EVALUATION, 1), (MIDNIGHT + 9, later, 1)])
        (row,) = tally.rows.values()
        self.assertEqual((row.messages, row.hour), (2, MIDNIGHT))
        self.assertEqual(row.addresses, '["mailto:new@example.org"]')

    def test_anyOrder(self) -> None:
        """
        The sums don't depend on the order, and are in an order of their own.
        """
        items = [
            (MIDNIGHT, evaluation(1), 1),
            (MIDNIGHT, evaluation(1, wanted=True), 1),
            (MIDNIGHT + HOUR, evaluation(1, hours=12), 1),
            (MIDNIGHT + HOUR, evaluation(2), 1),
        ]
        expected = sumEvaluations(items)
        places = [(each.domain, each.part, each.hour) for each in expected]
        self.assertEqual(places, sorted(places))
        for order in permutations(items):
            self.assertEqual(sumEvaluations(order), expected)

    def test_together(self) -> None:
        """
        A tally sums up its rows.
        """
        passed = replace(ROW, disposition=Disposition.PASS)
        items = [
            EVALUATION,
            replace(EVALUATION, optional=True),
            replace(EVALUATION, row=passed, wanted=True, optional=True),
        ]
        (tally,) = sumEvaluations(
            (MIDNIGHT, each, count)
            for each, count in zip(items, (1, 1, 2), strict=True)
        )
        self.assertEqual((tally.messages, tally.wanted), (4, 2))
        self.assertTrue(tally.sendable)
        self.assertEqual(
            tally.dispositions, BITS[Disposition.PASS] | BITS[Disposition.REJECT]
        )

    def test_omit(self) -> None:
        """
        Only the messages of an omitted row are counted.
        """
        optional = replace(EVALUATION, optional=True)
        (tally,) = sumEvaluations(
            (MIDNIGHT, each, 1) for each in (EVALUATION, optional)
        )
        key = next(key for key, row in tally.rows.items() if not row.optional)
        tally.omit(key)
        self.assertEqual((tally.messages, tally.omitted), (1, 1))
        self.assertFalse(tally.sendable)


class KeyTests(SynchronousTestCase):
    """
    Tests for the keys of rows.
    """

    def test_order(self) -> None:
        """
        A report's rows are contiguous, and equal ones adjacent.
        """
        items = [
            (MIDNIGHT + hour * HOUR, evaluation(number, optional=hour == 1), 1)
            for hour in range(3)
            for number in range(5)
        ]
        tallies = sumEvaluations(items)
        keys = sorted(key for tally in tallies for key in tally.rows)
        place = keyPrefix(tallies[0].domain, tallies[0].part)
        rows = [rowDigestOf(key) for key in keys]
        self.assertEqual(rows, [row for row in sorted(set(rows)) for _ in range(3)])
        self.assertLess(keyAfter(place), keys[0])
        self.assertLess(keys[-1], endOfPrefix(place))
        for number, row in enumerate(sorted(set(rows)), start=1):
            behind = [key for key in keys if key > keyAfter(place, row)]
            self.assertEqual(len(behind), 15 - 3 * number)

    def test_rowKey(self) -> None:
        """
        The part of a key that stands for the row is the row's digest.
        """
        (tally,) = sumEvaluations([(MIDNIGHT, EVALUATION, 1)])
        ((key, row),) = tally.rows.items()
        self.assertEqual(rowDigestOf(key), rowDigest(row.content))
