# -*- test-case-name: tests.dns.test_transport -*-
"""
Sends one query to one server: over UDP, and over TCP if the answer is truncated.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.dns.types import Answer, NameServer
from moxtls.dns.wire import (
    Question,
    UnusableResponse,
    encodeQuery,
    failedAnswer,
    parseResponse,
)

#: Larger than any answer to a query that says it takes 1232 octets.
_MAX_DATAGRAM = 65535
_LENGTH_SIZE = 2


@dataclass(frozen=True, slots=True)
class NoReply:
    """
    A server sent no usable response.
    """

    reason: str


#: Sends a query to a server.  Fires with the answer; waits until it is cancelled.
SendQuery = Callable[[NameServer, Question], Deferred[Answer | NoReply]]

#: Parses a response.
_Reader = Callable[[bytes], Answer | UnusableResponse]


def randomID() -> int:
    """
    A random query id, which can't be guessed (RFC 5452 9.2).
    """
    return secrets.randbits(16)


class DNSTransport:
    """
    Sends queries over the network.

    Each query has a socket of its own, with a port chosen by the operating
    system at random, and a random id (RFC 5452 9.2).

    @param reactor: Also provides C{IReactorTCP}.
    """

    def __init__(
        self, reactor: IReactorFDSet, newID: Callable[[], int] = randomID
    ) -> None:
        self._reactor = reactor
        self._newID = newID

    def ask(self, server: NameServer, asked: Question) -> Deferred[Answer | NoReply]:
        return Deferred.fromCoroutine(self._ask(server, asked))

    async def _ask(self, server: NameServer, asked: Question) -> Answer | NoReply:
        messageID = self._newID()
        query = encodeQuery(asked, messageID)

        def read(wire: bytes) -> Answer | UnusableResponse:
            return parseResponse(wire, messageID, asked, server.trustsAD)

        reply = await _Datagram(self._reactor, read).exchange(server, query)
        if reply is UnusableResponse.TRUNCATED:
            reply = await self._stream(server, query, read)
        if isinstance(reply, UnusableResponse):
            return failedAnswer(asked, f"{reply.value}, over TCP")
        return reply

    async def _stream(
        self, server: NameServer, query: bytes, read: _Reader
    ) -> Answer | UnusableResponse | NoReply:
        # TCP4ClientEndpoint works for IPv6 addresses as well; the endpoint for
        # names would resolve the address in a thread.
        endpoint = TCP4ClientEndpoint(self._reactor, server.host, server.port)
        stream = _Stream(query, read)
        try:
            await connectProtocol(endpoint, stream)
        except CancelledError:
            raise
        except (ConnectError, OSError) as error:
            return NoReply(f"TCP: {error}")
        return await stream.reply


@implementer(IReadDescriptor)
class _Datagram:
    """
    A UDP socket for one query.

    It isn't made by C{listenUDP}, which would log two lines for each query.
    """

    def __init__(self, reactor: IReactorFDSet, read: _Reader) -> None:
        self._reactor = reactor
        self._read = read
        self._socket: socket.socket | None = None
        self._reply: Deferred[Answer | UnusableResponse | NoReply] = Deferred(
            self._cancelled
        )

    def exchange(
        self, server: NameServer, query: bytes
    ) -> Deferred[Answer | UnusableResponse | NoReply]:
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            # The kernel discards datagrams from other addresses, and reports ICMP
            # errors.
            self._socket.connect((server.host, server.port))
            self._socket.send(query)
        except OSError as error:
            self._end(NoReply(f"UDP: {error}"))
        else:
            self._reactor.addReader(self)
        return self._reply

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket else -1

    def logPrefix(self) -> str:
        return "DNS"

    def doRead(self) -> None:
        if self._socket is None:
            return
        try:
            wire = self._socket.recv(_MAX_DATAGRAM)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(NoReply(f"UDP: {error}"))
            return
        reply = self._read(wire)
        # RFC 5452 9.1: a response that doesn't match is ignored.
        if reply is not UnusableResponse.FOREIGN:
            self._end(reply)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has detected an error of the socket.
        """
        if self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            said = os.strerror(code) if code else reason.getErrorMessage()
            self._end(NoReply(f"UDP: {said}"))

    def _end(self, reply: Answer | UnusableResponse | NoReply) -> None:
        self._close()
        self._reply.callback(reply)

    def _cancelled(self, reply: Deferred[Answer | UnusableResponse | NoReply]) -> None:
        self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None


class _Stream(Protocol):
    """
    A TCP connection for one query (RFC 7766).

    @ivar reply: Fires with the parsed response, or the reason why there is none.
    """

    def __init__(self, query: bytes, read: _Reader) -> None:
        self._query = query
        self._read = read
        self._received = bytearray()
        self._over = False
        self.reply: Deferred[Answer | UnusableResponse | NoReply] = Deferred(
            self._cancelled
        )

    def connectionMade(self) -> None:
        length = len(self._query).to_bytes(_LENGTH_SIZE, "big")
        self._transport().write(length + self._query)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        length = int.from_bytes(self._received[:_LENGTH_SIZE], "big")
        end = _LENGTH_SIZE + length
        # Data after the first message is ignored; the connection is closed then,
        # so that the buffer doesn't grow.
        if len(self._received) >= end:
            self._end(self._read(bytes(self._received[_LENGTH_SIZE:end])))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(NoReply(f"TCP: {reason.getErrorMessage()}"))

    def _end(self, reply: Answer | UnusableResponse | NoReply) -> None:
        if not self._over:
            self._over = True
            self._transport().abortConnection()
            self.reply.callback(reply)

    def _cancelled(self, reply: Deferred[Answer | UnusableResponse | NoReply]) -> None:
        self._over = True
        self._transport().abortConnection()

    def _transport(self) -> ITCPTransport:
        transport = self.transport
        assert ITCPTransport.providedBy(transport)
        return transport
