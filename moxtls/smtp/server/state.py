# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
The state of an SMTP session, and the effect of commands on it.  No I/O.

Deals with command lines only: input buffering, message data and chunks are in
L{moxtls.smtp.server.conversation}.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from moxtls.smtp.server.events import (
    AuthStep,
    DataStart,
    MailFrom,
    RcptTo,
    ServerEvent,
    ServerSettings,
    StartTLS,
    TransactionState,
)
from moxtls.smtp.server.limits import SessionLimits
from moxtls.smtp.server.syntax import parseMail, parseRcpt
from moxtls.smtp.types import Reply

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
