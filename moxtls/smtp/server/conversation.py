# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
The SMTP server protocol as a state machine, with limits on the length of command lines.
Bytes go in, events and replies come out.  No I/O.

The owner of a L{ServerConversation} passes received data to C{receive}, calls
C{nextEvent} until there is none, answers those events that need an answer, and
sends the data of C{takeOutput}.  While an event is unanswered, there are no
further events: pipelined commands wait in order (RFC 2920).
"""

from __future__ import annotations

import base64
from enum import Enum, auto

from moxtls.smtp.server.data import MAX_DISCARD_LENGTH, Chunk, DataReceiver, parseChunk
from moxtls.smtp.server.state import (
    GO_AHEAD,
    TOO_LARGE,
    AuthStep,
    BodyChunk,
    BodyEnd,
    BodyFailed,
    DataStart,
    MailFrom,
    RcptTo,
    ServerEvent,
    ServerSettings,
    SessionLimits,
    SessionState,
    StartTLS,
)
from moxtls.smtp.server.syntax import LineBuffer, encodeReply, splitCommand, withStatus
from moxtls.smtp.types import Reply

#: Octets of a command line.  RFC 5321 4.5.3.1.4 has 512, and extensions add to it
#: (RFC 4954: 500 for AUTH=); this is enough for all announced extensions.
MAX_COMMAND_LINE = 2048
#: Octets of a line of an authentication exchange (RFC 4954 4).
MAX_AUTH_LINE = 12288
#: Octets of input that may wait for an answer.  Owners stop reading long before.
MAX_BACKLOG_LENGTH = 1024 * 1024


class _Phase(Enum):
    COMMAND = auto()
    AUTH = auto()
    BODY = auto()  # after DATA, or within a chunk
    ENDED = auto()  # the end of a message or chunk was received, but not reported


_TLS_READY = Reply(220, "2.0.0", "Go ahead")
_CLOSING_CODES = frozenset({221, 421})  # RFC 5321 3.8, 4.1.1.10


class ServerConversation:
    """
    One session, from the greeting on.

    @ivar state: The state of the session.
    @ivar isClosed: The connection has to be closed once the output is sent.
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
        True while a message is received.
        """
        return self._receiver is not None

    @property
    def backlog(self) -> int:
        """
        Octets of unprocessed input.
        """
        return len(self._input)

    def receive(self, data: bytes) -> None:
        """
        Take received data, cut anywhere.
        """
        if len(self._input) > MAX_BACKLOG_LENGTH:
            self.end(Reply(421, "4.7.0", "Too much input before replies"))
        if not self.isClosed:
            self._input.add(data)

    def nextEvent(self) -> ServerEvent | None:
        """
        Process input up to the next event.

        @return: C{None} if there is none before more data is received, or before
            the last event is answered.
        """
        while self._unanswered is None and not self.isClosed and self._canStep():
            event = self._step()
            if event is not None:
                return event
        return None

    def takeOutput(self) -> bytes:
        """
        Return the data to be sent, and forget it.
        """
        output, self._output = b"".join(self._output), []
        return output

    def reply(self, reply: Reply) -> None:
        """
        Answer the last event with a reply.  C{421} closes the connection.
        """
        event, self._unanswered = self._unanswered, None
        if self.isClosed:
            return
        if event is None:
            raise ValueError("no event waits for a reply")
        if isinstance(event, DataStart):
            self._answerData(reply)
            return
        tooMany = self._note(event, reply)
        self._sendReply(withStatus(reply))
        self._endIf(tooMany)

    def challenge(self, data: bytes) -> None:
        """
        Answer an L{AuthStep} with a challenge.
        """
        self._unanswered = None
        if not self.isClosed:
            self._phase = _Phase.AUTH
            self._sendReply(Reply(334, text=base64.b64encode(data).decode("ascii")))

    def authenticated(self, user: str) -> None:
        """
        Answer an L{AuthStep}: the client is authenticated as C{user}.
        """
        self._unanswered = None
        if not self.isClosed:
            self.state.user = user
            self._limits.madeProgress()
            self._sendReply(Reply(235, "2.7.0", "Authenticated"))

    def tlsStarted(self) -> None:
        """
        Answer L{StartTLS}: data received from now on came over TLS.

        The state from before is discarded (RFC 3207 4.2).
        """
        self._unanswered = None
        if self._input:
            # Plaintext after STARTTLS must not be processed as if TLS had protected
            # it.
            self._close()
        self._receiver = None
        self.state.isSecure = True
        self.state.forget()

    def end(self, reply: Reply) -> None:
        """
        Close the connection after a last reply.
        """
        if not self.isClosed:
            self._output.append(encodeReply(withStatus(reply)))
            self._close()

    # --- answers -----------------------------------------------------------

    def _note(self, event: ServerEvent, reply: Reply) -> Reply | None:
        """
        Update the state after an event was answered.

        @return: The last reply, if a limit is exceeded.
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
        isAccepted = reply.code == GO_AHEAD.code
        if self._receiver is not None:
            # The chunk follows in any case, and is answered at its end.
            self._receiver.refusal = None if isAccepted else withStatus(reply)
            self._receiver.isOver = not isAccepted
            return
        if isAccepted:
            self._phase = _Phase.BODY
            self._receiver = DataReceiver(self._settings, inChunks=False)
        else:
            self.state.endTransaction()
        self._sendReply(withStatus(reply))

    # --- lines -------------------------------------------------------------

    def _canStep(self) -> bool:
        phase = self._phase
        if phase is _Phase.COMMAND:
            return self._input.hasLine(MAX_COMMAND_LINE)
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
        Discard a message in chunks if a command between them ended the transaction.
        """
        if self.state.inChunks:
            return None
        self._receiver = None
        return BodyFailed(reply)

    def _take(self, answer: ServerEvent | Reply) -> ServerEvent | None:
        """
        Send a reply, or let the owner answer an event.
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
        # RFC 3030 2: the client had sent these before it received the first reply.
        self._sendReply(refusal)
        self._endIf(self._limits.idleCommand())

    # --- replies -------------------------------------------------------------

    def _sendReply(self, reply: Reply) -> None:
        if self.isClosed:
            return
        self._output.append(encodeReply(reply))
        if reply.code in _CLOSING_CODES:
            self._close()

    def _endIf(self, lastReply: Reply | None) -> None:
        if lastReply is not None:
            self.end(lastReply)

    def _close(self) -> None:
        self.isClosed = True
        self._input.clear()
