"""
Tests for L{moxtls.received.analysis.questions}: what is looked up.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from moxtls.config import parse
from moxtls.dmarc.types import DMARCPolicy
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import Answer, RRType
from moxtls.domain import Domain
from moxtls.interfaces import IResolver
from moxtls.ledger.ledger import MemoryLedger
from moxtls.mtasts.policy import STSPolicy, parsePolicy
from moxtls.received.analysis.questions import (
    LOOKUP_TIME,
    MAX_NAMES,
    Lookups,
    ReportQuestions,
    ownHost,
)
from moxtls.received.analysis.readiness import PublishedRecords
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.mtasts.fakes import FakeFetcher
from tests.received.analysis.filling import Row, accept, aggregateReport

DOMAIN = Domain("example.org")
CONFIG = """
Hostname = "mx.example.org"
[Domains."example.org"]
[Listeners.a]
Port = 25
Address = ["::", "192.0.2.1"]
Service = "reception"
"""
ZONE: dict[Any, Any] = {
    ("_dmarc.example.org", RRType.TXT): ["v=DMARC1; p=reject; sp=none; rua=mailto:d@x"],
    ("_smtp._tls.example.org", RRType.TXT): ["v=TLSRPTv1; rua=mailto:t@x.example"],
    ("_mta-sts.example.org", RRType.TXT): ["v=STSv1; id=1"],
    ("example.org", RRType.MX): ["1 mx.example.org"],
    ("null.example", RRType.MX): ["0 ."],
    ("_smtp._tls.null.example", RRType.TXT): ["v=TLSRPTv1; nothing=x"],
    ("_mta-sts.null.example", RRType.TXT): ["v=STSv1; id=!"],
}
POLICY = parsePolicy(
    b"version: STSv1\nmode: testing\nmx: mx.example.org\nmax_age: 99\n"
)


@implementer(IResolver)
class SilentResolver:
    """
    Never answers.

    @ivar asked: The names in the questions.
    """

    validating = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        self.asked.append(name)
        return Deferred()


class LookupTests(SynchronousTestCase):
    """
    Tests for L{ReportQuestions.published} and the names of sources.
    """

    def questions(
        self, resolver: IResolver | None, fetched: STSPolicy | FailureDetail
    ) -> ReportQuestions:
        """
        The questions of a command about an empty ledger.
        """
        self.clock = Clock()
        ledger = self.ledger = MemoryLedger()
        self.addCleanup(ledger.stop)
        return ReportQuestions(
            self.clock,
            ledger.received,
            ledger.listenerHistory,
            ownHost(parse(CONFIG, "moxtls.toml")),
            None if resolver is None else Lookups(resolver, FakeFetcher(fetched)),
        )

    def published(
        self,
        domain: Domain = DOMAIN,
        fetched: STSPolicy | FailureDetail | None = None,
        **more: Any,
    ) -> PublishedRecords:
        """
        What C{domain} publishes in C{ZONE}.
        """
        assert isinstance(POLICY, STSPolicy)
        questions = self.questions(MemoryResolver(ZONE, **more), fetched or POLICY)
        return self.successResultOf(Deferred.fromCoroutine(questions.published(domain)))

    def test_records(self) -> None:
        """
        The DMARC, TLSRPT and MX records, and the MTA-STS policy.
        """
        found = self.published()
        self.assertTrue(found.isKnown)
        self.assertEqual(found.sts, POLICY)
        self.assertEqual(found.mxHosts, (Domain("mx.example.org"),))
        self.assertEqual(found.policy, DMARCPolicy.REJECT)
        self.assertEqual(found.tlsrpt, ("mailto:t@x.example",))
        self.assertEqual(found.dmarcName, "_dmarc.example.org")

    def test_subdomain(self) -> None:
        """
        RFC 9989 4.10.1: the policy for a subdomain is in the record of the
        organizational domain.
        """
        found = self.published(Domain("news.example.org"))
        self.assertEqual(found.policy, DMARCPolicy.NONE)
        self.assertFalse(found.isEnforced)
        self.assertEqual(found.dmarcName, "_dmarc.example.org")
        self.assertIn("no-mta-sts-dns-txt-record", found.stsProblem)

    def test_broken(self) -> None:
        """
        Errors in records are named; a null MX (RFC 7505) is no host.
        """
        found = self.published(Domain("null.example"))
        self.assertEqual(found.mxHosts, ())
        self.assertEqual(found.dmarcProblem, "no DMARC record")
        self.assertEqual(found.tlsrptProblem, "malformed TLSRPT record")
        self.assertIn("record-syntax-error", found.stsProblem)
        self.assertTrue(found.isKnown)
        failure = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "no-policy-served")
        found = self.published(DOMAIN, failure)
        self.assertEqual(found.stsProblem, "sts-policy-fetch-error no-policy-served")

    def test_failed(self) -> None:
        """
        After a lookup that failed, it isn't known what is published.
        """
        for name in ("_dmarc", "_mta-sts"):
            failing = {(f"{name}.example.org", RRType.TXT): None}
            self.assertFalse(self.published(failing=failing).isKnown, name)
        failing = {("_smtp._tls.example.org", RRType.TXT): None}
        found = self.published(failing=failing)
        self.assertIn("could not be looked up", found.tlsrptProblem)

    def test_time(self) -> None:
        """
        All lookups together end after some seconds.
        """
        resolver = SilentResolver()
        assert isinstance(POLICY, STSPolicy)
        questions = self.questions(resolver, POLICY)
        looking = Deferred.fromCoroutine(questions.published(DOMAIN))
        self.clock.advance(LOOKUP_TIME - 0.1)
        self.assertNoResult(looking)
        self.clock.advance(0.2)
        self.assertEqual(
            self.successResultOf(looking).dmarcProblem, "lookups took too long"
        )
        # Later ones don't wait any more.
        looking = Deferred.fromCoroutine(questions.published(Domain("b.example")))
        self.clock.advance(0)
        self.assertFalse(self.successResultOf(looking).isKnown)

    def test_names(self) -> None:
        """
        The names of some of the addresses are looked up, each once.
        """
        resolver = SilentResolver()
        assert isinstance(POLICY, STSPolicy)
        questions = self.questions(resolver, POLICY)
        rows = [Row(f"203.0.{n}.1", 9) for n in range(2 * MAX_NAMES)]
        accepting = Deferred.fromCoroutine(
            accept(self.ledger, aggregateReport(20_000, rows), 1.0)
        )
        self.successResultOf(accepting)
        for _ in range(2):
            looking = Deferred.fromCoroutine(questions.dmarc(DOMAIN, 0, 30_000))
            self.clock.pump([LOOKUP_TIME, 0, 0])
            answer = self.successResultOf(looking)
            self.assertEqual(len(answer.sources), 2 * MAX_NAMES)
        pointers = [each for each in resolver.asked if each.endswith(".arpa")]
        self.assertEqual(len(pointers), MAX_NAMES)

    def test_none(self) -> None:
        """
        Without lookups, nothing is known, and nothing is asked.
        """
        assert isinstance(POLICY, STSPolicy)
        questions = self.questions(None, POLICY)
        looking = Deferred.fromCoroutine(questions.published(DOMAIN))
        self.assertFalse(self.successResultOf(looking).isKnown)
