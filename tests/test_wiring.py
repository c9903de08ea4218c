"""
Tests for L{moxtls.wiring}.
"""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Address
from moxtls.interfaces import ICourier
from moxtls.mailbox.maildir import Maildir
from moxtls.outbound.delivery import DirectCourier
from moxtls.outbound.smarthost import SmarthostCourier
from moxtls.queue.local import LocalCourier
from moxtls.queue.values import Batch, destinationOf
from moxtls.reporting.post import HTTPSCourier
from moxtls.store.ledger import Ledger
from moxtls.wiring import Base, IReactor, Outgoing, isPostmaster, mailboxFor, newID
from tests.queue.killing import quickDirectory
from tests.sites import writeSite

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
    Tests for L{Outgoing.route}.
    """

    def outgoing(self, text: str) -> Outgoing:
        folder = quickDirectory(self)
        site = writeSite(folder, text)
        site.makeFolders()
        ledger = Ledger(None, site.ledgerURL)
        self.addCleanup(ledger.stop)
        reactor: IReactor = MemoryReactorClock()  # type: ignore[assignment]
        base = Base(reactor, site, ledger, reactor)
        return Outgoing(base, Maildir(reactor, site.mail, "mail.example.org", newID))

    def route(self, outgoing: Outgoing, recipient: str) -> ICourier:
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
        Mail for this host stays here, even if the rest goes to a smarthost.
        """
        for text in ("", '[Delivery]\nTransport = "relay"\n' + RELAYS):
            courier = self.route(self.outgoing(text), "postmaster@Mail.Example.ORG")
            self.assertIsInstance(courier, LocalCourier)

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


class MailboxTests(SynchronousTestCase):
    """
    Tests for L{mailboxFor}.
    """

    def mailbox(self, text: str, address: str) -> str | None:
        site = writeSite(quickDirectory(self), text)
        return mailboxFor(site.config, Address.parse(address).localPart)

    def test_postmaster(self) -> None:
        """
        The postmaster is there in any case (RFC 5321 4.5.1), and with what
        envelope senders of reports have behind a plus.
        """
        for local in ("postmaster", "PostMaster", "postmaster+0a1b2c"):
            self.assertTrue(isPostmaster(local))
            found = self.mailbox("", f"{local}@mail.example.org")
            self.assertEqual(found, "Postmaster")
        self.assertFalse(isPostmaster("postmaster2"))

    def test_reports(self) -> None:
        """
        TLS reports of others have an address only if C{HostTLSRPT} is there.
        """
        address = "TLSreports@mail.example.org"
        self.assertIsNone(self.mailbox("", address))
        text = '[HostTLSRPT]\nMailbox = "Reports/TLS"\n'
        self.assertEqual(self.mailbox(text, address), "Reports/TLS")
        text = '[HostTLSRPT]\nLocalpart = "rpt"\n'
        self.assertIsNone(self.mailbox(text, address))

    def test_nobody(self) -> None:
        """
        Nobody else lives here.
        """
        self.assertIsNone(self.mailbox("[HostTLSRPT]\n", "root@mail.example.org"))


class NewIDTests(SynchronousTestCase):
    """
    Tests for L{newID}.
    """

    def test_fit(self) -> None:
        """
        Ids are never the same, can't be guessed, and have nothing in them
        that a file name or a local part can't have.
        """
        ids = {newID() for _ in range(1000)}
        self.assertEqual(len(ids), 1000)
        for each in ids:
            self.assertRegex(each, r"\A[0-9a-f]{24}\Z")
