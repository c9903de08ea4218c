# -*- test-case-name: tests.smtp.test_server -*-
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
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from moxtls.smtp.body import BodyDecoder
from moxtls.smtp.commands import (
    encodeReply,
    parseMail,
    parseRcpt,
    splitCommand,
    withStatus,
)
from moxtls.smtp.events import (
    GO_AHEAD,
    AuthStep,
    BodyChunk,
    BodyEnd,
    BodyFailed,
    DataStart,
    Event,
    Incoming,
    MailFrom,
    RcptTo,
    ServerSettings,
    StartTLS,
)
from moxtls.smtp.lines import LineBuffer
from moxtls.smtp.values import Reply

#: RFC 5321 4.5.3.1.4 has 512, and extensions add to it (RFC 4954: 500 for
#: AUTH=); this leaves room for all that are announced.
LONGEST_COMMAND = 2048
#: RFC 4954 4: a line of an authentication exchange.
LONGEST_AUTH_LINE = 12288
#: Input that waits for an answer.  Owners stop reading long before that.
LONGEST_BACKLOG = 1024 * 1024
#: How much of a message is passed over after it was found to be refused, so
#: that the client gets to hear why.
LONGEST_DISCARD = 64 * 1024 * 1024
#: RFC 5321 4.5.3.1.2.
LONGEST_HELO = 255

