"""
TLS handshakes over loopback sockets: the cost of OpenSSL itself, driven from Python
without a protocol.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable

from OpenSSL import SSL
from OpenSSL.crypto import X509

from bench.children import printPorts, readPEM
from bench.identity import HOST, Certified, serverContext

_BACKLOG = 1000


class Handshake:
    """
    A connection that ends after the handshake.
    """

    def __init__(
        self,
        watch: selectors.BaseSelector,
        connection: SSL.Connection,
        line: socket.socket,
        ended: Callable[[], None],
    ) -> None:
        self._watch = watch
        self._connection = connection
        self._line = line
        self._ended = ended
        self._done = False

    def begin(self, events: int) -> None:
        self._watch.register(self._line, events, self.go)

    def go(self) -> None:
        try:
            if not self._done:
                self._connection.do_handshake()
                self._done = True
            self._finish()
        except SSL.WantReadError:
            self._watch.modify(self._line, selectors.EVENT_READ, self.go)
        except SSL.WantWriteError:
            self._watch.modify(self._line, selectors.EVENT_WRITE, self.go)

    def _finish(self) -> None:
        self._connection.shutdown()
        self._close()

    def _close(self) -> None:
        self._watch.unregister(self._line)
        self._line.close()
        self._ended()


class ServerHandshake(Handshake):
    """
    The server's side: waits for the client to close.
    """

    def _finish(self) -> None:
        try:
            self._connection.recv(1)
        except (SSL.ZeroReturnError, SSL.SysCallError):
            self._close()


class Client:
    """
    Makes several handshakes with a server at once.
    """

    def __init__(self, certified: Certified, port: int) -> None:
        self._port = port
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._context.set_verify(SSL.VERIFY_PEER, lambda *seen: bool(seen[-1]))
        store = self._context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(certified.root))

    def run(self, count: int, width: int) -> None:
        with selectors.DefaultSelector() as watch:
            left, running = count, 0

            def ended() -> None:
                nonlocal running
                running -= 1

            while left or running:
                while left and running < width:
                    left, running = left - 1, running + 1
                    self._begin(watch, ended)
                _turn(watch)

    def _begin(self, watch: selectors.BaseSelector, ended: Callable[[], None]) -> None:
        line = socket.socket()
        line.setblocking(False)
        line.connect_ex(("127.0.0.1", self._port))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = SSL.Connection(self._context, line)
        connection.set_tlsext_host_name(HOST.encode("ascii"))
        connection.set_connect_state()
        Handshake(watch, connection, line, ended).begin(selectors.EVENT_WRITE)


def _turn(watch: selectors.BaseSelector) -> None:
    for key, _ in watch.select():
        key.data()


def serve(pem: bytes) -> None:
    context = serverContext(pem)
    watch = selectors.DefaultSelector()
    listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    listening.setblocking(False)

    def accept() -> None:
        try:
            line, _ = listening.accept()
        except BlockingIOError:
            return
        line.setblocking(False)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = SSL.Connection(context, line)
        connection.set_accept_state()
        ServerHandshake(watch, connection, line, lambda: None).begin(
            selectors.EVENT_READ
        )

    watch.register(listening, selectors.EVENT_READ, accept)
    printPorts(listening.getsockname()[1])
    while True:
        _turn(watch)


if __name__ == "__main__":
    serve(readPEM())
