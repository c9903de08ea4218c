# -*- test-case-name: tests.lab.test_dnsserver -*-
"""
Speaks DNS over UDP and TCP for whoever knows the answers (RFC 1035 4.2, RFC
7766).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.rcode
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    ITCPTransport,
)
from twisted.internet.protocol import DatagramProtocol, ServerFactory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from moxtls.lab.authority import PAYLOAD

#: RFC 1035 4.2.1: what everybody can take.
MIN_PAYLOAD = 512
LARGEST = 65535
#: RFC 7766 6.2.3: of the order of seconds.
IDLE = 10.0
_HEADER = 12


class IResponder(Protocol):
    """
    Who knows the answers.
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
    Listens on one address, for both transports.

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
