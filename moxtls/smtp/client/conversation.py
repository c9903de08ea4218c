# -*- test-case-name: tests.smtp.client.test_conversation -*-
"""
The SMTP client protocol as a state machine: bytes in, events out.  No I/O.

The owner of the connection carries out the events, in order, and calls
C{receive} with received data, C{secured} when the TLS handshake is complete and
the certificate accepted, and C{finish} when the message data has been sent after
L{SendBody}.
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from moxtls.smtp.client.replies import (
    MECHANISMS,
    AuthAttempt,
    Extensions,
    MalformedReply,
    Mechanism,
    ReplyReader,
    badRecipient,
    chooseMechanism,
    extensionRefusal,
    mailCommand,
    parseExtensions,
    parseReply,
)
from moxtls.smtp.types import Credentials, RecipientReply, Reply, TLSMode, Transaction
from moxtls.tls.session import STARTTLSResult


class Awaiting(Enum):
    """
    The command or phase that the next reply of the server belongs to.

    C{BODY}: no reply; the owner is sending message data.
    C{NOTHING}: no reply; the session is idle.
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


class EndCause(Enum):
    """
    The cause of a conversation's end.

    C{QUIT}: the client sent QUIT.  C{REFUSED}: a negative reply.  C{NO_TLS}: a
    negative reply to STARTTLS.  C{INJECTED}: plaintext followed the 220 reply
    to STARTTLS.  C{MALFORMED}: the server violated the protocol.  C{LOGIN}:
    authentication failed or isn't possible.
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
    Write data to the transport.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class StartHandshake:
    """
    Start the TLS handshake, and call C{secured} when all certificate checks have
    passed.
    """


@dataclass(frozen=True, slots=True)
class Ready:
    """
    The session is open.
    """


@dataclass(frozen=True, slots=True)
class SendBody:
    """
    Send the message data, encoded by L{moxtls.smtp.dotstuffing.DotStuffing}; then
    call C{finish}.
    """


@dataclass(frozen=True, slots=True)
class Transferred:
    """
    A transaction has ended.
    """

    replies: tuple[RecipientReply, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """
    The conversation has ended: close the connection.  No event follows.

    @ivar reply: The server's reply, if that is the reason.
    @ivar reason: A text for the log.
    """

    cause: EndCause
    reply: Reply | None = None
    reason: str = ""


ClientEvent = Send | StartHandshake | Ready | SendBody | Transferred | Ended


# RFC 5321 3.2: the replies to EHLO of servers that don't implement it.
_NO_EHLO = frozenset({500, 501, 502, 503, 504})


Lines = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Command:
    """
    A command to be sent, or one whose reply is expected.

    @ivar line: C{None} if nothing has to be sent before the reply.
    @ivar answered: Called with the lines of the reply.
    """

    step: Awaiting
    line: bytes | None
    answered: Callable[[Lines], Iterator[ClientEvent]]


class TransactionReplies:
    """
    The replies of a transaction in progress, for each of its recipients.

    @ivar validRecipients: Indexes of the recipients that RCPT can be sent for.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._replies = [badRecipient(each) for each in transaction.recipients]
        self.validRecipients = tuple(
            index for index, reply in enumerate(self._replies) if reply is None
        )

    @property
    def open(self) -> bool:
        """
        True while a recipient has no reply.
        """
        return None in self._replies

    def mailCommand(self, known: Extensions) -> str:
        return mailCommand(self._transaction, known)

    def decideOne(self, index: int, reply: Reply) -> None:
        """
        Record the reply for a recipient, unless it has one already.
        """
        if self._replies[index] is None:
            self._replies[index] = reply

    def decide(self, reply: Reply) -> None:
        """
        Record the reply for all recipients that have none.
        """
        self._replies = [known or reply for known in self._replies]

    def replies(self, rest: Reply | None) -> tuple[RecipientReply, ...]:
        """
        Return the final replies.

        @param rest: The reply for recipients that have none.
        """
        if rest is not None:
            self.decide(rest)
        return self.decided()

    def decided(self) -> tuple[RecipientReply, ...]:
        """
        The replies of the recipients that have one.
        """
        pairs = zip(self._transaction.recipients, self._replies, strict=True)
        return tuple(
            RecipientReply(recipient, reply)
            for recipient, reply in pairs
            if reply is not None
        )


