# -*- test-case-name: tests.test_wiring -*-
"""
Puts the parts together, in the order in which data flows.  No decisions.

L{Base} is what the server and the commands have in common, L{Outgoing} takes
mail out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from random import SystemRandom

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)

from moxtls.calendar import DAY
from moxtls.config import Config, Families, RelayTLS
from moxtls.dns.answers import Kind
from moxtls.dns.exchange import Exchange
from moxtls.dns.probed import ProbedResolver
from moxtls.dns.resolver import Resolver
from moxtls.domain import Domain, InvalidDomain, parseHost
from moxtls.https import HTTPSClient
from moxtls.inbound.recipients import Directory
from moxtls.interfaces import ICourier, IQueue, ISessionObserver
from moxtls.mailbox.maildir import Maildir
from moxtls.outbound.classify import certificateFailure
from moxtls.outbound.delivery import DirectCourier, Surroundings, Terms
from moxtls.outbound.dialer import Dialer
from moxtls.outbound.smarthost import Relay, SmarthostCourier, relayHost
from moxtls.policy.cache import PolicyCache
from moxtls.policy.fetch import PolicyFetcher
from moxtls.policy.refresh import PolicyRefresher
from moxtls.queue.access import SpoolAccess
from moxtls.queue.backoff import Backoff
from moxtls.queue.loads import Limits
from moxtls.queue.local import LocalCourier
from moxtls.queue.notices import Notices
from moxtls.queue.service import QueueService
from moxtls.queue.spool import SpoolUnusable
from moxtls.queue.telling import ReportTeller
from moxtls.queue.values import Batch, ReportKind
from moxtls.reporting.bounces import bounceMailbox
from moxtls.reporting.handover import Aftermath, QueueSubmitter
from moxtls.reporting.letters import Letterhead, LetterWriter
from moxtls.reporting.post import HTTPSCourier
from moxtls.reporting.service import ReportService, Routine
from moxtls.site import Site
from moxtls.smtp.session import Session, addressEndpoint
from moxtls.smtp.settings import Settings
from moxtls.smtp.values import Credentials, TLSMode
from moxtls.store.database import LedgerUnavailable
from moxtls.store.ledger import Ledger
from moxtls.tlsrpt.recorder import OutcomeRecorder
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource

FAMILIES = {
    Families.BOTH: (Kind.AAAA, Kind.A),
    Families.IPV4: (Kind.A,),
    Families.IPV6: (Kind.AAAA,),
}
RELAY_MODES = {
    RelayTLS.NONE: TLSMode.SKIP,
    RelayTLS.STARTTLS: TLSMode.REQUIRED,
    RelayTLS.IMMEDIATE: TLSMode.IMMEDIATE,
}


class IReactor(
    IReactorTime, IReactorTCP, IReactorSocket, IReactorFDSet, IReactorThreads
):
    """
    What is needed of a reactor.
    """


jitter = SystemRandom().random


def newID() -> str:
    """
    Not to be guessed, and fit for the name of a file and for a local part.
    """
    return secrets.token_hex(12)


@contextmanager
def explained(site: Site) -> Iterator[None]:
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


class Base:
    """
    What everything else stands on.

    @ivar clock: For what is dated: outcomes and reports.  Waiting for others
        is always on the reactor's.
    """

    def __init__(
        self, reactor: IReactor, site: Site, ledger: Ledger, clock: IReactorTime
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.site = site
        self.ledger = ledger
        self.trust = site.trust()
        self.resolver = ProbedResolver(
            reactor, Resolver(reactor, site.servers(), Exchange(reactor).ask)
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
        self.dialer = Dialer(
            reactor, lambda ip, port: addressEndpoint(reactor, ip, port)
        )

    def dial(self, ip: str, terms: Terms) -> Deferred[Session]:
        """
        Open a session with a host of a recipient domain.
        """
        config, asked = self.site.config, terms.demands
        settings = Settings(
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

    def surroundings(self, observer: ISessionObserver) -> Surroundings:
        """
        What deliveries straight to hosts need.
        """
        delivery = self.site.config.delivery
        return Surroundings(
            self.resolver,
            self.policies,
            observer,
            self.dial,
            self.dialer.leave,
            delivery.port,
            FAMILIES[delivery.families],
            jitter,
        )

    def reports(self, queue: IQueue) -> ReportService:
        """
        What sends TLS reports.
        """
        config, submitter = self.site.config, self.site.submitter
        reporting = TLSReporting(
            submitter if isinstance(submitter, Domain) else None,
            config.outgoingTLSReportsForAllSuccess,
            frozenset(config.reporting.notTo),
        )
        signers = tuple(chain.from_iterable(self.site.signers().values()))
        return ReportService(
            self.clock,
            TLSReportSource(self.resolver, self.ledger.outcomes, reporting),
            self.ledger.archive,
            self.ledger.leases,
            LetterWriter(
                self.clock,
                self.ledger.suppressions,
                Letterhead(config.hostname, signers),
                newID,
            ),
            QueueSubmitter(queue),
            jitter,
            Routine(
                config.nodeName,
                config.reporting.window,
                config.reporting.keepDays * DAY,
            ),
        )


class Outgoing:
    """
    Every way for mail to leave.
    """

    def __init__(self, base: Base, mailbox: Maildir) -> None:
        config = base.site.config
        self._base = base
        self._families = FAMILIES[config.delivery.families]
        recorder = OutcomeRecorder(
            base.clock, base.ledger.outcomes, not config.noOutgoingTLSReports
        )
        direct = DirectCourier(base.surroundings(recorder))
        self._https = HTTPSCourier(base.clock, base.https)
        self._local = LocalCourier(Directory(config).find, lambda account: mailbox)
        self._transports: dict[str, ICourier] = {"direct": direct}
        for name in config.transports:
            self._transports[name] = self._smarthost(name)
        self._routes = {
            Domain.parse(domain): transport
            for domain, transport in config.delivery.routes.items()
        }

    def _smarthost(self, name: str) -> ICourier:
        base, relay = self._base, self._base.site.config.transports[name]
        host = relayHost(relay.host)
        credentials = None
        if relay.user:
            credentials = Credentials(relay.user, base.site.password(name))
        settings = Settings(
            base.site.config.hostname.ascii,
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
            base.dialer.leave,
        )

    def route(self, batch: Batch) -> ICourier:
        """
        Who is to attempt a batch.
        """
        if batch.destination.startswith("https:"):
            return self._https
        try:
            domain = parseHost(batch.destination)
        except InvalidDomain:
            return self._transports["direct"]
        if domain == self._base.site.config.hostname:
            return self._local
        default = self._base.site.config.delivery.transport
        name = (
            self._routes.get(domain, default) if isinstance(domain, Domain) else default
        )
        return self._transports[name]


def mailboxFor(config: Config, localPart: str) -> str | None:
    """
    Where mail for an address at this host goes, if there is such an address.
    """
    host = config.hostTLSRPT
    if isPostmaster(localPart):
        return config.postmaster.mailbox
    if host is not None and localPart.lower() == host.localPart.lower():
        return host.mailbox
    return None


def isPostmaster(localPart: str) -> bool:
    """
    Whether mail goes to the postmaster, which includes the envelope senders
    of reports.
    """
    return localPart.lower().partition("+")[0] == "postmaster"


def makeQueue(base: Base, spool: SpoolAccess) -> tuple[QueueService, Maildir]:
    """
    The queue that delivers, with all its couriers.
    """
    config = base.site.config
    hostname = config.hostname.ascii
    mailbox = Maildir(base.reactor, base.site.mail, hostname, newID)
    outgoing = Outgoing(base, mailbox)
    aftermath = Aftermath(base.clock, base.ledger.archive, base.ledger.suppressions)

    def quietMailbox(kind: ReportKind) -> str:
        return bounceMailbox(kind, config.postmaster.mailbox)

    queue = QueueService(
        base.reactor,
        spool,
        outgoing.route,
        Notices(hostname, newID),
        ReportTeller(base.reactor, [aftermath], mailbox, quietMailbox),
        newID,
        jitter,
        Limits(
            total=config.delivery.maxConnections,
            perDestination=config.delivery.maxPerDestination,
            backoff=Backoff(tuple(map(float, config.delivery.retrySchedule))),
        ),
    )
    return queue, mailbox
