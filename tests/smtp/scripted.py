"""
A scripted server for tests of clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.starttls import ServerTLSCreator

EXTENSIONS = ("PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "REQUIRETLS")


class Scripted(Protocol):
    """
    An SMTP server with scripted replies.

    @ivar heard: All received data, decrypted, with C{b"<TLS>"} for the handshake.
    @ivar messages: The received messages, decoded.
    @ivar lost: The reason of the connection's end.
    """

    def __init__(
        self,
        context: SSL.Context | None = None,
        replies: Mapping[str, str | list[str]] | None = None,
        extensions: tuple[str, ...] = EXTENSIONS,
        greeting: str = "220 mx.example ESMTP 4711",
        behindStartTLS: bytes | None = None,
        immediate: bool = False,
        lineEnd: bytes = b"\r\n",
    ) -> None:
        """
        @param replies: By verb, other replies than "250 ok"; one of a list each time.
        @param behindStartTLS: Plaintext sent after the reply to STARTTLS, instead of
            a handshake.
        @param lineEnd: The end of each line of all replies except that to STARTTLS.
        """
        self._lineEnd = lineEnd
        self.context = context
        self.replies = dict(replies or {})
        self.extensions = extensions
        self.greeting = greeting
        self.behind = behindStartTLS
        self.immediate = immediate
        self.heard = b""
        self.messages: list[bytes] = []
        self.lost: Failure | None = None
        self._buffer = b""
        self._inData = False
        # The handshake that follows may contain line ends.
        self._isDeaf = False

    def connectionMade(self) -> None:
        if self.immediate:
            self._secure()
        self._say(self.greeting)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    def dataReceived(self, data: bytes) -> None:
        if self._isDeaf:
            return
        self.heard += data
        self._buffer += data
        while self._take():
            pass

    @property
    def commands(self) -> list[str]:
        """
        The received lines outside of messages.
        """
        return self.heard.decode("latin-1").split("\r\n")[:-1]

    def _take(self) -> bool:
        end = b"\r\n.\r\n" if self._inData else b"\r\n"
        buffer = b"\r\n" + self._buffer if self._inData else self._buffer
        part, found, rest = buffer.partition(end)
        if not found:
            return False
        self._buffer = rest
        if self._inData:
            self._inData = False
            self.messages.append((part + b"\r\n").replace(b"\r\n.", b"\r\n")[2:])
            self._say(self._reply("END", "250 2.0.0 queued"))
        else:
            self._command(part.decode("latin-1"))
        return True

    def _command(self, line: str) -> None:
        verb = line.split()[0].upper()
        reply = self._reply(verb, self._usual(verb))
        self._say(reply)
        self._inData = verb == "DATA" and reply.startswith("354")
        if verb == "STARTTLS" and reply.startswith("220"):
            if self.behind is not None:
                self._isDeaf = True
                self._buffer = b""
                self._write(self.behind)
            else:
                self._secure()
        elif verb == "QUIT" and reply:
            self._transport.loseConnection()

    def _usual(self, verb: str) -> str:
        if verb == "EHLO":
            offers = ["STARTTLS"] if self.context and not self._transport.tls else []
            return "\n".join(
                f"250 {each}" for each in ["hi", *offers, *self.extensions]
            )
        usable = self.context is not None or self.behind is not None
        return {
            "STARTTLS": "220 go" if usable else "502 no",
            "DATA": "354 go on",
            "QUIT": "221 bye",
        }.get(verb, "250 2.0.0 ok")

    def _reply(self, verb: str, usual: str) -> str:
        said = self.replies.get(verb, usual)
        if isinstance(said, list):
            return said.pop(0) if said else usual
        return said

    def _say(self, reply: str) -> None:
        if not reply:
            return
        lines = [line.encode() for line in reply.split("\n")]
        for line in lines[:-1]:
            self._write(line[:3] + b"-" + line[4:] + self._lineEnd)
        # RFC 3207 6: there can be nothing behind the reply to STARTTLS.
        isStartTLS = b"STARTTLS" in self.heard.split(b"\r\n")[-2:-1]
        self._write(lines[-1] + (b"\r\n" if isStartTLS else self._lineEnd))

    def _secure(self) -> None:
        assert self.context is not None
        self.heard += b"<TLS>\r\n"
        self._transport.startTLS(ServerTLSCreator(self.context))

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    @property
    def _transport(self) -> Any:
        return self.transport
