"""
Converses with the SMTP server's protocol, driven by any bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

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
    ServerSettings,
    StartTLS,
)
from moxtls.smtp.types import Reply

_OK = Reply(250, "2.0.0", "OK")
SETTINGS = ServerSettings(
    "mx.example",
    maxSize=1000,
    starttls=True,
    mechanisms=("PLAIN",),
    authWithoutTLS=True,
)


# RFC 2920 3.1, RFC 3207 4.1: nothing may follow these until they are answered,
# so it matters whether it does.
_LAST_OF_A_TURN = re.compile(rb"(?i)(?:\A|(?<=\n))(?:data|starttls|auth)\b[^\n]*\n")


def rounds(data: bytes) -> Iterator[bytes]:
    """
    The client's input, split where it waits for replies.
    """
    start = 0
    for found in _LAST_OF_A_TURN.finditer(data):
        yield data[start : found.end()]
        start = found.end()
    yield data[start:]


def converse(pieces: Iterable[bytes]) -> tuple[bytes, bytes, int]:
    """
    @return: The server's output, the accepted messages concatenated, and their
        number.
    """
    conversation = ServerConversation(SETTINGS, False)
    output = bytearray()
    taken = bytearray()
    body = bytearray()
    count = 0
    for piece in pieces:
        if conversation.isClosed:
            break
        conversation.receive(piece)
        while (event := conversation.nextEvent()) is not None:
            match event:
                case MailFrom() | RcptTo():
                    conversation.reply(_OK)
                case DataStart():
                    body.clear()
                    conversation.reply(GO_AHEAD)
                case BodyChunk():
                    body += event.data
                case BodyFailed():
                    body.clear()
                case BodyEnd():
                    taken += body + b"\0"
                    count += 1
                    conversation.reply(_OK)
                case AuthStep():
                    conversation.authenticated("someone")
                case StartTLS():
                    output += conversation.takeOutput()
                    conversation.tlsStarted()
        output += conversation.takeOutput()
    output += conversation.takeOutput()
    return bytes(output), bytes(taken), count
