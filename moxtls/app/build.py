# -*- test-case-name: tests.app.test_build -*-
"""
Builds the components shared by the server and the commands, in the order in which data
flows. No decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
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
from moxtls.app.process import jitter, newID
from moxtls.authentication.check import MessageAuthenticator, Offload
from moxtls.config import DMARC, Families
from moxtls.config.addresses import forwarders
from moxtls.dates import DAY
from moxtls.delivery.attempt import DeliveryContext
from moxtls.delivery.mx import OwnHosts
from moxtls.delivery.sessions import Dialer, isLocalAddress
from moxtls.dmarc.discovery import PublicSuffixes
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.failure import FailureReporting
from moxtls.dmarc.failurereporter import FailureReporter
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.dns.resolver import ProbedResolver, Resolver
from moxtls.dns.transport import DNSTransport
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.https import HTTPSClient
from moxtls.interfaces import IQueue, IReportSource, ISessionObserver
from moxtls.ledger.ledger import Ledger
from moxtls.mtasts.cache import PolicyCache, PolicyFetcher, PolicyRefresher
from moxtls.queue.types import ReportKind
from moxtls.received.intake.expiry import NAME as EXPIRY
from moxtls.received.intake.expiry import ExpiryService, retention
from moxtls.received.intake.intake import READ_TIMEOUT, ReportIntake, ReportReader
from moxtls.received.interfaces import IReportIntakeObserver
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.handover import QueueSubmitter
from moxtls.reporting.service import (
    Lease,
    ReportOptions,
    ReportPipeline,
    ReportService,
)
from moxtls.smtp.client.connection import ClientSettings, addressEndpoint
from moxtls.tls.session import certificateFailure
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

    def intake(self, observers: Iterable[IReportIntakeObserver] = ()) -> ReportIntake:
        """
        The intake of received reports.
        """
        worker = Worker(self.reactor, "received reports", READ_TIMEOUT, self.durations)
        reader = ReportReader(self.durations, [worker])
        return ReportIntake(self.ledger.received, reader, observers)

    def expiry(self) -> ExpiryService:
        """
        The service that removes received reports in the end.
        """
        config, ledger = self.configFiles.config, self.ledger
        return ExpiryService(
            self.clock,
            ledger.received,
            ledger.listenerHistory,
            Lease(self.clock, ledger.leases, EXPIRY, config.nodeName),
            retention(config.receivedReports),
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
