# -*- test-case-name: tests.app.test_service -*-
"""
The server: all services that run for the lifetime of the process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from ipaddress import IPv6Address

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from moxtls.app.build import Components, IReactor
from moxtls.app.configfiles import ConfigFiles, faultsOf
from moxtls.app.mail import InboundServices, MailboxStores, makeQueue
from moxtls.app.ports import IListenerFactory, ListenerPorts, PortUnavailable
from moxtls.app.process import GARBAGE, asConfigErrors, newID
from moxtls.authentication.dkim.sign import NoSubmitter
from moxtls.config import InvalidConfig, Listener, ListenerTLS, joinedErrors, quoted
from moxtls.config import Service as ListenerService
from moxtls.domain import Domain
from moxtls.ipaddresses import parseIP
from moxtls.ledger.ledger import Ledger
from moxtls.outages import OutageLog
from moxtls.queue.executor import InlineSpoolExecutor, ThreadedSpoolExecutor
from moxtls.queue.service import QueueService
from moxtls.queue.types import ReportKind
from moxtls.received.intake.httpsserver import ReportServerFactory
from moxtls.received.intake.intake import ReportIntake
from moxtls.received.intake.listeners import ListenerRecorder
from moxtls.reception.reports import MailedReports
from moxtls.reporting.service import ReportService
from moxtls.smtp.authenticator import MAX_CHECKS, Authenticator
from moxtls.smtp.loginhistory import LoginHistory
from moxtls.smtp.logins import LoginLimits
from moxtls.smtp.sasl import MECHANISMS, CredentialsChecker
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import IMessageDelivery, ListenerSettings
from moxtls.smtp.server.state import ServerSettings

Stop = Callable[[], Deferred[None]]


class Server(Service):
    """
    Starts all parts in the order of their dependencies, and stops them in reverse
    order.

    Nothing is opened before C{startService}: a process that daemonizes in between
    would lose its threads, and one that changes its user its access.

    @ivar ledger: Available after the start, like all attributes below.
    """

    log = Logger()
    ledger: Ledger
    base: Components
    queue: QueueService
    reports: ReportService
    dmarcReports: ReportService
    mailboxStores: MailboxStores
    intake: ReportIntake
    incoming: InboundServices
    _logins: Authenticator | None
    _recorder: ListenerRecorder

    def __init__(
        self,
        reactor: IReactor,
        configFiles: ConfigFiles,
        clock: IReactorTime | None = None,
        durations: IReactorTime | None = None,
    ) -> None:
        """
        @param clock: For dates; the reactor if not given.
        @param durations: For limits of clients and timeouts of other processes; the
            reactor if not given.
        """
        self._reactor = reactor
        self._configFiles = configFiles
        self._clock = clock or reactor
        self._durations = durations or reactor
        self._listenerPorts: dict[str, ListenerPorts] = {}
        self._stops: list[Stop] = []

    @property
    def ports(self) -> dict[str, int]:
        """
        The port number of each listener.
        """
        return {name: each.port for name, each in self._listenerPorts.items()}

    def privilegedStartService(self) -> None:
        """
        Bind the ports without accepting connections: ports below 1024 can be bound
        only now.

        @raise InvalidConfig: A port can't be bound.
        """
        super().privilegedStartService()
        self._takePorts()

    def startService(self) -> None:
        """
        Start all parts. After a failure, C{stopService} stops those that did start.

        @raise InvalidConfig: A file, a port, the ledger or the spool can't be used.
        """
        super().startService()
        gc.set_threshold(*GARBAGE)
        self._takePorts()
        self._configFiles.makeFolders()
        with asConfigErrors(self._configFiles):
            self._start()

    def _start(self) -> None:
        outages = OutageLog(self._durations.seconds)
        self.ledger = Ledger(self._reactor, self._configFiles.ledgerURL, outages)
        self._stops.append(self.ledger.stop)
        self.base = Components(
            self._reactor, self._configFiles, self.ledger, self._clock, self._durations
        )
        self._stops.append(self.base.outcomes.stop)
        self._recorder = ListenerRecorder(
            self._clock,
            self._reactor,
            self.ledger.listenerHistory,
            self._configFiles.config.nodeName,
        )
        self._recorder.startService()
        self._stops.append(self._recorder.stopService)
        self.mailboxStores = MailboxStores(self.base)
        self._stops.append(self.mailboxStores.stop)
        spool = ThreadedSpoolExecutor(self._reactor, self._configFiles.spool)
        self.intake = self.base.intake()
        self._stops.append(self.intake.stop)
        mailed = MailedReports(self._clock, self.intake, self._configFiles.config)
        self.queue = makeQueue(self.base, spool, self.mailboxStores, mailed)
        self.incoming = InboundServices(
            self.base, self.mailboxStores, self.queue, mailed
        )
        self._stops.append(self.incoming.stop)
        self.reports = self.base.reports(self.queue)
        self.dmarcReports = self.base.reports(self.queue, ReportKind.DMARC)
        self._logins = None
        factories = self._factories()
        self._startParts()
        for name, factory in factories.items():
            self._listenerPorts[name].open(self._reactor, factory)

    def recorded(self) -> Deferred[None]:
        """
        Fires when all verdicts given so far are in the ledger.
        """
        return self.incoming.recorded()

    def _takePorts(self) -> None:
        # Not every runner calls privilegedStartService.
        if self._listenerPorts:
            return
        self._listenerPorts = bindPorts(self._configFiles)
        for name, listener in self._configFiles.config.listeners.items():
            for address in self._listenerPorts[name].missing:
                self.log.warn(
                    "[Listeners.{name}]: not listening on {address}, as this host has "
                    "no address of that family",
                    name=name,
                    address=address,
                )
            if _lacksIPv4(listener, self._configFiles.config.listeners.values()):
                self.log.warn(
                    "[Listeners.{name}]: listening on IPv6 only; for IPv4 too, add "
                    "an IPv4 address to Address, such as 0.0.0.0",
                    name=name,
                )

    def _startParts(self) -> None:
        parts: list[Service] = [
            self.base.resolver,
            self.queue,
            self.base.refresher,
            self.base.expiry(),
        ]
        config = self._configFiles.config
        for remark in self._configFiles.remarks(self._clock.seconds()):
            self.log.warn("{remark}", remark=remark)
        if not config.noOutgoingTLSReports:
            parts.append(self.reports)
            self._warn("TLS", self._configFiles.submitter)
        if not config.noOutgoingDMARCReports:
            parts.append(self.dmarcReports)
            if any(map(_isChecked, config.listeners.values())):
                self._warn("DMARC", self._configFiles.dmarcSubmitter)
        self._stops.append(self.base.dialer.stop)
        for part in parts:
            part.startService()
            self._stops.append(part.stopService)
        self.mailboxStores.removeStaleTemp()

    def _warn(self, kind: str, submitter: Domain | NoSubmitter) -> None:
        if isinstance(submitter, NoSubmitter):
            self.log.warn(
                "NO {kind} REPORTS ARE SENT: {why}", kind=kind, why=str(submitter)
            )

    def stopService(self) -> Deferred[None]:
        """
        @return: Fires when nothing is in flight, and all data is on disk.
        """
        super().stopService()
        bound, self._listenerPorts = self._listenerPorts, {}
        stops, self._stops = self._stops, []
        stops.append(lambda: self._close(bound.values()))
        return Deferred.fromCoroutine(self._quietly(stops[::-1]))

    def _close(self, bound: Iterable[ListenerPorts]) -> Deferred[None]:
        # In parallel: slow clients delay the end of each port up to its timeout.
        closing = [
            ports.close().addErrback(
                lambda failure: self.log.failure(
                    "server: closing a listening port failed", failure
                )
            )
            for ports in bound
        ]
        return DeferredList(closing).addCallback(lambda results: None)

    async def _quietly(self, stops: Sequence[Stop]) -> None:
        for stop in stops:
            try:
                await stop()
            except CancelledError:
                raise
            except Exception:
                # The remaining parts still have to stop.
                self.log.failure("server: stopping a service failed")

    def _factories(self) -> dict[str, IListenerFactory]:
        return {
            name: self._factory(name, listener)
            for name, listener in self._configFiles.config.listeners.items()
        }

    def _factory(self, name: str, listener: Listener) -> IListenerFactory:
        settings = ListenerSettings(
            ServerSettings(
                self._configFiles.config.hostname.ascii,
                maxSize=listener.maxMessageSize,
                starttls=listener.tls is ListenerTLS.STARTTLS,
                mechanisms=MECHANISMS if listener.authentication else (),
                authRequired=listener.authentication,
                # RFC 6409 8: a submission server may correct what its own clients
                # send wrongly; elsewhere it shows a broken sender.
                bareAddresses=listener.service is ListenerService.SUBMISSION,
            ),
            immediateTLS=listener.tls is ListenerTLS.IMMEDIATE,
            maxConnections=listener.maxConnections,
            maxConnectionsPerAddress=listener.maxConnectionsPerAddress,
            maxConnectionsPerNetwork=listener.maxConnectionsPerNetwork,
            maxConnectionRate=listener.maxConnectionRate,
            maxMessageRate=listener.maxMessageRate,
        )
        isSMTP = listener.service is not ListenerService.REPORTS
        # TLS reports are about SMTP.
        observer = self._recorder.observer(name) if isSMTP else None
        tls = self._configFiles.tls(name, listener, observer)
        if not isSMTP:
            return ReportServerFactory(
                self._durations,
                settings,
                self.intake,
                self._configFiles.config.reportedDomains,
                self._clock.seconds,
                tls,
            )
        if listener.authentication and self._logins is None:
            self._logins = self._authenticator()
        authenticator = self._logins if listener.authentication else None
        return SMTPServerFactory(
            self._durations, settings, self._acceptor(listener), tls, authenticator
        )

    def _acceptor(self, listener: Listener) -> IMessageDelivery:
        if listener.service is ListenerService.SUBMISSION:
            return self.incoming.submission()
        return self.incoming.reception(listener.checks)

    def _authenticator(self) -> Authenticator:
        accounts = CredentialsChecker(
            self._configFiles.users(), self._configFiles.secret()
        )
        # A separate thread pool: each thread that has checked a password keeps the
        # memory it needed, and the reactor's pool has more threads.
        pool = ThreadPool(0, MAX_CHECKS, "passwords")
        pool.start()
        self._stops.append(lambda: maybeDeferred(pool.stop))

        def offload(check: Callable[[], bool]) -> Deferred[bool]:
            return deferToThreadPool(self._reactor, pool, check)

        history = LoginHistory(self._configFiles.logins)
        limits = LoginLimits(known=history.load(), save=history.save)
        return Authenticator(accounts, newID, offload, limits)


def _isChecked(listener: Listener) -> bool:
    return listener.service is ListenerService.RECEPTION and listener.checks


def _lacksIPv4(listener: Listener, listeners: Iterable[Listener]) -> bool:
    """
    True if C{listener} accepts IPv6 from everywhere, and no listener accepts IPv4 on
    its port.
    """
    there = [each for each in listeners if each.port == listener.port]
    addresses = {parseIP(address) for each in there for address in each.address}
    isIPv4 = any(ip is not None and ip.version == 4 for ip in addresses)
    return IPv6Address("::") in map(parseIP, listener.address) and not isIPv4


def bindPorts(configFiles: ConfigFiles) -> dict[str, ListenerPorts]:
    """
    Bind the ports of all listeners, by their names.

    @raise InvalidConfig: All ports that can't be bound.
    """
    faults: list[InvalidConfig] = []
    bound: dict[str, ListenerPorts] = {}
    for name, listener in configFiles.config.listeners.items():
        try:
            bound[name] = ListenerPorts(listener.address, listener.port)
        except PortUnavailable as error:
            faults.append(portFault(configFiles, name, error))
    wrong = joinedErrors(faults)
    if wrong is not None:
        for each in bound.values():
            each.close()
        raise wrong
    return bound


def portFault(
    configFiles: ConfigFiles, name: str, error: PortUnavailable
) -> InvalidConfig:
    """
    The configuration error for the port of the listener C{name}.
    """
    port = quoted(configFiles.config.listeners[name].port)
    expected = f"expected a free port of {error.address}: {error.error.strerror}"
    return InvalidConfig(
        str(configFiles.file), f"Listeners.{name}", "Port", port, expected
    )


def openStores(configFiles: ConfigFiles) -> None:
    """
    Open everything that C{startService} opens, and close it again.

    @raise InvalidConfig: As C{startService}.
    """
    steps = (
        configFiles.check,
        configFiles.makeFolders,
        partial(_openLedger, configFiles),
    )
    wrong = joinedErrors(faultsOf((*steps, partial(_openSpool, configFiles))))
    if wrong is not None:
        raise wrong


def _openLedger(configFiles: ConfigFiles) -> None:
    if configFiles.data.is_dir() and configFiles.isOurs():
        with asConfigErrors(configFiles):
            Ledger(None, configFiles.ledgerURL).stop()


def _openSpool(configFiles: ConfigFiles) -> None:
    if configFiles.spool.is_dir() and configFiles.isOurs():
        with asConfigErrors(configFiles):
            spool = InlineSpoolExecutor(configFiles.spool)
            spool.open(delivering=True)
            spool.close()
