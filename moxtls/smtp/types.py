# -*- test-case-name: tests.smtp.test_types -*-
"""
What SMTP conversations are about.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reply:
    """
    A reply of an SMTP server (RFC 5321 4.2), with its enhanced status code
    (RFC 3463) taken out.

    @ivar code: 200 to 599.
    @ivar enhanced: Such as C{5.7.1}; empty if there is none.
    @ivar text: Of all lines, joined by line feeds: a stranger's words.
    @ivar isLocal: No server said it: it is why a client didn't ask.
    """

    code: int
    enhanced: str = ""
    text: str = ""
    isLocal: bool = field(default=False, compare=False)

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 400

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        words = (str(self.code), self.enhanced, self.text.replace("\n", " "))
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Transaction:
    """
    One message to hand over in one MAIL, RCPT, DATA sequence.

    @ivar sender: The reverse-path without angle brackets; empty for the null
        one.
    @ivar recipients: Forward-paths without angle brackets, at least one.
    @ivar path: The message: CRLF line ends, no dot-stuffing.
    @ivar size: Of the file, in bytes (RFC 1870).
    @ivar eightBit: Whether it has bytes above 127 (RFC 6152).
    @ivar smtputf8: Whether it needs RFC 6531.
    @ivar requireTLS: RFC 8689 2: say REQUIRETLS with MAIL.
    """

    sender: str
    recipients: tuple[str, ...]
    path: Path
    size: int
    eightBit: bool = False
    smtputf8: bool = False
    requireTLS: bool = False


@dataclass(frozen=True, slots=True)
class RecipientReply:
    """
    How a L{Transaction} ended for one of its recipients.

    @ivar reply: The reply that decided: to RCPT if that was refused, else to
        MAIL or to the end of the data.
    """

    recipient: str
    reply: Reply


class TLSMode(Enum):
    """
    How a session comes to TLS, or not.

    C{IMMEDIATE}: before any SMTP (RFC 8314).  C{REQUIRED}: by STARTTLS, also
    if it isn't offered.  C{OPPORTUNISTIC}: by STARTTLS if offered.  C{SKIP}:
    never.
    """

    IMMEDIATE = auto()
    REQUIRED = auto()
    OPPORTUNISTIC = auto()
    SKIP = auto()


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    What a smarthost knows us by.
    """

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    How many seconds a client waits for what (RFC 5321 4.5.3.2).

    @ivar command: For the replies to EHLO, STARTTLS, AUTH and RSET.
    @ivar block: For the other side to take the next part of a message.
    @ivar end: For the reply to the end of a message.
    @ivar quit: For the other side to say goodbye and hang up.
    @ivar session: For all of it.
    @ivar idle: Between transactions, until the client closes the session.
    """

    connect: float = 30
    greeting: float = 300
    handshake: float = 60
    command: float = 300
    mail: float = 300
    recipient: float = 300
    data: float = 120
    block: float = 180
    end: float = 600
    quit: float = 5
    session: float | None = 1800
    idle: float | None = None
