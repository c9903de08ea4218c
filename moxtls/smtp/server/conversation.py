# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
The server's side of an SMTP conversation: bytes in, events and replies out.
No I/O.

Whoever owns a L{ServerConversation} gives it what was received, asks for
events until there are none, answers those that want an answer, and sends what
L{ServerConversation.takeOutput} has.  While an answer is outstanding there are
no further events: pipelined commands wait in their order (RFC 2920).
"""

from __future__ import annotations

import base64
from enum import Enum, auto

from moxtls.smtp.server.data import MAX_DISCARD_LENGTH, Chunk, DataReceiver, parseChunk
from moxtls.smtp.server.events import (
    GO_AHEAD,
    AuthStep,
    BodyChunk,
    BodyEnd,
    BodyFailed,
    DataStart,
    MailFrom,
    RcptTo,
    ServerEvent,
    ServerSettings,
    StartTLS,
)
from moxtls.smtp.server.limits import SessionLimits
from moxtls.smtp.server.state import TOO_LARGE, SessionState
from moxtls.smtp.server.syntax import LineBuffer, encodeReply, splitCommand, withStatus
from moxtls.smtp.types import Reply

#: RFC 5321 4.5.3.1.4 has 512, and extensions add to it (RFC 4954: 500 for
#: AUTH=); this leaves room for all that are announced.
MAX_COMMAND = 2048
#: RFC 4954 4: a line of an authentication exchange.
MAX_AUTH_LINE = 12288
#: Input that waits for an answer.  Owners stop reading long before that.
MAX_BACKLOG_LENGTH = 1024 * 1024


class _Phase(Enum):
    COMMAND = auto()
    AUTH = auto()
    BODY = auto()  # behind DATA, or within a chunk
    ENDED = auto()  # the end of a message or chunk was seen, and nobody told yet


_TLS_READY = Reply(220, "2.0.0", "Go ahead")
_LAST_WORDS = frozenset({221, 421})  # RFC 5321 3.8, 4.1.1.10


class ServerConversation:
    """
    One connection, from the greeting on.

    @ivar state: What is known of the client.
    @ivar isClosed: Whether the connection is to be closed once the output is
        sent.
    """

    def __init__(self, settings: ServerSettings, isSecure: bool = False) -> None:
        self._settings = settings
        self._limits = SessionLimits(settings)
        self.state = SessionState(settings, self._limits, isSecure)
        self._input = LineBuffer()
        self._output: list[bytes] = []
        self._phase = _Phase.COMMAND
        self.isClosed = False
        self._unanswered: ServerEvent | None = None
        self._receiver: DataReceiver | None = None
        # RFC 2034 4: the greeting has no enhanced status code.
        self._sendReply(Reply(220, text=f"{settings.hostname} ESMTP"))

    # --- for the owner ---------------------------------------------------

    @property
    def inMessage(self) -> bool:
        """
        Whether part of a message has come, and not all.
        """
        return self._receiver is not None

    @property
    def backlog(self) -> int:
        """
        How many bytes wait to be looked at.
        """
        return len(self._input)

    def receive(self, data: bytes) -> None:
        """
        Take what the client sent, cut anywhere.
        """
        if len(self._input) > MAX_BACKLOG_LENGTH:
            self.end(Reply(421, "4.7.0", "Too much sent ahead"))
        if not self.isClosed:
            self._input.add(data)

    def nextEvent(self) -> ServerEvent | None:
        """
        @return: C{None} if there is nothing more to say before more is
            received, or before the last event is answered.
        """
        while self._unanswered is None and not self.isClosed and self._canStep():
            event = self._step()
            if event is not None:
                return event
        return None

    def takeOutput(self) -> bytes:
        """
        @return: What is to be sent now.
        """
        output, self._output = b"".join(self._output), []
        return output

    def reply(self, reply: Reply) -> None:
        """
        Answer the last event.  C{421} closes the connection.
        """
        event, self._unanswered = self._unanswered, None
        if self.isClosed:
            return
        if event is None:
            raise ValueError("nothing was asked")
        if isinstance(event, DataStart):
            self._answerData(reply)
            return
        tooMany = self._note(event, reply)
        self._sendReply(withStatus(reply))
        self._endIf(tooMany)

    def challenge(self, data: bytes) -> None:
        """
        Answer an L{AuthStep}: ask for more.
        """
        self._unanswered = None
        if not self.isClosed:
            self._phase = _Phase.AUTH
            self._sendReply(Reply(334, text=base64.b64encode(data).decode("ascii")))

    def authenticated(self, user: str) -> None:
        """
        Answer an L{AuthStep}: the client is C{user}.
        """
        self._unanswered = None
        if not self.isClosed:
            self.state.user = user
            self._limits.madeProgress()
            self._sendReply(Reply(235, "2.7.0", "Authenticated"))

    def tlsStarted(self) -> None:
        """
        Answer L{StartTLS}: what is received from now on came through TLS.

        Everything known from before is forgotten (RFC 3207 4.2).
        """
        self._unanswered = None
        if self._input:
            # Plaintext behind STARTTLS must not pass for what TLS protected.
            self._close()
        self._receiver = None
        self.state.isSecure = True
        self.state.forget()

    def end(self, reply: Reply) -> None:
        """
        Close the connection, with C{reply} as the last word.
        """
        if not self.isClosed:
            self._output.append(encodeReply(withStatus(reply)))
            self._close()

    # --- answers -----------------------------------------------------------

    def _note(self, event: ServerEvent, reply: Reply) -> Reply | None:
        """
        @return: The last word, if this was once too often.
        """
        match event:
            case MailFrom() if reply.accepted:
                self.state.transaction = event.transaction
            case RcptTo() if reply.accepted:
                self.state.addRecipient(event)
                return self._limits.recipient()
            case RcptTo():
                return self._limits.refusal()
            case BodyEnd():
                self.state.endTransaction()
                if reply.accepted:
                    self._limits.madeProgress()
            case AuthStep():
                return self._limits.failedLogin()
        return None

    def _answerData(self, reply: Reply) -> None:
        wanted = reply.code == GO_AHEAD.code
        if self._receiver is not None:
            # The chunk comes in any case, and is answered at its end.
            self._receiver.refusal = None if wanted else withStatus(reply)
            self._receiver.isOver = not wanted
            return
        if wanted:
            self._phase = _Phase.BODY
            self._receiver = DataReceiver(self._settings, inChunks=False)
        else:
            self.state.endTransaction()
        self._sendReply(withStatus(reply))

    # --- lines -------------------------------------------------------------

    def _canStep(self) -> bool:
        phase = self._phase
        if phase is _Phase.COMMAND:
            return self._input.hasLine(MAX_COMMAND)
        if phase is _Phase.BODY:
            # A chunk may have no bytes at all.
            return bool(self._input or (self._receiver and self._receiver.ended))
        return phase is _Phase.ENDED or self._input.hasLine(MAX_AUTH_LINE)

    def _step(self) -> ServerEvent | None:
        if self._phase is _Phase.COMMAND or self._receiver is None:
            return self._lineEvent()
        if self._phase is _Phase.BODY:
            return self._bodyEvent(self._receiver)
        return self._endEvent(self._receiver)

    def _lineEvent(self) -> ServerEvent | None:
        line = self._input.takeLine()
        wasAuth = self._phase is _Phase.AUTH
        self._phase = _Phase.COMMAND
        if line is None:
            return self._take(Reply(500, "5.5.2", "Line too long"))
        if wasAuth:
            return self._take(self.state.authStep(line, first=False))
        return self._commandLine(line)

    def _commandLine(self, line: bytes) -> ServerEvent | None:
        split = splitCommand(line)
        if split is None:
            flaw = Reply(500, "5.5.2", "Bare CR, bare LF, NUL or not UTF-8")
            return self._take(flaw)
        verb, argument = split
        if verb == "BDAT":
            return self._chunk(argument)
        answer = self.state.command(verb, argument, len(self._input) > 0)
        event = self._take(answer)
        if self._receiver is not None and isinstance(answer, Reply):
            return self._dropped(answer)
        return event

    def _dropped(self, reply: Reply) -> BodyFailed | None:
        """
        Between chunks: whether the client still wants the message.
        """
        if self.state.inChunks:
            return None
        self._receiver = None
        return BodyFailed(reply)

    def _take(self, answer: ServerEvent | Reply) -> ServerEvent | None:
        """
        Say what was decided, or let the owner decide.
        """
        if isinstance(answer, Reply):
            self._sendReply(answer)
            if answer.permanent:
                self._endIf(self._limits.error())
            return None
        if isinstance(answer, StartTLS):
            self._sendReply(_TLS_READY)
        self._unanswered = answer
        return answer

    # --- messages ------------------------------------------------------------

    def _chunk(self, argument: str) -> ServerEvent | None:
        chunk = parseChunk(argument)
        if isinstance(chunk, Reply):
            self.end(chunk)
        elif chunk.size > self._settings.maxSize + MAX_DISCARD_LENGTH:
            self.end(TOO_LARGE)
        elif not chunk.size and not chunk.isLast:
            self._endIf(self._limits.idleCommand())
        if self.isClosed or isinstance(chunk, Reply):
            return None
        isFirst = self._receiver is None
        receiver = self._receiver or DataReceiver(self._settings, inChunks=True)
        if receiver.isFragmented:
            self.end(Reply(421, "4.7.0", "Too many small chunks"))
            return None
        receiver.refusal = self.state.chunkRefusal(chunk.size, receiver.size)
        return self._beginChunk(receiver, chunk, isFirst)

    def _beginChunk(
        self, receiver: DataReceiver, chunk: Chunk, isFirst: bool
    ) -> ServerEvent | None:
        receiver.begin(chunk)
        self._receiver = receiver
        self._phase = _Phase.BODY
        event: ServerEvent | None = None
        if receiver.refusal is not None:
            receiver.isOver = True
            event = None if isFirst else BodyFailed(receiver.refusal)
        elif isFirst and self.state.transaction is not None:
            self.state.inChunks = True
            event = self._unanswered = DataStart(self.state.transaction)
        return event

    def _bodyEvent(self, receiver: DataReceiver) -> ServerEvent | None:
        text = receiver.take(self._input)
        if receiver.ended:
            self._phase = _Phase.ENDED
        fault = receiver.fault()
        if receiver.isOver:
            if receiver.isEndless:
                self.end(fault or TOO_LARGE)
            return None
        if fault is not None:
            receiver.isOver = True
            return BodyFailed(fault)
        return BodyChunk(text) if text else None

    def _endEvent(self, receiver: DataReceiver) -> ServerEvent | None:
        self._phase = _Phase.COMMAND
        refusal = receiver.fault()
        if refusal is not None:
            self._refuse(refusal, receiver.inChunks)
            return None
        if not receiver.isLast:
            self._sendReply(Reply(250, "2.0.0", f"{receiver.size} bytes so far"))
            return None
        self._receiver = None
        self._unanswered = BodyEnd(receiver.size)
        return self._unanswered

    def _refuse(self, refusal: Reply, inChunks: bool) -> None:
        wasSpoiled = self.state.wasSpoiled
        self._receiver = None
        self.state.endTransaction()
        self.state.wasSpoiled = inChunks
        if not wasSpoiled:
            self._take(refusal)
            return
        # RFC 3030 2: it had sent these before it heard of the first.
        self._sendReply(refusal)
        self._endIf(self._limits.idleCommand())

    # --- saying things -------------------------------------------------------

    def _sendReply(self, reply: Reply) -> None:
        if self.isClosed:
            return
        self._output.append(encodeReply(reply))
        if reply.code in _LAST_WORDS:
            self._close()

    def _endIf(self, lastWord: Reply | None) -> None:
        if lastWord is not None:
            self.end(lastWord)

    def _close(self) -> None:
        self.isClosed = True
        self._input.clear()
