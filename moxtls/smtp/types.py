# -*- test-case-name: tests.smtp.test_types -*-
"""
Value types shared by SMTP clients and servers.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reply:
    """
    A reply of an SMTP server (RFC 5321 4.2), with its enhanced status code
    (RFC 3463) separated.

    @ivar code: 200 to 599.
    @ivar enhanced: Such as C{5.7.1}; empty if there is none.
    @ivar text: The text of all lines, joined by line feeds.  Untrusted.
    @ivar isLocal: True if no server sent it: a client's own reason for not
        sending a command.
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
    A mail transaction to be carried out by a client: MAIL, RCPT, DATA.

    @ivar sender: The reverse-path without angle brackets; empty for the null
        one.
    @ivar recipients: Forward-paths without angle brackets, at least one.
    @ivar path: The file of the message: CRLF line ends, no dot-stuffing.
    @ivar size: The size of the message in octets (RFC 1870).
    @ivar eightBit: The message has octets above 127 (RFC 6152).
    @ivar smtputf8: The message needs SMTPUTF8 (RFC 6531).
    @ivar requireTLS: Send REQUIRETLS with MAIL (RFC 8689 2).
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
    The result of a L{Transaction} for one of its recipients.

    @ivar reply: The decisive reply: to RCPT if that was negative, else to MAIL or
        to the end of the data.
    """

    recipient: str
    reply: Reply


class TLSMode(Enum):
    """
    The way in which a session starts TLS.

    C{IMMEDIATE}: before SMTP (RFC 8314).  C{REQUIRED}: with STARTTLS, even if it
    isn't announced.  C{OPPORTUNISTIC}: with STARTTLS if announced.  C{SKIP}:
    never.
    """

    IMMEDIATE = auto()
    REQUIRED = auto()
    OPPORTUNISTIC = auto()
    SKIP = auto()


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    User name and password of a client at a server.
    """

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    Timeouts of a client in seconds (RFC 5321 4.5.3.2); C{None} for no limit.

    @ivar command: For the replies to EHLO, STARTTLS, AUTH and RSET.
    @ivar block: For the server to accept the next block of message data.
    @ivar end: For the reply to the end of data.
    @ivar quit: For the reply to QUIT and the end of the connection.
    @ivar session: For the whole session.
    @ivar idle: Between transactions, after which the client closes the session.
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
