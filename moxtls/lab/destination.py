# -*- test-case-name: tests.lab.test_destination -*-
"""
A host that takes mail for whatever domain, and keeps it.
"""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from zope.interface import implementer

from moxtls.lab.arrivals import Arrival, Arrivals
from moxtls.lab.certificates import Identity
from moxtls.lab.plan import MailHost
from moxtls.lab.tls import Presenting
from moxtls.smtp.acceptor import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.events import ServerSettings, TransactionState
from moxtls.smtp.listener import SMTPServerFactory
from moxtls.smtp.received import ClientInfo
from moxtls.smtp.values import Reply

#: Messages are kept in memory.
MAX_MESSAGE = 10 * 1024 * 1024

_OK = Reply(250, "2.0.0", "OK")


@implementer(IMessageDelivery)
class _Everything:
    """
    Accepts whatever there is.
    """

    def __init__(self, host: str, arrivals: Arrivals) -> None:
        self._host = host
        self._arrivals = arrivals

    def mailFrom(
        self, client: ClientInfo, incoming: TransactionState
    ) -> Deferred[Reply]:
        return succeed(_OK)

    def rcptTo(
        self, client: ClientInfo, incoming: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        return succeed(_OK)

    def message(self, client: ClientInfo, incoming: TransactionState) -> IMessage:
        return _Sink(self._host, client, incoming, self._arrivals)


@implementer(IMessage)
class _Sink:
    def __init__(
        self,
        host: str,
        client: ClientInfo,
        incoming: TransactionState,
        arrivals: Arrivals,
    ) -> None:
        self._host = host
        self._client = client
        self._incoming = incoming
        self._arrivals = arrivals
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def finish(self) -> Deferred[Reply]:
        for recipient in self._incoming.recipients:
            arrival = Arrival(
                recipient,
                self._incoming.sender,
                self._host,
                self._client.tls,
                b"".join(self._chunks),
            )
            self._arrivals.add(arrival)
        return succeed(_OK)

    def abort(self) -> None:
        self._chunks.clear()


class MailDestination(Service):
    """
    Listens for mail on one address.

    @param reactor: Also provides C{IReactorTCP}.
    @param identity: What to present behind STARTTLS; without it that isn't
        offered.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        host: MailHost,
        port: int,
        identity: Identity | None,
        arrivals: Arrivals,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._listening: IListeningPort | None = None
        self._factory = SMTPServerFactory(
            reactor,
            ListenerSettings(
                ServerSettings(
                    host.name, size=MAX_MESSAGE, starttls=identity is not None
                )
            ),
            _Everything(host.name, arrivals),
            Presenting(identity) if identity is not None else None,
        )

    def startService(self) -> None:
        super().startService()
        self._listening = IReactorTCP(self._reactor).listenTCP(
            self._port, self._factory, interface=self._host.address
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._listening is None:
            return succeed(None)
        closed = maybeDeferred(self._listening.stopListening)
        return closed.addCallback(lambda result: self._factory.stop())
