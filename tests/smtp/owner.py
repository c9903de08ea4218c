"""
A minimal owner of a server conversation.
"""

from __future__ import annotations

from moxtls.smtp.server.conversation import ServerConversation
from moxtls.smtp.server.state import (
    GO_AHEAD,
    AuthStep,
    BodyChunk,
    BodyEnd,
    BodyFailed,
    DataStart,
    MailFrom,
    RcptTo,
    ServerEvent,
    ServerSettings,
    StartTLS,
)
from moxtls.smtp.types import Reply

SETTINGS = ServerSettings("mx.example", maxSize=1000, starttls=True)
OK = Reply(250, "2.0.0", "OK")
ENVELOPE = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"


class Owner:
    """
    Accepts everything, and records its calls.

    @ivar messages: Complete messages.
    """

    def __init__(
        self, settings: ServerSettings = SETTINGS, isSecure: bool = False
    ) -> None:
        self.conversation = ServerConversation(settings, isSecure)
        self.greeting = self.conversation.takeOutput()
        self.events: list[ServerEvent] = []
        self.messages: list[bytes] = []
        self._message = b""

    def says(self, *pieces: bytes) -> list[str]:
        """
        @return: The lines of our replies to C{pieces}.
        """
        for piece in pieces:
            self.conversation.receive(piece)
            while (event := self.conversation.nextEvent()) is not None:
                self.events.append(event)
                self.answer(event)
        return self.conversation.takeOutput().decode("ascii").splitlines()

    def codes(self, *pieces: bytes) -> list[str]:
        """
        @return: Code and enhanced status code of each reply.
        """
        lines = [line for line in self.says(*pieces) if line[3:4] == " "]
        return [" ".join(line.split()[:2]) for line in lines]

    def answer(self, event: ServerEvent) -> None:
        """
        Perform the event's request.
        """
        match event:
            case MailFrom() | RcptTo():
                self.conversation.reply(OK)
            case DataStart():
                self._message = b""
                self.conversation.reply(GO_AHEAD)
            case BodyChunk():
                self._message += event.data
            case BodyFailed():
                pass
            case BodyEnd():
                self.messages.append(self._message)
                self.conversation.reply(OK)
            case AuthStep():
                self.conversation.reply(Reply(535, "5.7.8", "No"))
            case StartTLS():
                self.conversation.tlsStarted()


def greeted(settings: ServerSettings = SETTINGS, isSecure: bool = False) -> Owner:
    """
    A conversation behind EHLO.
    """
    owner = Owner(settings, isSecure)
    owner.says(b"EHLO client.example\r\n")
    return owner
