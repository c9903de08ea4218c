"""
Tests for L{moxtls.authentication.check}: iprev.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.check import MAX_PTR_NAMES, checkIPRev
from moxtls.authentication.results import AuthResult, IPRevResult
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import Answer, LookupQuestion, RRType, runWithAnswers

REVERSE = "3.2.0.192.in-addr.arpa"


class IPRevTests(SynchronousTestCase):
    """
    Tests for L{checkIPRev}.
    """

    def setUp(self) -> None:
        self.dns = MemoryResolver()

    def answer(self, question: LookupQuestion) -> Answer:
        return self.successResultOf(self.dns.lookup(question.name, question.kind))

    def check(self, ip: str = "192.0.2.3") -> IPRevResult:
        return runWithAnswers(checkIPRev(ip), self.answer)

    def test_pass(self) -> None:
        """
        RFC 8601 3: one of the names has the address.
        """
        self.dns.put(REVERSE, RRType.PTR, "Other.example", "Host.example")
        self.dns.put("other.example", RRType.A, "192.0.2.4")
        self.dns.put("host.example", RRType.A, "192.0.2.9", "192.0.2.3")
        expected = IPRevResult(AuthResult.PASS, "host.example")
        self.assertEqual(self.check(), expected)
        self.assertEqual(self.check("::ffff:192.0.2.3"), expected)

    def test_v6(self) -> None:
        """
        RFC 8601 3: with IPv6 it's AAAA records.
        """
        name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
        self.dns.put(f"{name}.ip6.arpa", RRType.PTR, "host.example")
        self.dns.put("host.example", RRType.A, "192.0.2.3")
        self.assertEqual(self.check("2001:db8::1").status, AuthResult.FAIL)
        self.dns.put("host.example", RRType.AAAA, "2001:db8::1")
        result = self.check("2001:DB8:0::1%eth0")
        self.assertEqual(result, IPRevResult(AuthResult.PASS, "host.example"))

    def test_fail(self) -> None:
        """
        RFC 8601 2.7.3: the names have other addresses, or none, or can't be
        names.
        """
        self.dns.put(REVERSE, RRType.PTR, "host.example", "gone.example")
        self.dns.put("host.example", RRType.A, "192.0.2.4")
        result = self.check()
        self.assertEqual((result.status, result.name), (AuthResult.FAIL, ""))
        self.assertIn("host.example, gone.example", result.problem)

    def test_permerror(self) -> None:
        """
        RFC 8601 2.7.3: the address has no name.
        """
        for _ in range(2):
            self.assertEqual(self.check().status, AuthResult.PERMERROR)
            self.assertIn("no name", self.check().problem)
            # Now it exists, but has none all the same.
            self.dns.put(REVERSE, RRType.PTR)

    def test_temperror(self) -> None:
        """
        RFC 8601 2.7.3: a necessary lookup fails.
        """
        self.dns.fail(REVERSE, RRType.PTR)
        self.assertEqual(self.check().status, AuthResult.TEMPERROR)
        self.dns.put(REVERSE, RRType.PTR, "broken.example", "host.example")
        self.dns.fail("broken.example", RRType.A)
        self.dns.put("host.example", RRType.A, "192.0.2.4")
        result = self.check()
        self.assertEqual(result.status, AuthResult.TEMPERROR)
        self.assertIn("A at broken.example failed: SERVFAIL", result.problem)
        self.dns.put("host.example", RRType.A, "192.0.2.3")
        self.assertEqual(self.check().status, AuthResult.PASS)

    def test_limit(self) -> None:
        """
        RFC 8601 3: of many names, a few are looked up, all at once.
        """
        names = [f"host{each}.example" for each in range(100)]
        self.dns.put(REVERSE, RRType.PTR, *names)
        lookups = checkIPRev("192.0.2.3")
        (question,) = next(lookups)
        questions = lookups.send((self.answer(question),))
        self.assertEqual([each.name for each in questions], names[:MAX_PTR_NAMES])

    def test_noAddress(self) -> None:
        """
        A text that is no address has no name.
        """
        for ip in ("", "host.example", "192.0.2", "192.0.2.3.4", "\x00"):
            result = self.check(ip)
            self.assertEqual(result.status, AuthResult.PERMERROR, ip)
        self.assertEqual(self.dns.asked, [])

    @settings(max_examples=50, deadline=None)
    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        """
        Any address and answers yield a result.
        """
        dns = MemoryResolver()

        def answer(question: LookupQuestion) -> Answer:
            return self.successResultOf(dns.lookup(question.name, question.kind))

        result = runWithAnswers(checkIPRev(text), answer)
        self.assertEqual(result.status, AuthResult.PERMERROR)
