# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
What a L{moxtls.smtp.server.conversation.ServerConversation} is told, and what it tells.
No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moxtls.message.header import MAX_HEADER
from moxtls.smtp.server.syntax import MailParameters
from moxtls.smtp.types import Reply

#: Of a header: ten times what long ways and many signatures come to.
MAX_HEADER_FIELDS = 1000
#: Of a message.  RFC 5321 4.5.3.1.6 has 1000, and lets servers take more: HTML
#: in one line is common, and to refuse it is to lose mail.  This much fits in
#: memory wherever a line has to be held.
MAX_LINE_LENGTH = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """
    What a server announces, and how patient it is.

    @ivar hostname: A-labels, for the greeting.
    @ivar maxSize: The largest message (RFC 1870), in bytes.
    @ivar maxRecipients: The most in one transaction (RFC 9422 RCPTMAX; RFC 5321
        4.5.3.1.8 wants 100 at least).
    @ivar maxTransactions: The most in one connection (RFC 9422 MAILMAX).
    @ivar starttls: Whether STARTTLS is offered.
    @ivar tlsRequired: Whether there is no mail without TLS.
    @ivar mechanisms: Of SASL, in the order they are announced; empty for no
        AUTH.
    @ivar authWithoutTLS: Whether AUTH is there without TLS too.
    @ivar authRequired: Whether there is no mail without AUTH.
    @ivar bareAddresses: Whether MAIL and RCPT may have an address without angle
        brackets, which RFC 5321 4.1.2 requires.
    @ivar maxErrors: Mistakes a client may make before it is sent away.
    @ivar maxAuthFailures: Failed logins it may make.
    @ivar maxRefusals: Recipients it may guess wrong.
    @ivar maxIdleCommands: How many commands that lead nowhere it may send for
        one that does.
    @ivar maxHeaderSize: The largest header, in bytes; whoever looks at it has to
        hold all of it.
    @ivar maxHeaderFields: The most fields in it.
    @ivar maxLineLength: The longest line of a message, in bytes.
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
        What EHLO is answered with.
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
    A mail transaction (RFC 5321 3.3), as far as it got.

    @ivar sender: The reverse-path without angle brackets; empty for the null
        one.
    @ivar maxRecipients: The forward-paths that were accepted.
    """

    sender: str
    parameters: MailParameters = field(default_factory=MailParameters)
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MailFrom:
    """
    A transaction begins, if C{reply} likes it.
    """

    transaction: TransactionState


@dataclass(frozen=True, slots=True)
class RcptTo:
    """
    One more recipient, if C{reply} likes it.

    @ivar recipient: An address, or C{postmaster} in any case.
    """

    recipient: str
    transaction: TransactionState


@dataclass(frozen=True, slots=True)
class DataStart:
    """
    A message is about to come, if C{reply} is told 354 (L{GO_AHEAD}), be it
    behind DATA or in chunks (RFC 3030).
    """

    transaction: TransactionState


@dataclass(frozen=True, slots=True)
class BodyChunk:
    """
    A piece of the message.  Wants no answer.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class BodyFailed:
    """
    The message is refused, or the client thought better of it, and no more of
    it will come.  Wants no answer.

    @ivar reply: What the client hears when it is at its end, if it doesn't
        commit something worse until then.
    """

    reply: Reply


@dataclass(frozen=True, slots=True)
class BodyEnd:
    """
    The message is complete; C{reply} says whether it is taken.
    """

    size: int


@dataclass(frozen=True, slots=True)
class AuthStep:
    """
    A client's word in a SASL exchange; to be answered by C{challenge},
    C{authenticated} or C{reply}.

    @ivar response: C{None} if AUTH came without an initial response.
    @ivar first: Whether the exchange begins here.
    """

    mechanism: str
    response: bytes | None
    first: bool


@dataclass(frozen=True, slots=True)
class StartTLS:
    """
    Once the output is sent, TLS begins; to be answered by C{tlsStarted}.
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


#: What L{DataStart} is answered with to have the message.
GO_AHEAD = Reply(354, text="End data with <CR><LF>.<CR><LF>")