# Those who say this speak HTTP, and perhaps a stranger's words within it.
_FOREIGN = frozenset({"CONNECT", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
# RFC 3207 4: what a server that insists on TLS allows before it.
_BEFORE_TLS = frozenset({"EHLO", "HELO", "NOOP", "QUIT", "RSET", "STARTTLS"})


class _Phase(Enum):
    COMMAND = auto()
    AUTH = auto()
    BODY = auto()
    ENDED = auto()  # the end of a message was seen, and nobody told yet
    CLOSED = auto()


_OK = Reply(250, "2.0.0", "OK")
_FIXED = {
    "EXPN": Reply(502, "5.5.1", "Not implemented"),
    "HELP": Reply(214, "2.0.0", "RFC 5321"),
    "NOOP": _OK,
    # RFC 5321 3.5.3, 7.3: who has a mailbox is nobody's business.
    "VRFY": Reply(252, "2.1.5", "Send some mail, I'll try my best"),
}
_FLAWED = Reply(554, "5.6.0", "Message has a bare CR, a bare LF or a NUL")
_TOO_LARGE = Reply(552, "5.3.4", "Message is larger than this server takes")
_NO_TLS = Reply(530, "5.7.0", "Must issue a STARTTLS command first")


class ServerConversation:
    """
    One connection, from the greeting on.

    @ivar helo: What the client calls itself: anything without control
        characters.
    @ivar extended: Whether it said EHLO.
    @ivar isSecure: Whether this goes over TLS.
    @ivar user: Who it has proved to be; empty if nobody.
    @ivar incoming: The transaction, if there is one.
    """

    def __init__(self, settings: ServerSettings, isSecure: bool = False) -> None:
        self._settings = settings
        self.isSecure = isSecure
        self.incoming: Incoming | None = None
        self._input = LineBuffer()
        self._output: list[bytes] = []
        self._phase = _Phase.COMMAND
        self._awaiting: Event | None = None
        self._body = BodyDecoder()
        self._refusal: Reply | None = None
        self._mechanism = ""
        self._transactions = 0
        self._errors = 0
        self._authFailures = 0
        self._refusals = 0
        self._idleCommands = 0
        self._forgetClient()
        # RFC 2034 4: the greeting has no enhanced status code.
        self._write(Reply(220, text=f"{settings.hostname} ESMTP"))

    # --- for the owner ---------------------------------------------------

    @property
    def isClosed(self) -> bool:
        """
        Whether the connection is to be closed once the output is sent.
        """
        return self._phase is _Phase.CLOSED

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
        if len(self._input) > LONGEST_BACKLOG:
            self.end(Reply(421, "4.7.0", "Too much sent ahead"))
        if not self.isClosed:
            self._input.add(data)

    def nextEvent(self) -> Event | None:
        """
        @return: C{None} if there is nothing more to say before more is
            received, or before the last event is answered.
        """
        while self._awaiting is None and self._canStep():
            event = self._step()
            if event is not None:
                return event
        return None

    def takeOutput(self) -> bytes:
        """
        @return: What is to be sent now.
        """
        output = b"".join(self._output)
        self._output.clear()
        return output

    def reply(self, reply: Reply) -> None:
        """
        Answer the last event.  C{421} closes the connection.
        """
        event, self._awaiting = self._awaiting, None
        if self.isClosed:
            return
        match event:
            case MailFrom() if reply.accepted:
                self.incoming = event.incoming
            case RcptTo():
                self._noteRecipient(event, reply.accepted)
            case DataStart() if reply.code == GO_AHEAD.code:
                self._phase = _Phase.BODY
                self._body = BodyDecoder()
            case DataStart():
                self.incoming = None
            case BodyEnd():
                self.incoming = None
                if reply.accepted:
                    self._idleCommands = 0
            case AuthStep():
                self._phase = _Phase.COMMAND
                self._authFailures += 1
            case None:
                raise ValueError("nothing was asked")
        self._say(reply)
        if self._authFailures >= self._settings.authFailures:
            self.end(Reply(421, "4.7.0", "Too many failed logins"))

    def challenge(self, data: bytes) -> None:
        """
        Answer an L{AuthStep}: ask for more.
        """
        self._awaiting = None
        if not self.isClosed:
            self._phase = _Phase.AUTH
            self._say(Reply(334, text=base64.b64encode(data).decode("ascii")))

    def authenticated(self, user: str) -> None:
        """
        Answer an L{AuthStep}: the client is C{user}.
        """
        self._awaiting = None
        if not self.isClosed:
            self._phase = _Phase.COMMAND
            self.user = user
            self._idleCommands = 0
            self._say(Reply(235, "2.7.0", "Authenticated"))

    def tlsStarted(self) -> None:
        """
        Answer L{StartTLS}: what is received from now on came through TLS.

        Everything known from before is forgotten (RFC 3207 4.2).
        """
        self._awaiting = None
        if self._input:
            # Plaintext behind STARTTLS must not pass for what TLS protected.
            self._close()
        self.isSecure = True
        self._forgetClient()

    def end(self, reply: Reply) -> None:
        """
        Close the connection, with C{reply} as the last word.
        """
        if not self.isClosed:
            self._write(withStatus(reply))
            self._close()

    # --- lines and bodies --------------------------------------------------

    def _canStep(self) -> bool:
        match self._phase:
            case _Phase.COMMAND:
                return self._input.hasLine(LONGEST_COMMAND)
            case _Phase.AUTH:
                return self._input.hasLine(LONGEST_AUTH_LINE)
            case _Phase.BODY:
                return len(self._input) > 0
            case _Phase.ENDED:
                return True
            case _Phase.CLOSED:
                return False

    def _step(self) -> Event | None:
        match self._phase:
            case _Phase.BODY:
                return self._bodyEvent()
            case _Phase.ENDED:
                return self._endEvent()
            case _:
                return self._lineEvent()

    def _lineEvent(self) -> Event | None:
        line = self._input.takeLine()
        wasAuth = self._phase is _Phase.AUTH
        self._phase = _Phase.COMMAND
        if line is None:
            self._mistake(Reply(500, "5.5.2", "Line too long"))
            return None
        return self._authLine(line) if wasAuth else self._commandLine(line)

    def _commandLine(self, line: bytes) -> Event | None:
        split = splitCommand(line)
        if split is None:
            self._mistake(Reply(500, "5.5.2", "Bare CR, bare LF, NUL or not UTF-8"))
            return None
        answer = self._command(*split)
        if isinstance(answer, Reply):
            (self._mistake if answer.permanent else self._say)(answer)
            return None
        self._awaiting = answer
        return answer

    def _authLine(self, line: bytes) -> Event | None:
        if line == b"*":
            self._mistake(Reply(501, "5.7.0", "Authentication cancelled"))
            return None
        return self._authStep(line, first=False)

    def _authStep(self, encoded: bytes, first: bool) -> AuthStep | None:
        try:
            response = base64.b64decode(encoded, validate=True)
        except ValueError:
            self._mistake(Reply(501, "5.5.2", "That is not base64"))
            return None
        self._awaiting = AuthStep(self._mechanism, response, first)
        return self._awaiting

    def _bodyEvent(self) -> Event | None:
        text = self._body.feed(self._input.takeAll())
        if self._body.ended:
            self._phase = _Phase.ENDED
            self._input.add(self._body.rest)
        if self._refusal is not None:
            self._passOver()
            return None
        self._refusal = self._bodyFault()
        if self._refusal is not None:
            return BodyFailed(self._refusal)
        return BodyChunk(text) if text else None

    def _bodyFault(self) -> Reply | None:
        if self._body.flawed:
            return _FLAWED
        return _TOO_LARGE if self._body.size > self._settings.size else None

    def _passOver(self) -> None:
        ended = self._phase is _Phase.ENDED
        if not ended and self._body.size > self._settings.size + LONGEST_DISCARD:
            self.end(self._refusal or _TOO_LARGE)

    def _endEvent(self) -> Event | None:
        self._phase = _Phase.COMMAND
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            self.incoming = None
            self._mistake(refusal)
            return None
        self._awaiting = BodyEnd(self._body.size)
        return self._awaiting

    # --- commands ------------------------------------------------------------

    def _command(self, verb: str, argument: str) -> Event | Reply | None:
        if verb in _FOREIGN:
            return Reply(421, "4.7.0", "This is not HTTP")
        if verb not in _COMMANDS and verb not in _FIXED:
            return Reply(500, "5.5.1", "Command unknown")
        if self._settings.tlsRequired and not self.isSecure and verb not in _BEFORE_TLS:
            return _NO_TLS
        if verb not in _LEADING:
            self._idleCommands += 1
            if self._idleCommands > self._settings.idleCommands:
                return Reply(421, "4.7.0", "Too many commands without mail")
        fixed = _FIXED.get(verb)
        return fixed if fixed else _COMMANDS[verb](self, argument)

    def _helo(self, argument: str) -> Reply | None:
        if not self._greeted(argument, extended=False):
            return Reply(501, "5.5.4", "Syntax: HELO domain")
        self._write(Reply(250, text=self._settings.hostname))
        return None

    def _ehlo(self, argument: str) -> Reply | None:
        if not self._greeted(argument, extended=True):
            return Reply(501, "5.5.4", "Syntax: EHLO domain")
        lines = (self._settings.hostname, *self._settings.extensions(self.isSecure))
        self._write(Reply(250, text="\n".join(lines)))
        return None

    def _greeted(self, name: str, extended: bool) -> bool:
        name = name.strip()
        # RFC 5321 4.1.4: whatever the client calls itself, it is not refused
        # for that.
        if not name or len(name) > LONGEST_HELO or not name.isprintable():
            return False
        self.helo, self.extended, self.incoming = name, extended, None
        return True

    def _mail(self, argument: str) -> Event | Reply:
        refusal = self._mailRefusal()
        if refusal is not None:
            return refusal
        parsed = parseMail(argument)
        if isinstance(parsed, Reply):
            return parsed
        sender, parameters = parsed
        if parameters.requireTLS and not self.isSecure:
            return Reply(530, "5.7.10", "REQUIRETLS needs TLS")
        if parameters.size > self._settings.size:
            return _TOO_LARGE
        self._transactions += 1
        return MailFrom(Incoming(sender, parameters))

    def _mailRefusal(self) -> Reply | None:
        if not self.helo:
            return Reply(503, "5.5.1", "Say EHLO first")
        if self.incoming is not None:
            return Reply(503, "5.5.1", "There is a transaction already")
        if self._settings.authRequired and not self.user:
            return Reply(530, "5.7.0", "Authentication required")
        if self._transactions >= self._settings.transactions:
            return Reply(421, "4.7.0", "Too many messages in one connection")
        return None

    def _rcpt(self, argument: str) -> Event | Reply:
        if self.incoming is None:
            return Reply(503, "5.5.1", "Say MAIL first")
        parsed = parseRcpt(argument, self.incoming.parameters.smtputf8)
        if isinstance(parsed, Reply):
            return parsed
        if len(self.incoming.recipients) >= self._settings.recipients:
            # RFC 5321 4.5.3.1.10.
            self._noteRefusal()
            return Reply(452, "4.5.3", "Too many recipients")
        return RcptTo(parsed, self.incoming)

    def _noteRecipient(self, event: RcptTo, accepted: bool) -> None:
        if accepted and event.recipient not in event.incoming.recipients:
            recipients = (*event.incoming.recipients, event.recipient)
            self.incoming = replace(event.incoming, recipients=recipients)
        else:
            self._noteRefusal()

    def _noteRefusal(self) -> None:
        self._refusals += 1
        if self._refusals > self._settings.refusals:
            self.end(Reply(421, "4.7.0", "Too many recipients refused"))

    def _data(self, argument: str) -> Event | Reply:
        if argument:
            return Reply(501, "5.5.4", "DATA has no parameters")
        if self.incoming is None:
            return Reply(503, "5.5.1", "Say MAIL first")
        if not self.incoming.recipients:
            return Reply(554, "5.5.1", "No valid recipients")
        if self._input:
            # RFC 2920 3.1: DATA is the last of a group.  A message sent
            # unasked would be taken for commands if DATA were refused.
            return Reply(421, "4.5.0", "Message sent before it was asked for")
        return DataStart(self.incoming)

    def _rset(self, argument: str) -> Reply:
        self.incoming = None
        return _OK

    def _quit(self, argument: str) -> None:
        self.end(Reply(221, "2.0.0", "Bye"))

    def _starttls(self, argument: str) -> Event | Reply:
        if argument:
            return Reply(501, "5.5.4", "STARTTLS has no parameters")
        if self.isSecure or not self._settings.starttls:
            return Reply(503, "5.5.1", "STARTTLS is not offered")
        if self._input:
            # Somebody in the middle may have put it there (RFC 3207 6).
            return Reply(421, "4.7.0", "Plaintext behind STARTTLS")
        self._say(Reply(220, "2.0.0", "Go ahead"))
        return StartTLS()

    def _auth(self, argument: str) -> Event | Reply | None:
        mechanism, _, initial = argument.partition(" ")
        refusal = self._authRefusal(mechanism.upper())
        if refusal is not None:
            return refusal
        self._mechanism = mechanism.upper()
        if not initial:
            return AuthStep(self._mechanism, None, first=True)
        # RFC 4954 4: "=" is an initial response of no bytes.
        encoded = b"" if initial == "=" else initial.encode("utf-8")
        return self._authStep(encoded, first=True)

    def _authRefusal(self, mechanism: str) -> Reply | None:
        if not self._settings.mechanisms:
            return Reply(502, "5.5.1", "AUTH is not offered")
        if not self._settings.mayAuthenticate(self.isSecure):
            return Reply(538, "5.7.11", "Authentication needs TLS")
        if not self.extended:
            return Reply(503, "5.5.1", "Say EHLO first")
        if self.user or self.incoming is not None:
            return Reply(503, "5.5.1", "Not now")
        if mechanism not in self._settings.mechanisms:
            return Reply(504, "5.5.4", "Mechanism unknown")
        return None

    # --- saying things -------------------------------------------------------

    def _say(self, reply: Reply) -> None:
        if reply.code == 421:  # RFC 5321 3.8
            self.end(reply)
        elif not self.isClosed:
            self._write(withStatus(reply))

    def _mistake(self, reply: Reply) -> None:
        self._errors += 1
        self._say(reply)
        if self._errors > self._settings.errors:
            self.end(Reply(421, "4.7.0", "Too many errors"))

    def _write(self, reply: Reply) -> None:
        self._output.append(encodeReply(reply))

    def _close(self) -> None:
        self._phase = _Phase.CLOSED
        self._input.clear()

    def _forgetClient(self) -> None:
        self.helo = ""
        self.extended = False
        self.user = ""
        self.incoming = None


# None: the command has seen to everything itself.
_COMMANDS: dict[str, Callable[[ServerConversation, str], Event | Reply | None]] = {
    "AUTH": ServerConversation._auth,
    "DATA": ServerConversation._data,
    "EHLO": ServerConversation._ehlo,
    "HELO": ServerConversation._helo,
    "MAIL": ServerConversation._mail,
    "QUIT": ServerConversation._quit,
    "RCPT": ServerConversation._rcpt,
    "RSET": ServerConversation._rset,
    "STARTTLS": ServerConversation._starttls,
}
# Those that lead to mail; all others are counted until there is some.
_LEADING = frozenset({"AUTH", "DATA", "MAIL", "QUIT", "RCPT"})