class ClientConversation:
    """
    One SMTP session, from the greeting to QUIT.

    @ivar helo: The first word of the greeting: the server's name.
    @ivar extensions: Announced in the last reply to EHLO.
    @ivar secure: True once TLS is in use.
    @ivar starttls: The outcome of STARTTLS so far.
    @ivar code: The code of a negative reply to STARTTLS, else 0.
    """

    def __init__(
        self,
        ehlo: str,
        mode: TLSMode,
        credentials: Credentials | None = None,
        mechanisms: Sequence[Mechanism] = MECHANISMS,
        isLMTP: bool = False,
    ) -> None:
        """
        @param isLMTP: Speak LMTP (RFC 2033).  Transactions must then have a single
            recipient, as LMTP replies to the data once for each recipient.
        """
        self._ehlo = ehlo
        self._isLMTP = isLMTP
        self._mode = mode
        self._credentials = credentials
        self._mechanisms = mechanisms
        self.helo = ""
        self.extensions = Extensions()
        self.secure = False
        self.starttls = STARTTLSResult.NOT_TRIED
        self.code = 0
        self._reader = ReplyReader()
        self._state = Awaiting.GREETING
        self._queue: deque[_Command] = deque()
        self._sent: deque[_Command] = deque()
        self._transaction: TransactionReplies | None = None
        self._transactions = 0
        self._mustReset = False
        self._expect(Awaiting.GREETING, self._greeted)
        if mode is TLSMode.IMMEDIATE:
            self._state = Awaiting.HANDSHAKE

    @property
    def awaiting(self) -> Awaiting:
        if self._state is Awaiting.NOTHING and self._sent:
            return self._sent[0].step
        return self._state

    @property
    def over(self) -> bool:
        return self._state is Awaiting.OVER

    @property
    def usable(self) -> bool:
        """
        True if another transaction can begin.
        """
        limit = self.extensions.mailMax
        idle = self.awaiting is Awaiting.NOTHING
        return idle and (limit is None or self._transactions < limit)

    # --- input -------------------------------------------------------------

    def receive(self, data: bytes) -> list[ClientEvent]:
        """
        Process data received from the server.
        """
        return list(self._receive(data))

    def _receive(self, data: bytes) -> Iterator[ClientEvent]:
        if self.over:
            return
        self._reader.feed(data)
        try:
            while not self.over and (lines := self._reader.next()) is not None:
                yield from self._reply(lines)
                yield from self._issue()
        except MalformedReply as why:
            yield from self._malformed(self.awaiting, str(why))

    def _malformed(self, step: Awaiting, reason: str) -> Iterator[ClientEvent]:
        """
        End the conversation, as the input is no reply to C{step}.
        """
        if step is Awaiting.STARTTLS:
            self.starttls = STARTTLSResult.UNANSWERED
        yield from self._end(EndCause.MALFORMED, None, reason)

    def secured(self) -> list[ClientEvent]:
        """
        The TLS handshake is complete, and the certificate accepted.
        """
        # RFC 3207 4.2: discard what was learned before TLS.
        self.secure = True
        self.starttls = STARTTLSResult.COMPLETED
        self.extensions = Extensions()
        self._reader = ReplyReader()
        if self._mode is TLSMode.IMMEDIATE:
            self._state = Awaiting.GREETING
        else:
            self._hello()
        return list(self._issue())

    def _reply(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines)
        step = self._sent[0].step if self._sent else None
        if reply.code == 421 and step is not Awaiting.STARTTLS:
            # RFC 5321 3.8: 421 may come at any time, and nothing follows it.
            yield from self._end(EndCause.REFUSED, reply)
        elif step is not None:
            yield from self._sent.popleft().answered(lines)
        elif self._state is Awaiting.BODY and not reply.accepted:
            # Only closing the connection aborts message data.
            yield from self._end(EndCause.REFUSED, reply)
        else:
            yield from self._end(EndCause.MALFORMED, reply, "an unexpected reply")

    # --- opening -----------------------------------------------------------

    def _greeted(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines, enhanced=False)
        if reply.code != 220:
            yield from self._refused(reply)
            return
        self.helo = next(iter(reply.text.split()), "")
        self._hello()

    def _hello(self) -> None:
        self._state = Awaiting.NOTHING
        # RFC 2033 4.1.
        verb = "LHLO" if self._isLMTP else "EHLO"
        self._command(Awaiting.HELLO, f"{verb} {self._ehlo}", self._ehloAnswered)

    def _ehloAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines, enhanced=False)
        if reply.code == 250:
            self.extensions = parseExtensions(lines)
            yield from self._afterHello()
        elif reply.code in _NO_EHLO and not self.secure and not self._isLMTP:
            helo = f"HELO {self._ehlo}"
            self._command(Awaiting.HELLO, helo, self._heloAnswered)
        else:
            yield from self._refused(reply)

    def _heloAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines, enhanced=False)
        if reply.code == 250:
            yield from self._afterHello()
        else:
            yield from self._refused(reply)

    def _afterHello(self) -> Iterator[ClientEvent]:
        if self.secure or self._mode is TLSMode.SKIP:
            yield from self._authenticate()
        elif self._mode is TLSMode.REQUIRED or self.extensions.startTLS:
            self._command(Awaiting.STARTTLS, "STARTTLS", self._startTLSAnswered)
        else:
            self.starttls = STARTTLSResult.NOT_OFFERED
            yield from self._authenticate()

    def _startTLSAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines)
        if reply.code != 220:
            self.starttls, self.code = STARTTLSResult.REFUSED, reply.code
            yield from self._refused(reply, EndCause.NO_TLS)
        elif self._reader.pending:
            # RFC 3207 4, 6: nothing may follow the reply, not even an empty line.
            self.starttls = STARTTLSResult.INJECTED
            why = "plaintext after the reply to STARTTLS"
            yield from self._end(EndCause.INJECTED, None, why)
        else:
            self._state = Awaiting.HANDSHAKE
            yield StartHandshake()

    # --- AUTH (RFC 4954) ------------------------------------------------------

    def _authenticate(self) -> Iterator[ClientEvent]:
        if self._credentials is None:
            yield Ready()
            return
        mechanism = chooseMechanism(self._mechanisms, self.extensions.auth)
        if not self.secure or mechanism is None:
            missing = "supported mechanism" if self.secure else "TLS"
            yield from self._end(EndCause.LOGIN, None, f"no {missing} to log in with")
            return
        attempt = mechanism.attempt(self._credentials)
        line = f"AUTH {mechanism.name}"
        if attempt.initial is not None:
            line += " " + (_base64(attempt.initial) or "=")
        self._command(Awaiting.AUTH, line, self._challenged(attempt))

    def _challenged(
        self, attempt: AuthAttempt
    ) -> Callable[[Lines], Iterator[ClientEvent]]:
        def answered(lines: Lines) -> Iterator[ClientEvent]:
            reply = parseReply(lines)
            if reply.code == 235:
                yield Ready()
            elif reply.code == 334:
                response = _response(attempt, reply.text)
                self._command(Awaiting.AUTH, response, self._challenged(attempt))
            else:
                yield from self._refused(reply, EndCause.LOGIN)

        return answered

    # --- transactions -----------------------------------------------------------

    def begin(self, transaction: Transaction) -> list[ClientEvent]:
        """
        Begin a transaction; only allowed while C{usable}.
        """
        self._transaction = TransactionReplies(transaction)
        no = extensionRefusal(transaction, self.extensions, self.secure)
        if no is not None or not self._transaction.validRecipients:
            return [self._transferred(no)]
        self._transactions += 1
        if self._mustReset:
            self._command(Awaiting.RESET, "RSET", self._resetAnswered)
        mail = self._transaction.mailCommand(self.extensions)
        self._command(Awaiting.MAIL, mail, self._mailAnswered)
        for index in self._transaction.validRecipients:
            recipient = transaction.recipients[index]
            answered = self._recipientAnswered(index)
            self._command(Awaiting.RECIPIENT, f"RCPT TO:<{recipient}>", answered)
        self._command(Awaiting.DATA, "DATA", self._dataAnswered)
        self._mustReset = True
        return list(self._issue())

    def _transferred(self, rest: Reply | None = None) -> Transferred:
        assert self._transaction is not None
        replies = self._transaction.replies(rest)
        self._transaction = None
        self._state = Awaiting.NOTHING
        return Transferred(replies)

    def _resetAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines)
        if reply.code != 250:
            yield from self._end(EndCause.REFUSED, reply)

    def _mailAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines)
        if 300 <= reply.code < 400:
            yield from self._unexpected(reply)
        elif not reply.accepted and self._transaction is not None:
            self._transaction.decide(reply)
            yield from self._cancelTransaction()

    def _recipientAnswered(
        self, index: int
    ) -> Callable[[Lines], Iterator[ClientEvent]]:
        def answered(lines: Lines) -> Iterator[ClientEvent]:
            reply = parseReply(lines)
            if 300 <= reply.code < 400:
                yield from self._unexpected(reply)
            elif not reply.accepted and self._transaction is not None:
                self._transaction.decideOne(index, reply)
                if not self._transaction.open:
                    yield from self._cancelTransaction()

        return answered

    def _cancelTransaction(self) -> Iterator[ClientEvent]:
        """
        End the transaction, as no recipient is left.  Commands that were sent
        already are still answered.
        """
        self._queue.clear()
        if not self._sent:
            yield self._transferred()

    def _dataAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines)
        if self._transaction is None or (reply.accepted and reply.code != 354):
            yield from self._unexpected(reply)
        elif not reply.accepted:
            yield self._transferred(reply)
        elif self._transaction.open:
            self._state = Awaiting.BODY
            yield SendBody()
        else:
            # RFC 2920 3.1: DATA was sent together with RCPT, and the server accepted
            # it without any recipient.  An empty message ends the transaction.
            self._expect(Awaiting.END, self._endAnswered)
            yield Send(b".\r\n")

    def finish(self) -> None:
        """
        The end of data indication was sent.
        """
        self._state = Awaiting.NOTHING
        self._expect(Awaiting.END, self._endAnswered)

    def _endAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        reply = parseReply(lines)
        if 300 <= reply.code < 400:
            yield from self._unexpected(reply)
        else:
            self._mustReset = False
            yield self._transferred(reply)

    # --- the end ------------------------------------------------------------------

    def quit(self) -> list[ClientEvent]:
        """
        Send QUIT; only allowed while no reply is expected.
        """
        self._command(Awaiting.QUIT, "QUIT", self._quitAnswered)
        return list(self._issue())

    def partialReplies(self) -> tuple[RecipientReply, ...]:
        """
        The replies so far of a transaction that the end of the connection
        interrupted.
        """
        return self._transaction.decided() if self._transaction else ()

    def _quitAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        yield from self._end(EndCause.QUIT, parseReply(lines))

    def _refused(
        self, reply: Reply, cause: EndCause = EndCause.REFUSED
    ) -> Iterator[ClientEvent]:
        # RFC 5321 4.1.1.10: the client should send QUIT before it closes.
        if not self._reader.isReplying:
            yield Send(b"QUIT\r\n")
        yield from self._end(cause, reply)

    def _unexpected(self, reply: Reply) -> Iterator[ClientEvent]:
        yield from self._end(
            EndCause.MALFORMED, reply, "a reply with an unexpected code"
        )

    def _end(
        self, cause: EndCause, reply: Reply | None = None, reason: str = ""
    ) -> Iterator[ClientEvent]:
        if self._transaction is not None and cause is EndCause.REFUSED:
            yield self._transferred(reply)
        self._state = Awaiting.OVER
        self._queue.clear()
        self._sent.clear()
        yield Ended(cause, reply, reason or str(reply))

    # --- commands -------------------------------------------------------------------

    def _command(
        self,
        step: Awaiting,
        line: str,
        answered: Callable[[Lines], Iterator[ClientEvent]],
    ) -> None:
        self._queue.append(_Command(step, line.encode() + b"\r\n", answered))

    def _expect(
        self, step: Awaiting, answered: Callable[[Lines], Iterator[ClientEvent]]
    ) -> None:
        self._sent.append(_Command(step, None, answered))

    def _issue(self) -> Iterator[ClientEvent]:
        """
        Send the next queued command, or all of them with PIPELINING (RFC 2920).
        """
        if not self._queue or (self._sent and not self.extensions.pipelining):
            return
        if not self._sent and self._reader.isReplying:
            # The reply came before the command, so it can't be its reply.
            yield from self._malformed(self._queue[0].step, "an unexpected reply")
            return
        count = len(self._queue) if self.extensions.pipelining else 1
        commands = [self._queue.popleft() for _ in range(count)]
        self._sent.extend(commands)
        yield Send(b"".join(each.line or b"" for each in commands))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _response(attempt: AuthAttempt, challenge: str) -> str:
    """
    The line that answers a challenge; C{*} cancels the exchange (RFC 4954 4).
    """
    try:
        response = attempt.answer(base64.b64decode(challenge, validate=True))
    except (binascii.Error, ValueError):
        response = None
    return "*" if response is None else _base64(response)
