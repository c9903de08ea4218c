# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
Settings, events, limits and state of an SMTP server session, and the effect of commands
on it.  No I/O.

Deals with command lines only: input buffering, message data and chunks are in
L{moxtls.smtp.server.conversation}.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from moxtls.message.header import MAX_HEADER
from moxtls.smtp.server.syntax import MailParameters, parseMail, parseRcpt
from moxtls.smtp.types import Reply

#: Header fields of a message: ten times as many as long routes and many signatures
#: add up to.
MAX_HEADER_FIELDS = 1000
#: Octets of a message line.  RFC 5321 4.5.3.1.6 has 1000, and lets servers accept
#: more: HTML in one line is common, and refusing it loses mail.  A line of this
#: length can be held in memory.
MAX_LINE_LENGTH = 1024 * 1024
#: Transactions with the maximum of recipients that may end without a message.
RECIPIENTS_FACTOR = 2

#: The answer to L{DataStart} that accepts the message data.
GO_AHEAD = Reply(354, text="End data with <CR><LF>.<CR><LF>")
OK = Reply(250, "2.0.0", "OK")
TOO_LARGE = Reply(552, "5.3.4", "Message is larger than this server takes")

# An HTTP client, perhaps with an attacker's data in its request.
_FOREIGN = frozenset({"CONNECT", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
# RFC 3207 4: the commands that a server which requires TLS accepts without it.
_BEFORE_TLS = frozenset({"EHLO", "HELO", "NOOP", "QUIT", "RSET", "STARTTLS"})
# Commands that make progress towards a message; all others are counted.
_LEADING = frozenset({"AUTH", "DATA", "MAIL", "QUIT", "RCPT"})
_FIXED = {
    "EXPN": Reply(502, "5.5.1", "Not implemented"),
    "HELP": Reply(214, "2.0.0", "RFC 5321"),
    "NOOP": OK,
    "QUIT": Reply(221, "2.0.0", "Bye"),
    # RFC 5321 3.5.3, 7.3: don't disclose which mailboxes exist.
    "VRFY": Reply(252, "2.1.5", "Send some mail, I'll try my best"),
}
_NO_TLS = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
_NO_MAIL = Reply(503, "5.5.1", "Send MAIL first")
_NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
_IN_CHUNKS = Reply(503, "5.5.1", "The message is being sent in chunks")


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


class SessionLimits:
    """
    Counters of one session.  Each method counts an action, and returns the reply
    to close the connection with if its limit is exceeded.
    """

    __slots__ = (
        "_authFailures",
        "_errors",
        "_idleCommands",
        "_recipients",
        "_refusals",
        "_settings",
        "_transactions",
    )

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._errors = 0
        self._authFailures = 0
        self._refusals = 0
        self._idleCommands = 0
        self._recipients = 0
        self._transactions = 0

    def error(self) -> Reply | None:
        self._errors += 1
        return _limitReply(self._errors > self._settings.maxErrors, "errors")

    def failedLogin(self) -> Reply | None:
        self._authFailures += 1
        isOver = self._authFailures >= self._settings.maxAuthFailures
        return _limitReply(isOver, "failed logins")

    def refusal(self) -> Reply | None:
        """
        A recipient was refused by the server's policy.
        """
        self._refusals += 1
        isOver = self._refusals > self._settings.maxRefusals
        return _limitReply(isOver, "recipients refused")

    def recipient(self) -> Reply | None:
        """
        A recipient was accepted, perhaps repeatedly, or exceeded the maximum of a
        transaction.
        """
        self._recipients += 1
        isOver = self._recipients > RECIPIENTS_FACTOR * self._settings.maxRecipients
        return _limitReply(isOver, "recipients without mail")

    def idleCommand(self) -> Reply | None:
        """
        A command didn't make progress towards a message.
        """
        self._idleCommands += 1
        isOver = self._idleCommands > self._settings.maxIdleCommands
        return _limitReply(isOver, "commands without mail")

    def transaction(self) -> Reply | None:
        """
        A transaction began (RFC 9422 MAILMAX).
        """
        self._transactions += 1
        isOver = self._transactions > self._settings.maxTransactions
        return _limitReply(isOver, "messages in one connection")

    def madeProgress(self) -> None:
        """
        A message was accepted, or the client authenticated: reset the counters of
        unproductive commands.
        """
        self._idleCommands = 0
        self._recipients = 0


def _limitReply(isOver: bool, what: str) -> Reply | None:
    return Reply(421, "4.7.0", f"Too many {what}") if isOver else None


class SessionState:
    """
    The state of one session.

    @ivar isSecure: TLS is in use.
    @ivar helo: The argument of EHLO or HELO: anything without control characters.
    @ivar extended: The client sent EHLO.
    @ivar user: The authenticated user; empty if there is none.
    @ivar transaction: The transaction in progress, if any.
    @ivar inChunks: Part of the message was received with BDAT.
    @ivar recipientCount: The number of accepted RCPT commands in the transaction,
        with repetitions.
    @ivar wasSpoiled: A chunk was refused: pipelined chunks after it are skipped.
    """

    __slots__ = (
        "_limits",
        "_settings",
        "extended",
        "helo",
        "inChunks",
        "isSecure",
        "mechanism",
        "recipientCount",
        "transaction",
        "user",
        "wasSpoiled",
    )

    def __init__(
        self, settings: ServerSettings, limits: SessionLimits, isSecure: bool
    ) -> None:
        self._settings = settings
        self._limits = limits
        self.isSecure = isSecure
        self.transaction: TransactionState | None = None
        self.forget()

    def forget(self) -> None:
        """
        Return to the initial state (RFC 3207 4.2).
        """
        self.helo = ""
        self.extended = False
        self.user = ""
        self.mechanism = ""
        self.endTransaction()

    def endTransaction(self) -> None:
        self.transaction = None
        self.recipientCount = 0
        self.inChunks = False
        self.wasSpoiled = False

    def addRecipient(self, event: RcptTo) -> None:
        """
        Record an accepted recipient.
        """
        self.recipientCount += 1
        known = event.transaction
        if event.recipient not in known.recipients:
            recipients = (*known.recipients, event.recipient)
            self.transaction = TransactionState(
                known.sender, known.parameters, recipients
            )

    def command(self, verb: str, argument: str, isAhead: bool) -> ServerEvent | Reply:
        """
        Process a command.

        @param isAhead: More input was sent without waiting for the reply.
        @return: The reply, or an event for the owner to answer.
        """
        if verb in _FOREIGN:
            return Reply(421, "4.7.0", "This is not HTTP")
        fixed = _FIXED.get(verb)
        if fixed is None and verb not in _COMMANDS:
            return Reply(500, "5.5.1", "Command unknown")
        if self._settings.tlsRequired and not self.isSecure and verb not in _BEFORE_TLS:
            return _NO_TLS
        if verb not in _LEADING:
            tooMany = self._limits.idleCommand()
            if tooMany is not None:
                return tooMany
        return fixed or _COMMANDS[verb](self, argument, isAhead)

    def chunkRefusal(self, size: int, before: int) -> Reply | None:
        """
        The negative reply to a chunk (RFC 3030 2), if any.  The chunk has to be
        skipped before the reply is sent.

        @param before: Octets of the preceding chunks.
        """
        if self.transaction is None:
            return _NO_MAIL
        if not self.transaction.recipients:
            return _NO_RECIPIENTS
        return TOO_LARGE if before + size > self._settings.maxSize else None

    def authStep(self, encoded: bytes, first: bool) -> AuthStep | Reply:
        """
        Process a line of a SASL exchange.

        @param encoded: The client's response in base64; or C{*} to cancel.
        """
        if encoded == b"*" and not first:
            return Reply(501, "5.7.0", "Authentication cancelled")
        try:
            response = base64.b64decode(encoded, validate=True)
        except ValueError:
            return Reply(501, "5.5.2", "That is not base64")
        return AuthStep(self.mechanism, response, first)

    def _helo(self, argument: str, isAhead: bool) -> Reply:
        if not self._greeted(argument, extended=False):
            return Reply(501, "5.5.4", "Syntax: HELO domain")
        return Reply(250, text=self._settings.hostname)

    def _ehlo(self, argument: str, isAhead: bool) -> Reply:
        if not self._greeted(argument, extended=True):
            return Reply(501, "5.5.4", "Syntax: EHLO domain")
        lines = (self._settings.hostname, *self._settings.extensions(self.isSecure))
        return Reply(250, text="\n".join(lines))

    def _greeted(self, name: str, extended: bool) -> bool:
        name = name.strip()
        # RFC 5321 4.1.4: a client isn't refused because of its name, as long as the
        # name is printable.
        if not name or not name.isprintable():
            return False
        self.helo, self.extended = name, extended
        self.endTransaction()
        return True

    def _mail(self, argument: str, isAhead: bool) -> ServerEvent | Reply:
        refusal = self._mailRefusal()
        if refusal is not None:
            return refusal
        parsed = parseMail(argument, self._settings.bareAddresses)
        if isinstance(parsed, Reply):
            return parsed
        sender, parameters = parsed
        if parameters.requireTLS and not self.isSecure:
            return Reply(530, "5.7.10", "REQUIRETLS needs TLS")
        if parameters.size > self._settings.maxSize:
            return TOO_LARGE
        self.wasSpoiled = False
        tooMany = self._limits.transaction()
        return tooMany or MailFrom(TransactionState(sender, parameters))

    def _mailRefusal(self) -> Reply | None:
        if not self.helo:
            return Reply(503, "5.5.1", "Send EHLO first")
        if self.transaction is not None:
            return Reply(503, "5.5.1", "A transaction is in progress")
        if self._settings.authRequired and not self.user:
            return Reply(530, "5.7.0", "Authentication required")
        return None

    def _rcpt(self, argument: str, isAhead: bool) -> ServerEvent | Reply:
        if self.transaction is None:
            return _NO_MAIL
        if self.inChunks:
            return _IN_CHUNKS
        smtputf8 = self.transaction.parameters.smtputf8
        parsed = parseRcpt(argument, smtputf8, self._settings.bareAddresses)
        if isinstance(parsed, Reply):
            return parsed
        if self.recipientCount >= self._settings.maxRecipients:
            # RFC 5321 4.5.3.1.10: not an error; the client sends the rest later.
            tooMany = self._limits.recipient()
            return tooMany or Reply(452, "4.5.3", "Too many recipients")
        return RcptTo(parsed, self.transaction)

    def _data(self, argument: str, isAhead: bool) -> ServerEvent | Reply:
        if argument:
            return Reply(501, "5.5.4", "DATA has no parameters")
        if self.transaction is None:
            return _NO_MAIL
        if self.inChunks:
            # RFC 3030 2.
            return _IN_CHUNKS
        if not self.transaction.recipients:
            return _NO_RECIPIENTS
        if isAhead:
            # RFC 2920 3.1: DATA is the last command of a group.  Message data sent
            # before the reply would be taken for commands if DATA were refused.
            return Reply(421, "4.5.0", "Message data sent before the reply to DATA")
        return DataStart(self.transaction)

    def _rset(self, argument: str, isAhead: bool) -> Reply:
        self.endTransaction()
        return OK

    def _starttls(self, argument: str, isAhead: bool) -> ServerEvent | Reply:
        if argument:
            return Reply(501, "5.5.4", "STARTTLS has no parameters")
        if self.isSecure or not self._settings.starttls:
            return Reply(503, "5.5.1", "STARTTLS is not offered")
        if isAhead:
            # A man in the middle may have injected it (RFC 3207 6).
            return Reply(421, "4.7.0", "Plaintext after STARTTLS")
        return StartTLS()

    def _auth(self, argument: str, isAhead: bool) -> ServerEvent | Reply:
        mechanism, _, initial = argument.partition(" ")
        refusal = self._authRefusal(mechanism.upper())
        if refusal is not None:
            return refusal
        self.mechanism = mechanism.upper()
        if not initial:
            return AuthStep(self.mechanism, None, first=True)
        # RFC 4954 4: "=" is an initial response of no bytes.
        encoded = b"" if initial == "=" else initial.encode("utf-8")
        return self.authStep(encoded, first=True)

    def _authRefusal(self, mechanism: str) -> Reply | None:
        if not self._settings.mechanisms:
            return Reply(502, "5.5.1", "AUTH is not offered")
        if not self._settings.mayAuthenticate(self.isSecure):
            return Reply(538, "5.7.11", "Authentication needs TLS")
        if not self.extended:
            return Reply(503, "5.5.1", "Send EHLO first")
        if self.user or self.transaction is not None:
            return Reply(503, "5.5.1", "Not allowed now")
        if mechanism not in self._settings.mechanisms:
            return Reply(504, "5.5.4", "Mechanism unknown")
        return None


_COMMANDS: dict[str, Callable[[SessionState, str, bool], ServerEvent | Reply]] = {
    "AUTH": SessionState._auth,
    "DATA": SessionState._data,
    "EHLO": SessionState._ehlo,
    "HELO": SessionState._helo,
    "MAIL": SessionState._mail,
    "RCPT": SessionState._rcpt,
    "RSET": SessionState._rset,
    "STARTTLS": SessionState._starttls,
}
