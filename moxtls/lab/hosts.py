# -*- test-case-name: tests.lab.test_hosts -*-
"""
The lab's servers: mail hosts, a web server for MTA-STS policies (RFC 8461 3.3) and TLS
reports (RFC 8460 5.4), and DNS over UDP and TCP (RFC 1035 4.2, RFC 7766).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.rcode
from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    ITCPTransport,
)
from twisted.internet.protocol import DatagramProtocol, ServerFactory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR, NOT_FOUND, OK
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from moxtls.lab.arrivals import Arrival, Arrivals
from moxtls.lab.keys import Identity, LabCA, selfSigned
from moxtls.lab.plan import MailHost, policyText
from moxtls.lab.scenario import UPLOAD_HOST, UPLOAD_PATH, LabDestination, PolicyHost
from moxtls.lab.zones import PAYLOAD
from moxtls.message.header import ClientInfo
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.server.state import ServerSettings, TransactionState
from moxtls.smtp.types import Reply

#: Messages are kept in memory.
MAX_MESSAGE = 10 * 1024 * 1024

_OK = Reply(250, "2.0.0", "OK")


@implementer(IMessageDelivery)
class _AcceptAll:
    """
    Accepts mail for all recipients.
    """

    def __init__(self, host: str, arrivals: Arrivals) -> None:
        self._host = host
        self._arrivals = arrivals

    def mailFrom(
        self, client: ClientInfo, transaction: TransactionState
    ) -> Deferred[Reply]:
        return succeed(_OK)

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        return succeed(_OK)

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        return _Sink(self._host, client, transaction, self._arrivals)


@implementer(IMessage)
class _Sink:
    def __init__(
        self,
        host: str,
        client: ClientInfo,
        transaction: TransactionState,
        arrivals: Arrivals,
    ) -> None:
        self._host = host
        self._client = client
        self._transaction = transaction
        self._arrivals = arrivals
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def finish(self) -> Deferred[Reply]:
        for recipient in self._transaction.recipients:
            arrival = Arrival(
                recipient,
                self._transaction.sender,
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
    A mail host that listens on one address.

    @param reactor: Also provides C{IReactorTCP}.
    @param identity: The certificate for STARTTLS; without it STARTTLS isn't offered.
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
                    host.name, maxSize=MAX_MESSAGE, starttls=identity is not None
                )
            ),
            _AcceptAll(host.name, arrivals),
            ServerTLSCreator(identity) if identity is not None else None,
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


POLICY_PATH = "/.well-known/mta-sts.txt"
#: The maximum size of a report: larger than any in the lab.
MAX_REPORT = 1024 * 1024
TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """
    The HTTP response to a request for a policy.
    """

    status: int
    body: bytes


def servedPolicies(destinations: Sequence[LabDestination]) -> dict[str, ServedPolicy]:
    """
    The responses by name of the policy host.
    """
    served = {}
    for each in destinations:
        if each.sts is not None:
            status = _STATUS.get(each.sts.host, OK)
            body = policyText(each) if status == OK else None
            served[policyHost(each)] = ServedPolicy(status, body or b"")
    return served


_STATUS = {
    PolicyHost.MISSING: NOT_FOUND,
    PolicyHost.BROKEN: INTERNAL_SERVER_ERROR,
}


def policyHost(destination: LabDestination) -> str:
    return f"mta-sts.{destination.domain}"


class _Pages(Resource):
    """
    The resources of all hosts.
    """

    isLeaf = True

    def __init__(
        self, policies: Mapping[str, ServedPolicy], arrivals: Arrivals
    ) -> None:
        super().__init__()
        self._policies = policies
        self._arrivals = arrivals

    def render_GET(self, request: IRequest) -> bytes:
        """
        Serve a policy.
        """
        policy = self._policies.get(_host(request))
        if policy is None or request.path != POLICY_PATH.encode():
            return _say(request, NOT_FOUND, b"")
        return _say(request, policy.status, policy.body)

    def render_POST(self, request: IRequest) -> bytes:
        """
        Accept a report.
        """
        host, path = _host(request), request.path.decode("ascii", "replace")
        if host != UPLOAD_HOST or not path.startswith(f"{UPLOAD_PATH}/"):
            return _say(request, NOT_FOUND, b"")
        content = request.content.read(MAX_REPORT + 1)
        if len(content) > MAX_REPORT:
            return _say(request, TOO_LARGE, b"")
        kind = request.getHeader("content-type") or ""
        arrival = Arrival(
            f"https://{host}{path}",
            str(getattr(request.getClientAddress(), "host", "")),
            host,
            "HTTPS",
            content,
            kind,
        )
        self._arrivals.add(arrival, "json.gz")
        return _say(request, OK, b"")


def _host(request: IRequest) -> str:
    name: str = request.getRequestHostname().decode("ascii", "replace")
    return name.lower()


def _say(request: IRequest, status: int, body: bytes) -> bytes:
    request.setResponseCode(status)
    request.setHeader("content-type", "text/plain")
    return body


class WebHost(Service):
    """
    A web server that listens on one address, for all host names.

    @param reactor: Also provides C{IReactorTCP}.
    @param endpoint: An address and a port.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: tuple[str, int],
        destinations: Sequence[LabDestination],
        ca: LabCA,
        arrivals: Arrivals,
    ) -> None:
        self._reactor = reactor
        self._address, self._port = endpoint
        self._listening: IListeningPort | None = None
        policies = servedPolicies(destinations)
        bad = [
            policyHost(each)
            for each in destinations
            if each.sts is not None and each.sts.host is PolicyHost.BAD_CERTIFICATE
        ]
        tls = ServerTLSCreator(
            ca.issue([UPLOAD_HOST, *sorted(policies)]),
            {name: selfSigned(name, ca.now) for name in bad},
        )
        site = Site(_Pages(policies, arrivals), reactor=reactor)
        site.noisy = False
        self._factory = TLSMemoryBIOFactory(tls, False, site, clock=reactor)
        self._factory.noisy = False

    def startService(self) -> None:
        super().startService()
        # TLSMemoryBIOFactory calls itself a ClientFactory, and is both.
        self._listening = IReactorTCP(self._reactor).listenTCP(
            self._port,
            self._factory,  # type: ignore[arg-type]
            interface=self._address,
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._listening is None:
            return succeed(None)
        for connection in tuple(self._factory.protocols):
            connection.abortConnection()
        closed = maybeDeferred(self._listening.stopListening)
        return closed.addCallback(lambda result: None)


#: RFC 1035 4.2.1: what everybody can take.
MIN_PAYLOAD = 512
LARGEST = 65535
#: RFC 7766 6.2.3: of the order of seconds.
IDLE = 10.0
_HEADER = 12


class IResponder(Protocol):
    """
    Answers DNS queries.
    """

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        """
        @param query: One with a single question.
        """


def respondTo(face: IResponder, wire: bytes, datagram: bool) -> bytes | None:
    """
    @return: What to send back; C{None} for what deserves no answer.
    """
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return _formErr(wire)
    if query.flags & dns.flags.QR:
        return None  # two servers would answer each other for ever
    if len(query.question) != 1:
        return _formErr(wire)
    limit = LARGEST
    if datagram:
        payload = query.payload if query.edns >= 0 else MIN_PAYLOAD
        limit = min(max(payload, MIN_PAYLOAD), PAYLOAD)
    return face.respond(query).to_wire(max_size=limit, prefer_truncation=True)


def _formErr(wire: bytes) -> bytes | None:
    if len(wire) < _HEADER or wire[2] & 0x80:
        return None
    response = dns.message.Message(int.from_bytes(wire[:2], "big"))
    response.flags = dns.flags.Flag.QR
    response.set_rcode(dns.rcode.FORMERR)
    return response.to_wire()


class _Datagrams(DatagramProtocol):
    def __init__(self, face: IResponder) -> None:
        self._face = face

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        response = respondTo(self._face, datagram, datagram=True)
        if response is not None and self.transport is not None:
            self.transport.write(response, addr)


class _Stream(Int16StringReceiver, TimeoutMixin):
    def __init__(
        self, clock: IReactorTime, face: IResponder, streams: set[_Stream]
    ) -> None:
        self._clock = clock
        self._face = face
        self._streams = streams

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        return self._clock.callLater(period, func)

    def connectionMade(self) -> None:
        self._streams.add(self)
        self.setTimeout(IDLE)

    def stringReceived(self, string: bytes) -> None:
        self.resetTimeout()
        response = respondTo(self._face, string, datagram=False)
        if response is not None:
            self.sendString(response)

    def abortConnection(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        self._streams.discard(self)


class _Streams(ServerFactory):
    noisy = False

    def __init__(self, clock: IReactorTime, face: IResponder) -> None:
        self._clock = clock
        self._face = face
        self.streams: set[_Stream] = set()

    def buildProtocol(self, addr: IAddress | None) -> _Stream:
        return _Stream(self._clock, self._face, self.streams)


class DNSServer(Service):
    """
    A DNS server that listens on one address, over both transports.

    @param reactor: Also provides C{IReactorTCP} and C{IReactorUDP}.
    """

    def __init__(
        self, reactor: IReactorTime, address: str, port: int, face: IResponder
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._port = port
        self._face = face
        self._streams = _Streams(reactor, face)
        self._ports: list[IListeningPort] = []

    def startService(self) -> None:
        super().startService()
        datagrams = _Datagrams(self._face)
        datagrams.noisy = False
        self._ports = [
            IReactorUDP(self._reactor).listenUDP(
                self._port, datagrams, self._address, LARGEST
            ),
            IReactorTCP(self._reactor).listenTCP(
                self._port, self._streams, interface=self._address
            ),
        ]

    def stopService(self) -> Deferred[None]:
        super().stopService()
        ports, self._ports = self._ports, []
        closed = [maybeDeferred(port.stopListening) for port in ports]
        for stream in list(self._streams.streams):
            stream.abortConnection()
        return gatherResults(closed).addCallback(lambda results: None)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLSCreator:
    """
    TLS with one certificate, and others for clients that ask for them by name (RFC
    6066 3).
    """

    def __init__(
        self, identity: Identity, byName: Mapping[str, Identity] | None = None
    ) -> None:
        self._context = identity.context()
        others = (byName or {}).items()
        self._byName = {name.encode(): other.context() for name, other in others}
        self._context.set_tlsext_servername_callback(self._choose)

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        Start one handshake.
        """
        return SSL.Connection(self._context, None)

    def _choose(self, connection: SSL.Connection) -> None:
        other = self._byName.get((connection.get_servername() or b"").lower())
        if other is not None:
            connection.set_context(other)
