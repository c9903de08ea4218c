"""
Tests for L{moxtls.delivery.tlsoutcome}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.tlsoutcome import (
    OutcomeBuilder,
    PolicyCounter,
    hostCounter,
    recipientCounter,
)
from moxtls.dns.types import TLSA, ExtendedError
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSLookup, STSPolicy
from moxtls.queue.types import ReportKind
from moxtls.tls.dane import TLSALookup, TLSALookupError
from moxtls.tls.session import DANEVerdict, SessionRecord, STARTTLSResult
from moxtls.tlsrpt.types import FailureDetail, PolicyType, ResultType, TLSPolicy

EXAMPLE = Domain("example.com")
BROKEN = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "dns-lookup")


def policy(mode: Mode) -> STSPolicy:
    return STSPolicy(mode, 86400, ("mx.example.com",), ("version: STSv1",))


class RecipientCounterTests(SynchronousTestCase):
    """
    Tests for L{recipientCounter}.
    """

    def test_policy(self) -> None:
        """
        An MTA-STS policy is quoted with its lines and hosts (RFC 8460 4.4).
        """
        counter = recipientCounter(STSLookup(EXAMPLE, policy(Mode.TESTING)))
        self.assertEqual(
            counter.policy,
            TLSPolicy(
                PolicyType.STS, EXAMPLE, ("version: STSv1",), ("mx.example.com",)
            ),
        )
        self.assertEqual(dict(counter.failures), {})

    def test_none(self) -> None:
        """
        No record, and a policy of mode "none", are both no policy.
        """
        for lookup in (
            STSLookup(EXAMPLE),
            STSLookup(EXAMPLE, policy(Mode.NONE)),
            STSLookup(EXAMPLE, policy(Mode.NONE), BROKEN),
        ):
            counter = recipientCounter(lookup)
            self.assertEqual(counter.policy, TLSPolicy(PolicyType.NO_POLICY, EXAMPLE))
            self.assertEqual(dict(counter.failures), {})

    def test_broken(self) -> None:
        """
        A policy that can't be fetched counts as a policy, and its failure is reported
        once (RFC 8460 4.3.2.2).
        """
        counter = recipientCounter(STSLookup(EXAMPLE, None, BROKEN))
        self.assertEqual(counter.policy, TLSPolicy(PolicyType.STS, EXAMPLE))
        self.assertEqual(dict(counter.failures), {BROKEN: 1})

    def test_fallback(self) -> None:
        """
        A cached policy that helped out is quoted with the reason why it had
        to.
        """
        lookup = STSLookup(EXAMPLE, policy(Mode.ENFORCE), BROKEN)
        counter = recipientCounter(lookup)
        self.assertEqual(counter.policy.type, PolicyType.STS)
        self.assertEqual(dict(counter.failures), {BROKEN: 1})


class OutcomeTests(SynchronousTestCase):
    """
    Tests for L{OutcomeBuilder.outcome}.
    """

    def test_reportsDontCauseReports(self) -> None:
        """
        A delivery causes a report, unless it is of a report or of a response,
        whether it fails or not; that of a TLS report isn't counted at all (RFC
        8460 3).
        """
        builder = OutcomeBuilder()
        builder.addHost(PolicyCounter(TLSPolicy(PolicyType.TLSA, EXAMPLE), failed=1))
        for report, causesReports, sendReport in [
            (None, True, True),
            (None, False, False),
            (ReportKind.TLS, True, False),
            (ReportKind.DMARC, True, False),
            (ReportKind.DMARC, False, False),
        ]:
            outcome = builder.outcome(EXAMPLE, report, causesReports)
            self.assertEqual(outcome.sendReport, sendReport, (report, causesReports))
            self.assertEqual(outcome.isTLSReport, report is ReportKind.TLS)

    def test_zero(self) -> None:
        """
        A failure seen in no session is kept: it concerns the policy.
        """
        host = PolicyCounter(TLSPolicy(PolicyType.TLSA, EXAMPLE))
        unusable = FailureDetail(
            ResultType.TLSA_INVALID, "all-unusable-records+ignored"
        )
        host.addFailures([unusable], times=0)
        builder = OutcomeBuilder()
        builder.addHost(host)
        outcome = builder.outcome(EXAMPLE)
        self.assertEqual(dict(outcome.hosts[0].failures), {unusable: 0})


class HostCounterTests(SynchronousTestCase):
    """
    Tests for L{hostCounter}.
    """

    def test_base(self) -> None:
        """
        The policy domain is that at which the records are (RFC 7672 2.2.3).
        """
        target = Domain("target.example")
        record = TLSA(3, 1, 1, bytes(32))
        tlsa = TLSALookup(target, (target,), (record,), (record,))
        self.assertEqual(
            hostCounter(EXAMPLE, tlsa).policy,
            TLSPolicy(PolicyType.TLSA, target, (str(record),)),
        )

    def test_noRecords(self) -> None:
        """
        A host without records has no policy.
        """
        counter = hostCounter(EXAMPLE, TLSALookup(EXAMPLE))
        self.assertEqual(counter.policy, TLSPolicy(PolicyType.NO_POLICY, EXAMPLE))

    def test_error(self) -> None:
        """
        RFC 8460 4.3.2.1: a lookup that failed is "dnssec-invalid", of this host,
        with its error if the resolver gave one.
        """
        for extended, reason in (
            (None, "dns-lookup"),
            (ExtendedError(23), "dns-extended-error-23-network-error"),
            (ExtendedError(9), "dns-extended-error-9-dnskey-missing"),
        ):
            failure = FailureDetail(
                ResultType.DNSSEC_INVALID, reason, mxHostname=EXAMPLE.ascii
            )
            error = TLSALookupError("_25._tcp.example.com", extended)
            tlsa = TLSALookup(EXAMPLE, error=error)
            counter = hostCounter(EXAMPLE, tlsa)
            self.assertEqual(counter.policy, TLSPolicy(PolicyType.TLSA, EXAMPLE))
            self.assertEqual(dict(counter.failures), {failure: 1})


class OutcomeBuilderTests(SynchronousTestCase):
    """
    Tests for L{OutcomeBuilder}.
    """

    def test_both(self) -> None:
        """
        Sessions count for the recipient domain and the host (RFC 8460 3); failures
        that only one of them can mend are reported to that one.
        """
        builder = OutcomeBuilder()
        builder.recipient = recipientCounter(STSLookup(EXAMPLE))
        host = builder.addHost(hostCounter(EXAMPLE, TLSALookup(EXAMPLE)))
        record = SessionRecord(
            starttls=STARTTLSResult.COMPLETED, dane=DANEVerdict.NO_MATCH, enforced=True
        )
        builder.addSession(record, host)
        builder.addSession(record, None)
        outcome = builder.outcome(EXAMPLE, None)
        assert outcome.recipient is not None
        self.assertEqual(outcome.recipient.failed, 2)
        self.assertEqual(dict(outcome.recipient.failures), {})
        (tally,) = outcome.hosts
        self.assertEqual(tally.failed, 1)
        failure = FailureDetail(ResultType.VALIDATION_FAILURE, "dane-no-match")
        self.assertEqual(dict(tally.failures), {failure: 1})

    def test_nothingKnown(self) -> None:
        """
        Without a known policy of the recipient domain, nothing is reported to it.
        """
        builder = OutcomeBuilder()
        builder.count(None, failed=1)
        builder.addSession(SessionRecord(starttls=STARTTLSResult.NOT_OFFERED), None)
        outcome = builder.outcome(EXAMPLE, None)
        self.assertEqual((outcome.recipient, outcome.hosts), (None, ()))
