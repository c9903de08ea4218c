# -*- test-case-name: tests.test_sending -*-
"""
Puts together what takes mail out.  No decisions.
"""

from __future__ import annotations

from moxtls.config import RelayTLS
from moxtls.domain import Domain, InvalidDomain, parseHost
from moxtls.interfaces import ICourier
from moxtls.outbound.delivery import DirectCourier
from moxtls.outbound.smarthost import Relay, SmarthostCourier, relayHost
from moxtls.queue.access import SpoolExecutor
from moxtls.queue.backoff import RetrySchedule
from moxtls.queue.loads import GroupLimits
from moxtls.queue.local import LocalCourier
from moxtls.queue.notices import Settlement
from moxtls.queue.service import QueueService
from moxtls.queue.telling import ReportStatusNotifier
from moxtls.queue.values import Batch, ReportKind
from moxtls.receiving import MailboxStores
from moxtls.reporting.bounces import bounceMailbox
from moxtls.reporting.failures import FailureReportTracker
from moxtls.reporting.handover import ReportDeliveryTracker
from moxtls.reporting.post import HTTPSCourier
from moxtls.smtp.settings import ClientSettings
from moxtls.smtp.values import Credentials, TLSMode
from moxtls.wiring import FAMILIES, Components, jitter, newID

RELAY_MODES = {
    RelayTLS.NONE: TLSMode.SKIP,
    RelayTLS.STARTTLS: TLSMode.REQUIRED,
    RelayTLS.IMMEDIATE: TLSMode.IMMEDIATE,
}


class Transports:
    """
    Every way for mail to leave.
    """

    def __init__(self, base: Components, residence: MailboxStores) -> None:
        config = base.site.config
        self._base = base
        self._families = FAMILIES[config.delivery.families]
        direct = DirectCourier(base.surroundings(base.outcomes))
        self._https = HTTPSCourier(base.clock, base.https)
        self._isLocal = residence.directory.isLocal
        self._local = LocalCourier(
            base.reactor, residence.directory.find, residence.mailboxOf
        )
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
        settings = ClientSettings(
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
        if self._isLocal(domain):
            return self._local
        default = self._base.site.config.delivery.transport
        name = (
            self._routes.get(domain, default) if isinstance(domain, Domain) else default
        )
        return self._transports[name]


def makeQueue(
    base: Components, spool: SpoolExecutor, residence: MailboxStores
) -> QueueService:
    """
    The queue that delivers, with all its couriers.
    """
    config = base.site.config
    hostname = config.hostname.ascii
    outgoing = Transports(base, residence)
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
        ReportStatusNotifier(base.reactor, observers, residence.host, quietMailbox),
        newID,
        jitter,
        GroupLimits(
            total=config.delivery.maxConnections,
            perDestination=config.delivery.maxPerDestination,
            backoff=RetrySchedule(
                tuple(map(float, config.delivery.retrySchedule)),
                config.delivery.maxAge,
                config.delivery.maxBriefAge,
                config.delivery.noticeAfter,
            ),
        ),
    )
