# -*- test-case-name: tests.test_server -*-
"""
The whole server: what runs for as long as the process does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Port
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from moxtls.config import InvalidConfig, Listener, ListenerTLS
from moxtls.config import Service as ListenerService
from moxtls.domain import Address
from moxtls.mailbox.maildir import Maildir
from moxtls.queue.access import ThreadedSpool
from moxtls.queue.values import ReportKind
from moxtls.reporting.bounces import bounceMailbox
from moxtls.reporting.handover import Aftermath
from moxtls.site import Site
from moxtls.smtp.acceptor import Authenticator, IAcceptor, ListenerSettings
from moxtls.smtp.events import ServerSettings
from moxtls.smtp.listener import SMTPServerFactory
from moxtls.smtp.reception import LARGEST_MESSAGE, LocalReception, ReceivedMessage
from moxtls.smtp.sasl import MECHANISMS, Accounts
from moxtls.smtp.submission import Submission
from moxtls.store.ledger import Ledger
from moxtls.wiring import Base, IReactor, Outgoing, makeQueue, newID

#: Of chance, kept in the data directory: so that nobody can tell from outside
#: who has an account.
SECRET_LENGTH = 32


class Server(Service):
    """
    Everything, started in the order in which parts lean on each other and
    stopped in the reverse one.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactor, site: Site, clock: IReactorTime | None = None
    ) -> None:
        """
        @param clock: For what is dated; the reactor's if not given.

        @raise InvalidConfig: A file can't be used.
        @raise LedgerUnavailable: The ledger can't be opened.
        """
        site.check()
        site.makeFolders()
        self._reactor = reactor
        self._site = site
        self.ledger = Ledger(reactor, site.ledgerURL)
        self.base = Base(reactor, site, self.ledger, clock or reactor)
        spool = ThreadedSpool(reactor, site.spool)
        self.queue, self._outgoing, self._mailbox = makeQueue(self.base, spool)
        self.reports = self.base.reports(self.queue)
        self._doors: list[Door] = []

    def privilegedStartService(self) -> None:
        """
        Listen, but let nobody in yet: ports below 1024 are had only now.

        @raise InvalidConfig: A port can't be had.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        self._listen()
        config = self._site.config
        self.base.resolver.startService()
        self.queue.startService()
        self.base.refresher.startService()
        if not config.noOutgoingTLSReports:
            self.reports.startService()
        for door in self._doors:
            door.open()

    def _listen(self) -> None:
        # Not every runner calls privilegedStartService.
        if not self._doors:
            for name, listener in self._site.config.listeners.items():
                self._doors.append(self._door(name, listener))

    def stopService(self) -> Deferred[None]:
        """
        @return: Fires once nothing is in flight, and all is on disk.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._quietly([door.close for door in self._doors])
        if self.reports.running:
            await self._quietly([self.reports.stopService])
        await self._quietly(
            [
                self.base.refresher.stopService,
                self.queue.stopService,
                self.base.resolver.stopService,
                self.base.dialer.stop,
                self.ledger.stop,
            ]
        )

    async def _quietly(self, steps: list[Callable[[], Deferred[None]]]) -> None:
        for step in steps:
            try:
                await step()
            except CancelledError:
                raise
            except Exception:
                # What comes after it still has to stop.
                self.log.failure("stopping")

    def _door(self, name: str, listener: Listener) -> Door:
        factory = self._factory(name, listener)
        try:
            return Door(self._reactor, listener, factory)
        except CannotListenError as error:
            raise InvalidConfig(
                str(self._site.file),
                f"Listeners.{name}",
                "Port",
                str(listener.port),
                f"cannot be listened on: {error.socketError}",
            ) from None

    def _factory(self, name: str, listener: Listener) -> SMTPServerFactory:
        tls = self._site.tls(name, listener)
        secure = listener.tls is not ListenerTLS.NONE
        size = listener.maxMessageSize
        if listener.service is ListenerService.RECEPTION:
            size = min(size, LARGEST_MESSAGE)  # it is held in memory
        settings = ListenerSettings(
            ServerSettings(
                self._site.config.hostname.ascii,
                size=size,
                starttls=listener.tls is ListenerTLS.STARTTLS,
                mechanisms=MECHANISMS if listener.authentication else (),
                authRequired=listener.authentication,
            ),
            immediateTLS=listener.tls is ListenerTLS.IMMEDIATE,
            connections=listener.maxConnections,
        )
        authenticator = self._authenticator() if listener.authentication else None
        return SMTPServerFactory(
            self._reactor,
            settings,
            self._acceptor(listener),
            tls if secure else None,
            authenticator,
        )

    def _acceptor(self, listener: Listener) -> IAcceptor:
        hostname = self._site.config.hostname.ascii
        if listener.service is ListenerService.SUBMISSION:
            folder = self._site.data
            return Submission(self._reactor, self.queue, hostname, newID, folder)
        reception = Reception(self.base, self._outgoing, self._mailbox)
        return LocalReception(
            self._reactor, hostname, newID, reception.accepts, reception.deliver
        )

    def _authenticator(self) -> Authenticator:
        accounts = Accounts(self._site.users(), _secret(self._site.data / "secret"))
        pool = self._reactor.getThreadPool()

        def offload(check: Callable[[], bool]) -> Deferred[bool]:
            return deferToThreadPool(self._reactor, pool, check)

        return Authenticator(accounts, newID, offload)


