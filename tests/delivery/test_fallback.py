"""
Tests for L{moxtls.delivery.attempt}: when mail goes over TLS, in plaintext, or
not at all.
"""

from __future__ import annotations

from dataclasses import replace

from moxtls.dns.types import TLSA, ExtendedError, RRType
from moxtls.mtasts.policy import Mode, STSLookup
from moxtls.queue.types import BatchMessage, DeliveryStatus, ReportKind
from tests.certificates import Identity, good, selfSigned
from tests.delivery.deliveries import (
    EXAMPLE,
    IP4,
    MESSAGE,
    MISMATCHING,
    MX,
    SECOND,
    SECOND_IP,
    UNUSABLE,
    USER,
    DeliveryCase,
    matching,
)

BOGUS = ExtendedError(6)

# The result of a message: T delivered over TLS, P delivered in plaintext,
# w waits, - given up at once and nobody dialed.  For each pair of MTA-STS mode
# and TLSA records, one letter for each of: a message without requirements, one with
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
    all combinations of policies and requirements.
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
                    found = self.symbol(message)
                    self.assertEqual(found, letter, (mode, records, message))

    def putRecords(self, records: str, record: TLSA) -> None:
        name = f"_25._tcp.{MX}"
        if records == "bogus":
            self.resolver.fail(name, RRType.TLSA, BOGUS)
            return
        known = {"none": [], "usable": [record], "unusable": [UNUSABLE]}
        self.resolver.put(name, RRType.TLSA, *known[records])

    def symbol(self, message: dict[str, object]) -> str:
        """
        The letter for the result of a message.
        """
        self.network.dialed.clear()
        self.released.clear()
        (result,) = self.deliver(**message)
        if result.ending is DeliveryStatus.DELIVERED:
            return "T" if self.released[-1].secure else "P"
        self.assertEqual(self.released, [])
        if result.ending is DeliveryStatus.TEMPORARY:
            return "w"
        self.assertEqual((result.status, self.network.dialed), ("5.7.30", []))
        return "-"

    def test_trusted(self) -> None:
        """
        A host whose certificate the Web PKI and DANE authenticate.
        """
        identity = good(MX)
        self.check(TRUSTED, identity, matching(identity))

    def test_wrong(self) -> None:
        """
        A host with an untrusted certificate.
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


class RequireTLSTests(DeliveryCase):
    """
    Tests for REQUIRETLS (RFC 8689).
    """

    def setUp(self) -> None:
        super().setUp()
        self.secondHost()

    def refused(self) -> None:
        """
        The message fails at once.
        """
        results = self.deliver(requireTLS=True)
        self.assertResults(results, (USER, DeliveryStatus.PERMANENT, "5.7.30"))

    def test_noPolicy(self) -> None:
        """
        RFC 8689 4.2.1: without DANE or an enforced MTA-STS policy, no host is
        connected to.
        """
        self.refused()
        self.publish(Mode.TESTING)
        self.refused()
        self.assertEqual(self.network.dialed, [])
        for outcome in self.observer.outcomes:
            assert outcome.recipient is not None
            tallies = (*outcome.hosts, outcome.recipient)
            self.assertEqual({each.failed for each in tallies}, {0})

    def test_unusable(self) -> None:
        """
        Unusable TLSA records don't authenticate hosts.
        """
        self.secure(UNUSABLE)
        self.refused()
        self.assertEqual(self.network.dialed, [])

    def test_passedOn(self) -> None:
        """
        With an enforced policy, or usable TLSA records, a host with REQUIRETLS gets
        the mail with that parameter (RFC 8689 4.2).
        """
        self.publish(Mode.ENFORCE)
        server = self.serve(self.goodContext())
        self.assertDelivered(self.deliver(requireTLS=True))
        self.assertIn("REQUIRETLS", server.commands[4])
        self.publish(Mode.NONE)
        identity = selfSigned(MX)
        self.secure(matching(identity))
        server = self.serve(identity.context())
        self.assertDelivered(self.deliver(requireTLS=True))
        self.assertIn("REQUIRETLS", server.commands[4])

    def test_nextHost(self) -> None:
        """
        RFC 8689 4.2.1: a host that doesn't know REQUIRETLS is passed over.
        """
        self.publish(Mode.ENFORCE)
        first = self.serve(self.goodContext(), extensions=())
        second = self.serve(good(SECOND).context(), ip=SECOND_IP)
        self.assertDelivered(self.deliver(requireTLS=True))
        self.assertEqual((first.messages, second.messages), ([], [MESSAGE]))
        self.assertNotIn("MAIL", b" ".join(first.heard.split()).decode())

    def test_allUnable(self) -> None:
        """
        If no host knows it, it is given up at once.  TLS went well.
        """
        self.publish(Mode.ENFORCE)
        self.serve(self.goodContext(), extensions=())
        self.serve(good(SECOND).context(), ip=SECOND_IP, extensions=())
        self.refused()
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])
        self.assertEqual((self.recipient.succeeded, self.recipient.failed), (2, 0))

    def test_someUnable(self) -> None:
        """
        If a host couldn't be reached, it may support REQUIRETLS the next time.
        """
        self.publish(Mode.ENFORCE)
        self.serve(self.goodContext(), extensions=())
        self.assertDelayed(self.deliver(requireTLS=True), "4.4.1")
        self.serve(good(SECOND).context(), ip=SECOND_IP, extensions=())
        self.network.silence(IP4)
        attempt = self.attempt(requireTLS=True)
        self.clock.advance(30)
        self.network.flush()
        self.assertDelayed(self.successResultOf(attempt), "4.4.1")

    def test_noFallback(self) -> None:
        """
        If TLS fails, there is no plaintext, ever.
        """
        self.publish(Mode.ENFORCE)
        self.serve(selfSigned(MX).context(), self.server())
        self.assertDelayed(self.deliver(requireTLS=True), "4.4.1")
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])

    def bounce(self) -> BatchMessage:
        return replace(self.batchMessage(), sender="")

    def test_bounce(self) -> None:
        """
        RFC 8689 5: a bounce isn't discarded because the host isn't authenticated or
        lacks REQUIRETLS.
        """
        server = self.serve(selfSigned(MX).context(), extensions=())
        results = self.deliver(self.bounce(), requireTLS=True)
        self.assertDelivered(results)
        self.assertNotIn("REQUIRETLS", server.commands[4])

    def test_bouncePassedOn(self) -> None:
        """
        A host with REQUIRETLS gets the bounce with that parameter (RFC 8689 5).
        """
        server = self.serve(selfSigned(MX).context())
        self.assertDelivered(self.deliver(self.bounce(), requireTLS=True))
        self.assertIn("REQUIRETLS", server.commands[4])
