"""
Tests for the TLS requirements and TLS outcomes of L{moxtls.delivery.attempt}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.dns.types import ExtendedError, RRType
from moxtls.queue.types import ReportKind, Result
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.certificates import good, root, selfSigned
from tests.delivery.deliveries import (
    EXAMPLE,
    IP4,
    MESSAGE,
    MX,
    SECOND,
    SECOND_IP,
    demanding,
    outdated,
)
from tests.delivery.outcomes import (
    BOGUS,
    BOGUS_REASON,
    NO_POLICY,
    UNSUPPORTED,
    UNTRUSTED,
    VALIDATION,
    OutcomeCase,
    seen,
)


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
        An untrusted certificate without a policy: a success, with the failure
        reported to the recipient domain in every detail.
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
        Other faults of certificates, with their result types.
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
        No STARTTLS: reported to both, counted as neither success nor failure.
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
        TLS fails: the message is delivered in plaintext on another connection, which
        isn't reported.
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
        Plaintext after the reply to STARTTLS is never read as a reply.
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
        A server that doesn't answer the handshake.
        """
        self.serve(None, self.server(), extensions=("STARTTLS",), behindStartTLS=b"")
        return self.attempt()

    def test_timeout(self) -> None:
        """
        A handshake that times out.
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

    def test_unanswered(self) -> None:
        """
        RFC 3207 4: a host that offers STARTTLS, and then hangs up, is silent or
        talks nonsense, failed to negotiate TLS.  That isn't a refusal, after
        which mail might go on in plaintext.
        """
        for reply, ending, reason in (
            ("", self.hangUp, "connection-closed-during-starttls"),
            ("", self.waitInVain, "io-timeout-during-starttls"),
            ("yes", lambda: None, "malformed-reply-to-starttls"),
            ("220", lambda: None, None),
        ):
            self.observer.outcomes.clear()
            server = self.serve(self.goodContext(), replies={"STARTTLS": reply})
            attempt = self.attempt()
            ending()
            self.network.flush()
            results = self.successResultOf(attempt)
            if reason is None:
                self.assertDelivered(results)
                continue
            self.assertDelayed(results, "4.4.2")
            self.assertEqual(server.commands, ["EHLO us.example", "STARTTLS"])
            self.assertRecipient(NO_POLICY, 0, 1, (VALIDATION, reason))
            self.assertHost(NO_POLICY, 0, 1, (VALIDATION, reason))
            self.assertIn(
                seen(ResultType.VALIDATION_FAILURE, reason), self.host.failures
            )

    def hangUp(self) -> None:
        self.network.calls[-1].hangUp()

    def waitInVain(self) -> None:
        self.clock.advance(300)

    def test_nothingSeen(self) -> None:
        """
        Connections that fail, or end before TLS, aren't counted.
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
        The TLS outcome is recorded even if the session fails later, at the next
        command or in the middle of a message.
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
        The TLS outcome is recorded even if the second EHLO is refused: the handshake
        was complete, and the certificate verified.
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
        self.resolver.fail("example.com", RRType.MX, BOGUS)
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertRecipient(NO_POLICY, 0, 1, (VALIDATION, BOGUS_REASON))
        self.assertEqual(self.outcome.hosts, ())

    def test_otherError(self) -> None:
        """
        Errors that aren't about DNSSEC aren't TLS failures.
        """
        self.resolver.fail("example.com", RRType.MX, ExtendedError(22))
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertIs(self.outcome.recipient, None)
        self.resolver.put("example.com", RRType.MX, f"10 {MX}")
        for kind in (RRType.A, RRType.AAAA):
            self.resolver.fail(MX, kind, ExtendedError(22))
        self.observer.outcomes.clear()
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertRecipient(NO_POLICY, 0, 0)
        self.assertEqual(self.outcome.hosts, ())

    def test_hostAddresses(self) -> None:
        """
        The addresses of a host: a failure of both.
        """
        for kind in (RRType.A, RRType.AAAA):
            self.resolver.fail(MX, kind, ExtendedError(7))
        self.assertDelayed(self.deliver(), "4.4.3")
        detail = VALIDATION, "dns-extended-error-7-signature-expired"
        self.assertRecipient(NO_POLICY, 0, 1)
        self.assertHost("tlsa", 0, 1, detail)
        self.assertEqual(self.host.policy.strings, ())
        self.assertEqual([each.mxHostname for each in self.host.failures], [MX])

    def test_tlsa(self) -> None:
        """
        The TLSA records of a host: a failure of both, and the host is not
        connected to (RFC 7672 2.1.2).
        """
        self.secure()
        self.resolver.fail(f"_25._tcp.{MX}", RRType.TLSA, BOGUS)
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertRecipient(NO_POLICY, 0, 1)
        self.assertHost("tlsa", 0, 1, ("dnssec-invalid", BOGUS_REASON))
        self.assertEqual(self.network.dialed, [])

    def test_tlsaLookup(self) -> None:
        """
        RFC 8460 4.3.2.1: the same for every failed TLSA lookup. Resolvers need not
        attribute it to DNSSEC, and some add other errors.
        """
        self.secure()
        unreachable = "dns-extended-error-22-no-reachable-authority"
        for error, reason in (
            (None, "dns-lookup"),
            (ExtendedError(22), unreachable),
        ):
            self.observer.outcomes.clear()
            self.resolver.fail(f"_25._tcp.{MX}", RRType.TLSA, error)
            self.assertDelayed(self.deliver(), "4.7.5")
            self.assertRecipient(NO_POLICY, 0, 1)
            self.assertHost("tlsa", 0, 1, ("dnssec-invalid", reason))
            failure = FailureDetail(ResultType.DNSSEC_INVALID, reason, mxHostname=MX)
            self.assertEqual(dict(self.host.failures), {failure: 1})
        self.assertEqual(self.network.dialed, [])

    def test_tlsaNotSecure(self) -> None:
        """
        RFC 7672 2.1.2, 2.2.2: no TLSA records are looked up for a host whose
        addresses aren't secure, so that a failing lookup can't prevent mail to it.
        """
        self.secure()
        self.resolver.distrust(MX)
        self.resolver.fail(f"_25._tcp.{MX}", RRType.TLSA)
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver())
        self.assertHost(NO_POLICY, 1, 0)

    def test_addressLookup(self) -> None:
        """
        Lookups of addresses and MX records that fail for another reason than DNSSEC
        aren't TLS failures: nothing is counted.
        """
        for name, kinds in (
            (MX, (RRType.A, RRType.AAAA)),
            ("example.com", (RRType.MX,)),
        ):
            self.observer.outcomes.clear()
            for kind in kinds:
                self.resolver.fail(name, kind, ExtendedError(22))
            self.assertDelayed(self.deliver(), "4.4.3")
            self.assertEqual(self.outcome.hosts, ())
            tally = self.outcome.recipient
            self.assertEqual(tally and tally.failed, 0 if name == MX else None)

    def test_tlsaIgnored(self) -> None:
        """
        C{TLS-Required: No} ignores it (RFC 8689 3); it is reported all the same.
        """
        self.secure()
        self.resolver.fail(f"_25._tcp.{MX}", RRType.TLSA, BOGUS)
        self.serve(self.goodContext())
        self.assertDelivered(self.deliver(requireTLS=False))
        self.assertRecipient(NO_POLICY, 1, 0)
        self.assertHost("tlsa", 1, 0, ("dnssec-invalid", BOGUS_REASON))


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
        Outcomes of report deliveries never cause a report, whether TLS failed or not;
        all others do.
        """
        fine, broken = self.goodContext(), outdated(good(MX))
        self.assertFalse(self.causes(ReportKind.TLS, fine))
        self.assertFalse(self.causes(ReportKind.TLS, broken))
        self.assertFalse(self.causes(ReportKind.DMARC, fine))
        self.assertFalse(self.causes(ReportKind.DMARC, broken))
        self.assertTrue(self.causes(None, fine))
        self.assertTrue(self.causes(None, broken))
