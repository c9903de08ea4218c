"""
Tests for L{moxtls.tlsrpt.source}.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import HOUR, midnight, spanOfDay
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Domain
from moxtls.interfaces import IReportSource
from moxtls.ledger.ledger import MemoryLedger
from moxtls.reporting.types import NoReport, ReportDraft, ReportPeriod, Retention
from moxtls.tlsrpt.parse import ReceivedTLSReport
from moxtls.tlsrpt.source import InvalidReport, TLSReporting, TLSReportSource
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)
from tests.reports import readTLSReport

DAY = date(2026, 11, 24)
NOW = midnight(DAY) + 25 * HOUR
SUBMITTER = Domain("sender.example")
A = Domain("a.example")
B = Domain("b.example")
HOST = Domain("mx.host.example")
UNTRUSTED = FailureDetail(ResultType.CERTIFICATE_NOT_TRUSTED, mxHostname=str(HOST))


def sts(domain: Domain, mode: str = "enforce") -> TLSPolicy:
    return TLSPolicy(PolicyType.STS, domain, (f"mode: {mode}",), (str(HOST),))


def outcome(
    recipient: Domain,
    host: Domain = HOST,
    failure: FailureDetail | None = UNTRUSTED,
    sendReport: bool = True,
    mode: str = "enforce",
) -> SessionOutcome:
    """
    A successful session to C{recipient}, with C{failure} if given.
    """
    failures = Counter([failure] if failure else [])
    return SessionOutcome(
        recipient,
        PolicyTally(sts(recipient, mode), 1, 0, failures),
        (PolicyTally(TLSPolicy(PolicyType.NO_POLICY, host), 1, 0, failures),),
        sendReport,
    )


class TLSReportSourceTests(SynchronousTestCase):
    """
    Tests for L{TLSReportSource}.
    """

    def setUp(self) -> None:
        self.resolver = MemoryResolver()
        self.outcomes = MemoryLedger().outcomes
        self.settings = TLSReporting(SUBMITTER)

    def source(self) -> TLSReportSource:
        source = TLSReportSource(self.resolver, self.outcomes, self.settings, "L1")
        verifyObject(IReportSource, source)
        return source

    def publishRecord(self, domain: Domain, *uris: str, text: str = "") -> None:
        text = text or f"v=TLSRPTv1; rua={','.join(uris)}"
        self.resolver.put(f"_smtp._tls.{domain}", RRType.TXT, text)

    def record(self, *outcomes: SessionOutcome, day: date = DAY) -> None:
        for each in outcomes:
            self.successResultOf(self.outcomes.record(day, each))

    def find(
        self, domain: Domain, phase: int = 0, day: date = DAY
    ) -> ReportDraft | NoReport:
        return self.successResultOf(
            self.source().draft(ReportPeriod(phase, day, domain))
        )

    def draft(self, domain: Domain, phase: int = 0, day: date = DAY) -> ReportDraft:
        found = self.find(domain, phase, day)
        assert isinstance(found, ReportDraft), found
        return found

    def report(self, domain: Domain, phase: int = 0) -> ReceivedTLSReport:
        return readTLSReport(self.draft(domain, phase).document)

    def none(self, domain: Domain, phase: int = 0) -> NoReport:
        found = self.find(domain, phase)
        assert isinstance(found, NoReport), found
        return found

    def settle(self, domain: Domain, *destinations: str, phase: int = 0) -> None:
        period = ReportPeriod(phase, DAY, domain)
        self.successResultOf(self.source().backlog.settle(period, destinations, ()))

    def test_subjects(self) -> None:
        """
        Periods of days that are over are due, in phases: recipient domains, then hosts.
        """
        self.record(outcome(A))
        self.record(outcome(A), day=DAY + timedelta(days=1))
        source = self.source()
        for phase, domain in [(0, A), (1, HOST)]:
            page = self.successResultOf(source.periods(phase, NOW, None, 10))
            self.assertEqual(page, (ReportPeriod(phase, DAY, domain),))
            self.assertEqual(self.successResultOf(source.count(phase, NOW)), 1)
            page = self.successResultOf(source.periods(phase, NOW, page[0], 10))
            self.assertEqual(page, ())

    def test_settling(self) -> None:
        """
        Right at midnight the day isn't due: its last outcomes may be on their way to
        the store.
        """
        self.record(outcome(A))
        midnight = NOW - HOUR
        for now, count in [(midnight + 239, 0), (midnight + 240, 1)]:
            found = self.successResultOf(self.source().count(0, now))
            self.assertEqual(found, count)

    def test_prune(self) -> None:
        """
        Results that couldn't be reported for two and a half days are pruned.
        """
        self.record(outcome(A))
        source = self.source()
        for days, left in [(3, 2), (3.5, 0)]:
            now = midnight(DAY) + days * 24 * HOUR
            self.successResultOf(source.prune(now))
            results = self.successResultOf(self.outcomes.results())
            self.assertEqual(len(results), left, days)

    def test_recipientDomain(self) -> None:
        """
        A recipient domain's report is about itself and all its hosts, under their own
        names, and counts each session once.
        """
        other = Domain("mx2.host.example")
        self.record(outcome(A), outcome(A), outcome(A, other), outcome(B))
        self.publishRecord(A, "mailto:tls@a.example")
        draft = self.draft(A)
        self.assertEqual(draft.destinations, ("mailto:tls@a.example",))
        self.assertEqual(draft.submitter, SUBMITTER)
        self.assertEqual(draft.span, spanOfDay(DAY))
        period = f"{midnight(DAY)}!{midnight(DAY) + 86399}"
        self.assertEqual(
            draft.filename,
            f"sender.example!a.example!{period}!{draft.reportID}.json.gz",
        )
        report = readTLSReport(draft.document)
        self.assertEqual(report.reportID, draft.reportID)
        self.assertEqual(
            (report.start, report.end), (draft.span.start, draft.span.last)
        )
        self.assertEqual(
            {(each.domain, each.type, each.succeeded) for each in report.policies},
            {
                ("a.example", "sts", 3),
                ("mx.host.example", "no-policy-found", 2),
                ("mx2.host.example", "no-policy-found", 1),
            },
        )

    def test_host(self) -> None:
        """
        A host's report names the affected recipient domains as policy domains, and
        itself as the host.
        """
        self.record(outcome(A), outcome(B), outcome(B))
        self.publishRecord(HOST, "mailto:tls@host.example")
        draft = self.draft(HOST, 1)
        report = readTLSReport(draft.document)
        self.assertEqual(
            {(each.domain, each.mxHosts, each.succeeded) for each in report.policies},
            {
                ("a.example", ("mx.host.example",), 1),
                ("b.example", ("mx.host.example",), 2),
            },
        )

    def test_alreadyReported(self) -> None:
        """
        A host's report leaves out results that went to the same destination, in any
        spelling, in the report to a recipient domain; but not those of other
        recipient domains.
        """
        self.record(outcome(A), outcome(B))
        self.publishRecord(HOST, "MAILTO:tls@Host.example")
        self.settle(A, "mailto:other@a.example", "mailto:tls@host.example")
        report = self.report(HOST, 1)
        self.assertEqual([each.domain for each in report.policies], ["b.example"])
        self.settle(B, "mailto:tls@host.example")
        found = self.none(HOST, 1)
        self.assertEqual(found.reason, "everything is already reported")
        self.assertIs(found.retention, Retention.CLEAR)

    def test_reportedElsewhere(self) -> None:
        """
        Results sent to some destinations of a host are reported to the others; if some
        are new to the former, they get all.
        """
        self.record(outcome(A))
        self.publishRecord(HOST, "mailto:tls@host.example", "https://host.example/")
        self.settle(A, "mailto:tls@host.example")
        draft = self.draft(HOST, 1)
        self.assertEqual(draft.destinations, ("https://host.example/",))
        self.assertEqual(len(readTLSReport(draft.document).policies), 1)
        self.record(outcome(B))
        self.assertEqual(len(self.draft(HOST, 1).destinations), 2)
        self.assertEqual(len(self.report(HOST, 1).policies), 2)

    def test_unreported(self) -> None:
        """
        A host's report includes a recipient domain that got no report itself, as it
        requests none.
        """
        self.record(outcome(A))
        self.publishRecord(HOST, "mailto:tls@host.example")
        self.assertIs(self.none(A).retention, Retention.CLEAR)
        self.settle(A)
        (policy,) = self.report(HOST, 1).policies
        self.assertEqual(policy.domain, "a.example")

    def test_hostFirst(self) -> None:
        """
        A recipient domain whose record couldn't be looked up is reported to after its
        host; results that went to the same destination in the host's report are left
        out, others aren't.
        """
        self.record(outcome(A))
        self.publishRecord(HOST, "mailto:tls@host.example")
        self.settle(HOST, *self.draft(HOST, 1).destinations, phase=1)
        for uri, domains in [
            ("mailto:tls@host.example", {"a.example"}),
            ("mailto:tls@a.example", {"a.example", "mx.host.example"}),
        ]:
            self.publishRecord(A, uri)
            found = {each.domain for each in self.report(A).policies}
            self.assertEqual(found, domains)

    def test_hostUnreported(self) -> None:
        """
        A recipient domain reported to after its host, to which nothing was sent, gets
        everything.
        """
        self.record(outcome(A))
        self.settle(HOST, phase=1)
        self.publishRecord(A, "mailto:tls@host.example")
        self.assertEqual(len(self.report(A).policies), 2)

    def test_ownHost(self) -> None:
        """
        A domain that is its own mail host gets one report, not two.
        """
        self.record(outcome(A, A))
        self.publishRecord(A, "mailto:tls@a.example")
        self.assertEqual(len(self.report(A).policies), 2)
        self.assertEqual(self.successResultOf(self.source().count(1, NOW)), 0)

    def test_twoPolicies(self) -> None:
        """
        A policy that changed within the day makes two entries (RFC 8460 4.4).
        """
        self.record(outcome(A, mode="testing"), outcome(A), outcome(A))
        self.publishRecord(A, "mailto:tls@a.example")
        found = {
            (each.strings, each.succeeded)
            for each in self.report(A).policies
            if each.type == "sts"
        }
        self.assertEqual(found, {(("mode: testing",), 1), (("mode: enforce",), 2)})

    def test_late(self) -> None:
        """
        A report is about its own day, even if it is made later.
        """
        earlier = DAY - timedelta(days=1)
        self.record(outcome(A), day=earlier)
        self.publishRecord(A, "mailto:tls@a.example")
        draft = self.draft(A, day=earlier)
        self.assertEqual(readTLSReport(draft.document).start, midnight(earlier))

    def test_changedRUA(self) -> None:
        """
        The record is looked up afresh for every report.
        """
        self.record(outcome(A))
        self.publishRecord(A, "mailto:old@a.example")
        self.assertEqual(self.draft(A).destinations, ("mailto:old@a.example",))
        self.publishRecord(A, "mailto:new@a.example")
        self.assertEqual(self.draft(A).destinations, ("mailto:new@a.example",))

    def test_destinations(self) -> None:
        """
        C{mailto:} and C{https:} are sent to, each once; other URIs are
        ignored.
        """
        self.record(outcome(A))
        self.publishRecord(
            A, "ftp://a.example/", "https://A.example", "mailto:x@a.example",
            "mailto:x@A.example?subject=s", "https://a.example:443/",
        )  # fmt: skip
        self.assertEqual(
            self.draft(A).destinations, ("https://a.example/", "mailto:x@a.example")
        )

    def test_international(self) -> None:
        """
        An IDN is in A-labels throughout (RFC 8460 4.4).
        """
        domain = Domain.parse("bücher.example")
        self.record(outcome(domain))
        self.publishRecord(domain, "mailto:tls@bücher.example")
        draft = self.draft(domain)
        self.assertEqual(draft.destinations, ("mailto:tls@xn--bcher-kva.example",))
        self.assertIn("!xn--bcher-kva.example!", draft.filename)

    def test_notWanted(self) -> None:
        """
        Without a record, or with an invalid one, several, or none with a usable URI,
        no report is requested, and the data can be removed.
        """
        self.record(outcome(A))
        self.assertEqual(
            (self.none(A).reason, self.none(A).retention),
            ("no TLSRPT record", Retention.CLEAR),
        )
        self.publishRecord(A, text="v=TLSRPTv1; rua")
        self.assertEqual(self.none(A).retention, Retention.CLEAR)
        text = "v=TLSRPTv1; rua=mailto:a@a.example"
        self.resolver.put("_smtp._tls.a.example", RRType.TXT, text, text)
        self.assertEqual(self.none(A).reason, "more than one TLSRPT record")
        self.publishRecord(A, "ftp://a.example/")
        found = self.none(A)
        self.assertIn("no usable rua", found.reason)
        self.assertIs(found.retention, Retention.CLEAR)

    def test_temporary(self) -> None:
        """
        While the lookup of the record fails, the data stays.
        """
        self.record(outcome(A))
        self.resolver.fail("_smtp._tls.a.example", RRType.TXT, ExtendedError(6))
        self.assertIs(self.none(A).retention, Retention.KEEP)

    def test_success(self) -> None:
        """
        Without failures no report is sent, unless configured.
        """
        self.record(outcome(A, failure=None))
        self.publishRecord(A, "mailto:tls@a.example")
        self.assertEqual(self.none(A).reason, "no failures")
        self.settings = TLSReporting(SUBMITTER, forAllSuccess=True)
        self.assertEqual(self.report(A).policies[0].failures, ())

    def test_notEnforced(self) -> None:
        """
        A failure that failed no session causes a report.
        """
        self.record(outcome(A))
        self.publishRecord(A, "mailto:tls@a.example")
        for policy in self.report(A).policies:
            self.assertEqual((policy.succeeded, policy.failed), (1, 0))
            self.assertEqual(policy.failures[0].resultType, "certificate-not-trusted")

    def test_notSendable(self) -> None:
        """
        Deliveries of reports cause no report, but are in one that others cause.
        """
        self.record(outcome(A, sendReport=False))
        (period,) = self.successResultOf(self.source().periods(0, NOW, None, 9))
        self.assertFalse(period.sendable)
        self.record(outcome(A))
        (period,) = self.successResultOf(self.source().periods(0, NOW, None, 9))
        self.assertTrue(period.sendable)
        self.publishRecord(A, "mailto:tls@a.example")
        self.assertEqual(self.report(A).policies[0].succeeded, 2)

    def test_switchedOff(self) -> None:
        """
        Domains excluded by the operator get no reports; and there are none if no
        local domain can sign.
        """
        self.record(outcome(A))
        self.publishRecord(A, "mailto:tls@a.example")
        for settings in [
            TLSReporting(SUBMITTER, notTo=frozenset({A})),
            TLSReporting(None),
        ]:
            self.settings = settings
            self.assertIs(self.none(A).retention, Retention.CLEAR)

    def test_checked(self) -> None:
        """
        A report that violates RFC 8460 is an error, and isn't sent.
        """
        broken = FailureDetail(ResultType.VALIDATION_FAILURE, mxHostname="no host")
        self.record(outcome(A, failure=broken))
        self.publishRecord(A, "mailto:tls@a.example")
        failure = self.failureResultOf(
            self.source().draft(ReportPeriod(0, DAY, A)), InvalidReport
        )
        self.assertIn(
            "receiving-mx-hostname is not a domain in A-labels", str(failure.value)
        )
