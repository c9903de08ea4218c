"""
Tests for what L{moxtls.outbound.delivery} demands of TLS, and for what it
tells about it.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred

from moxtls.dns.answers import TLSA, ExtendedError, Kind
from moxtls.domain import Domain
from moxtls.policy.cache import PolicyCache
from moxtls.policy.mtasts import Mode, STSLookup
from moxtls.queue.values import Ending, ReportKind, Result
from moxtls.store.memory import MemoryPolicyStore
from moxtls.tlsrpt.results import Failure, Policy, PolicyType, ResultType
from tests.certificates import Identity, good, root, selfSigned
from tests.network import OUR_IP
from tests.outbound.deliveries import (
    EXAMPLE,
    IP4,
    LINES,
    MESSAGE,
    MISMATCHING,
    MX,
    SECOND,
    SECOND_IP,
    UNUSABLE,
    DeliveryCase,
    counted,
    demanding,
    matching,
    outdated,
    policy,
)
from tests.policy.fakes import FakeFetcher

BOGUS = ExtendedError(6)
BOGUS_REASON = "dns-extended-error-6-dnssec-bogus"
UNTRUSTED = ("certificate-not-trusted", "")
VALIDATION = "validation-failure"
UNSUPPORTED = "starttls-not-supported"
NO_POLICY = "no-policy-found"


def seen(resultType: ResultType, reason: str = "") -> Failure:
    """
    Something seen in the only session with C{mx.example.com}.
    """
    return Failure(resultType, reason, OUR_IP, MX, MX, IP4)


class OutcomeCase(DeliveryCase):
    """
    Says what was told.
    """

    def assertRecipient(
        self, kind: str, succeeded: int, failed: int, *details: tuple[str, str]
    ) -> None:
        """
        @param details: Type and reason, each seen once.
        """
        expected = kind, succeeded, failed, Counter(details)
        self.assertEqual(counted(self.recipient), expected)
        self.assertEqual(self.recipient.policy.domain, EXAMPLE)

    def assertHost(
        self, kind: str, succeeded: int, failed: int, *details: tuple[str, str]
    ) -> None:
        """
        As C{assertRecipient}, about the only host.
        """
        expected = kind, succeeded, failed, Counter(details)
        self.assertEqual(counted(self.host), expected)
        self.assertEqual(self.host.policy.domain, Domain(MX))


class OpportunisticTests(OutcomeCase):
    """
    Tests for hosts without any policy.
    """

    def test_trusted(self) -> None:
        """
        TLS with a good certificate: a success for both, and nothing else.
        """
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver())
        self.assertRecipient(NO_POLICY, 1, 0)
        self.assertHost(NO_POLICY, 1, 0)
        self.assertTrue(self.outcome.sendReport)
        self.assertEqual(self.outcome.recipientDomain, EXAMPLE)

    def test_untrusted(self) -> None:
        """
        A certificate nobody has to trust: a success, with the failure told
        beside it to the recipient domain, in every detail.
        """
        server = self.serve(selfSigned(MX).context())
        self.assertDelivered(self.deliver())
        self.assertIn(b"<TLS>", server.heard)
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)
        self.assertEqual(
            dict(self.recipient.failures),
            {seen(ResultType.CERTIFICATE_NOT_TRUSTED): 1},
        )
        self.assertHost(NO_POLICY, 1, 0)

    def test_objections(self) -> None:
        """
        What else there may be wrong with a certificate.
        """
        for identity, detail in (
            (root().issue(MX, days=-1), "certificate-expired"),
            (good("other.example.com"), "certificate-host-mismatch"),
        ):
            self.observer.outcomes.clear()
            self.serve(identity.context())
            self.assertDelivered(self.deliver())
            self.assertRecipient(NO_POLICY, 1, 0, (detail, ""))
            self.assertHost(NO_POLICY, 1, 0)

    def test_notOffered(self) -> None:
        """
        No STARTTLS: told to both, counted as neither success nor failure.
        """
        self.serve()
        self.assertDelivered(self.deliver())
        self.assertRecipient(NO_POLICY, 0, 0, (UNSUPPORTED, ""))
        self.assertHost(NO_POLICY, 0, 0, (UNSUPPORTED, ""))
        for tally in (self.recipient, self.host):
            self.assertEqual(
                dict(tally.failures), {seen(ResultType.STARTTLS_NOT_SUPPORTED): 1}
            )

    def broken(
        self, reason: tuple[str, str], context: object, **script: object
    ) -> None:
        """
        TLS that fails: the message is delivered in plaintext in another
        connection, about which nothing is told.
        """
        second = self.server()
        self.network.serve(IP4, self.server(context, **script), second)  # type: ignore[arg-type]
        self.assertDelivered(self.deliver())
        self.assertEqual(second.messages, [MESSAGE])
        self.assertNotIn("STARTTLS", second.commands)
        self.assertRecipient(NO_POLICY, 0, 1, reason)
        self.assertHost(NO_POLICY, 0, 1, reason)

    def test_refused(self) -> None:
        """
        A reply to STARTTLS other than 220.
        """
        reason = UNSUPPORTED, "smtp-starttls-reply-code-454"
        self.broken(reason, self.goodContext(), replies={"STARTTLS": "454 no"})

    def test_injected(self) -> None:
        """
        Plaintext behind the reply to STARTTLS is never taken for a reply.
        """
        reason = VALIDATION, "starttls-plaintext-injection"
        self.broken(
            reason, None, behindStartTLS=b"250 ok\r\n", extensions=("STARTTLS",)
        )

    def test_outdated(self) -> None:
        """
        A server that offers only an old version of TLS.
        """
        reason = VALIDATION, "tls-remote-alert-70-protocol-version-not-supported"
        self.broken(reason, outdated(good(MX)))

    def test_alertBehindHandshake(self) -> None:
        """
        A server of TLS 1.3 that objects when for us the handshake is over:
        the session failed, it doesn't count as a success.
        """
        reason = VALIDATION, "tls-remote-alert-116-certificate-required"
        self.broken(reason, demanding(good(MX)))

    def silent(self) -> Deferred[tuple[Result, ...]]:
        """
        A server that says nothing when it should do its part of a handshake.
        """
        self.serve(None, self.server(), extensions=("STARTTLS",), behindStartTLS=b"")
        return self.attempt()

    def test_timeout(self) -> None:
        """
        A handshake that takes too long.
        """
        attempt = self.silent()
        self.clock.advance(60)
        self.network.flush()
        self.assertDelivered(self.successResultOf(attempt))
        reason = VALIDATION, "io-timeout-during-handshake"
        self.assertRecipient(NO_POLICY, 0, 1, reason)
        self.assertHost(NO_POLICY, 0, 1, reason)

    def test_closed(self) -> None:
        """
        A connection that is lost during the handshake.
        """
        attempt = self.silent()
        self.network.calls[0].hangUp()
        self.network.flush()
        self.assertDelivered(self.successResultOf(attempt))
        reason = VALIDATION, "connection-closed-during-handshake"
        self.assertRecipient(NO_POLICY, 0, 1, reason)
        self.assertHost(NO_POLICY, 0, 1, reason)

    def test_nothingSeen(self) -> None:
        """
        Of connections that aren't made or end before TLS, nothing is counted.
        """
        for greeting in ("554 go away", "nonsense", ""):
            self.observer.outcomes.clear()
            if greeting:
                self.serve(self.goodContext(), greeting=greeting)
            self.deliver()
            self.assertRecipient(NO_POLICY, 0, 0)
            self.assertHost(NO_POLICY, 0, 0)

    def test_seenBefore(self) -> None:
        """
        What was seen of TLS isn't lost when the session fails later, whether
        at the next command or in the middle of a message.
        """
        for verb in ("MAIL", "RCPT", "DATA", "END"):
            self.observer.outcomes.clear()
            self.serve(
                selfSigned(MX).context(), replies={verb: "nonsense"}, extensions=()
            )
            self.assertDelayed(self.deliver(), "4.4.2")
            self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)
            self.assertHost(NO_POLICY, 1, 0)

    def test_seenBeforeHello(self) -> None:
        """
        Nor when the second EHLO is refused: the handshake was complete, and
        the certificate judged.
        """
        self.serve(
            selfSigned(MX).context(),
            replies={"EHLO": ["250 hi\n250 STARTTLS", "421 no"]},
        )
        self.assertDelayed(self.deliver(), "4.0.0")
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)
        self.assertHost(NO_POLICY, 1, 0)

    def test_twoHosts(self) -> None:
        """
        Each host has its own count, and the recipient domain that of both.
        """
        self.secondHost()
        self.serve(self.goodContext(), replies={"MAIL": "450 later"})
        self.serve(selfSigned(SECOND).context(), ip=SECOND_IP)
        self.assertDelivered(self.deliver())
        self.assertRecipient(NO_POLICY, 2, 0, UNTRUSTED)
        self.assertEqual(
            [(str(each.policy.domain), each.succeeded) for each in self.outcome.hosts],
            [(MX, 1), (SECOND, 1)],
        )


class DNSSECTests(OutcomeCase):
    """
    Tests for answers that were refused because of DNSSEC.
    """

    def test_nextHop(self) -> None:
        """
        The next hop: a failure of the recipient domain; the type is the
        general one, for "dnssec-invalid" is about DANE (RFC 8460 4.3.2.1).
        """
        self.resolver.fail("example.com", Kind.MX, BOGUS)
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertRecipient(NO_POLICY, 0, 1, (VALIDATION, BOGUS_REASON))
        self.assertEqual(self.outcome.hosts, ())

    def test_otherError(self) -> None:
        """
        Errors that aren't about DNSSEC say nothing about TLS.
        """
        self.resolver.fail("example.com", Kind.MX, ExtendedError(22))
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertIs(self.outcome.recipient, None)
        self.resolver.put("example.com", Kind.MX, f"10 {MX}")
        for kind in (Kind.A, Kind.AAAA):
            self.resolver.fail(MX, kind, ExtendedError(22))
        self.observer.outcomes.clear()
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertRecipient(NO_POLICY, 0, 0)
        self.assertEqual(self.outcome.hosts, ())

    def test_hostAddresses(self) -> None:
        """
        The addresses of a host: a failure of both.
        """
        for kind in (Kind.A, Kind.AAAA):
            self.resolver.fail(MX, kind, ExtendedError(7))
        self.assertDelayed(self.deliver(), "4.4.3")
        detail = VALIDATION, "dns-extended-error-7-signature-expired"
        self.assertRecipient(NO_POLICY, 0, 1)
        self.assertHost("tlsa", 0, 1, detail)
        self.assertEqual(self.host.policy.strings, ())

    def test_tlsa(self) -> None:
        """
        The TLSA records of a host: a failure of both, and the host is not
        connected to (RFC 7672 2.1.2).
        """
        self.secure()
        self.resolver.fail(f"_25._tcp.{MX}", Kind.TLSA, BOGUS)
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient(NO_POLICY, 0, 1)
        self.assertHost("tlsa", 0, 1, ("dnssec-invalid", BOGUS_REASON))
        self.assertEqual(self.network.dialed, [])

    def test_tlsaLookup(self) -> None:
        """
        A TLSA lookup that failed for another reason keeps us from connecting
        too, but is no failure of TLS.
        """
        self.secure()
        for error, reason in (
            (None, ""),
            (ExtendedError(22), "dns-extended-error-22-no-reachable-authority"),
        ):
            self.observer.outcomes.clear()
            self.resolver.fail(f"_25._tcp.{MX}", Kind.TLSA, error)
            self.assertDelayed(self.deliver(), "4.7.5")
            self.assertRecipient(NO_POLICY, 0, 0)
            self.assertHost("tlsa", 0, 0, ("tlsa-invalid", reason))
        self.assertEqual(self.network.dialed, [])

    def test_tlsaIgnored(self) -> None:
        """
        C{TLS-Required: No} ignores it (RFC 8689 3); it is told all the same.
        """
        self.secure()
        self.resolver.fail(f"_25._tcp.{MX}", Kind.TLSA, BOGUS)
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver(requireTLS=False))
        self.assertRecipient(NO_POLICY, 1, 0)
        self.assertHost("tlsa", 1, 0, ("dnssec-invalid", BOGUS_REASON))


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
        A record that matches: the policy is told with its usable records;
        what the Web PKI thinks is told to the recipient domain.
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
        No record matches: a failure of both, told to the host.  There is no
        plaintext.
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
        RFC 7672 2.2: records nobody can use still promise TLS, but with any
        certificate.  That is told, as seen in no session.
        """
        self.secure(UNUSABLE)
        self.serveIdentity()
        self.assertDelivered(self.deliver())
        reason = "all-unusable-records+ignored"
        self.assertEqual(
            dict(self.host.failures),
            {Failure(ResultType.TLSA_INVALID, reason, mxHostname=MX): 0},
        )
        self.assertEqual(self.host.policy, Policy(PolicyType.TLSA, Domain(MX)))
        self.assertEqual((self.host.succeeded, self.host.failed), (1, 0))
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)

    def test_noSTARTTLS(self) -> None:
        """
        STARTTLS is said also where it isn't offered: a host that has promised
        TLS and refuses it has failed.
        """
        self.secure(MISMATCHING)
        self.serve(None, self.server())
        self.assertDelayed(self.deliver(), "4.7.5")
        reason = UNSUPPORTED, "smtp-starttls-reply-code-502"
        self.assertHost("tlsa", 0, 1, reason)
        self.assertRecipient(NO_POLICY, 0, 1, reason)

    def test_ignored(self) -> None:
        """
        C{TLS-Required: No}: a mismatch is told, and TLS used all the same.
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
        self.assertIn((f"_25._tcp.{MX}", Kind.TLSA), self.resolver.asked)

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
        RFC 7672 2.2.2: where the MX records or the addresses aren't signed,
        nobody asks for TLSA records.
        """
        for insecure in ("example.com", MX):
            self.observer.outcomes.clear()
            self.secure(MISMATCHING)
            self.resolver.trust("example.com", MX)
            self.resolver.distrust(insecure)
            self.serveIdentity()
            self.assertDelivered(self.deliver())
            self.assertHost(NO_POLICY, 1, 0)
        self.assertNotIn(Kind.TLSA, {kind for _, kind in self.resolver.asked})

    def test_expanded(self) -> None:
        """
        RFC 7672 2.2.2: behind a signed CNAME, the records are those of its
        target, whose name is said in SNI and in the report.
        """
        target = "host.example.net"
        self.resolver.trust(".")
        self.resolver.put(MX, Kind.CNAME, target)
        self.resolver.put(target, Kind.A, IP4)
        self.resolver.put(f"_25._tcp.{target}", Kind.TLSA, matching(self.identity))
        self.serveIdentity()
        self.assertDelivered(self.deliver())
        self.assertEqual(self.host.policy.domain, Domain(target))
        self.assertEqual(str(self.host.policy.type), "tlsa")
        self.assertEqual(self.terms[0].names, (target, MX, "example.com"))

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
        The policy is told with its lines and hosts, in testing as well.
        """
        for mode in (Mode.TESTING, Mode.ENFORCE):
            self.observer.outcomes.clear()
            self.publish(mode)
            self.serve(self.goodContext())
            self.assertDelivered(self.deliver())
            self.assertRecipient("sts", 1, 0)
            self.assertEqual(
                self.recipient.policy,
                Policy(PolicyType.STS, EXAMPLE, LINES, ("*.example.com",)),
            )
            self.assertHost(NO_POLICY, 1, 0)

    def test_none(self) -> None:
        """
        RFC 8461 5: mode "none" is the way to have no policy.
        """
        self.publish(Mode.NONE, "other.example.com")
        self.serve(selfSigned(MX).context())
        self.assertDelivered(self.deliver())
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)

    def test_enforced(self) -> None:
        """
        An untrusted certificate: a failure of both, told to the recipient
        domain, and no mail.
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
                Failure(
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
        self.assertNotIn((MX, Kind.A), self.resolver.asked)

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

    def test_mismatchTesting(self) -> None:
        """
        In testing it is told, and the host used.
        """
        self.mismatch(Mode.TESTING)
        self.assertDelivered(self.deliver())
        self.assertRecipient("sts", 1, 0, (VALIDATION, "mtasts-policy-mx-mismatch"))
        self.assertEqual(self.network.dialed, [IP4])

    def test_mismatchIgnored(self) -> None:
        """
        So it is with C{TLS-Required: No} (RFC 8689 3).
        """
        self.mismatch(Mode.ENFORCE)
        self.assertDelivered(self.deliver(requireTLS=False))
        self.assertRecipient("sts", 1, 0, (VALIDATION, "mtasts-policy-mx-mismatch"))
        self.assertEqual(self.network.dialed, [IP4])

    def test_broken(self) -> None:
        """
        A policy that can't be had is told as one without lines; the mail goes
        out as without a policy (RFC 8461 5.1).
        """
        for failure in (
            Failure(ResultType.STS_POLICY_FETCH_ERROR, "record-syntax-error"),
            Failure(ResultType.STS_WEBPKI_INVALID, "certificate-expired"),
            Failure(ResultType.STS_POLICY_INVALID, "policy-syntax-error"),
        ):
            self.observer.outcomes.clear()
            self.policies.lookup = STSLookup(EXAMPLE, None, failure)
            self.serve(self.goodContext())
            self.assertDelivered(self.deliver())
            self.assertEqual(self.recipient.policy, Policy(PolicyType.STS, EXAMPLE))
            self.assertEqual(dict(self.recipient.failures), {failure: 1})
            self.assertEqual(self.recipient.succeeded, 1)

    def test_cached(self) -> None:
        """
        A cached policy that helps out is applied, and told with the reason
        why it had to.
        """
        reason = "dns-lookup+fallback-to-cached-policy"
        failure = Failure(ResultType.STS_POLICY_FETCH_ERROR, reason)
        self.policies.lookup = STSLookup(EXAMPLE, policy(Mode.ENFORCE), failure)
        self.serve(selfSigned(MX).context())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient("sts", 0, 1, UNTRUSTED, ("sts-policy-fetch-error", reason))
        self.assertEqual(self.recipient.policy.strings, LINES)

    def test_temporary(self) -> None:
        """
        RFC 8461 5.1: if it can't be said whether there is a policy, the mail
        has to wait.  This asks the project's own cache.
        """
        self.resolver.fail("_mta-sts.example.com", Kind.TXT)
        lookup = self.successResultOf(self.askCache())
        self.policies.lookup = lookup
        self.serve(self.goodContext())
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertRecipient("sts", 0, 1, ("sts-policy-fetch-error", "dns-lookup"))
        self.assertEqual(self.outcome.hosts, ())
        self.assertEqual(self.network.dialed, [])

    def askCache(self) -> Deferred[STSLookup]:
        cache = PolicyCache(
            self.clock, self.resolver, FakeFetcher(), MemoryPolicyStore()
        )
        return cache.get(EXAMPLE)

    def test_temporaryIgnored(self) -> None:
        """
        C{TLS-Required: No} doesn't wait for it.
        """
        self.resolver.fail("_mta-sts.example.com", Kind.TXT)
        self.policies.lookup = self.successResultOf(self.askCache())
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver(requireTLS=False))
        self.assertRecipient("sts", 1, 0, ("sts-policy-fetch-error", "dns-lookup"))
        self.assertHost(NO_POLICY, 1, 0)

    def test_domain(self) -> None:
        """
        RFC 8461 5: the policy is that of the recipients' domain, not of what
        it is an alias for.
        """
        self.resolver.put("alias.example", Kind.CNAME, "example.com")
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver(destination="alias.example"))
        self.assertEqual(self.policies.asked, [Domain("alias.example")])
        self.assertEqual(self.outcome.recipientDomain, Domain("alias.example"))


