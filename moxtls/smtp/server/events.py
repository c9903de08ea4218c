# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
Settings and events of a L{moxtls.smtp.server.conversation.ServerConversation}.
No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moxtls.message.header import MAX_HEADER
from moxtls.smtp.server.syntax import MailParameters
from moxtls.smtp.types import Reply

#: Header fields of a message: ten times as many as long routes and many signatures
#: add up to.
MAX_HEADER_FIELDS = 1000
#: Octets of a message line.  RFC 5321 4.5.3.1.6 has 1000, and lets servers accept
#: more: HTML in one line is common, and refusing it loses mail.  A line of this
#: length can be held in memory.
MAX_LINE_LENGTH = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """
    Extensions and limits of a server.

    @ivar hostname: A-labels, for the greeting.
    @ivar maxSize: Octets of a message (RFC 1870).
    @ivar maxRecipients: Recipients of a transaction (RFC 9422 RCPTMAX; RFC 5321
        4.5.3.1.8 requires 100 at least).
    @ivar maxTransactions: Transactions in a session (RFC 9422 MAILMAX).
    @ivar starttls: Offer STARTTLS.
    @ivar tlsRequired: Refuse mail without TLS.
    @ivar mechanisms: SASL mechanisms, in the order they are announced; empty for no
        AUTH.
    @ivar authWithoutTLS: Offer AUTH without TLS, too.
    @ivar authRequired: Refuse mail without AUTH.
    @ivar bareAddresses: Accept addresses without angle brackets in MAIL and RCPT,
        which RFC 5321 4.1.2 requires.
    @ivar maxErrors: Errors before the session is closed.
    @ivar maxAuthFailures: Failed logins in a session.
    @ivar maxRefusals: Refused recipients in a session.
    @ivar maxIdleCommands: Consecutive commands that don't make progress towards a
        message.
    @ivar maxHeaderSize: Octets of a header, all of which has to be held in memory
        for its evaluation.
    @ivar maxHeaderFields: Fields of a header.
    @ivar maxLineLength: Octets of a line of a message.
    """

    hostname: str
    maxSize: int = 50 * 1024 * 1024
    maxRecipients: int = 1000
    maxTransactions: int = 1000
    starttls: bool = False
    tlsRequired: bool = False
    mechanisms: tuple[str, ...] = ()
    authWithoutTLS: bool = False
    authRequired: bool = False
    bareAddresses: bool = False
    maxErrors: int = 20
    maxAuthFailures: int = 3
    maxRefusals: int = 200
    maxIdleCommands: int = 100
    maxHeaderSize: int = MAX_HEADER
    maxHeaderFields: int = MAX_HEADER_FIELDS
    maxLineLength: int = MAX_LINE_LENGTH

    def mayAuthenticate(self, isSecure: bool) -> bool:
        return bool(self.mechanisms) and (isSecure or self.authWithoutTLS)

    def extensions(self, isSecure: bool) -> tuple[str, ...]:
        """
        The extensions to announce in the reply to EHLO.
        """
        lines = [
            "PIPELINING",
            "CHUNKING",
            f"SIZE {self.maxSize}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            f"LIMITS MAILMAX={self.maxTransactions} RCPTMAX={self.maxRecipients}",
        ]
        if self.starttls and not isSecure:
            lines.append("STARTTLS")
        if isSecure:
            lines.append("REQUIRETLS")  # RFC 8689 2: not without TLS
        if self.mayAuthenticate(isSecure):
            lines.append(" ".join(("AUTH", *self.mechanisms)))
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class TransactionState:
    """
    A mail transaction in progress (RFC 5321 3.3).

    @ivar sender: The reverse-path without angle brackets; empty for the null
        one.
    @ivar recipients: The accepted forward-paths.
    """

    sender: str
    parameters: MailParameters = field(default_factory=MailParameters)
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MailFrom:
    """
    MAIL was received; to be answered by C{reply}.
    """

    transaction: TransactionState


@dataclass(frozen=True, slots=True)
class RcptTo:
    """
    RCPT was received; to be answered by C{reply}.

    @ivar recipient: An address, or C{postmaster} in upper or lower case.
    """

    recipient: str
    transaction: TransactionState


@dataclass(frozen=True, slots=True)
class DataStart:
    """
    DATA or the first BDAT (RFC 3030) was received; to be answered by C{reply}, with
    L{GO_AHEAD} (354) to receive the message.
    """

    transaction: TransactionState


@dataclass(frozen=True, slots=True)
class BodyChunk:
    """
    A chunk of the message.  Needs no answer.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class BodyFailed:
    """
    The message is refused, or the client has abandoned it: no more chunks follow.
    Needs no answer.

    @ivar reply: The reply at the end of the data, unless a worse error follows.
    """

    reply: Reply


@dataclass(frozen=True, slots=True)
class BodyEnd:
    """
    The message is complete; to be answered by C{reply}.
    """

    size: int


@dataclass(frozen=True, slots=True)
class AuthStep:
    """
    A response of a SASL exchange; to be answered by C{challenge}, C{authenticated}
    or C{reply}.

    @ivar response: C{None} if AUTH came without an initial response.
    @ivar first: True for the first response of an exchange.
    """

    mechanism: str
    response: bytes | None
    first: bool


@dataclass(frozen=True, slots=True)
class StartTLS:
    """
    STARTTLS was accepted: TLS starts once the output is sent; to be answered by
    C{tlsStarted}.
    """


ServerEvent = (
    MailFrom
    | RcptTo
    | DataStart
    | BodyChunk
    | BodyFailed
    | BodyEnd
    | AuthStep
    | StartTLS
)


#: The answer to L{DataStart} that accepts the message data.
GO_AHEAD = Reply(354, text="End data with <CR><LF>.<CR><LF>")