class Door:
    """
    A port on which clients wait until they are let in.
    """

    def __init__(
        self, reactor: IReactor, listener: Listener, factory: SMTPServerFactory
    ) -> None:
        """
        @raise CannotListenError: The port can't be had.
        """
        self._factory = factory
        where, address = listener.port, listener.address
        if factory.settings.immediateTLS and factory.tls is not None:
            wrapping = TLSMemoryBIOFactory(factory.tls, False, factory, clock=reactor)
            port = reactor.listenTCP(
                where,
                wrapping,  # type: ignore[arg-type]  # it is one for servers
                interface=address,
            )
        else:
            port = reactor.listenTCP(where, factory, interface=address)
        assert isinstance(port, Port)
        self._port = port
        self._port.stopReading()

    def open(self) -> None:
        self._port.startReading()

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await maybeDeferred(self._port.stopListening)
        await self._factory.stop()


class Reception:
    """
    Mail for this host: to the postmaster, and what comes back from reports.
    """

    def __init__(self, base: Base, outgoing: Outgoing, mailbox: Maildir) -> None:
        self._config = base.site.config
        self._outgoing = outgoing
        self._mailbox = mailbox
        self._aftermath = Aftermath(
            base.clock, base.ledger.archive, base.ledger.suppressions
        )

    def accepts(self, address: Address) -> bool:
        """
        Reports are sent in the name of a domain of ours, so that is where
        DSNs about them go.
        """
        if address.domain == self._config.hostname:
            return self._outgoing.mailboxFor(str(address)) is not None
        return address.domain in self._config.domains and isPostmaster(address)

    def deliver(self, received: ReceivedMessage) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver(received))

    async def _deliver(self, received: ReceivedMessage) -> None:
        message = b"".join(received.message)
        for address in received.recipients:
            aboutReport = await self._aftermath.bounced(str(address), message)
            mailbox = self._config.postmaster.mailbox
            if aboutReport:
                mailbox = bounceMailbox(ReportKind.TLS, mailbox)
            elif address.domain == self._config.hostname:
                mailbox = self._outgoing.mailboxFor(str(address)) or mailbox
            await self._mailbox.deliver(mailbox, [message], seen=aboutReport)


def isPostmaster(address: Address) -> bool:
    """
    Whether mail goes to the postmaster, which includes the envelope senders
    of reports.
    """
    return address.localPart.lower().partition("+")[0] == "postmaster"


def _secret(path: Path) -> bytes:
    """
    What C{path} holds; made at the first start.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        secret = secrets.token_bytes(SECRET_LENGTH)
        path.touch(mode=0o600)
        path.write_bytes(secret)
        return secret