class ReportTests(OutcomeCase):
    """
    Tests for deliveries of reports (RFC 8460 3: they must not cause reports).
    """

    def causes(self, report: ReportKind | None, context: object) -> bool:
        self.observer.outcomes.clear()
        self.serve(context)  # type: ignore[arg-type]
        requireTLS = False if report is ReportKind.TLS else None
        self.deliver(report=report, requireTLS=requireTLS)
        return self.outcome.sendReport

    def test_sendReport(self) -> None:
        """
        Those of TLS reports never do, those of DMARC reports if TLS failed,
        all others do.
        """
        fine, broken = self.goodContext(), outdated(good(MX))
        self.assertFalse(self.causes(ReportKind.TLS, fine))
        self.assertFalse(self.causes(ReportKind.TLS, broken))
        self.assertFalse(self.causes(ReportKind.DMARC, fine))
        self.assertTrue(self.causes(ReportKind.DMARC, broken))
        self.assertTrue(self.causes(None, fine))
        self.assertTrue(self.causes(None, broken))

    def test_notedOnly(self) -> None:
        """
        A failure that failed no session doesn't make a DMARC report cause
        one.
        """
        self.assertFalse(self.causes(ReportKind.DMARC, selfSigned(MX).context()))
        self.assertRecipient(NO_POLICY, 1, 0, UNTRUSTED)


