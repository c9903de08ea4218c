# -*- test-case-name: tests.smtp.client.test_conversation -*-
"""
The client's side of an SMTP conversation: bytes in, events out.  No I/O.

Whoever has the connection carries the events out, in order, and tells the
conversation what came: C{receive}, C{secured} once TLS is up and judged,
C{finish} once the message has followed L{SendBody}.

What a client's conversation waits for, and what it wants done.  No I/O.

How a transaction stands for each of its recipients.  No I/O.
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from moxtls.smtp.client.auth import MECHANISMS, AuthAttempt, Mechanism, chooseMechanism
from moxtls.smtp.client.extensions import (
    Extensions,
    badRecipient,
    extensionRefusal,
    mailCommand,
    parseExtensions,
)
from moxtls.smtp.client.replies import MalformedReply, ReplyReader, parseReply
from moxtls.smtp.types import Credentials, RecipientReply, Reply, TLSMode, Transaction
from moxtls.tls.session import STARTTLSResult


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


class EndCause(Enum):
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
class StartHandshake:
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
    Send the message, encoded by L{moxtls.smtp.dotstuffing.DotStuffing}; then call
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

    cause: EndCause
    reply: Reply | None = None
    reason: str = ""


ClientEvent = Send | StartHandshake | Ready | SendBody | Transferred | Ended


# RFC 5321 3.2: what servers that don't know EHLO say to it.
_NO_EHLO = frozenset({500, 501, 502, 503, 504})


Lines = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Command:
    """
    @ivar line: C{None} if what it waits for was sent already.
    @ivar answered: What to do with the reply.
    """

    step: Awaiting
    line: bytes | None
    answered: Callable[[Lines], Iterator[ClientEvent]]


class ClientConversation:
    """
    One SMTP session, from the greeting to QUIT.

    @ivar helo: The first word of the greeting.
    @ivar extensions: What the last reply to EHLO announced.
    @ivar secure: Whether TLS is up.
    @ivar starttls: How far it got towards TLS.
    @ivar code: Of the reply to STARTTLS, if that was refused.
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
        @param isLMTP: Speak LMTP (RFC 2033); transactions are to have one
            recipient each, as each has a reply of its own behind the data.
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
        Whether another transaction can be begun.
        """
        limit = self.extensions.mailMax
        idle = self.awaiting is Awaiting.NOTHING
        return idle and (limit is None or self._transactions < limit)

    # --- what came ---------------------------------------------------------

    def receive(self, data: bytes) -> list[ClientEvent]:
        """
        Take in what came from the other side.
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
        What came is no reply to C{step}.
        """
        if step is Awaiting.STARTTLS:
            self.starttls = STARTTLSResult.UNANSWERED
        yield from self._end(EndCause.MALFORMED, None, reason)

    def secured(self) -> list[ClientEvent]:
        """
        TLS is up, and the certificate will do.
        """
        # RFC 3207 4.2: what was learned before is forgotten.
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
            # RFC 5321 3.8: comes at any time, and is the last that comes.
            yield from self._end(EndCause.REFUSED, reply)
        elif step is not None:
            yield from self._sent.popleft().answered(lines)
        elif self._state is Awaiting.BODY and not reply.accepted:
            # The message can't be broken off but with the connection.
            yield from self._end(EndCause.REFUSED, reply)
        else:
            yield from self._end(EndCause.MALFORMED, reply, "a reply to nothing")

    # --- up to the first transaction ---------------------------------------

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
            # RFC 3207 4, 6: not even an empty line.
            self.starttls = STARTTLSResult.INJECTED
            why = "plaintext behind the reply to STARTTLS"
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
            missing = "mechanism that we know" if self.secure else "TLS"
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
        Begin a transaction; only while C{usable}.
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
        There is nobody left to send the message to.  What was sent of the
        commands will be answered all the same.
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
            # RFC 2920 3.1: DATA went out with the RCPTs, and the server took
            # it though it took no recipient.  An empty message ends that.
            self._expect(Awaiting.END, self._endAnswered)
            yield Send(b".\r\n")

    def finish(self) -> None:
        """
        The end of the message was sent.
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
        Say goodbye; only while nothing is awaited.
        """
        self._command(Awaiting.QUIT, "QUIT", self._quitAnswered)
        return list(self._issue())

    def partialReplies(self) -> tuple[RecipientReply, ...]:
        """
        What is known of a transaction that the end of the connection cut
        short.
        """
        return self._transaction.decided() if self._transaction else ()

    def _quitAnswered(self, lines: Lines) -> Iterator[ClientEvent]:
        yield from self._end(EndCause.QUIT, parseReply(lines))

    def _refused(
        self, reply: Reply, cause: EndCause = EndCause.REFUSED
    ) -> Iterator[ClientEvent]:
        # RFC 5321 4.1.1.10: the client is to say QUIT.
        if not self._reader.isReplying:
            yield Send(b"QUIT\r\n")
        yield from self._end(cause, reply)

    def _unexpected(self, reply: Reply) -> Iterator[ClientEvent]:
        yield from self._end(EndCause.MALFORMED, reply, "a reply that makes no sense")

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
        Send what may be sent now: one command at a time, or all of them
        (RFC 2920).
        """
        if not self._queue or (self._sent and not self.extensions.pipelining):
            return
        if not self._sent and self._reader.isReplying:
            # Said before it was asked for, so it is no answer.
            yield from self._malformed(self._queue[0].step, "a reply to nothing")
            return
        count = len(self._queue) if self.extensions.pipelining else 1
        commands = [self._queue.popleft() for _ in range(count)]
        self._sent.extend(commands)
        yield Send(b"".join(each.line or b"" for each in commands))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _response(attempt: AuthAttempt, challenge: str) -> str:
    """
    The line that answers a challenge; C{*} breaks off (RFC 4954 4).
    """
    try:
        response = attempt.answer(base64.b64decode(challenge, validate=True))
    except (binascii.Error, ValueError):
        response = None
    return "*" if response is None else _base64(response)


class TransactionReplies:
    """
    One transaction under way, from the client's side.

    @ivar validRecipients: Indexes of the recipients that RCPT can be said for.
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
        Whether anything is still to be decided.
        """
        return None in self._replies

    def mailCommand(self, known: Extensions) -> str:
        return mailCommand(self._transaction, known)

    def decideOne(self, index: int, reply: Reply) -> None:
        """
        The first reply that decides is the one that counts.
        """
        if self._replies[index] is None:
            self._replies[index] = reply

    def decide(self, reply: Reply) -> None:
        """
        This is the answer for all that have none yet.
        """
        self._replies = [known or reply for known in self._replies]

    def replies(self, rest: Reply | None) -> tuple[RecipientReply, ...]:
        """
        @param rest: For those that have no answer yet.
        """
        if rest is not None:
            self.decide(rest)
        return self.decided()

    def decided(self) -> tuple[RecipientReply, ...]:
        """
        Of those that have an answer.
        """
        pairs = zip(self._transaction.recipients, self._replies, strict=True)
        return tuple(
            RecipientReply(recipient, reply)
            for recipient, reply in pairs
            if reply is not None
        )
