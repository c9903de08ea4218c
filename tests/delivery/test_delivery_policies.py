"""
Tests for the TLS outcomes of L{moxtls.delivery.attempt} with hosts and domains that
have policies.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.dns.types import TLSA, RRType
from moxtls.domain import Domain
from moxtls.ledger.ledger import MemoryLedger
from moxtls.mtasts.cache import PolicyCache
from moxtls.mtasts.policy import Mode, STSLookup
from moxtls.queue.types import DeliveryStatus
from moxtls.tlsrpt.types import FailureDetail, PolicyType, ResultType, TLSPolicy
from tests.certificates import good, root, selfSigned
from tests.delivery.deliveries import (
    EXAMPLE,
    IP4,
    LINES,
    MESSAGE,
    MISMATCHING,
    MX,
    SECOND,
    SECOND_IP,
    UNUSABLE,
    counted,
    matching,
    outdated,
    policy,
)
from tests.delivery.outcomes import (
    NO_POLICY,
    UNSUPPORTED,
    UNTRUSTED,
    VALIDATION,
    OutcomeCase,
    seen,
)
from tests.mtasts.fakes import FakeFetcher


class DANETests(OutcomeCase):
    """
    Tests for hosts with TLSA records.
    """

    def setUp(self) -> None:
        super().setUp()
        self.identity = selfSigned(MX)

    def serveIdentity(self) -> None:
        self.serve(self.identity.context())

    def test_matching(self) -> None:
        """
        A matching record: the reported policy has the usable records; a failure by
        the Web PKI is reported to the recipient domain.
        """
        record = matching(self.identity)
        self.secure(MISMATCHING, record, UNUSABLE)
        self.serveIdentity()
        self.assertDelivered(self.deliver())
        self.assertHost("tlsa", 1, 0)
        self.assertEqual(
            self.host.policy.strings, tuple(sorted(map(str, (MISMATCHING, record))))
        )
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)

    def test_mismatch(self) -> None:
        """
        No matching record: a failure of both, reported to the host. Plaintext isn't
        used.
        """
        self.secure(MISMATCHING)
        server = self.serve(self.identity.context(), self.server())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertHost("tlsa", 0, 1, (VALIDATION, "dane-no-match"))
        self.assertEqual(
            dict(self.host.failures),
            {seen(ResultType.VALIDATION_FAILURE, "dane-no-match"): 1},
        )
        self.assertRecipient(NO_POLICY, 0, 1, UNTRUSTED)
        self.assertEqual(self.network.dialed, [IP4])
        self.assertNotIn(b"MAIL", server.heard)

    def test_errors(self) -> None:
        """
        A trust anchor that is in the chain, but under which the certificate
        doesn't comply (RFC 7671 5.2).
        """
        expired = root().issue(MX, days=-1).withRoot(root())
        self.secure(TLSA(2, 0, 0, root().der))
        self.serve(expired.context())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertHost("tlsa", 0, 1, (VALIDATION, "dane-no-match+errors"))
        self.assertRecipient(NO_POLICY, 0, 1, ("certificate-expired", ""))

    def test_unusable(self) -> None:
        """
        RFC 7672 2.2: unusable records still require TLS, with any certificate. They
        are reported, with no sessions.
        """
        self.secure(UNUSABLE)
        self.serveIdentity()
        self.assertDelivered(self.deliver())
        reason = "all-unusable-records+ignored"
        self.assertEqual(
            dict(self.host.failures),
            {FailureDetail(ResultType.TLSA_INVALID, reason, mxHostname=MX): 0},
        )
        self.assertEqual(self.host.policy, TLSPolicy(PolicyType.TLSA, Domain(MX)))
        self.assertEqual((self.host.succeeded, self.host.failed), (1, 0))
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)

    def test_noSTARTTLS(self) -> None:
        """
        STARTTLS is sent even if it isn't offered: a host that requires TLS by its
        records and refuses it has failed.
        """
        self.secure(MISMATCHING)
        self.serve(None, self.server())
        self.assertDelayed(self.deliver(), "4.7.5")
        reason = UNSUPPORTED, "smtp-starttls-reply-code-502"
        self.assertHost("tlsa", 0, 1, reason)
        self.assertRecipient(NO_POLICY, 0, 1, reason)

    def test_ignored(self) -> None:
        """
        C{TLS-Required: No}: a mismatch is reported, and TLS used all the same.
        """
        self.secure(MISMATCHING)
        server = self.serve(self.identity.context())
        self.assertDelivered(self.deliver(requireTLS=False))
        self.assertIn(b"<TLS>", server.heard)
        self.assertHost("tlsa", 1, 0, (VALIDATION, "dane-no-match"))
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)

    def test_noRecords(self) -> None:
        """
        A signed host without records has no policy.
        """
        self.resolver.trust(".")
        self.serveIdentity()
        self.assertDelivered(self.deliver())
        self.assertHost(NO_POLICY, 1, 0)
        self.assertIn((f"_25._tcp.{MX}", RRType.TLSA), self.resolver.asked)

    def test_insecureRecords(self) -> None:
        """
        Records that aren't signed are none; plaintext is allowed.
        """
        self.secure(MISMATCHING)
        self.resolver.distrust(f"_25._tcp.{MX}")
        self.network.serve(IP4, self.server(outdated(self.identity)), self.server())
        self.assertDelivered(self.deliver())
        self.assertEqual(counted(self.host)[:3], (NO_POLICY, 0, 1))

    def test_notAsked(self) -> None:
        """
        RFC 7672 2.2.2: TLSA records aren't looked up if the MX records or addresses
        aren't signed.
        """
        for insecure in ("example.com", MX):
            self.observer.outcomes.clear()
            self.secure(MISMATCHING)
            self.resolver.trust("example.com", MX)
            self.resolver.distrust(insecure)
            self.serveIdentity()
            self.assertDelivered(self.deliver())
            self.assertHost(NO_POLICY, 1, 0)
        self.assertNotIn(RRType.TLSA, {kind for _, kind in self.resolver.asked})

    def test_expanded(self) -> None:
        """
        RFC 7672 2.2.2: with a signed CNAME, the records are those of its target,
        whose name is used for SNI and in the report.
        """
        target = "host.example.net"
        self.resolver.trust(".")
        self.resolver.put(MX, RRType.CNAME, target)
        self.resolver.put(target, RRType.A, IP4)
        self.resolver.put(f"_25._tcp.{target}", RRType.TLSA, matching(self.identity))
        self.serveIdentity()
        self.assertDelivered(self.deliver())
        self.assertEqual(self.host.policy.domain, Domain(target))
        self.assertEqual(str(self.host.policy.type), "tlsa")
        self.assertEqual(self.dialed[0].names, (target, MX, "example.com"))

    def test_nextHost(self) -> None:
        """
        RFC 7672 2.2: a host that fails DANE is passed over for the next one.
        """
        self.secondHost()
        self.secure(MISMATCHING)
        self.serveIdentity()
        second = self.serve(good(SECOND).context(), ip=SECOND_IP)
        self.assertDelivered(self.deliver())
        self.assertEqual(second.messages, [MESSAGE])
        self.assertRecipient(NO_POLICY, 1, 1, UNTRUSTED)


class MTASTSTests(OutcomeCase):
    """
    Tests for domains with MTA-STS policies.
    """

    def test_policy(self) -> None:
        """
        The policy is reported with its lines and hosts, in testing mode too.
        """
        for mode in (Mode.TESTING, Mode.ENFORCE):
            self.observer.outcomes.clear()
            self.publish(mode)
            self.serve(self.goodContext())
            self.assertDelivered(self.deliver())
            self.assertRecipient("sts", 1, 0)
            self.assertEqual(
                self.recipient.policy,
                TLSPolicy(PolicyType.STS, EXAMPLE, LINES, ("*.example.com",)),
            )
            self.assertHost(NO_POLICY, 1, 0)

    def test_underscores(self) -> None:
        """
        A host name with an underscore is valid in a policy, in a certificate and in a
        report.
        """
        name = "mx_1.example.com"
        self.resolver.put("example.com", RRType.MX, f"10 {name}")
        self.resolver.put(name, RRType.A, IP4)
        for pattern in (name, "*.example.com"):
            self.observer.outcomes.clear()
            self.publish(Mode.ENFORCE, pattern)
            self.serve(good(name).context())
            (result,) = self.deliver()
            self.assertEqual(
                (result.ending, result.host), (DeliveryStatus.DELIVERED, name)
            )
            self.assertRecipient("sts", 1, 0)
            self.assertEqual(str(self.host.policy.domain), name)

    def test_none(self) -> None:
        """
        RFC 8461 5: mode "none" is the same as no policy.
        """
        self.publish(Mode.NONE, "other.example.com")
        self.serve(selfSigned(MX).context())
        self.assertDelivered(self.deliver())
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)

    def test_enforced(self) -> None:
        """
        An untrusted certificate: a failure of both, reported to the recipient domain;
        the mail isn't sent.
        """
        self.publish(Mode.ENFORCE)
        server = self.serve(selfSigned(MX).context(), self.server())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient("sts", 0, 1, UNTRUSTED)
        self.assertHost(NO_POLICY, 0, 1)
        self.assertNotIn(b"MAIL", server.heard)
        self.assertEqual(self.network.dialed, [IP4])

    def test_both(self) -> None:
        """
        A host under both MTA-STS and DANE has to satisfy both.
        """
        identity = selfSigned(MX)
        self.secure(matching(identity))
        self.publish(Mode.ENFORCE)
        self.serve(identity.context())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient("sts", 0, 1, UNTRUSTED)
        self.assertHost("tlsa", 0, 1)
        self.observer.outcomes.clear()
        self.secure(MISMATCHING)
        self.serve(self.goodContext())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient("sts", 0, 1)
        self.assertHost("tlsa", 0, 1, (VALIDATION, "dane-no-match"))

    def mismatch(self, mode: Mode) -> None:
        """
        A policy whose only host isn't the first in the MX records.
        """
        self.secondHost()
        self.publish(mode, SECOND)
        self.serve(self.goodContext())
        self.serve(good(SECOND).context(), ip=SECOND_IP)

    def test_mismatch(self) -> None:
        """
        RFC 8461 4.1: a host that isn't in the policy is a failure of the
        recipient domain; it isn't even looked up, and the next one is tried.
        """
        self.mismatch(Mode.ENFORCE)
        self.assertDelivered(self.deliver())
        self.assertRecipient("sts", 1, 1, (VALIDATION, "mtasts-policy-mx-mismatch"))
        self.assertEqual(
            dict(self.recipient.failures),
            {
                FailureDetail(
                    ResultType.VALIDATION_FAILURE,
                    "mtasts-policy-mx-mismatch",
                    mxHostname=MX,
                ): 1
            },
        )
        self.assertEqual(
            [str(each.policy.domain) for each in self.outcome.hosts], [SECOND]
        )
        self.assertEqual(self.network.dialed, [SECOND_IP])
        self.assertNotIn((MX, RRType.A), self.resolver.asked)

    def test_allMismatch(self) -> None:
        """
        If no host is in it, the mail has to wait, and each of them counts.
        """
        self.secondHost()
        self.publish(Mode.ENFORCE, "other.example.com")
        self.assertDelayed(self.deliver(), "4.7.5")
        detail = VALIDATION, "mtasts-policy-mx-mismatch"
        self.assertRecipient("sts", 0, 2, detail, detail)
        self.assertEqual(self.outcome.hosts, ())

    def test_nameForTheWebPKI(self) -> None:
        """
        RFC 8461 4.1: under an enforced policy the certificate has to be for
        the MX host, also where DANE would be content with the recipients'
        domain (RFC 7672 3.2.2).
        """
        self.secure(TLSA(2, 0, 0, root().der))
        self.serve(good("example.com").context())
        self.assertDelivered(self.deliver())
        self.observer.outcomes.clear()
        self.publish(Mode.ENFORCE)
        self.serve(good("example.com").context())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient("sts", 0, 1, ("certificate-host-mismatch", ""))

    def test_mismatchTesting(self) -> None:
        """
        In testing mode a mismatch is reported, and the host used.
        """
        self.mismatch(Mode.TESTING)
        self.assertDelivered(self.deliver())
        self.assertRecipient("sts", 1, 0, (VALIDATION, "mtasts-policy-mx-mismatch"))
        self.assertEqual(self.network.dialed, [IP4])

    def test_mismatchIgnored(self) -> None:
        """
        With C{TLS-Required: No} (RFC 8689 3) a mismatch is reported, and the host
        used.
        """
        self.mismatch(Mode.ENFORCE)
        self.assertDelivered(self.deliver(requireTLS=False))
        self.assertRecipient("sts", 1, 0, (VALIDATION, "mtasts-policy-mx-mismatch"))
        self.assertEqual(self.network.dialed, [IP4])

    def test_broken(self) -> None:
        """
        A policy that can't be fetched is reported without lines; the mail is sent as
        without a policy (RFC 8461 5.1).
        """
        for failure in (
            FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "record-syntax-error"),
            FailureDetail(ResultType.STS_WEBPKI_INVALID, "certificate-expired"),
            FailureDetail(ResultType.STS_POLICY_INVALID, "policy-syntax-error"),
        ):
            self.observer.outcomes.clear()
            self.policies.lookup = STSLookup(EXAMPLE, None, failure)
            self.serve(self.goodContext())
            self.assertDelivered(self.deliver())
            self.assertEqual(self.recipient.policy, TLSPolicy(PolicyType.STS, EXAMPLE))
            self.assertEqual(dict(self.recipient.failures), {failure: 1})
            self.assertEqual(self.recipient.succeeded, 1)

    def test_cached(self) -> None:
        """
        A cached policy used as a fallback is applied, and reported with the reason
        for the fallback.
        """
        reason = "dns-lookup+fallback-to-cached-policy"
        failure = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, reason)
        self.policies.lookup = STSLookup(EXAMPLE, policy(Mode.ENFORCE), failure)
        self.serve(selfSigned(MX).context())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient("sts", 0, 1, UNTRUSTED, ("sts-policy-fetch-error", reason))
        self.assertEqual(self.recipient.policy.strings, LINES)

    def test_temporary(self) -> None:
        """
        RFC 8461 5.1: if the lookup of the policy fails, the mail has to wait. This
        uses the real cache.
        """
        self.resolver.fail("_mta-sts.example.com", RRType.TXT)
        lookup = self.successResultOf(self.askCache())
        self.policies.lookup = lookup
        self.serve(self.goodContext())
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertRecipient("sts", 0, 1, ("sts-policy-fetch-error", "dns-lookup"))
        self.assertEqual(self.outcome.hosts, ())
        self.assertEqual(self.network.dialed, [])

    def test_never(self) -> None:
        """
        RFC 8461 3.3, 5.1: if policy lookups always fail, the mail is sent without a
        policy after some attempts; each of them is reported.
        """
        self.resolver.fail("_mta-sts.example.com", RRType.TXT)
        self.policies.lookup = self.successResultOf(self.askCache())
        failure = "sts-policy-fetch-error", "dns-lookup"
        for attempt in (1, 2):
            (result,) = results = self.deliver(attempt=attempt)
            self.assertDelayed(results, "4.4.3")
            # Other mail may have waited for longer.
            self.assertFalse(result.unreachable)
            self.assertRecipient("sts", 0, 1, failure)
            self.observer.outcomes.clear()
        self.serve(selfSigned(MX).context())
        self.assertDelivered(self.deliver(attempt=3))
        self.assertRecipient("sts", 1, 0, failure, UNTRUSTED)
        self.assertEqual(self.recipient.policy.strings, ())
        self.assertHost(NO_POLICY, 1, 0)

    def test_neverByDANE(self) -> None:
        """
        DANE is looked up all the same (RFC 7672 2.2).
        """
        self.resolver.fail("_mta-sts.example.com", RRType.TXT)
        self.policies.lookup = self.successResultOf(self.askCache())
        self.secure(MISMATCHING)
        self.serve(self.goodContext())
        self.assertDelayed(self.deliver(attempt=3), "4.7.5")
        self.assertHost("tlsa", 0, 1, (VALIDATION, "dane-no-match"))

    def test_neverRequired(self) -> None:
        """
        RFC 8689 4.2.1: mail with REQUIRETLS waits on, rather than failing for a
        policy that couldn't be looked up.
        """
        self.resolver.fail("_mta-sts.example.com", RRType.TXT)
        self.policies.lookup = self.successResultOf(self.askCache())
        self.assertDelayed(self.deliver(requireTLS=True, attempt=9), "4.4.3")
        self.assertEqual(self.network.dialed, [])

    def test_ourError(self) -> None:
        """
        A cache that can't be read might hold an enforced policy, however long that
        takes; no outcome of the domain is recorded.
        """
        self.policies.lookup = STSLookup(EXAMPLE, temporary=True)
        self.assertDelayed(self.deliver(attempt=9), "4.4.3")
        self.assertRecipient(NO_POLICY, 0, 0)
        self.assertEqual(self.network.dialed, [])

    def test_unavailable(self) -> None:
        """
        If the cached policy can't be read, the message waits; the reason says so, and
        no failure of the domain is recorded.
        """
        self.policies.lookup = STSLookup(EXAMPLE, temporary=True, unavailable=True)
        self.serve(self.goodContext())
        results = self.deliver()
        self.assertDelayed(results, "4.3.0")
        self.assertIn("ledger unavailable", results[0].text)
        # Mail that comes after the outage doesn't wait for this one's next attempt.
        self.assertFalse(results[0].unreachable)
        self.assertIsNone(self.outcome.recipient)
        self.assertEqual(self.outcome.hosts, ())
        self.assertEqual(self.network.dialed, [])

    def test_unavailableIgnored(self) -> None:
        """
        C{TLS-Required: No} doesn't wait for that either.
        """
        self.policies.lookup = STSLookup(EXAMPLE, temporary=True, unavailable=True)
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver(requireTLS=False))

    def askCache(self) -> Deferred[STSLookup]:
        cache = PolicyCache(
            self.clock, self.resolver, FakeFetcher(), MemoryLedger().policies
        )
        return cache.get(EXAMPLE)

    def test_temporaryIgnored(self) -> None:
        """
        C{TLS-Required: No} doesn't wait for it.
        """
        self.resolver.fail("_mta-sts.example.com", RRType.TXT)
        self.policies.lookup = self.successResultOf(self.askCache())
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver(requireTLS=False))
        self.assertRecipient("sts", 1, 0, ("sts-policy-fetch-error", "dns-lookup"))
        self.assertHost(NO_POLICY, 1, 0)

    def test_domain(self) -> None:
        """
        RFC 8461 5: the policy is that of the recipients' domain, not that of its
        CNAME target.
        """
        self.resolver.put("alias.example", RRType.CNAME, "example.com")
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver(destination="alias.example"))
        self.assertEqual(self.policies.asked, [Domain("alias.example")])
        self.assertEqual(self.outcome.recipientDomain, Domain("alias.example"))