# What becomes of a message: T delivered over TLS, P delivered in plaintext,
# w waits, - given up at once and nobody dialed.  For each pair of MTA-STS mode
# and TLSA records, one letter for each of: a message without wishes, one with
# TLS-Required: No (such as a TLS report), a DMARC report, one with REQUIRETLS.
MESSAGES: tuple[dict[str, object], ...] = (
    {},
    {"requireTLS": False, "report": ReportKind.TLS},
    {"report": ReportKind.DMARC},
    {"requireTLS": True},
)
RECORDS = ("none", "usable", "unusable", "bogus")
TRUSTED = {
    None: "TTT- TTTT TTT- wTww",
    Mode.NONE: "TTT- TTTT TTT- wTww",
    Mode.TESTING: "TTT- TTTT TTT- wTww",
    Mode.ENFORCE: "TTTT TTTT TTTT wTww",
}
WRONG = {
    None: "TTT- wTww TTT- wTww",
    Mode.NONE: "TTT- wTww TTT- wTww",
    Mode.TESTING: "TTT- wTww TTT- wTww",
    Mode.ENFORCE: "wTww wTww wTww wTww",
}
FAILING = {
    None: "PPw- wPww wPw- wPww",
    Mode.NONE: "PPw- wPww wPw- wPww",
    Mode.TESTING: "PPw- wPww wPw- wPww",
    Mode.ENFORCE: "wPww wPww wPww wPww",
}
LACKING = {
    None: "PPP- wPww wPw- wPww",
    Mode.NONE: "PPP- wPww wPw- wPww",
    Mode.TESTING: "PPP- wPww wPw- wPww",
    Mode.ENFORCE: "wPww wPww wPww wPww",
}


