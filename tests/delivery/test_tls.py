"""
Tests for L{moxtls.delivery.tls}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.tls import (
    MessageRequirements,
    OutcomeBuilder,
    PolicyCounter,
    PolicyRefusal,
    SessionRequirements,
    hostCounter,
    recipientCounter,
    sessionRequirements,
)
from moxtls.dns.types import TLSA, ExtendedError
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSLookup, STSPolicy
from moxtls.queue.types import ReportKind
from moxtls.smtp.types import TLSMode
from moxtls.tls.dane import DANEVerdict, TLSALookup, TLSALookupError
from moxtls.tls.session import SessionRecord, STARTTLSResult
from moxtls.tlsrpt.types import FailureDetail, PolicyType, ResultType, TLSPolicy

HOST = Domain("mx.example")
RECORD = TLSA(3, 1, 1, b"x" * 32)
NO_DANE = TLSALookup(HOST, (HOST,))
DANE = TLSALookup(HOST, (HOST,), (RECORD,), (RECORD,))
UNUSABLE = TLSALookup(HOST, (HOST,), (TLSA(1, 1, 1, b""),))
BROKEN = TLSALookup(HOST, (HOST,), error=TLSALookupError("_25._tcp.mx.example"))

PLAIN = MessageRequirements()
REQUIRED = MessageRequirements(requireTLS=True)
LENIENT = MessageRequirements(requireTLS=False)
DMARC_REPORT = MessageRequirements(noFallback=True)

EXAMPLE = Domain("example.com")
FETCH_ERROR = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "dns-lookup")


def sts(mode: Mode, mx: str = "mx.example") -> STSPolicy:
    """
    A policy that allows one host.
    """
    return STSPolicy(mode, 86400, (mx,), ())


class SessionRequirementsTests(SynchronousTestCase):
    """
    Tests for L{sessionRequirements}.
    """

    def assertRequirements(
        self,
        expected: SessionRequirements,
        policy: STSPolicy | None = None,
        tlsa: TLSALookup = NO_DANE,
        requirements: MessageRequirements = PLAIN,
    ) -> None:
        """
        The requirements on L{HOST} are exactly C{expected}.
        """
        self.assertEqual(
            sessionRequirements(HOST, policy, tlsa, requirements), expected
        )

    def test_nothing(self) -> None:
        """
        RFC 7435: without policies TLS is used if it works.
        """
        expected = SessionRequirements(TLSMode.OPPORTUNISTIC, plaintextFallback=True)
        for policy in (None, sts(Mode.NONE), sts(Mode.NONE, "other.example")):
            self.assertRequirements(expected, policy)

    def test_testing(self) -> None:
        """
        RFC 8461 5: a policy in testing is only reported about.
        """
        expected = SessionRequirements(TLSMode.OPPORTUNISTIC, plaintextFallback=True)
        self.assertRequirements(expected, sts(Mode.TESTING))
        mismatch = SessionRequirements(
            TLSMode.OPPORTUNISTIC, plaintextFallback=True, mxMismatch=True
        )
        self.assertRequirements(mismatch, sts(Mode.TESTING, "other.example"))

    def test_enforce(self) -> None:
        """
        RFC 8461 5: STARTTLS and a certificate of the Web PKI, at a host that
        the policy has.
        """
        expected = SessionRequirements(TLSMode.REQUIRED, enforcePKIX=True)
        self.assertRequirements(expected, sts(Mode.ENFORCE))
        mismatch = SessionRequirements(
            TLSMode.REQUIRED,
            enforcePKIX=True,
            mxMismatch=True,
            refuse=PolicyRefusal.MX_MISMATCH,
        )
        self.assertRequirements(mismatch, sts(Mode.ENFORCE, "other.example"))

    def test_dane(self) -> None:
        """
        RFC 7672 2.2: TLS and a matching certificate.
        """
        expected = SessionRequirements(TLSMode.REQUIRED, dane=(RECORD,))
        self.assertRequirements(expected, tlsa=DANE)

    def test_unusable(self) -> None:
        """
        RFC 7672 2.2: unusable records require TLS, unauthenticated, without
        plaintext.
        """
        self.assertRequirements(SessionRequirements(TLSMode.REQUIRED), tlsa=UNUSABLE)

    def test_both(self) -> None:
        """
        A host under DANE and MTA-STS has to satisfy both.
        """
        expected = SessionRequirements(
            TLSMode.REQUIRED, enforcePKIX=True, dane=(RECORD,)
        )
        self.assertRequirements(expected, sts(Mode.ENFORCE), DANE)

    def test_lookupFailed(self) -> None:
        """
        RFC 7672 2.1.2: a host whose TLSA lookup fails is unreachable.
        """
        found = sessionRequirements(HOST, None, BROKEN, PLAIN)
        self.assertIs(found.refuse, PolicyRefusal.TLSA_LOOKUP)

    def test_dmarcReport(self) -> None:
        """
        DMARC reports don't fall back to plaintext, but still go to hosts that
        never had TLS.
        """
        expected = SessionRequirements(TLSMode.OPPORTUNISTIC)
        self.assertRequirements(expected, requirements=DMARC_REPORT)

    def test_lenient(self) -> None:
        """
        RFC 8689 3: TLS-Required: No overrides every policy; TLS is tried all the
        same.
        """
        self.assertRequirements(
            SessionRequirements(
                TLSMode.REQUIRED,
                enforcePKIX=True,
                dane=(RECORD,),
                ignoreVerifyErrors=True,
                plaintextFallback=True,
                mxMismatch=True,
            ),
            sts(Mode.ENFORCE, "other.example"),
            DANE,
            LENIENT,
        )
        self.assertRequirements(
            SessionRequirements(
                TLSMode.OPPORTUNISTIC, ignoreVerifyErrors=True, plaintextFallback=True
            ),
            tlsa=BROKEN,
            requirements=LENIENT,
        )

    def test_requireTLS(self) -> None:
        """
        RFC 8689 4.2.1: REQUIRETLS needs a host that is authenticated by DANE
        or MTA-STS; testing and unusable records don't do that.
        """
        testing = sts(Mode.TESTING)
        for policy, tlsa, refuse in (
            (None, NO_DANE, PolicyRefusal.REQUIRETLS),
            (testing, NO_DANE, PolicyRefusal.REQUIRETLS),
            (None, UNUSABLE, PolicyRefusal.REQUIRETLS),
            (testing, UNUSABLE, PolicyRefusal.REQUIRETLS),
            (None, DANE, None),
            (sts(Mode.ENFORCE), NO_DANE, None),
            (sts(Mode.ENFORCE), UNUSABLE, None),
            (sts(Mode.ENFORCE, "other.example"), DANE, PolicyRefusal.MX_MISMATCH),
            (None, BROKEN, PolicyRefusal.TLSA_LOOKUP),
        ):
            found = sessionRequirements(HOST, policy, tlsa, REQUIRED)
            self.assertIs(found.refuse, refuse, (policy, tlsa))
            self.assertFalse(found.plaintextFallback)
            if refuse is None:
                self.assertIs(found.tlsMode, TLSMode.REQUIRED)

    def test_literal(self) -> None:
        """
        RFC 8461 3.4: policies contain no address literals; so a relay with one
        wouldn't match by its address.
        """
        found = sessionRequirements(None, None, TLSALookup(None), PLAIN)
        self.assertEqual(found.tlsMode, TLSMode.OPPORTUNISTIC)
        found = sessionRequirements(None, sts(Mode.ENFORCE), TLSALookup(None), PLAIN)
        self.assertIs(found.refuse, PolicyRefusal.MX_MISMATCH)


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
            STSLookup(EXAMPLE, policy(Mode.NONE), FETCH_ERROR),
        ):
            counter = recipientCounter(lookup)
            self.assertEqual(counter.policy, TLSPolicy(PolicyType.NO_POLICY, EXAMPLE))
            self.assertEqual(dict(counter.failures), {})

    def test_broken(self) -> None:
        """
        A policy that can't be fetched counts as a policy, and its failure is reported
        once (RFC 8460 4.3.2.2).
        """
        counter = recipientCounter(STSLookup(EXAMPLE, None, FETCH_ERROR))
        self.assertEqual(counter.policy, TLSPolicy(PolicyType.STS, EXAMPLE))
        self.assertEqual(dict(counter.failures), {FETCH_ERROR: 1})

    def test_fallback(self) -> None:
        """
        A cached policy that helped out is quoted with the reason why it had
        to.
        """
        lookup = STSLookup(EXAMPLE, policy(Mode.ENFORCE), FETCH_ERROR)
        counter = recipientCounter(lookup)
        self.assertEqual(counter.policy.type, PolicyType.STS)
        self.assertEqual(dict(counter.failures), {FETCH_ERROR: 1})


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
