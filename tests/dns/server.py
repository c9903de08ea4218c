"""
A small DNS server on loopback with scripted misbehaviour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTCP,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol, Protocol, ServerFactory

from moxtls.dns.types import NameServer, RRType

SOA = "ns.example. hostmaster.example. 1 3600 600 86400 60"


class Deviation(Enum):
    """
    A deviation in the response to the next datagram. Forged responses are followed by
    the true one.
    """

    TRUNCATE = "TC is set, the answer is left out"
    DROP = "nothing is said"
    WRONG_ID = "an answer with another id"
    WRONG_QUESTION = "an answer to another question"
    WRONG_SOURCE = "an answer from another port"
    SERVFAIL = "SERVFAIL, with an extended error"
    GARBAGE = "the right header and question, then garbage"
    HANG_UP = "the connection is closed (TCP only)"


class Zone:
    """
    The records and behaviour of a server.

    @ivar asked: Each query: transport, name, kind.
    @ivar ports: The source ports of queries over UDP.
    @ivar deviations: Deviations for the next datagrams.
    @ivar streamDeviations: Deviations for the next queries over TCP: C{DROP},
        C{HANG_UP}.
    @ivar broken: Names that are answered with SERVFAIL.
    """

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.asked: list[tuple[str, str, str]] = []
        self.ports: list[int] = []
        self.deviations: deque[Deviation] = deque()
        self.streamDeviations: deque[Deviation] = deque()
        self._data: dict[tuple[str, str], tuple[list[str], bool]] = {}

    def put(self, name: str, kind: RRType, *texts: str, ad: bool = False) -> None:
        """
        @param texts: As in a zone file; names with a final dot.
        """
        self._data[name, kind.value] = ([*texts], ad)

    def respond(self, query: dns.message.Message, via: str) -> dns.message.Message:
        name = query.question[0].name.to_text().lower().removesuffix(".")
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((via, name, kind))
        response = dns.message.make_response(query, recursion_available=True)
        if name in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        response.flags |= dns.flags.AD
        if not self._fill(response, name, kind):
            response.authority.append(
                dns.rrset.from_text("example.", 300, "IN", "SOA", SOA)
            )
            if not any(known == name for known, _ in self._data):
                response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> bool:
        while (name, kind) not in self._data and (name, "CNAME") in self._data:
            target = self._add(response, name, "CNAME")[0]
            name = target.removesuffix(".")
        return bool(self._add(response, name, kind))

    def _add(self, response: dns.message.Message, name: str, kind: str) -> list[str]:
        texts, ad = self._data.get((name, kind), ([], False))
        if not ad:
            response.flags &= ~dns.flags.AD
        if texts:
            owner = dns.name.from_text(name or ".")
            response.answer.append(
                dns.rrset.from_text_list(owner, 60, "IN", kind, texts)
            )
        return texts


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, zone: Zone, elsewhere: Callable[[], IUDPTransport]) -> None:
        self._zone = zone
        self._elsewhere = elsewhere

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self._zone.ports.append(addr[1])
        response = self._zone.respond(dns.message.from_wire(datagram), "UDP")
        deviation = self._zone.deviations.popleft() if self._zone.deviations else None
        for wire in _forged(deviation, response):
            sender = (
                self._elsewhere()
                if deviation is Deviation.WRONG_SOURCE
                else self.transport
            )
            assert sender is not None
            sender.write(wire, addr)
        if deviation in _TRUTH_FOLLOWS:
            assert self.transport is not None
            self.transport.write(response.to_wire(), addr)


_TRUTH_FOLLOWS = {
    None,
    Deviation.WRONG_ID,
    Deviation.WRONG_QUESTION,
    Deviation.WRONG_SOURCE,
}


def _forged(deviation: Deviation | None, response: dns.message.Message) -> list[bytes]:
    forged = dns.message.from_wire(response.to_wire(max_size=65535))
    forged.answer = [
        dns.rrset.from_text(each.name, 60, "IN", "A", "192.0.2.66")
        for each in response.question
    ]
    forged.authority = []
    match deviation:
        case None | Deviation.DROP:
            return []
        case Deviation.TRUNCATE:
            forged.answer = []
            forged.flags |= dns.flags.TC
        case Deviation.WRONG_ID:
            forged.id ^= 1
        case Deviation.WRONG_QUESTION:
            forged.question = [dns.rrset.from_text("x.", 0, "IN", "A")]
        case Deviation.SERVFAIL:
            forged.answer = []
            forged.set_rcode(dns.rcode.SERVFAIL)
            error = dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "no signature")
            forged.use_edns(0, options=[error])
        case Deviation.GARBAGE:
            return [forged.to_wire()[:-5] + b"\xff" * 40]
    return [forged.to_wire()]


class _Stream(Protocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        length = int.from_bytes(self._received[:2], "big")
        if len(self._received) < length + 2:
            return
        query = dns.message.from_wire(self._received[2 : length + 2])
        wire = self._zone.respond(query, "TCP").to_wire(max_size=65535)
        assert self.transport is not None
        deviation = (
            self._zone.streamDeviations.popleft()
            if self._zone.streamDeviations
            else None
        )
        if deviation is Deviation.HANG_UP:
            self.transport.loseConnection()
        if deviation is not None:
            return
        # In two pieces, as TCP may deliver them.
        message = len(wire).to_bytes(2, "big") + wire
        self.transport.write(message[:1])
        self.transport.write(message[1:])


class _Streams(ServerFactory):
    noisy = False

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def buildProtocol(self, addr: IAddress | None) -> _Stream:
        return _Stream(self._zone)


class LoopbackServer:
    """
    @ivar address: Where it listens, with UDP and TCP.
    """

    def __init__(self, udp: IReactorUDP, tcp: IReactorTCP, host: str) -> None:
        self.zone = Zone()
        elsewhere = DatagramProtocol()
        elsewhere.noisy = False

        def other() -> IUDPTransport:
            transport = elsewhere.transport
            assert transport is not None
            return transport

        factory = _Streams(self.zone)
        self._ports = [udp.listenUDP(0, elsewhere, host, 8192)]
        while True:
            stream = tcp.listenTCP(0, factory, interface=host)
            datagrams = _Datagrams(self.zone, other)
            try:
                port = udp.listenUDP(portNumber(stream), datagrams, host, 8192)
            except CannotListenError:
                # Somebody else has the same port for UDP; not to be given it
                # again, this one is held.
                self._ports.append(stream)
            else:
                break
        self._ports += [port, stream]
        self.address = NameServer(host, portNumber(port))

    def stopStream(self) -> Deferred[object]:
        return maybeDeferred(self._ports.pop().stopListening)

    def stop(self) -> Deferred[list[object]]:
        return gatherResults(
            [maybeDeferred(each.stopListening) for each in self._ports]
        )


def portNumber(port: IListeningPort) -> int:
    host = port.getHost()
    assert isinstance(host, (IPv4Address, IPv6Address))
    return host.port
