"""
Tests for L{moxtls.app.build}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import Components, IReactor, MailboxStores, Transports
from moxtls.delivery.attempt import DirectCourier
from moxtls.delivery.local import LocalCourier
from moxtls.delivery.relay import SmarthostCourier
from moxtls.interfaces import ICourier
from moxtls.ledger.ledger import Ledger
from moxtls.queue.types import Batch, destinationOf
from moxtls.reporting.httpsupload import HTTPSCourier
from tests.queue.killing import quickDirectory
from tests.sites import PatientReactor, writeSite

RELAYS = """
[Transports.relay]
Host = "relay.example"
[Transports.other]
Host = "192.0.2.1"
TLS = "none"
"""
ROUTES = """
[Delivery.Routes]
"b\u00fccher.example" = "other"
"direct.example" = "direct"
"""


class RouteTests(SynchronousTestCase):
    """
    Tests for L{Transports.route}.
    """

    def outgoing(self, text: str) -> Transports:
        folder = quickDirectory(self)
        site = writeSite(folder, text)
        site.makeFolders()
        ledger = Ledger(None, site.ledgerURL)
        self.addCleanup(ledger.stop)
        reactor: IReactor = PatientReactor()  # type: ignore[assignment]
        base = Components(reactor, site, ledger, reactor)
        residence = MailboxStores(base)
        self.addCleanup(residence.stop)
        return Transports(base, residence)

    def route(self, outgoing: Transports, recipient: str) -> ICourier:
        return outgoing.route(Batch(destinationOf(recipient), ()))

    def test_direct(self) -> None:
        """
        By default mail goes to the hosts of its recipient's domain, also to
        an address literal (RFC 5321 4.1.3).
        """
        outgoing = self.outgoing("")
        for recipient in ("x@a.example", "x@[192.0.2.1]", "x@[IPv6:2001:db8::1]"):
            self.assertIsInstance(self.route(outgoing, recipient), DirectCourier)

    def test_local(self) -> None:
        """
        Mail for this host and its domains stays here, even if the rest goes to
        a smarthost.
        """
        domains = '[Domains."example.com"]\n'
        for text in ("", '[Delivery]\nTransport = "relay"\n' + RELAYS):
            outgoing = self.outgoing(domains + text)
            for to in ("postmaster@Mail.Example.ORG", "x@Example.com"):
                self.assertIsInstance(self.route(outgoing, to), LocalCourier)
            below = self.route(outgoing, "x@sub.example.com")
            self.assertNotIsInstance(below, LocalCourier)

    def test_https(self) -> None:
        """
        Reports are posted where a URI says so (RFC 8460 5.4), never given to
        a smarthost.
        """
        outgoing = self.outgoing('[Delivery]\nTransport = "relay"\n' + RELAYS)
        courier = self.route(outgoing, "https://reports.example/tls")
        self.assertIsInstance(courier, HTTPSCourier)

    def test_smarthost(self) -> None:
        """
        A smarthost takes everything, literals too, but what has a route of
        its own.
        """
        outgoing = self.outgoing('[Delivery]\nTransport = "relay"\n' + ROUTES + RELAYS)
        relay = self.route(outgoing, "x@a.example")
        self.assertIsInstance(relay, SmarthostCourier)
        self.assertIs(self.route(outgoing, "x@[192.0.2.1]"), relay)
        direct = self.route(outgoing, "x@direct.example")
        self.assertIsInstance(direct, DirectCourier)

    def test_domains(self) -> None:
        """
        A route is for one domain, in whichever spelling, and not for those
        below it: who wants them says so.
        """
        outgoing = self.outgoing(ROUTES + RELAYS)
        for recipient in ("x@xn--bcher-kva.example", "x@B\u00dcCHER.example"):
            self.assertIsInstance(self.route(outgoing, recipient), SmarthostCourier)
        below = self.route(outgoing, "x@sub.xn--bcher-kva.example")
        self.assertIsInstance(below, DirectCourier)
