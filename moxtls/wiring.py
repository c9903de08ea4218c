# -*- test-case-name: tests.test_wiring -*-
"""
Puts the parts together, in the order in which data flows.  No decisions.

L{Components} is what the server and the commands have in common.  What takes mail out
stands on it, and what takes it in: L{moxtls.sending}, L{moxtls.receiving}.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from random import SystemRandom
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

from moxtls.calendar import DAY
from moxtls.config import Families
from moxtls.dmarc.failure import FailureReporting
from moxtls.dmarc.hygiene import DMARCReporting
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dns.answers import RRType
from moxtls.dns.exchange import DNSTransport
from moxtls.dns.probed import ProbedResolver
from moxtls.dns.resolver import Resolver
from moxtls.domain import Domain
from moxtls.https import HTTPSClient
from moxtls.inbound.authenticate import MessageAuthenticator, Offload
from moxtls.inbound.practice import localPolicyOf
from moxtls.interfaces import IQueue, IReportSource, ISessionObserver
from moxtls.outbound.classify import certificateFailure
from moxtls.outbound.delivery import DeliveryContext, SessionSettings
from moxtls.outbound.dialer import Dialer
from moxtls.outbound.hosts import isInterface
from moxtls.outbound.ownhosts import OwnHosts
from moxtls.policy.cache import PolicyCache
from moxtls.policy.fetch import PolicyFetcher
from moxtls.policy.refresh import PolicyRefresher
from moxtls.queue.spool import SpoolUnusable
from moxtls.queue.values import ReportKind
from moxtls.reporting.failures import FailureReporter
from moxtls.reporting.handover import QueueSubmitter
from moxtls.reporting.letters import ReportComposer, ReportIdentity
from moxtls.reporting.service import ReportOptions, ReportService
from moxtls.site import ConfigFiles
from moxtls.smtp.session import ClientSession, addressEndpoint
from moxtls.smtp.settings import ClientSettings
from moxtls.store.database import LedgerUnavailable
from moxtls.store.ledger import Ledger
from moxtls.store.memory import MemoryLedger
from moxtls.tlsrpt.recorder import OutcomeRecorder
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource
from moxtls.worker.worker import IWorkerReactor

#: Seconds for which a host where nobody was isn't dialed again.
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
    What is needed of a reactor.
    """


T = TypeVar("T")
#: Where there is no ledger yet, commands that only look do with an empty one.
AnyLedger = Ledger | MemoryLedger

jitter = SystemRandom().random


def newID() -> str:
    """
    Not to be guessed, and fit for the name of a file and for a local part.
    """
    return secrets.token_hex(12)


@contextmanager
def asConfigErrors(site: ConfigFiles) -> Iterator[None]:
    """
    Says of stores that can't be opened which key says where they are.

    @raise InvalidConfig: In place of what the stores raise.
    """
    try:
        yield
    except LedgerUnavailable as error:
        key = "Ledger" if site.config.ledger else "DataDirectory"
        raise site.wrong("", key, "", str(error)) from None
    except SpoolUnusable as error:
        raise site.wrong("", "DataDirectory", "", str(error)) from None


