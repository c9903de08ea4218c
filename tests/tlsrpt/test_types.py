"""
Tests for L{moxtls.tlsrpt.types}.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.tlsrpt.types import (
    FailureDetail,
    InvalidRecord,
    PolicyTally,
    PolicyType,
    ResultType,
    TLSPolicy,
    TLSRPTRecord,
    TLSRPTRecordError,
    findTLSRPTRecord,
    mergeTallies,
    parseTLSRPTRecord,
    tlsrptRecordName,
)
from tests.corpus import corpus

DOMAIN = Domain("a.example")
TESTING = TLSPolicy(PolicyType.STS, DOMAIN, ("mode: testing",), ("mx.a.example",))
ENFORCE = TLSPolicy(PolicyType.STS, DOMAIN, ("mode: enforce",), ("mx.a.example",))
EXPIRED = FailureDetail(ResultType.CERTIFICATE_EXPIRED, receivingIP="192.0.2.1")
ELSEWHERE = FailureDetail(ResultType.CERTIFICATE_EXPIRED, receivingIP="192.0.2.2")
UNUSABLE = FailureDetail(ResultType.TLSA_INVALID, "all-unusable-records+ignored")

TALLIES = [
    PolicyTally(TESTING, 1, 0, Counter({EXPIRED: 1})),
    PolicyTally(ENFORCE, 0, 1, Counter({EXPIRED: 1})),
    PolicyTally(TESTING, 2, 3, Counter({EXPIRED: 2, ELSEWHERE: 1})),
    PolicyTally(TESTING, 0, 0, Counter({UNUSABLE: 0})),
]


class MergeTalliesTests(SynchronousTestCase):
    """
    Tests for L{mergeTallies}.
    """

    def test_anyOrder(self) -> None:
        """
        Each policy, and each failure under it, is there once; the order of merging
        changes no number.
        """
        for tallies in permutations(TALLIES):
            merged = {each.policy: each for each in mergeTallies(tallies)}
            self.assertEqual(
                merged,
                {
                    TESTING: PolicyTally(
                        TESTING, 3, 3, Counter({EXPIRED: 3, ELSEWHERE: 1, UNUSABLE: 0})
                    ),
                    ENFORCE: PolicyTally(ENFORCE, 0, 1, Counter({EXPIRED: 1})),
                },
            )

    def test_first(self) -> None:
        """
        Policies are in the order in which they first occur.
        """
        merged = mergeTallies(TALLIES)
        self.assertEqual([each.policy for each in merged], [TESTING, ENFORCE])

    def test_stepwise(self) -> None:
        """
        Merging merged tallies gives the same result.
        """
        for split in range(len(TALLIES) + 1):
            start, end = mergeTallies(TALLIES[:split]), mergeTallies(TALLIES[split:])
            self.assertEqual(
                {each.policy: each for each in mergeTallies(start + end)},
                {each.policy: each for each in mergeTallies(TALLIES)},
            )

    def test_zero(self) -> None:
        """
        A failure that was seen in no session isn't lost.
        """
        (merged,) = mergeTallies([TALLIES[3], TALLIES[3]])
        self.assertEqual(list(merged.failures.items()), [(UNUSABLE, 0)])

    def test_negative(self) -> None:
        """
        Counts don't go below none.
        """
        (merged,) = mergeTallies(
            [PolicyTally(TESTING, 1, 1), PolicyTally(TESTING, -1, -5)]
        )
        self.assertEqual((merged.succeeded, merged.failed), (1, 1))

    def test_unchanged(self) -> None:
        """
        Merging doesn't change its arguments.
        """
        before = [Counter(each.failures) for each in TALLIES]
        mergeTallies(TALLIES)
        self.assertEqual([each.failures for each in TALLIES], before)


GOOD = b"v=TLSRPTv1; rua=mailto:tlsrpt@example.org"


class FindTLSRPTRecordTests(SynchronousTestCase):
    """
    Tests for L{findTLSRPTRecord}.
    """

    def test_one(self) -> None:
        """
        Texts that aren't about TLS reports are passed over (RFC 8460 3).
        """
        found = findTLSRPTRecord(
            [b"v=spf1 -all", GOOD, b"v=TLSRPTv10; rua=mailto:a@b.example"]
        )
        self.assertEqual(found, TLSRPTRecord(("mailto:tlsrpt@example.org",)))

    def test_problems(self) -> None:
        """
        No record, several and a malformed one are distinguished; a malformed record
        counts next to a good one (RFC 8460 3: the number must be one).
        """
        broken = b"v=TLSRPTv1; rua=nonsense"
        for texts, trouble in [
            ([], TLSRPTRecordError.NONE),
            (
                [b"\xff\x00", b"V=tlsrptv1; rua=mailto:a@b.example"],
                TLSRPTRecordError.NONE,
            ),
            ([GOOD, GOOD], TLSRPTRecordError.MULTIPLE),
            ([GOOD, broken], TLSRPTRecordError.MULTIPLE),
            ([broken], TLSRPTRecordError.SYNTAX),
            ([b"v=TLSRPTv1; rua=mailto:\xff@b.example"], TLSRPTRecordError.SYNTAX),
        ]:
            self.assertIs(findTLSRPTRecord(texts), trouble, texts)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=80), max_size=3), st.binary(max_size=80))
    def test_hostile(self, others: list[bytes], rest: bytes) -> None:
        """
        No record raises.
        """
        found = findTLSRPTRecord([*others, b"v=TLSRPTv1;" + rest])
        self.assertIsInstance(found, TLSRPTRecord | TLSRPTRecordError)


class ParseTLSRPTRecordTests(SynchronousTestCase):
    """
    Tests for L{parseTLSRPTRecord}.
    """

    def test_supersets(self) -> None:
        """
        Unknown fields are ignored, and several C{rua} are read as one list (RFC 8460
        3).
        """
        record = parseTLSRPTRecord(
            "v=TLSRPTv1 ;\tx.y-z_1=a:b ; rua=mailto:a@b.example , https://c.example/;"
            "rua=mailto:d@e.example; RUA=f;"
        )
        self.assertEqual(
            record,
            TLSRPTRecord(
                ("mailto:a@b.example", "https://c.example/", "mailto:d@e.example"),
                (("x.y-z_1", "a:b"), ("RUA", "f")),
            ),
        )

    def test_international(self) -> None:
        """
        A domain in U-labels is read, though RFC 3986 has no such URI.
        """
        record = parseTLSRPTRecord("v=TLSRPTv1; rua=mailto:tls@bücher.example")
        self.assertEqual(record.rua, ("mailto:tls@bücher.example",))

    def test_corpus(self) -> None:
        """
        The tables of others agree; a linter that refuses repeated tags is
        overruled, as the grammar of RFC 8460 3 allows them.
        """
        cases = []
        for name in ("mox-tlsrpt-record.json", "checkdmarc-tlsrpt-record.json"):
            cases += json.loads(corpus("records", name).read_text())["cases"]
        self.assertTrue(cases)
        for case in cases:
            repeated = case.get("upstream_test", "").endswith("DuplicateTag")
            expected = case["expect"]["valid"] or repeated
            self.assertEqual(self.isValid(case["input"]), expected, case)

    def isValid(self, text: str) -> bool:
        try:
            parseTLSRPTRecord(text)
        except InvalidRecord:
            return False
        return True


class RecordNameTests(SynchronousTestCase):
    """
    Tests for L{tlsrptRecordName}.
    """

    def test_name(self) -> None:
        """
        The record's name is in A-labels (RFC 8460 3).
        """
        name = tlsrptRecordName(Domain.parse("bücher.example"))
        self.assertEqual(name, "_smtp._tls.xn--bcher-kva.example")
