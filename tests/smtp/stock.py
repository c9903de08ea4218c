"""
Servers as applications make them with C{twisted.mail.smtp}.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.portal import IRealm, Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail import smtp
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.dmarc.types import VerdictEvent
from moxtls.interfaces import IVerdictObserver


@implementer(smtp.IMessage)
class KeptMessage:
    """
    A message that the application accepts.

    @ivar lines: Its lines.
    @ivar ended: Whether it is complete.
    @ivar lost: The number of calls of C{connectionLost}.
    """

    def __init__(self, answer: Deferred[Any] | None = None) -> None:
        self.lines: list[bytes] = []
        self.ended = False
        self.lost = 0
        self.trouble: Exception | None = None
        self._answer: Deferred[Any] = succeed(None) if answer is None else answer

    def lineReceived(self, line: bytes) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.lines.append(line)

    def eomReceived(self) -> Deferred[Any]:
        self.ended = True
        return self._answer

    def connectionLost(self) -> None:
        self.lost += 1

    @property
    def text(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines)


@implementer(IVerdictObserver)
class FailingObserver(KeptMessage):
    """
    A verdict observer that records events, and fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[VerdictEvent] = []

    def verdictGiven(self, event: VerdictEvent) -> Deferred[None]:
        assert not self.lines
        self.events.append(event)
        raise RuntimeError("thinking about it went wrong")


@implementer(smtp.IMessageDelivery, smtp.IMessageDeliveryFactory)
class Delivery:
    """
    Accepts mail for our.example, except for "nobody"; "later" is accepted with a
    delay.

    @ivar mail: Messages by the recipients' local parts.
    @ivar make: Makes messages.
    """

    trace = b"Received: by stock"

    def __init__(self) -> None:
        self.mail: dict[str, list[KeptMessage]] = {}
        self.make: Any = KeptMessage
        self.waiting: list[Deferred[Any]] = []
        self.heard: list[tuple[Any, bytes]] = []

    def getMessageDelivery(self) -> Delivery:
        return self

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        self.heard.append((helo, bytes(origin)))
        if origin.local == b"evil":
            raise smtp.SMTPBadSender(origin)
        return origin

    def validateTo(self, user: Any) -> Any:
        name = user.dest.local.decode()
        if name == "nobody":
            raise smtp.SMTPBadRcpt(user)

        def made() -> KeptMessage:
            message: KeptMessage = self.make()
            self.mail.setdefault(name, []).append(message)
            return message

        if name == "later":
            later: Deferred[Any] = Deferred()
            self.waiting.append(later)
            return later.addCallback(lambda _: made)
        return made

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        (user,) = recipients
        return self.trace and self.trace + b"\n\tfor " + bytes(user.dest)


@implementer(IRealm)
class Realm:
    """
    Has the same delivery for all users.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        interface = interfaces[-1]
        assert interface is smtp.IMessageDelivery
        return succeed((interface, self._delivery, lambda: None))


def portal(delivery: Delivery) -> Portal:
    """
    A portal that accepts anonymous clients, and "user" with the password "pw".
    """
    users = InMemoryUsernamePasswordDatabaseDontUse(user=b"pw")
    return Portal(Realm(delivery), [AllowAnonymousAccess(), users])


def stockFactory(protocol: Any = smtp.ESMTP, **attributes: Any) -> smtp.SMTPFactory:
    """
    @param attributes: Of each protocol.
    """

    class Factory(smtp.SMTPFactory):
        noisy = False
        domain = b"mx.our.example"

        def buildProtocol(self, addr: Any) -> Any:
            built = super().buildProtocol(addr)
            built.noisy = False
            for name, value in attributes.items():
                setattr(built, name, value)
            return built

    factory = Factory()
    factory.protocol = protocol
    return factory


class Connection:
    """
    A client that sends one command after the other.
    """

    def __init__(
        self, factory: IProtocolFactory, address: str = "192.0.2.1", helo: str = ""
    ) -> None:
        peer = IPv4Address("TCP", address, 1234)
        protocol: Any = factory.buildProtocol(peer)
        self.protocol = protocol
        # Stock protocols set their alarms on the global reactor.
        while protocol is not None:
            protocol.callLater = Clock().callLater
            protocol = getattr(protocol, "wrappedProtocol", None)
        self.transport = StringTransport(peerAddress=peer)
        self.protocol.makeConnection(self.transport)
        self.replies()
        if helo:
            self.say(f"EHLO {helo}")

    def replies(self) -> list[str]:
        """
        The server's output since the last call.
        """
        said: str = self.transport.value().decode()
        self.transport.clear()
        return said.splitlines()

    def say(self, *lines: str) -> list[str]:
        """
        Send this to the server.

        @return: The server's output.
        """
        for line in lines:
            self.protocol.dataReceived(line.encode() + b"\r\n")
        return self.replies()

    def begin(self, sender: str, *recipients: str) -> list[str]:
        """
        A message, up to DATA.
        """
        to = [f"RCPT TO:<{each}@our.example>" for each in recipients]
        return self.say(f"MAIL FROM:<{sender}>", *to, "DATA")

    def send(self, text: bytes) -> list[str]:
        """
        @param text: CRLF line ends.
        """
        stuffed = text.replace(b"\r\n.", b"\r\n..")
        self.protocol.dataReceived(stuffed + b".\r\n")
        return self.replies()

    def hangUp(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))