class Components:
    """
    What everything else stands on.

    @ivar clock: For what is dated: outcomes and reports.  Waiting for others
        is always on the reactor's.
    @ivar durations: For how long something takes.
    """

    def __init__(
        self,
        reactor: IReactor,
        site: ConfigFiles,
        ledger: AnyLedger,
        clock: IReactorTime,
        durations: IReactorTime | None = None,
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.durations = durations or reactor
        self.site = site
        self.ledger = ledger
        self.trust = site.trust()
        self.practice = localPolicyOf(site.config.dmarc)
        self.resolver = ProbedResolver(
            reactor, Resolver(reactor, site.servers(), DNSTransport(reactor).ask)
        )
        port = site.config.delivery.httpsPort
        self.https = HTTPSClient(reactor, reactor, self.resolver, self.trust, port)
        self.fetcher = PolicyFetcher(self.https, certificateFailure)
        self.policies = PolicyCache(
            reactor, self.resolver, self.fetcher, ledger.policies
        )
        self.refresher = PolicyRefresher(
            reactor, self.resolver, self.fetcher, ledger.policies, jitter
        )
        self.outcomes = OutcomeRecorder(
            clock, ledger.outcomes, not site.config.noOutgoingTLSReports
        )
        self.dialer = Dialer(
            reactor,
            lambda ip, port: addressEndpoint(reactor, ip, port),
            pause=HOST_PAUSE,
        )

    def dial(self, ip: str, terms: SessionSettings) -> Deferred[ClientSession]:
        """
        Open a session with a host of a recipient domain.
        """
        config, asked = self.site.config, terms.demands
        settings = ClientSettings(
            config.hostname.ascii,
            self.trust,
            terms.tlsMode,
            terms.names,
            asked.enforcePKIX,
            asked.dane,
            asked.ignoreVerifyErrors,
            webNames=(terms.webName,),
        )
        return self.dialer.dial(ip, config.delivery.port, settings)

    def surroundings(self, observer: ISessionObserver) -> DeliveryContext:
        """
        What deliveries straight to hosts need.
        """
        delivery = self.site.config.delivery
        return DeliveryContext(
            self.resolver,
            self.policies,
            observer,
            self.dial,
            self.dialer.leave,
            delivery.port,
            FAMILIES[delivery.families],
            jitter,
            self._ownHosts(),
        )

    def _ownHosts(self) -> OwnHosts | None:
        config = self.site.config
        if config.delivery.allowOwnHosts:
            return None
        listening = chain.from_iterable(
            each.address
            for each in config.listeners.values()
            if each.port == config.delivery.port
        )
        return OwnHosts(config.hostname, frozenset(listening), isInterface)

    def checks(self, offload: Offload | None = None) -> MessageAuthenticator:
        """
        How mail from outside is checked.

        @param offload: In a thread if not given.
        """

        hostname = self.site.config.hostname.ascii
        return MessageAuthenticator(
            self.reactor,
            self.resolver,
            self.practice,
            hostname,
            offload or self.inThread,
            jitter,
        )

    def inThread(self, call: Callable[[], T]) -> Deferred[T]:
        """
        Fires with what C{call} returns, or fails with what it raises.
        """
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), call)

    def reports(
        self, queue: IQueue, kind: ReportKind = ReportKind.TLS
    ) -> ReportService:
        """
        What sends one kind of report.
        """
        config, ledger = self.site.config, self.ledger
        isTLS = kind is ReportKind.TLS
        return ReportService(
            self.clock,
            self.source(kind),
            ledger.archive,
            ledger.leases,
            ReportComposer(self.clock, ledger.suppressions, self._letterhead(), newID),
            QueueSubmitter(queue),
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
        What owes one kind of report.
        """
        return self._tlsReports() if kind is ReportKind.TLS else self._dmarcReports()

    def failures(self, queue: IQueue, silent: frozenset[Domain]) -> FailureReporter:
        """
        What reports single failures.

        @param silent: Domains of ours about mail to which there are none.
        """
        submitter, reporting = self.site.dmarcSubmitter, self.site.config.reporting
        asked = reporting.failures
        settings = FailureReporting(
            asked.enabled,
            submitter if isinstance(submitter, Domain) else None,
            self.site.secret() if asked.enabled else b"",
            frozenset(asked.allow),
            frozenset(reporting.notTo),
            silent,
            asked.strangers,
            asked.perHour,
            asked.perDay,
            self.practice.suffixes,
        )
        return FailureReporter(
            self.clock,
            self.resolver,
            self.ledger.suppressions,
            queue,
            self._letterhead(),
            settings,
            newID,
        )

    def _letterhead(self) -> ReportIdentity:
        signers = tuple(chain.from_iterable(self.site.signers().values()))
        return ReportIdentity(self.site.config.hostname, signers)

    def _tlsReports(self) -> IReportSource:
        config, submitter = self.site.config, self.site.submitter
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
        submitter, reporting = self.site.dmarcSubmitter, self.site.config.reporting
        dmarc = reporting.dmarc
        settings = DMARCReporting(
            submitter if isinstance(submitter, Domain) else None,
            dmarc.format,
            {Domain.parse(name): format for name, format in dmarc.formats.items()},
            dmarc.minimum,
            frozenset(dmarc.onlyTo),
            frozenset(reporting.notTo),
            dmarc.strangers,
            self.practice.suffixes,
        )
        ledger = self.ledger
        return DMARCReportSource(
            self.resolver,
            ledger.evaluations,
            ledger.history,
            settings,
            ledger.identifier,
        )
