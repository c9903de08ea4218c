# -*- test-case-name: tests.app.test_mail -*-
"""
Builds the parts of the server that move mail, on L{Components}. No decisions.

L{Transports} and L{makeQueue} build outgoing delivery; L{MailboxStores} and
L{InboundServices} build reception.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.app.build import FAMILIES, Components
from moxtls.app.process import jitter, newID
from moxtls.authentication.check import WORKER_TIMEOUT, SignatureVerifier
from moxtls.config import Config, RelayTLS, lmtpAddress
from moxtls.delivery.attempt import DirectCourier
from moxtls.delivery.local import LocalCourier
from moxtls.delivery.relay import Relay, SmarthostCourier, parseRelayHost
from moxtls.dmarc.evaluation import EvaluationRecorder
from moxtls.dmarc.failurereporter import FailureReportTracker
from moxtls.domain import Address, Domain, InvalidDomain, parseHost
from moxtls.interfaces import ICourier, IMailbox, IQueue, IVerdictObserver
from moxtls.mailbox.lmtp import LMTPStore, lmtpEndpoint
from moxtls.mailbox.maildir import MAX_SILENCE, MailStore, ProcessWriter, ThreadWriter
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.queue.executor import SpoolExecutor
from moxtls.queue.schedule import GroupLimits, RetrySchedule
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.types import Batch, ReportKind
from moxtls.reception.acceptor import LocalDomains, Reception
from moxtls.reception.delivery import (
    HistoryRecorder,
    MailboxDelivery,
    VerdictDispatcher,
)
from moxtls.reception.recipients import Directory
from moxtls.reception.reportaddresses import ReportAddresses
from moxtls.reception.reports import MailedReports
from moxtls.reception.submission import Submission
from moxtls.reporting.destinations import bounceMailbox
from moxtls.reporting.handover import HTTPSCourier, ReportDeliveryTracker
from moxtls.smtp.client.connection import ClientSettings
from moxtls.smtp.server.interfaces import IMessageDelivery
from moxtls.smtp.types import Credentials, TLSMode
from moxtls.workers.process import Worker

RELAY_MODES = {
    RelayTLS.NONE: TLSMode.SKIP,
    RelayTLS.STARTTLS: TLSMode.REQUIRED,
    RelayTLS.IMMEDIATE: TLSMode.IMMEDIATE,
}


class Transports:
    """
    The couriers of all transports.
    """

    def __init__(
        self,
        base: Components,
        mailboxStores: MailboxStores,
        reports: MailedReports | None = None,
    ) -> None:
        """
        @param reports: Takes in reports of this host about its own domains; C{None} if
            they are only delivered.
        """
        config = base.configFiles.config
        self._base = base
        self._families = FAMILIES[config.delivery.families]
        direct = DirectCourier(base.deliveryContext(base.outcomes))
        self._https = HTTPSCourier(base.clock, base.https)
        self._isLocal = mailboxStores.directory.isLocal
        self._local = LocalCourier(
            base.reactor,
            mailboxStores.directory.find,
            mailboxStores.mailboxOf,
            None if reports is None else reports.takeOwn,
        )
        self._transports: dict[str, ICourier] = {"direct": direct}
        for name in config.transports:
            self._transports[name] = self._smarthost(name)
        self._routes = {
            Domain.parse(domain): transport
            for domain, transport in config.delivery.routes.items()
        }

    def _smarthost(self, name: str) -> ICourier:
        base, relay = self._base, self._base.configFiles.config.transports[name]
        host = parseRelayHost(relay.host)
        credentials = None
        if relay.user:
            credentials = Credentials(relay.user, base.configFiles.password(name))
        settings = ClientSettings(
            base.configFiles.config.hostname.ascii,
            base.trust,
            RELAY_MODES[relay.tls],
            (str(host) if isinstance(host, Domain) else host.ip,),
            enforcePKIX=not relay.insecure,
            credentials=credentials,
        )
        secure = relay.tls is not RelayTLS.NONE and not relay.insecure
        return SmarthostCourier(
            base.resolver,
            Relay(host, self._families, secure),
            lambda ip: base.dialer.dial(ip, relay.port, settings),
            base.dialer.release,
        )

    def route(self, batch: Batch) -> ICourier:
        """
        Choose the courier for a batch.
        """
        if batch.destination.startswith("https:"):
            return self._https
        try:
            domain = parseHost(batch.destination)
        except InvalidDomain:
            return self._transports["direct"]
        if self._isLocal(domain):
            return self._local
        default = self._base.configFiles.config.delivery.transport
        name = (
            self._routes.get(domain, default) if isinstance(domain, Domain) else default
        )
        return self._transports[name]


def makeQueue(
    base: Components,
    spool: SpoolExecutor,
    mailboxStores: MailboxStores,
    reports: MailedReports,
) -> QueueService:
    """
    The queue service, with all its couriers.
    """
    config = base.configFiles.config
    hostname = config.hostname.ascii
    outgoing = Transports(base, mailboxStores, reports)
    ledger = base.ledger
    observers = (
        ReportDeliveryTracker(base.clock, ledger.archive, ledger.suppressions),
        FailureReportTracker(base.clock, ledger.suppressions),
    )

    def quietMailbox(kind: ReportKind) -> str:
        return bounceMailbox(kind, config.postmaster.mailbox)

    return QueueService(
        base.reactor,
        spool,
        outgoing.route,
        Settlement(hostname, newID),
        ReportStatusNotifier(base.reactor, observers, mailboxStores.host, quietMailbox),
        newID,
        jitter,
        GroupLimits(
            maxConcurrent=config.delivery.maxConnections,
            maxPerDestination=config.delivery.maxPerDestination,
            schedule=RetrySchedule(
                tuple(map(float, config.delivery.retrySchedule)),
                config.delivery.maxAge,
                config.delivery.maxBriefAge,
                config.delivery.noticeAfter,
            ),
        ),
    )


class MailboxStores:
    """
    The directory of local addresses, and the mailboxes of all accounts.
    """

    def __init__(self, base: Components) -> None:
        configFiles, config = base.configFiles, base.configFiles.config
        self.directory = Directory(config)
        quotas = {name: each.quota for name, each in config.accounts.items()}
        self._files = MailStore(
            base.reactor,
            configFiles.mail,
            configFiles.accounts,
            {} if config.lmtp else quotas,
            config.hostname.ascii,
            newID,
            ProcessWriter(
                Worker(base.reactor, "mailboxes", MAX_SILENCE, base.durations),
                ThreadWriter(base.reactor),
            ),
        )
        self._remote: LMTPStore | None = None
        if config.lmtp is not None:
            address = lmtpAddress(config.lmtp.address)
            assert address is not None, "the configuration is checked"
            self._remote = LMTPStore(
                base.reactor,
                lmtpEndpoint(base.reactor, address),
                config.hostname,
                config.lmtp.separator,
            )

    @property
    def host(self) -> IMailbox:
        """
        The mailboxes of this host itself.
        """
        return self.mailboxOf(HOST_ACCOUNT)

    def mailboxOf(self, account: str) -> IMailbox:
        """
        The mailbox store of an account.

        @raise KeyError: There is no such account.
        """
        if self._remote is not None and account != HOST_ACCOUNT:
            return self._remote.mailboxOf(account)
        return self._files.mailboxOf(account)

    def removeStaleTemp(self) -> Deferred[None]:
        """
        Remove incomplete files of an earlier process.
        """
        return self._files.removeStaleTemp()

    def stop(self) -> Deferred[None]:
        """
        Stop; fires when all pending writes have ended.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._remote is not None:
            await self._remote.stop()
        await self._files.stop()


