"""
Tests for L{moxtls.ledger.evaluationcounters}.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import AuthResult
from moxtls.dmarc.types import (
    Alignment,
    Disposition,
    DMARCPolicy,
    Method,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain
from moxtls.ledger.evaluationcounters import (
    decodePolicy,
    decodeRow,
    decodeTexts,
    encodePolicy,
    encodeRow,
    encodeTexts,
    partOf,
    rowKey,
)
from tests.store.values import PUBLISHED, ROW

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
    st.sampled_from(Method),
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
        So is a policy.
        """
        text = encodePolicy(one)
        self.assertEqual(decodePolicy(text), one)
        self.assertEqual(text == encodePolicy(other), one == other)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(texts).map(tuple))
    def test_texts(self, several: tuple[str, ...]) -> None:
        """
        So are addresses.
        """
        self.assertEqual(decodeTexts(encodeTexts(several)), several)

    def test_ascii(self) -> None:
        """
        Whatever is in it, the text is what any database takes.
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
        self.assertNotEqual(rowKey("a"), rowKey("b"))