class FallbackTests(DeliveryCase):
    """
    Tests for when a message goes over TLS, in plaintext, or not at all, in
    all combinations of policies and wishes.
    """

    def check(
        self,
        expected: dict[Mode | None, str],
        identity: Identity | None,
        record: TLSA,
        **script: object,
    ) -> None:
        """
        @param record: The usable one.
        """
        self.resolver.trust(".")
        for mode, letters in expected.items():
            if mode is None:
                self.policies.lookup = STSLookup(EXAMPLE)
            else:
                self.publish(mode)
            for records, row in zip(RECORDS, letters.split(), strict=True):
                self.putRecords(records, record)
                context = identity.context() if identity else None
                for message, letter in zip(MESSAGES, row, strict=True):
                    self.network.serve(
                        IP4, self.server(context, **script), self.server()
                    )
                    found = self.fate(message)
                    self.assertEqual(found, letter, (mode, records, message))

    def putRecords(self, records: str, record: TLSA) -> None:
        name = f"_25._tcp.{MX}"
        if records == "bogus":
            self.resolver.fail(name, Kind.TLSA, BOGUS)
            return
        known = {"none": [], "usable": [record], "unusable": [UNUSABLE]}
        self.resolver.put(name, Kind.TLSA, *known[records])

    def fate(self, message: dict[str, object]) -> str:
        """
        One letter.
        """
        self.network.dialed.clear()
        self.left.clear()
        (result,) = self.deliver(**message)
        if result.ending is Ending.DELIVERED:
            return "T" if self.left[-1].secure else "P"
        self.assertEqual(self.left, [])
        if result.ending is Ending.TEMPORARY:
            return "w"
        self.assertEqual((result.status, self.network.dialed), ("5.7.30", []))
        return "-"

    def test_trusted(self) -> None:
        """
        A host whose certificate the Web PKI and DANE vouch for.
        """
        identity = good(MX)
        self.check(TRUSTED, identity, matching(identity))

    def test_wrong(self) -> None:
        """
        A host whose certificate nobody vouches for.
        """
        self.check(WRONG, selfSigned(MX), MISMATCHING)

    def test_failing(self) -> None:
        """
        A host that offers STARTTLS and can't do it.
        """
        identity = good(MX)
        replies = {"STARTTLS": "454 not now"}
        self.check(FAILING, identity, matching(identity), replies=replies)

    def test_lacking(self) -> None:
        """
        A host that doesn't offer STARTTLS.
        """
        self.check(LACKING, None, MISMATCHING)