class InboundServices:
    """
    The factories and services of all listeners.
    """

    def __init__(
        self,
        base: Components,
        mailboxStores: MailboxStores,
        queue: IQueue,
        reports: MailedReports,
        observers: tuple[IVerdictObserver, ...] = (),
    ) -> None:
        """
        @param reports: Takes in reports in received mail.
        @param observers: Further observers of verdicts, besides those that report
            them.
        """
        config, ledger = base.configFiles.config, base.ledger
        self._base = base
        self._queue = queue
        silent = _silent(config)
        self._recorder = EvaluationRecorder(
            base.clock, ledger.evaluations, not config.noOutgoingDMARCReports, silent
        )
        self._failures = base.failures(queue, silent)
        self._dispatcher = VerdictDispatcher(
            base.clock,
            (self._recorder, self._failures, *observers),
            ledger.history,
            config.reporting.failures.enabled,
        )
        self._historyRecorder = HistoryRecorder(
            mailboxStores.directory, config.accounts, self._dispatcher
        )
        self._reportAddresses = ReportAddresses(
            base.durations,
            base.resolver,
            (config.hostname, *config.domains),
            map(Address.parse, config.reporting.addresses),
            mailboxStores.directory.equivalents,
            base.localPolicy.suffixes,
        )
        self._localDomains = self._makeLocalDomains(mailboxStores, reports)
        self._delivery = MailboxDelivery(mailboxStores.mailboxOf, queue)
        worker = Worker(base.reactor, "signatures", WORKER_TIMEOUT, base.durations)
        self._verifier = SignatureVerifier(worker, base.inThread)
        self._checks = base.checks(self._verifier)

    def _makeLocalDomains(
        self, mailboxStores: MailboxStores, reports: MailedReports
    ) -> LocalDomains:
        base, config = self._base, self._base.configFiles.config
        tracker = ReportDeliveryTracker(
            base.clock, base.ledger.archive, base.ledger.suppressions
        )
        return LocalDomains(
            config.hostname.ascii,
            mailboxStores.directory,
            config.accounts,
            mailboxStores.mailboxOf,
            config.postmaster.mailbox,
            tracker.bounced,
            self._reportAddresses.include,
            reports,
        )

    def reception(self, isChecked: bool) -> IMessageDelivery:
        """
        The delivery of a listener that receives mail for local recipients.
        """
        return Reception(
            self._base.reactor,
            self._localDomains,
            self._delivery,
            self._dispatcher,
            self._checks if isChecked else None,
            newID,
            self._base.configFiles.data,
        )

    def submission(self) -> IMessageDelivery:
        """
        The delivery of a listener that receives mail from local users.
        """
        return Submission(
            self._base.reactor,
            self._queue,
            self._localDomains.hostname,
            newID,
            self._base.configFiles.data,
            self._historyRecorder.submitted,
        )

    def recorded(self) -> Deferred[None]:
        """
        Fires when all verdicts given so far are in the ledger.
        """
        self._recorder.flush()
        return Deferred.fromCoroutine(self._dispatcher.finished())

    def stop(self) -> Deferred[None]:
        """
        Stop; fires when all verdicts on received mail are recorded.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._verifier.stop()
        await self._reportAddresses.stop()
        await self._failures.stop()
        await self.recorded()
        await self._recorder.stop()


def _silent(config: Config) -> frozenset[Domain]:
    """
    The local domains mail to which is not reported.
    """
    domains = config.domains.items()
    return frozenset(name for name, local in domains if local.noOutgoingDMARCReports)
