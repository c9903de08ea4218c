"""
Tests for L{moxtls.app.build}; what comes through it is shown by
L{tests.test_server}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import Components, IReactor, MailboxStores
from moxtls.dmarc.types import DMARCPolicy
from moxtls.ledger.ledger import Ledger
from moxtls.mailbox.lmtp import LMTPMailbox
from moxtls.mailbox.maildir import Maildir
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.queue.memory import MemoryQueue
from tests.queue.killing import quickDirectory
from tests.sites import PatientReactor, writeSite

ACCOUNT = """
[Domains."example.com"]
[Accounts.anna.Destinations]
"anna@example.com" = {}
"""


class ResidenceTests(SynchronousTestCase):
    """
    Tests for L{MailboxStores}.
    """

    def base(self, text: str) -> Components:
        site = writeSite(quickDirectory(self), text)
        site.makeFolders()
        ledger = Ledger(None, site.ledgerURL)
        self.addCleanup(ledger.stop)
        reactor: IReactor = PatientReactor()  # type: ignore[assignment]
        return Components(reactor, site, ledger, reactor)

    def residence(self, text: str) -> MailboxStores:
        residence = MailboxStores(self.base(text))
        self.addCleanup(residence.stop)
        return residence

    def test_files(self) -> None:
        """
        Accounts and the host have Maildirs; nobody else has.
        """
        residence = self.residence(ACCOUNT)
        self.assertIsInstance(residence.mailboxOf("anna"), Maildir)
        self.assertIs(residence.host, residence.mailboxOf(HOST_ACCOUNT))
        self.assertRaises(KeyError, residence.mailboxOf, "bob")

    def test_remote(self) -> None:
        """
        Another program may keep the mail of accounts; what is for the host
        stays here.
        """
        text = '[LMTP]\nAddress = "/run/lmtp"\n' + ACCOUNT
        residence = self.residence(text)
        self.assertIsInstance(residence.mailboxOf("anna"), LMTPMailbox)
        self.assertIsInstance(residence.host, Maildir)

    def test_practice(self) -> None:
        """
        Checks follow the configuration.
        """
        base = self.base('[DMARC]\nEnforcement = "none"\n')
        self.assertEqual(base.checks().practice.enforcement, DMARCPolicy.NONE)

    def test_failures(self) -> None:
        """
        Reports on single failures are off unless they are wanted (RFC 9991 7).
        """
        for text, enabled in (("", False), ("Enabled = true\n", True)):
            base = self.base(f"[Reporting.Failures]\n{text}")
            reporter = base.failures(MemoryQueue(Clock(), str), frozenset())
            settings = reporter._settings
            self.assertEqual(settings.enabled, enabled)
            self.assertEqual(bool(settings.secret), enabled)
