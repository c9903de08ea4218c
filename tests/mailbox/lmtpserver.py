"""
A small LMTP server, and connections to it in memory.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.protocols.basic import LineReceiver
from twisted.test.iosim import IOPump, connect, makeFakeClient, makeFakeServer
from zope.interface import implementer

EXTENSIONS = ("store.example", "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")


class LMTPServer(LineReceiver):
    """
    Accepts messages by RFC 2033.

    @ivar said: The commands received.
    @ivar answers: Special replies, by the verb of the command; C{END} for the end of
        data. An empty one disconnects, C{None} is none.
    """

    def __init__(self, network: LMTPNetwork) -> None:
        self.network = network
        self.said: list[str] = []
        self._recipient = ""
        self._data: list[bytes] | None = None

    def connectionMade(self) -> None:
        self.reply("GREETING", "220 store.example LMTP")

    def lineReceived(self, line: bytes) -> None:
        if self._data is None:
            self.said.append(line.decode())
            word = line.split()[0].decode()
            getattr(self, f"do_{word}")(line.decode())
        elif line == b".":
            message = b"".join(each + b"\r\n" for each in self._data)
            self._data = None
            if self.reply("END", "250 2.0.0 stored").startswith("2"):
                self.network.stored.append((self._recipient, message))
        else:
            self._data.append(line.removeprefix(b"."))

    def reply(self, word: str, usual: str) -> str:
        answer = self.network.answers.get(word, usual)
        if answer:
            self.sendLine(answer.encode())
        elif answer is not None:
            self.hangUp()
        return answer or ""

    def do_LHLO(self, line: str) -> None:
        usual = "\r\n".join(f"250-{each}" for each in EXTENSIONS)
        self.reply("LHLO", f"{usual}\r\n250 SIZE 1000000")

    def do_MAIL(self, line: str) -> None:
        self._recipient = ""
        self.reply("MAIL", "250 2.1.0 OK")

    def do_RCPT(self, line: str) -> None:
        if self.reply("RCPT", "250 2.1.5 OK").startswith("2"):
            self._recipient = line[len("RCPT TO:<") : -1]

    def do_DATA(self, line: str) -> None:
        # RFC 2033 4.2.
        if not self._recipient:
            self.reply("DATA", "503 5.5.1 no recipients")
        elif self.reply("DATA", "354 go ahead").startswith("3"):
            self._data = []

    def do_RSET(self, line: str) -> None:
        self.reply("RSET", "250 2.0.0 OK")

    def do_QUIT(self, line: str) -> None:
        self.reply("QUIT", "221 2.0.0 bye")
        self.hangUp()

    def hangUp(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IStreamClientEndpoint)
class LMTPNetwork:
    """
    Leads to an L{LMTPServer}, a new one for each connection.

    @ivar stored: Recipients, and messages.
    @ivar reachable: Whether there is one at all.
    """

    def __init__(self) -> None:
        self.servers: list[LMTPServer] = []
        self.pumps: list[IOPump] = []
        self.stored: list[tuple[str, bytes]] = []
        self.answers: dict[str, str | None] = {}
        self.reachable = True

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if not self.reachable:
            return fail(ConnectionRefusedError())
        client = protocolFactory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 24))
        assert client is not None
        server = LMTPServer(self)
        pump = connect(server, makeFakeServer(server), client, makeFakeClient(client))
        self.servers.append(server)
        self.pumps.append(pump)
        return succeed(client)

    def pump(self) -> None:
        """
        Deliver all data in transit.
        """
        moved = True
        while moved:
            moved = any([pump.pump() for pump in self.pumps])
