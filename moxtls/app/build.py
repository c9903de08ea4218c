# -*- test-case-name: tests.app.test_build -*-
"""
Builds the object graph, in the order in which data flows. No decisions.

L{Components} are shared by the server and the commands. L{Transports} and L{makeQueue}
build outgoing delivery on them; L{MailboxStores} and L{InboundServices} build
reception.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from random import SystemRandom
from types import MappingProxyType
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)
from twisted.internet.threads import deferToThreadPool

from moxtls.app.configfiles import ConfigFiles
from moxtls.authentication.check import MessageAuthenticator, Offload
from moxtls.authentication.dkim.offload import TIMEOUT, SignatureVerifier
from moxtls.config import DMARC, Config, Families, RelayTLS
from moxtls.config.addresses import forwarders
from moxtls.dates import DAY
from moxtls.delivery.attempt import DeliveryContext, DirectCourier
from moxtls.delivery.connections import Dialer
from moxtls.delivery.local import LocalCourier
from moxtls.delivery.lookups import isLocalAddress
from moxtls.delivery.ownhosts import OwnHosts
from moxtls.delivery.relay import Relay, SmarthostCourier, parseRelayHost
from moxtls.dmarc.discovery import PublicSuffixes
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.evaluation import EvaluationRecorder
from moxtls.dmarc.failure import FailureReporting
from moxtls.dmarc.failurereporter import FailureReporter, FailureReportTracker
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.dns.resolver import Resolver
from moxtls.dns.service import ProbedResolver
from moxtls.dns.transport import DNSTransport
from moxtls.dns.types import RRType
from moxtls.domain import Address, Domain, InvalidDomain, parseHost
from moxtls.https import HTTPSClient
from moxtls.interfaces import (
    ICourier,
    IMailbox,
    IQueue,
    IReportSource,
    ISessionObserver,
    IVerdictObserver,
)
from moxtls.ledger.database import LedgerUnavailable
from moxtls.ledger.ledger import Ledger
from moxtls.mailbox.executor import MAX_SILENCE, ProcessWriter, ThreadWriter
from moxtls.mailbox.lmtp import LMTPStore, lmtpEndpoint
from moxtls.mailbox.maildir import MailStore
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.mtasts.cache import PolicyCache
from moxtls.mtasts.fetch import PolicyFetcher
from moxtls.mtasts.refresh import PolicyRefresher
from moxtls.queue.batches import GroupLimits
from moxtls.queue.reportstatus import ReportStatusNotifier
from moxtls.queue.retry import RetrySchedule
from moxtls.queue.service import QueueService
from moxtls.queue.settle import Settlement
from moxtls.queue.spool import SpoolExecutor, SpoolUnusable
from moxtls.queue.types import Batch, ReportKind
from moxtls.reception.acceptor import LocalDomains, Reception
from moxtls.reception.delivery import MailboxDelivery
from moxtls.reception.observers import HistoryRecorder, VerdictDispatcher
from moxtls.reception.recipients import Directory
from moxtls.reception.reportaddresses import ReportAddresses
from moxtls.reception.submission import Submission
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.handover import QueueSubmitter, ReportDeliveryTracker
from moxtls.reporting.httpsupload import HTTPSCourier
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from moxtls.reporting.suppression import bounceMailbox
from moxtls.smtp.client.session import ClientSettings, addressEndpoint
from moxtls.smtp.server.interfaces import IMessageDelivery
from moxtls.smtp.types import Credentials, TLSMode
from moxtls.tls.resulttype import certificateFailure
from moxtls.tlsrpt.recorder import OutcomeRecorder
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource
from moxtls.workers.process import IWorkerReactor, Worker

#: Seconds for which an unreachable host isn't dialed again.
HOST_PAUSE = 60.0

FAMILIES = {
    Families.BOTH: (RRType.AAAA, RRType.A),
    Families.IPV4: (RRType.A,),
    Families.IPV6: (RRType.AAAA,),
}


class IReactor(
    IWorkerReactor, IReactorTCP, IReactorSocket, IReactorFDSet, IReactorThreads
):
    """
    The reactor interfaces that the server needs.
    """


T = TypeVar("T")

jitter = SystemRandom().random


def newID() -> str:
    """
    A new identifier: unguessable, and valid as a file name and a local part.
    """
    return secrets.token_hex(12)


@contextmanager
def asConfigErrors(configFiles: ConfigFiles) -> Iterator[None]:
    """
    Convert errors of stores that can't be opened to configuration errors that name
    the responsible key.

    @raise InvalidConfig: Instead of the exceptions of the stores.
    """
    try:
        yield
    except LedgerUnavailable as error:
        key = "Ledger" if configFiles.config.ledger else "DataDirectory"
        raise configFiles.wrong("", key, "", str(error)) from None
    except SpoolUnusable as error:
        raise configFiles.wrong("", "DataDirectory", "", str(error)) from None


class Components:
    """
    The components shared by the server and the commands.

    @ivar clock: For dates of outcomes and reports. Timers always use the reactor.
    @ivar durations: For measuring durations.
    """

    def __init__(
        self,
        reactor: IReactor,
        configFiles: ConfigFiles,
        ledger: Ledger,
        clock: IReactorTime,
        durations: IReactorTime | None = None,
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.durations = durations or reactor
        self.configFiles = configFiles
        self.ledger = ledger
        self.trust = configFiles.trust()
        self.localPolicy = localPolicyOf(configFiles.config.dmarc)
        self.resolver = ProbedResolver(
            reactor, Resolver(reactor, configFiles.servers(), DNSTransport(reactor).ask)
        )
        port = configFiles.config.delivery.httpsPort
        self.https = HTTPSClient(reactor, reactor, self.resolver, self.trust, port)
        self.fetcher = PolicyFetcher(self.https, certificateFailure)
        self.policies = PolicyCache(
            reactor, self.resolver, self.fetcher, ledger.policies
        )
        self.refresher = PolicyRefresher(
            reactor, self.resolver, self.fetcher, ledger.policies, jitter
        )
        self.outcomes = OutcomeRecorder(
            clock, ledger.outcomes, not configFiles.config.noOutgoingTLSReports
        )
        self.dialer = Dialer(
            reactor,
            lambda ip, port: addressEndpoint(reactor, ip, port),
            pause=HOST_PAUSE,
        )

    def deliveryContext(self, observer: ISessionObserver) -> DeliveryContext:
        """
        The dependencies of direct delivery.
        """
        config = self.configFiles.config
        delivery = config.delivery
        return DeliveryContext(
            self.resolver,
            self.policies,
            observer,
            lambda ip, settings: self.dialer.dial(ip, delivery.port, settings),
            self.dialer.release,
            ClientSettings(config.hostname.ascii, self.trust),
            delivery.port,
            FAMILIES[delivery.families],
            jitter,
            self._ownHosts(),
        )

    def _ownHosts(self) -> OwnHosts | None:
        config = self.configFiles.config
        if config.delivery.allowOwnHosts:
            return None
        listening = chain.from_iterable(
            each.address
            for each in config.listeners.values()
            if each.port == config.delivery.port
        )
        return OwnHosts(config.hostname, frozenset(listening), isLocalAddress)

    def checks(self, offload: Offload | None = None) -> MessageAuthenticator:
        """
        The authenticator of received messages.

        @param offload: Runs CPU work; a thread if not given.
        """

        hostname = self.configFiles.config.hostname.ascii
        return MessageAuthenticator(
            self.reactor,
            self.resolver,
            self.localPolicy,
            hostname,
            offload or self.inThread,
            jitter,
        )

    def inThread(self, call: Callable[[], T]) -> Deferred[T]:
        """
        Run C{call} in a thread.

        @return: Fires with its result, or fails with its exception.
        """
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), call)

    def reports(
        self, queue: IQueue, kind: ReportKind = ReportKind.TLS
    ) -> ReportService:
        """
        The service that sends one kind of report.
        """
        config, ledger = self.configFiles.config, self.ledger
        isTLS = kind is ReportKind.TLS
        return ReportService(
            self.clock,
            ReportPipeline(
                self.source(kind),
                ledger.archive,
                ledger.leases,
                ReportComposer(
                    self.clock, ledger.suppressions, self._identity(), newID
                ),
                QueueSubmitter(queue),
            ),
            jitter,
            ReportOptions(
                config.nodeName,
                config.reporting.window if isTLS else None,
                config.reporting.keepDays * DAY,
            ),
            self.reactor,
        )

    def source(self, kind: ReportKind) -> IReportSource:
        """
        The source of one kind of report.
        """
        return self._tlsReports() if kind is ReportKind.TLS else self._dmarcReports()

    def failures(self, queue: IQueue, silent: frozenset[Domain]) -> FailureReporter:
        """
        The sender of DMARC failure reports.

        @param silent: Local domains; mail to them causes no reports.
        """
        submitter, reporting = (
            self.configFiles.dmarcSubmitter,
            self.configFiles.config.reporting,
        )
        configured = reporting.failures
        settings = FailureReporting(
            configured.enabled,
            submitter if isinstance(submitter, Domain) else None,
            self.configFiles.secret() if configured.enabled else b"",
            frozenset(configured.allow),
            frozenset(reporting.notTo),
            silent,
            configured.strangers,
            configured.perHour,
            configured.perDay,
            self.localPolicy.suffixes,
        )
        return FailureReporter(
            self.clock,
            self.resolver,
            self.ledger.suppressions,
            queue,
            self._identity(),
            settings,
            newID,
        )

    def _identity(self) -> ReportIdentity:
        signers = tuple(chain.from_iterable(self.configFiles.signers().values()))
        return ReportIdentity(self.configFiles.config.hostname, signers)

    def _tlsReports(self) -> IReportSource:
        config, submitter = self.configFiles.config, self.configFiles.submitter
        reporting = TLSReporting(
            submitter if isinstance(submitter, Domain) else None,
            config.outgoingTLSReportsForAllSuccess,
            frozenset(config.reporting.notTo),
        )
        ledger = self.ledger
        return TLSReportSource(
            self.resolver, ledger.outcomes, reporting, ledger.identifier
        )

    def _dmarcReports(self) -> IReportSource:
        submitter, reporting = (
            self.configFiles.dmarcSubmitter,
            self.configFiles.config.reporting,
        )
        dmarc = reporting.dmarc
        settings = DMARCReporting(
            submitter if isinstance(submitter, Domain) else None,
            dmarc.format,
            {Domain.parse(name): format for name, format in dmarc.formats.items()},
            dmarc.minimum,
            frozenset(dmarc.onlyTo),
            frozenset(reporting.notTo),
            dmarc.strangers,
            self.localPolicy.suffixes,
        )
        ledger = self.ledger
        return DMARCReportSource(
            self.resolver,
            ledger.evaluations,
            ledger.history,
            settings,
            ledger.identifier,
        )


RELAY_MODES = {
    RelayTLS.NONE: TLSMode.SKIP,
    RelayTLS.STARTTLS: TLSMode.REQUIRED,
    RelayTLS.IMMEDIATE: TLSMode.IMMEDIATE,
}


class Transports:
    """
    The couriers of all transports.
    """

    def __init__(self, base: Components, mailboxStores: MailboxStores) -> None:
        config = base.configFiles.config
        self._base = base
        self._families = FAMILIES[config.delivery.families]
        direct = DirectCourier(base.deliveryContext(base.outcomes))
        self._https = HTTPSCourier(base.clock, base.https)
        self._isLocal = mailboxStores.directory.isLocal
        self._local = LocalCourier(
            base.reactor, mailboxStores.directory.find, mailboxStores.mailboxOf
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
    base: Components, spool: SpoolExecutor, mailboxStores: MailboxStores
) -> QueueService:
    """
    The queue service, with all its couriers.
    """
    config = base.configFiles.config
    hostname = config.hostname.ascii
    outgoing = Transports(base, mailboxStores)
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
            self._remote = LMTPStore(
                base.reactor,
                lmtpEndpoint(base.reactor, config.lmtp.address),
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
        observers: tuple[IVerdictObserver, ...] = (),
    ) -> None:
        """
        @param observers: Further observers of verdicts, besides those that report
            them.
        """
        config, ledger = base.configFiles.config, base.ledger
        self._base = base
        self._queue = queue
        silent = _silent(config)
        self._recorder = EvaluationRecorder(
            base.clock,
            ledger.evaluations,
            not config.noOutgoingDMARCReports,
            silent,
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
        deliveryTracker = ReportDeliveryTracker(
            base.clock, ledger.archive, ledger.suppressions
        )
        self._reportAddresses = ReportAddresses(
            base.durations,
            base.resolver,
            (config.hostname, *config.domains),
            map(Address.parse, config.reporting.addresses),
            mailboxStores.directory.equivalents,
            base.localPolicy.suffixes,
        )
        self._localDomains = LocalDomains(
            config.hostname.ascii,
            mailboxStores.directory,
            config.accounts,
            mailboxStores.mailboxOf,
            config.postmaster.mailbox,
            deliveryTracker.bounced,
            self._reportAddresses.include,
        )
        self._delivery = MailboxDelivery(mailboxStores.mailboxOf, queue)
        worker = Worker(base.reactor, "signatures", TIMEOUT, base.durations)
        self._verifier = SignatureVerifier(worker, base.inThread)
        self._checks = base.checks(self._verifier)

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


def localPolicyOf(dmarc: DMARC) -> LocalPolicy:
    """
    The DMARC policy of this host.

    @param dmarc: Already checked.
    """
    networks, domains = forwarders(dmarc)
    policies = dmarc.localPolicies.items()
    return LocalPolicy(
        PublicSuffixes() if dmarc.legacy else None,
        dmarc.enforcement,
        frozenset(dmarc.mailingLists),
        networks,
        frozenset(domains),
        MappingProxyType({Domain.parse(name): policy for name, policy in policies}),
    )
