"""
Tests for L{moxtls.dns.types}.
"""

from __future__ import annotations

import re
from dataclasses import replace

import dns.edns
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

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

ANSWER = Answer("a.example", RRType.A, LookupStatus.RECORDS)


class ExtendedErrorTests(SynchronousTestCase):
    """
    Tests for L{ExtendedError}.
    """

    def test_reasonCode(self) -> None:
        """
        The number is always there, the name of the error if it has one (RFC
        8914 4).
        """
        for code, reason in (
            (6, "dns-extended-error-6-dnssec-bogus"),
            (7, "dns-extended-error-7-signature-expired"),
            (10, "dns-extended-error-10-rrsigs-missing"),
            (25, "dns-extended-error-25-signature-expired-before-valid"),
            (27, "dns-extended-error-27-unsupported-nsec3-iterations-value"),
            (0, "dns-extended-error-0-other"),
            (49152, "dns-extended-error-49152"),
        ):
            self.assertEqual(ExtendedError(code).reasonCode, reason)

    def test_dnssec(self) -> None:
        """
        The extended errors about DNSSEC: failed, impossible and missing validation
        (RFC 8914 4).
        """
        dnssec = [code for code in range(100) if ExtendedError(code).isDNSSEC]
        self.assertEqual(dnssec, [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 25, 27])

    def test_names(self) -> None:
        """
        Names of extended errors are those of dnspython, which has the registry of RFC
        8914 5.2.
        """
        for code in dns.edns.EDECode:
            reason = ExtendedError(int(code)).reasonCode
            name = code.name.lower().replace("_", "-")
            self.assertEqual(reason, f"dns-extended-error-{int(code)}-{name}")

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 0xFFFF), st.text())
    def test_untrustedText(self, code: int, text: str) -> None:
        """
        The extra text isn't in reports.
        """
        reason = ExtendedError(code, text).reasonCode
        self.assertEqual(reason, ExtendedError(code).reasonCode)
        self.assertTrue(re.fullmatch(r"dns-extended-error-\d+[a-z0-9-]*", reason))


class AnswerTests(SynchronousTestCase):
    """
    Tests for L{Answer}.
    """

    def test_failed(self) -> None:
        """
        A negative answer isn't a failure.
        """
        failed = [each for each in LookupStatus if replace(ANSWER, status=each).failed]
        self.assertEqual(failed, [LookupStatus.FAILED])

    def test_canonicalName(self) -> None:
        """
        The canonical name is the last CNAME target, if there are CNAMEs.
        """
        self.assertEqual(ANSWER.canonicalName, "a.example")
        chain = (
            CNAMELink("a.example", "b.example", True),
            CNAMELink("b.example", "c.example", False),
        )
        self.assertEqual(replace(ANSWER, chain=chain).canonicalName, "c.example")

    def test_dnssecError(self) -> None:
        """
        An extended error is the DNSSEC reason only if it is of that kind, and the
        lookup failed: resolvers may add remarks to successful answers (RFC 8914 1).
        """
        errors = (ExtendedError(22), ExtendedError(7), ExtendedError(6))
        failed = replace(ANSWER, status=LookupStatus.FAILED, errors=errors)
        self.assertEqual(failed.dnssecError, ExtendedError(7))
        self.assertIsNone(replace(failed, errors=errors[:1]).dnssecError)
        self.assertIsNone(replace(failed, status=LookupStatus.RECORDS).dnssecError)

    def test_views(self) -> None:
        """
        Each kind of record has its own view, in the order of the answer.
        """
        first, second = MX(20, "b.example"), MX(10, "a.example")
        tlsa = TLSA(3, 1, 1, b"\xab")
        records = (
            first,
            tlsa,
            TXT(b"x"),
            second,
            IP("192.0.2.1"),
            NameRecord("n.example"),
        )
        answer = replace(ANSWER, records=records)
        self.assertEqual(answer.mx, (first, second))
        self.assertEqual(answer.tlsa, (tlsa,))
        self.assertEqual(answer.texts, (b"x",))
        self.assertEqual(answer.addresses, ("192.0.2.1",))
        self.assertEqual(answer.names, ("n.example",))

    def test_tlsaText(self) -> None:
        """
        A TLSA record is written as in a zone file (RFC 6698 2.2).
        """
        self.assertEqual(str(TLSA(3, 1, 1, b"\xab\x01")), "3 1 1 ab01")
