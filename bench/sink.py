"""
An SMTP server with minimal overhead that accepts and discards everything, so that the
clients are measured.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import react
from twisted.internet.tcp import Port
from zope.interface import implementer

from bench.children import printPorts, readPEM
from bench.identity import serverContext
from bench.settings import IReactor

_BACKLOG = 1000
_END = b"\r\n.\r\n"
# The EHLO reply of a common server.
_EXTENSIONS = (b"PIPELINING", b"SIZE 52428800", b"8BITMIME", b"ENHANCEDSTATUSCODES")


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLSCreator:
    """
    The TLS connection creator for C{startTLS}.
    """

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class Sink(Protocol):
    """
    One connection.
    """

    def __init__(self, tls: ServerTLSCreator | None) -> None:
        self._tls = tls
        self._buffer = b""
        self._inMessage = False

    def connectionMade(self) -> None:
        self._line.setTcpNoDelay(True)
        self._line.write(b"220 mx.bench.example ESMTP\r\n")

    @property
    def _line(self) -> ITLSTransport:
        return self.transport  # type: ignore[return-value]  # reactors' are

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        replies = []
        while (reply := self._next()) is not None:
            replies.append(reply)
        if replies:
            self._line.write(b"".join(replies))
        if replies and replies[-1] == b"220 2.0.0 Go on\r\n" and self._tls:
            self._line.startTLS(self._tls)
            self._tls = None
        if replies and replies[-1].startswith(b"221"):
            self._line.loseConnection()

    def _next(self) -> bytes | None:
        end = _END if self._inMessage else b"\r\n"
        unit, found, rest = self._buffer.partition(end)
        if not found:
            return None
        self._buffer = rest
        if self._inMessage:
            self._inMessage = False
            return b"250 2.0.0 Gone\r\n"
        return self._answer(unit[:4].upper())

    def _answer(self, verb: bytes) -> bytes:
        match verb:
            case b"EHLO":
                offered = (*_EXTENSIONS, b"STARTTLS") if self._tls else _EXTENSIONS
                lines = [b"250-mx.bench.example", *(b"250-%b" % e for e in offered)]
                return b"\r\n".join([*lines, b"250 HELP\r\n"])
            case b"DATA":
                self._inMessage = True
                return b"354 Go on\r\n"
            case b"STAR":
                return b"220 2.0.0 Go on\r\n"
            case b"QUIT":
                return b"221 2.0.0 Bye\r\n"
            case _:
                return b"250 2.0.0 Yes\r\n"


class Sinks(ServerFactory):
    """
    Accepts connections on one port.
    """

    noisy = False

    def __init__(self, tls: ServerTLSCreator | None) -> None:
        self._tls = tls

    def buildProtocol(self, addr: object) -> Sink:
        return Sink(self._tls)


def _serve(reactor: IReactor) -> Deferred[None]:
    tls = ServerTLSCreator(serverContext(readPEM()))
    ports = []
    for factory in (Sinks(None), Sinks(tls)):
        port = reactor.listenTCP(0, factory, _BACKLOG, "127.0.0.1")
        assert isinstance(port, Port)
        ports.append(port.getHost().port)
    printPorts(*ports)
    # The parent ends it.
    return Deferred()


if __name__ == "__main__":
    react(_serve)
