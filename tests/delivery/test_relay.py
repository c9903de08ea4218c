"""
Tests for L{moxtls.delivery.relay}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from moxtls.delivery.relay import Relay, SmarthostCourier, parseRelayHost
from moxtls.delivery.sessions import FINISH_TIMEOUT
from moxtls.dns.types import ADDRESS_TYPES, RRType
from moxtls.domain import AddressLiteral, Domain, InvalidDomain
from moxtls.interfaces import ICourier
from moxtls.queue.types import BatchMessage, DeliveryStatus, Result
from moxtls.smtp.client.connection import ClientSettings
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.types import Credentials, Reply, TLSMode
from tests.certificates import good, selfSigned
from tests.delivery.deliveries import IP4, IP6, MESSAGE, MX, TRUST, USER, DeliveryCase
from tests.network import SMTP, AcceptingDelivery
from tests.smtp.scripted import EXTENSIONS

OTHER = "other@example.com"
ELSEWHERE = "someone@elsewhere.example"


class RelayHostTests(DeliveryCase):
    """
    Tests for L{parseRelayHost}.
    """

    def test_kinds(self) -> None:
        """
        A relay is given by name or address.
        """
        self.assertEqual(parseRelayHost("Relay.Example."), Domain("relay.example"))
        self.assertEqual(
            parseRelayHost("192.0.2.7"), AddressLiteral.parse("[192.0.2.7]")
        )
        self.assertEqual(parseRelayHost("::1"), AddressLiteral.parse("[IPv6:::1]"))
        for text in ("", "no name", "1.2.3.4:25"):
            self.assertRaises(InvalidDomain, parseRelayHost, text)


class SmarthostTests(DeliveryCase):
    """
    Tests for L{SmarthostCourier}, with C{mx.example.com} as the relay.
    """

    def setUp(self) -> None:
        super().setUp()
        self.relay = Relay(Domain(MX), ADDRESS_TYPES, secure=True)
        self.settings = ClientSettings(
            "us.example", TRUST, TLSMode.REQUIRED, (MX,), enforcePKIX=True
        )

    def dialRelay(self, ip: str) -> Deferred[ClientSession]:
        return self.dialer.dial(ip, SMTP, self.settings)

    def attempt(
        self, *parcels: BatchMessage, **choices: object
    ) -> Deferred[tuple[Result, ...]]:
        courier = SmarthostCourier(
            self.resolver, self.relay, self.dialRelay, self.release
        )
        verifyObject(ICourier, courier)
        attempt = courier.deliver(self.batch(*parcels, **choices), self.recorder)
        self.network.flush()
        return attempt

    def test_delivered(self) -> None:
        """
        Mail for any domain goes to the relay, over TLS; neither the domain's DNS nor
        MTA-STS is looked up, and no outcome is recorded.
        """
        postbox = AcceptingDelivery({OTHER: Reply(550, "5.1.1", "who?")})
        self.network.answer(IP4, postbox.server(self.clock, self.goodContext()))
        results = self.deliver(
            self.batchMessage(ELSEWHERE, OTHER), destination="elsewhere.example"
        )
        self.assertResults(
            results,
            (ELSEWHERE, DeliveryStatus.DELIVERED, "2.0.0"),
            (OTHER, DeliveryStatus.PERMANENT, "5.1.1"),
        )
        ((incoming, message),) = postbox.received
        self.assertEqual((incoming.recipients, message), ((ELSEWHERE,), MESSAGE))
        self.assertEqual(self.policies.asked, [])
        self.assertEqual(self.observer.outcomes, [])
        self.assertEqual({name for name, _ in self.resolver.asked}, {MX})

    def test_enforced(self) -> None:
        """
        A relay with an invalid certificate gets neither mail nor password.
        """
        self.settings = replace(self.settings, credentials=Credentials("me", "secret"))
        for identity in (selfSigned(MX), good("other.example.com")):
            server = self.serve(identity.context())
            self.assertDelayed(self.deliver(), "4.7.5")
            self.assertNotIn(b"MAIL", server.heard)
            self.assertNotIn(b"AUTH", server.heard)

    def test_noTLS(self) -> None:
        """
        Neither does one without TLS, and there is no plaintext.
        """
        server = self.serve(None, self.server())
        self.assertDelayed(self.deliver(), "4.7.5")
        self.assertNotIn(b"MAIL", server.heard)
        self.assertEqual(self.network.dialed, [IP4])

    def test_immediate(self) -> None:
        """
        RFC 8314: or TLS from the beginning.
        """
        self.settings = replace(self.settings, mode=TLSMode.IMMEDIATE)
        server = self.serve(self.goodContext(), immediate=True)
        self.assertDelivered(self.deliver())
        self.assertTrue(server.heard.startswith(b"<TLS>"))

    def test_login(self) -> None:
        """
        The password is sent over TLS only (RFC 4954 4).
        """
        self.settings = replace(self.settings, credentials=Credentials("me", "secret"))
        offers = (*EXTENSIONS, "AUTH PLAIN")
        server = self.serve(
            self.goodContext(), extensions=offers, replies={"AUTH": "235 hello"}
        )
        self.assertDelivered(self.deliver())
        before, _, behind = server.heard.partition(b"<TLS>")
        self.assertNotIn(b"AUTH", before)
        self.assertIn(b"AUTH PLAIN", behind)

    def test_loginInPlaintext(self) -> None:
        """
        Without TLS in the configuration, the password isn't sent either.
        """
        self.settings = replace(
            self.settings, mode=TLSMode.SKIP, credentials=Credentials("me", "secret")
        )
        server = self.serve(extensions=("AUTH PLAIN",))
        self.assertDelayed(self.deliver(), "4.4.2")
        self.assertNotIn(b"AUTH", server.heard)

    def test_wrongPassword(self) -> None:
        """
        A failed login at the relay is temporary: it is up to the operator, and mail
        isn't returned for it.
        """
        self.settings = replace(self.settings, credentials=Credentials("me", "wrong"))
        self.serve(
            self.goodContext(),
            extensions=("AUTH PLAIN",),
            replies={"AUTH": "535 5.7.8 no"},
        )
        (result,) = self.deliver()
        self.assertEqual(
            (result.ending, result.status, result.code),
            (DeliveryStatus.TEMPORARY, "4.7.8", 535),
        )

    def test_requireTLS(self) -> None:
        """
        RFC 8689 4.2.1: REQUIRETLS is passed to a relay that supports it; mail fails
        with one that doesn't.
        """
        server = self.serve(self.goodContext())
        self.assertDelivered(self.deliver(requireTLS=True))
        self.assertIn("REQUIRETLS", server.commands[4])
        server = self.serve(self.goodContext(), extensions=())
        results = self.deliver(requireTLS=True)
        self.assertResults(results, (USER, DeliveryStatus.PERMANENT, "5.7.30"))
        self.assertNotIn(b"MAIL", server.heard)

    def test_requireTLSInsecure(self) -> None:
        """
        An unauthenticated relay isn't even connected to.
        """
        self.relay = replace(self.relay, secure=False)
        results = self.deliver(requireTLS=True)
        self.assertResults(results, (USER, DeliveryStatus.PERMANENT, "5.7.30"))
        self.assertEqual(self.network.dialed, [])

    def test_addresses(self) -> None:
        """
        The next address is tried if the first one doesn't answer; two of each family.
        """
        self.resolver.put(MX, RRType.AAAA, IP6)
        self.resolver.put(MX, RRType.A, "192.0.2.11", "192.0.2.12", IP4)
        self.assertDelayed(self.deliver(), "4.4.1")
        self.assertEqual(self.network.dialed, [IP6, "192.0.2.11", "192.0.2.12"])
        self.serve(self.goodContext(), ip="192.0.2.12")
        self.assertDelivered(self.deliver())

    def test_nowhere(self) -> None:
        """
        A relay that can't be found is no reason to give up.
        """
        self.resolver.put(MX, RRType.A)
        self.assertDelayed(self.deliver(), "4.4.4")

    def test_literal(self) -> None:
        """
        A relay known by its address is not looked up.
        """
        self.relay = replace(self.relay, host=parseRelayHost(IP4))
        self.serve(self.goodContext())
        (result,) = self.deliver()
        self.assertEqual(
            (result.ending, result.host), (DeliveryStatus.DELIVERED, f"[{IP4}]")
        )
        self.assertEqual(self.resolver.asked, [])

    def test_limited(self) -> None:
        """
        RFC 9422 MAILMAX: messages beyond the limit use another connection.
        """
        postbox = AcceptingDelivery()
        build = postbox.server(self.clock, self.goodContext(), transactions=1)
        self.network.answer(IP4, build)
        self.assertDelivered(
            self.deliver(self.batchMessage(), self.batchMessage(OTHER, messageID="m2"))
        )
        self.assertEqual(len(postbox.received), 2)

    def test_cancelled(self) -> None:
        """
        Cancellation aborts the connection; accepted messages stay delivered.
        """
        self.serve(self.goodContext(), replies={"END": ""})
        attempt = self.attempt()
        attempt.cancel()
        self.clock.advance(FINISH_TIMEOUT)
        self.assertDelayed(self.successResultOf(attempt), "4.4.2")
        self.assertTidy()
        self.serve(self.goodContext(), replies={"END": ["250 ok", ""]})
        attempt = self.attempt(
            self.batchMessage(), self.batchMessage(OTHER, messageID="m2")
        )
        attempt.cancel()
        self.clock.advance(FINISH_TIMEOUT)
        self.assertResults(
            self.successResultOf(attempt),
            (USER, DeliveryStatus.DELIVERED, "2.0.0"),
            (OTHER, DeliveryStatus.TEMPORARY, "4.4.2"),
        )
        self.assertTidy()
        self.assertEqual(len(self.released), 2)
