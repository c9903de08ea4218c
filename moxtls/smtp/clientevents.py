# -*- test-case-name: tests.smtp.test_client -*-
"""
What a client's conversation waits for, and what it wants done.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from moxtls.smtp.values import RecipientReply, Reply


class Awaiting(Enum):
    """
    What a conversation waits for: the other side's next reply is to this.

    C{BODY}: not for a reply, but for the caller to send a message.
    C{NOTHING}: for the caller to say what to do.
    """

    GREETING = auto()
    HELLO = auto()
    STARTTLS = auto()
    HANDSHAKE = auto()
    AUTH = auto()
    NOTHING = auto()
    RESET = auto()
    MAIL = auto()
    RECIPIENT = auto()
    DATA = auto()
    BODY = auto()
    END = auto()
    QUIT = auto()
    OVER = auto()


class Cause(Enum):
    """
    Why a conversation ended.

    C{QUIT}: because we said so.  C{REFUSED}: by a reply.  C{NO_TLS}: by a
    reply to STARTTLS.  C{INJECTED}: plaintext came behind the 220.
    C{MALFORMED}: the other side said what makes no sense.  C{LOGIN}: we
    can't authenticate.
    """

    QUIT = auto()
    REFUSED = auto()
    NO_TLS = auto()
    INJECTED = auto()
    MALFORMED = auto()
    LOGIN = auto()


@dataclass(frozen=True, slots=True)
class Send:
    """
    Write this to the connection.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class StartTLS:
    """
    Begin the handshake, and call C{secured} once every check is decided.
    """


@dataclass(frozen=True, slots=True)
class Ready:
    """
    The session is open.
    """


@dataclass(frozen=True, slots=True)
class SendBody:
    """
    Send the message, encoded by L{moxtls.smtp.body.DotStuffing}; then call
    C{finish}.
    """


@dataclass(frozen=True, slots=True)
class Transferred:
    """
    A transaction is over.
    """

    replies: tuple[RecipientReply, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """
    The conversation is over; close the connection.  The last event ever.

    @ivar reply: What the server said, if that is the reason.
    @ivar reason: For the log.
    """

    cause: Cause
    reply: Reply | None = None
    reason: str = ""


Event = Send | StartTLS | Ready | SendBody | Transferred | Ended
