"""
Tests for L{moxtls.app.mail}; its services are tested in L{tests.app.test_service}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.mail import MailboxStores, Transports
from moxtls.app.process import newID
from moxtls.delivery.attempt import DirectCourier
from moxtls.delivery.local import LocalCourier
from moxtls.delivery.relay import SmarthostCourier
from moxtls.interfaces import ICourier
from moxtls.mailbox.lmtp import LMTPMailbox
from moxtls.mailbox.maildir import Maildir
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.queue.types import Batch, destinationOf
from moxtls.reporting.handover import HTTPSCourier
from tests.configs import makeComponents

ACCOUNT = """
[Domains."example.com"]
[Accounts.anna.Destinations]
"anna@example.com" = {}
"""


class MailboxStoresTests(SynchronousTestCase):
    """
    Tests for L{MailboxStores}.
    """

    def mailboxStores(self, text: str) -> MailboxStores:
        mailboxStores = MailboxStores(makeComponents(self, text))
        self.addCleanup(mailboxStores.stop)
        return mailboxStores

    def test_files(self) -> None:
        """
        Only accounts and the host have Maildirs.
        """
        mailboxStores = self.mailboxStores(ACCOUNT)
        self.assertIsInstance(mailboxStores.mailboxOf("anna"), Maildir)
        self.assertIs(mailboxStores.host, mailboxStores.mailboxOf(HOST_ACCOUNT))
        self.assertRaises(KeyError, mailboxStores.mailboxOf, "bob")

    def test_remote(self) -> None:
        """
        With LMTP, another program keeps the mail of accounts; the host's own mail
        stays in a Maildir.
        """
        text = '[LMTP]\nAddress = "/run/lmtp"\n' + ACCOUNT
        mailboxStores = self.mailboxStores(text)
        self.assertIsInstance(mailboxStores.mailboxOf("anna"), LMTPMailbox)
        self.assertIsInstance(mailboxStores.host, Maildir)


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
        base = makeComponents(self, text)
        mailboxStores = MailboxStores(base)
        self.addCleanup(mailboxStores.stop)
        return Transports(base, mailboxStores)

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
        Mail for this host and its domains is stored locally, even with a smarthost.
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
        Reports to HTTPS URIs are uploaded (RFC 8460 5.4), never sent to a smarthost.
        """
        outgoing = self.outgoing('[Delivery]\nTransport = "relay"\n' + RELAYS)
        courier = self.route(outgoing, "https://reports.example/tls")
        self.assertIsInstance(courier, HTTPSCourier)

    def test_smarthost(self) -> None:
        """
        A smarthost gets all mail, to address literals too, except for domains with a
        route of their own.
        """
        outgoing = self.outgoing('[Delivery]\nTransport = "relay"\n' + ROUTES + RELAYS)
        relay = self.route(outgoing, "x@a.example")
        self.assertIsInstance(relay, SmarthostCourier)
        self.assertIs(self.route(outgoing, "x@[192.0.2.1]"), relay)
        direct = self.route(outgoing, "x@direct.example")
        self.assertIsInstance(direct, DirectCourier)

    def test_domains(self) -> None:
        """
        A route applies to one domain, in any spelling, and not to its subdomains,
        which need routes of their own.
        """
        outgoing = self.outgoing(ROUTES + RELAYS)
        for recipient in ("x@xn--bcher-kva.example", "x@B\u00dcCHER.example"):
            self.assertIsInstance(self.route(outgoing, recipient), SmarthostCourier)
        below = self.route(outgoing, "x@sub.xn--bcher-kva.example")
        self.assertIsInstance(below, DirectCourier)


class NewIDTests(SynchronousTestCase):
    """
    Tests for L{newID}.
    """

    def test_fit(self) -> None:
        """
        IDs are unique, unguessable, and valid in file names and local parts.
        """
        ids = {newID() for _ in range(1000)}
        self.assertEqual(len(ids), 1000)
        for each in ids:
            self.assertRegex(each, r"\A[0-9a-f]{24}\Z")
