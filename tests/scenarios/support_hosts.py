"""
Hosts that send each other mail, and reports about it, over a network in
memory and with real TLS.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from moxtls.authentication.check import MessageAuthenticator
from moxtls.authentication.dkim.sign import Signer, loadKey
from moxtls.config import parse
from moxtls.dates import DAY, MINUTE, midnight
from moxtls.delivery.attempt import DeliveryContext, DirectCourier
from moxtls.delivery.sessions import Dialer
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IMailbox, IVerdictObserver
from moxtls.ledger.ledger import MemoryLedger
from moxtls.mailbox.memory import MemoryMailbox
from moxtls.mailbox.names import HOST_ACCOUNT, MailboxRefused
from moxtls.mtasts.cache import PolicyCache
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.types import Envelope
from moxtls.reception.acceptor import LocalDomains, Reception
from moxtls.reception.delivery import MailboxDelivery, VerdictDispatcher
from moxtls.reception.recipients import Directory
from moxtls.reception.reportaddresses import ReportAddresses
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.destinations import bounceMailbox
from moxtls.reporting.handover import QueueSubmitter, ReportDeliveryTracker
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from moxtls.reporting.types import OutgoingReport
from moxtls.smtp.client.connection import ClientSettings
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.smtp.server.state import ServerSettings
from moxtls.tlsrpt.parse import ReceivedTLSReport
from moxtls.tlsrpt.recorder import OutcomeRecorder
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource
from tests.certificates import root, selfSigned, trusting
from tests.mtasts.fakes import FakeFetcher
from tests.network import SMTP, Network, Serving
from tests.reporting.support import ED25519_PEM, ids
from tests.reporting.test_destinations import DSN
from tests.reports import readTLSReport
from tests.scenarios.support import publishRecord

STEP = 30 * MINUTE
TRUST = trusting(root())
POSTMASTER = "Postmaster"
CONFIG = """
Hostname = "{host}"
[Domains."{domain}"]
[Accounts.user.Destinations]
"user@{domain}" = {{}}
[Accounts.tls.Destinations]
"tls@{domain}" = {{}}
"""


class Internet:
    """
    A network, a DNS, and the time.
    """

    def __init__(self, first: date) -> None:
        self.clock = Clock()
        self.clock.advance(midnight(first))
        self.network = Network(self.clock)
        self.resolver = MemoryResolver()

    def advanceTime(self, seconds: float) -> None:
        """
        Advance the clock, and flush the network after each step.
        """
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)
            self.network.flush()


class MailHost:
    """
    A host with all parts of moxtls that mail and reports pass; its domain has two
    addresses, C{user} and C{tls}, and requests reports at the latter. Its certificate
    is self-signed.

    @ivar refuses: True if the address for reports is refused at RCPT.
    @ivar bounces: True if reports are accepted, and bounced.
    @ivar received: Reports received.
    @cvar config: The host's configuration, for C{format}.
    """

    config = CONFIG

    def __init__(
        self, internet: Internet, domain: Domain, ip: str, folder: Path
    ) -> None:
        self.domain = domain
        self.hostname = Domain(f"mx.{domain}")
        self.ledger = MemoryLedger()
        self.mailbox = MemoryMailbox()
        self.refuses = self.bounces = False
        self.received: list[ReceivedTLSReport] = []
        self._internet = internet
        self._newID = ids()
        self._deliveryTracker = ReportDeliveryTracker(
            internet.clock, self.ledger.archive, self.ledger.suppressions
        )
        self.queue = self._queue(folder)
        self.service = self._reports()
        self._publish(ip)
        self._listen(ip)
        self.queue.startService()
        self.service.startService()

    def send(self, to: Domain) -> None:
        """
        Send mail to a user at C{to}.
        """
        envelope = Envelope(f"user@{self.domain}", (f"user@{to}",))
        self.queue.submit(envelope, [b"Subject: hello\r\n\r\nhello\r\n"])

    def stop(self) -> list[Deferred[None]]:
        return [self.service.stopService(), self.queue.stopService()]

    def sent(self) -> list[OutgoingReport]:
        """
        All reports that the host sent, in order.
        """
        found: list[tuple[OutgoingReport, ...]] = []
        self.ledger.archive.reports().addCallback(found.append)
        return list(reversed(found[0]))

    # --- out ------------------------------------------------------------------------

    def _queue(self, folder: Path) -> QueueService:
        clock, resolver = self._internet.clock, self._internet.resolver
        dialer = Dialer(clock, self._internet.network.endpoint)

        def dial(ip: str, settings: ClientSettings) -> Deferred[ClientSession]:
            return dialer.dial(ip, SMTP, settings)

        policies = PolicyCache(clock, resolver, FakeFetcher(), self.ledger.policies)
        recorder = OutcomeRecorder(clock, self.ledger.outcomes)
        context = DeliveryContext(
            resolver,
            policies,
            recorder,
            dial,
            dialer.release,
            ClientSettings(self.hostname.ascii, TRUST),
            SMTP,
            (RRType.A,),
            lambda: 0.5,
        )
        courier = DirectCourier(context)
        return QueueService(
            clock,
            InlineSpoolExecutor(folder),
            lambda batch: courier,
            Settlement(self.hostname.ascii, self._newID),
            ReportStatusNotifier(
                clock,
                [self._deliveryTracker],
                self.mailbox,
                lambda kind: bounceMailbox(kind, POSTMASTER),
            ),
            self._newID,
            lambda: 0.5,
            GroupLimits(),
        )

    def _reports(self) -> ReportService:
        clock = self._internet.clock
        reporting = TLSReporting(self.domain)
        signer = Signer(self.domain, "e", loadKey(ED25519_PEM))
        return ReportService(
            clock,
            ReportPipeline(
                TLSReportSource(
                    self._internet.resolver,
                    self.ledger.outcomes,
                    reporting,
                    self.ledger.identifier,
                ),
                self.ledger.archive,
                self.ledger.leases,
                ReportComposer(
                    clock,
                    self.ledger.suppressions,
                    ReportIdentity(self.hostname, (signer,)),
                    self._newID,
                ),
                QueueSubmitter(self.queue),
            ),
            lambda: 0.5,
            ReportOptions(str(self.hostname), kept=365 * DAY),
        )

    # --- in -------------------------------------------------------------------------

    def _publish(self, ip: str) -> None:
        resolver = self._internet.resolver
        resolver.put(str(self.domain), RRType.MX, f"10 {self.hostname}")
        resolver.put(str(self.hostname), RRType.A, ip)
        publishRecord(resolver, self.domain, f"mailto:tls@{self.domain}")

    def _listen(self, ip: str) -> None:
        name = self.hostname.ascii
        config = parse(self.config.format(host=name, domain=self.domain), "moxtls.toml")
        directory = Directory(config)
        localDomains = LocalDomains(
            name,
            directory,
            config.accounts,
            self._mailboxOf,
            POSTMASTER,
            self._deliveryTracker.bounced,
            ReportAddresses(
                self._internet.clock,
                self._internet.resolver,
                config.domains,
                equivalents=directory.equivalents,
            ).include,
        )
        clock = self._internet.clock
        factory = SMTPServerFactory(
            clock,
            ListenerSettings(ServerSettings(name, starttls=True)),
            Reception(
                clock,
                localDomains,
                MailboxDelivery(self._mailboxOf, self.queue),
                VerdictDispatcher(clock, self.observers(), self.ledger.history),
                self.checks(),
                self._newID,
                Path(),
            ),
            Serving(selfSigned(name).context()),
        )
        self._internet.network.answer(ip, factory.buildProtocol)

    def observers(self) -> tuple[IVerdictObserver, ...]:
        """
        The observers of verdicts.
        """
        return ()

    def checks(self) -> MessageAuthenticator | None:
        """
        The authentication of incoming mail.
        """
        return None

    def _mailboxOf(self, account: str) -> IMailbox:
        return (
            self.mailbox if account == HOST_ACCOUNT else _AccountMailbox(self, account)
        )

    def arrived(self, account: str, message: bytes) -> Deferred[None]:
        """
        Called for each message delivered to an account.
        """
        return succeed(None) if account != "tls" else self.takeReport(message)

    def takeReport(self, message: bytes) -> Deferred[None]:
        """
        Called for each message delivered to the address for reports.
        """
        if self.refuses:
            return fail(MailboxRefused("there is nobody"))
        if self.bounces:
            sender = message.partition(b">")[0].rpartition(b"<")[2].decode()
            body = DSN % (b"failed", b"5.1.1")
            submitted = self.queue.submit(Envelope("", (sender,)), [body])
            return submitted.addCallback(lambda messageID: None)
        self.received.append(readTLSReport(message))
        return succeed(None)


@implementer(IMailbox)
class _AccountMailbox:
    """
    The mailbox of an account at a L{MailHost}.
    """

    def __init__(self, host: MailHost, name: str) -> None:
        self._host = host
        self._name = name

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        return self._host.arrived(self._name, b"".join(message))

    def hasRoom(self, size: int) -> Deferred[bool]:
        return succeed(True)
