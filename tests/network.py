"""
A network in memory: servers at addresses, and endpoints that connect to them, with
real OpenSSL for TLS. Data moves only when a test flushes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from zope.interface import implementer

from moxtls.message.header import ClientInfo
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.server.state import ServerSettings, TransactionState
from moxtls.smtp.types import Reply
from tests.starttls import End, Link

SMTP = 25
#: From where connections come, by family.
OUR_IP = "192.0.2.1"
OUR_IPV6 = "2001:db8::1"

#: Makes the server's end of a connection that comes from an address.
Build = Callable[[IPv4Address | IPv6Address], IProtocol | None]


def address(ip: str, port: int) -> IPv4Address | IPv6Address:
    """
    The IAddress of an IP address.
    """
    kind = IPv6Address if ipaddress.ip_address(ip).version == 6 else IPv4Address
    return kind("TCP", ip, port)


class Network:
    """
    Servers by address.

    @ivar dialed: The addresses of attempted connections, in order.
    @ivar calls: The connections made.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.dialed: list[str] = []
        self.calls: list[Call] = []
        self._servers: dict[tuple[str, int], Build] = {}
        self._silent: set[str] = set()

    def serve(self, ip: str, *servers: IProtocol, port: int = SMTP) -> None:
        """
        Answer connections with C{servers}, one after the other; refuse those
        that come after the last.
        """
        waiting = list(servers)
        self.answer(ip, lambda peer: waiting.pop(0) if waiting else None, port)

    def answer(self, ip: str, build: Build, port: int = SMTP) -> None:
        """
        Serve each connection with the result of C{build}.
        """
        self._servers[ip, port] = build

    def silence(self, ip: str) -> None:
        """
        Let connections neither be made nor refused.
        """
        self._silent.add(ip)

    def endpoint(self, ip: str, port: int) -> IStreamClientEndpoint:
        """
        Like L{moxtls.smtp.client.connection.addressEndpoint}.
        """
        return _Way(self, ip, port)

    def connect(self, ip: str, port: int, client: IProtocolFactory) -> Deferred[Any]:
        self.dialed.append(ip)
        if ip in self._silent:
            return Deferred()
        ours = address(OUR_IPV6 if ":" in ip else OUR_IP, 40000 + len(self.calls))
        build = self._servers.get((ip, port))
        server = build(ours) if build else None
        protocol = client.buildProtocol(address(ip, port)) if server else None
        if server is None or protocol is None:
            return fail(ConnectionRefusedError())
        self.calls.append(Call(protocol, server, self.clock, ours, address(ip, port)))
        return succeed(protocol)

    def flush(self) -> None:
        """
        Deliver everything, and all that follows from it.
        """
        before = -1
        while before != len(self.calls):
            before = len(self.calls)
            for call in tuple(self.calls):
                call.flush()

    @property
    def open(self) -> list[Call]:
        """
        The connections there are.
        """
        return [call for call in self.calls if call.open]


class Call(Link):
    """
    A connection between two addresses.
    """

    def __init__(
        self,
        client: IProtocol,
        server: IProtocol,
        clock: Clock,
        ours: IPv4Address | IPv6Address,
        theirs: IPv4Address | IPv6Address,
    ) -> None:
        self.clock = clock
        self.open = True
        self.client: End = _CallEnd(self, True, ours, theirs)
        self.server: End = _CallEnd(self, False, theirs, ours)
        for end, protocol in ((self.server, server), (self.client, client)):
            end.protocol = protocol
            protocol.makeConnection(end)


class _CallEnd(End):
    def __init__(
        self,
        link: Link,
        isClient: bool,
        host: IPv4Address | IPv6Address,
        peer: IPv4Address | IPv6Address,
    ) -> None:
        super().__init__(link, isClient)
        self._host = host
        self._peer = peer

    def getHost(self) -> Any:
        return self._host

    def getPeer(self) -> Any:
        return self._peer


@implementer(IStreamClientEndpoint)
class _Way:
    def __init__(self, network: Network, ip: str, port: int) -> None:
        self._network = network
        self._ip = ip
        self._port = port

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return self._network.connect(self._ip, self._port, protocolFactory)


@implementer(IOpenSSLServerConnectionCreator)
class Serving:
    """
    A listener's TLS connection creator.
    """

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


@implementer(IMessageDelivery)
class AcceptingDelivery:
    """
    Accepts mail for all recipients except refused ones.

    @ivar refused: The replies to refused recipients.
    @ivar received: Accepted mail: transaction and message.
    """

    def __init__(self, refused: dict[str, Reply] | None = None) -> None:
        self.refused = refused or {}
        self.received: list[tuple[TransactionState, bytes]] = []

    def mailFrom(
        self, client: ClientInfo, transaction: TransactionState
    ) -> Deferred[Reply]:
        return succeed(Reply(250, "2.1.0", "ok"))

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        return succeed(self.refused.get(recipient, Reply(250, "2.1.5", "ok")))

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        return _Slot(self, transaction)

    def server(
        self,
        clock: Clock,
        context: SSL.Context | None,
        hostname: str = "mx.example",
        transactions: int = 1000,
    ) -> Build:
        """
        The project's own server, with this in it.
        """
        starttls = context is not None
        conversation = ServerSettings(
            hostname, maxTransactions=transactions, starttls=starttls
        )
        factory = SMTPServerFactory(
            clock,
            ListenerSettings(conversation),
            self,
            Serving(context) if context is not None else None,
        )
        return factory.buildProtocol


@implementer(IMessage)
class _Slot:
    def __init__(
        self, delivery: AcceptingDelivery, transaction: TransactionState
    ) -> None:
        self._delivery = delivery
        self._transaction = transaction
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> Deferred[None] | None:
        self._chunks.append(chunk)
        return None

    def finish(self) -> Deferred[Reply]:
        self._delivery.received.append((self._transaction, b"".join(self._chunks)))
        return succeed(Reply(250, "2.0.0", "taken"))

    def abort(self) -> None:
        """
        Discard the message.
        """
