"""
Tests for L{moxtls.dmarc.eligibility}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.eligibility import DMARCReporting, refusalReason, unreachableReason
from moxtls.dmarc.types import PeriodSummary
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Domain
from moxtls.tasks import resolve
from tests.dmarc.reports import PUBLISHED
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
