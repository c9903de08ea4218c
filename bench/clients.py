"""
SMTP clients with minimal overhead, so that the servers are measured. They send one
command at a time, as most clients do.
"""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from bench.signature import signer
from moxtls.authentication.dkim.sign import sign

_EHLO = b"EHLO client.bench.example\r\n"
_STARTTLS = b"STARTTLS\r\n"
_QUIT = b"QUIT\r\n"
_ENVELOPE = (
    b"MAIL FROM:<sender@client.bench.example>\r\n",
    b"RCPT TO:<to@mx.bench.example>\r\n",
    b"DATA\r\n",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """
    The messages and connections of a benchmark.

    @ivar port: A port of 127.0.0.1.
    @ivar message: The message as transmitted, with its end.
    @ivar each: Messages per connection.
    @ivar width: Concurrent connections.
    @ivar tls: For STARTTLS.
    """

    port: int
    message: bytes
    each: int
    width: int
    tls: ssl.SSLContext | None


def message(size: int) -> bytes:
    """
    A signed message of about C{size} bytes, as transmitted after DATA.
    """
    header = (
        b"From: Sender <sender@client.bench.example>\r\n"
        b"To: <to@mx.bench.example>\r\n"
        b"Subject: benchmark\r\n"
        b"Date: Tue, 24 Nov 2026 00:00:00 +0000\r\n"
        b"Message-ID: <1@client.bench.example>\r\n\r\n"
    )
    line = b"As long as the lines of attachments are: they are what most mail is.\r\n"
    body = line * ((size - len(header)) // len(line) + 1)
    return sign((header + body)[: size - 2] + b"\r\n", [signer()]) + b".\r\n"


def anyServer() -> ssl.SSLContext:
    """
    A context of clients that don't verify certificates and resume no sessions: each
    handshake is a full one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def send(load: Workload, count: int) -> None:
    """
    Send C{count} messages, rounded up to whole connections.

    @raise RuntimeError: A message was refused.
    """
    left = -(-count // load.each)
    running = 0

    def ended() -> None:
        nonlocal running
        running -= 1

    with selectors.DefaultSelector() as watch:
        while left or running:
            while left and running < load.width:
                left, running = left - 1, running + 1
                _Connection(watch, load, ended).begin()
            for key, _ in watch.select():
                key.data()


class _Connection:
    """
    One connection.
    """

    def __init__(
        self, watch: selectors.BaseSelector, load: Workload, ended: Callable[[], None]
    ) -> None:
        self._watch = watch
        self._load = load
        self._ended = ended
        mail = (*_ENVELOPE, load.message) * load.each
        start = (_EHLO, _STARTTLS, _EHLO) if load.tls else (_EHLO,)
        self._script = iter((*start, *mail, _QUIT))
        self._said = b""
        self._heard = b""
        self._line: socket.socket | ssl.SSLSocket = socket.socket()

    def begin(self) -> None:
        self._line.connect(("127.0.0.1", self._load.port))
        self._line.setblocking(False)
        self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch.register(self._line, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        try:
            data = self._line.recv(65536)
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        if not data:
            self._finish()
            return
        heard = self._heard + data
        self._heard = heard
        if not heard.endswith(b"\r\n"):
            return
        last = heard[heard.rfind(b"\n", 0, -2) + 1 :]
        if last[3:4] != b" ":
            return
        if last[:1] not in b"23":
            raise RuntimeError(f"the server says {last!r}")
        self._heard = b""
        self._next()

    def _next(self) -> None:
        if self._said == _STARTTLS:
            self._said = b""
            self._secure()
            return
        self._said = next(self._script, b"")
        if self._said:
            self._write(self._said)

    def _write(self, data: bytes) -> None:
        try:
            sent = self._line.send(data)
        except (ssl.SSLWantWriteError, BlockingIOError):
            sent = 0
        if sent == len(data):
            return
        rest = data[sent:]

        def more() -> None:
            self._watch.modify(self._line, selectors.EVENT_READ, self._read)
            self._write(rest)

        self._watch.modify(self._line, selectors.EVENT_WRITE, more)

    def _secure(self) -> None:
        assert self._load.tls is not None
        self._watch.unregister(self._line)
        self._line = self._load.tls.wrap_socket(
            self._line,
            do_handshake_on_connect=False,
            server_hostname="mx.bench.example",
        )
        self._watch.register(self._line, selectors.EVENT_READ, self._shake)
        self._shake()

    def _shake(self) -> None:
        assert isinstance(self._line, ssl.SSLSocket)
        try:
            self._line.do_handshake()
        except ssl.SSLWantReadError:
            return
        self._watch.modify(self._line, selectors.EVENT_READ, self._read)
        self._next()

    def _finish(self) -> None:
        self._watch.unregister(self._line)
        self._line.close()
        self._ended()
