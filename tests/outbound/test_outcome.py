"""
Tests for L{moxtls.outbound.outcome}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.outbound.outcome import Tallying, recipientTallying, sessionOutcome
from moxtls.policy.mtasts import Mode, STSLookup, STSPolicy
from moxtls.queue.values import ReportKind
from moxtls.tlsrpt.results import Failure, Policy, PolicyType, ResultType

EXAMPLE = Domain("example.com")
BROKEN = Failure(ResultType.STS_POLICY_FETCH_ERROR, "dns-lookup")


def policy(mode: Mode) -> STSPolicy:
    return STSPolicy(mode, 86400, ("mx.example.com",), ("version: STSv1",))


class RecipientTallyingTests(SynchronousTestCase):
    """
    Tests for L{recipientTallying}.
    """

    def test_policy(self) -> None:
        """
        An MTA-STS policy is quoted with its lines and hosts (RFC 8460 4.4).
        """
        tallying = recipientTallying(STSLookup(EXAMPLE, policy(Mode.TESTING)))
        self.assertEqual(
            tallying.policy,
            Policy(PolicyType.STS, EXAMPLE, ("version: STSv1",), ("mx.example.com",)),
        )
        self.assertEqual(dict(tallying.failures), {})

    def test_none(self) -> None:
        """
        No record, and a policy of mode "none", are both no policy.
        """
        for lookup in (
            STSLookup(EXAMPLE),
            STSLookup(EXAMPLE, policy(Mode.NONE)),
            STSLookup(EXAMPLE, policy(Mode.NONE), BROKEN),
        ):
            tallying = recipientTallying(lookup)
            self.assertEqual(tallying.policy, Policy(PolicyType.NO_POLICY, EXAMPLE))
            self.assertEqual(dict(tallying.failures), {})

    def test_broken(self) -> None:
        """
        A policy that can't be had is a policy all the same, and the reason is
        told once (RFC 8460 4.3.2.2).
        """
        tallying = recipientTallying(STSLookup(EXAMPLE, None, BROKEN))
        self.assertEqual(tallying.policy, Policy(PolicyType.STS, EXAMPLE))
        self.assertEqual(dict(tallying.failures), {BROKEN: 1})

    def test_fallback(self) -> None:
        """
        A cached policy that helped out is quoted with the reason why it had
        to.
        """
        lookup = STSLookup(EXAMPLE, policy(Mode.ENFORCE), BROKEN)
        tallying = recipientTallying(lookup)
        self.assertEqual(tallying.policy.type, PolicyType.STS)
        self.assertEqual(dict(tallying.failures), {BROKEN: 1})


class SessionOutcomeTests(SynchronousTestCase):
    """
    Tests for L{sessionOutcome}.
    """

    def test_reportsDontCauseReports(self) -> None:
        """
        A delivery causes a report, unless it is of a TLS report, or of a
        DMARC report that met no failure.
        """
        for report, failed, causes in [
            (None, 0, True),
            (None, 1, True),
            (ReportKind.TLS, 0, False),
            (ReportKind.TLS, 1, False),
            (ReportKind.DMARC, 0, False),
            (ReportKind.DMARC, 1, True),
        ]:
            host = Tallying(Policy(PolicyType.TLSA, EXAMPLE), failed=failed)
            outcome = sessionOutcome(EXAMPLE, None, [host], report)
            self.assertEqual(outcome.sendReport, causes, (report, failed))

    def test_zero(self) -> None:
        """
        A failure seen in no session is kept: it says something about the
        policy.
        """
        host = Tallying(Policy(PolicyType.TLSA, EXAMPLE))
        unusable = Failure(ResultType.TLSA_INVALID, "all-unusable-records+ignored")
        host.saw([unusable], times=0)
        outcome = sessionOutcome(EXAMPLE, None, [host], None)
        self.assertEqual(dict(outcome.hosts[0].failures), {unusable: 0})
