"""
Tests for L{moxtls.tlsrpt.record}.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.tlsrpt.record import (
    InvalidRecord,
    TLSRPTRecord,
    TLSRPTRecordError,
    findTLSRPTRecord,
    parseTLSRPTRecord,
    tlsrptRecordName,
)
from tests.corpus import corpus

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
