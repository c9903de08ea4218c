# -*- test-case-name: tests.twistedmail.test_server -*-
"""
Verdicts on mail that servers made with C{twisted.mail.smtp} take.

The wrapper stands between such a protocol and the application's delivery,
whether that comes from a factory, a portal or an attribute.  Commands, replies,
TLS and logins remain the protocol's.

A message that a server made with C{twisted.mail.smtp} takes: collected once for
all its recipients, looked at, and only then count to them.

What is asked about a message that a server made with C{twisted.mail.smtp} takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.mail.smtp import SMTP, IMessage, SMTPServerError
from zope.interface import Interface, implementer

from moxtls.dmarc.types import VerdictEvent
from moxtls.interfaces import IVerdictObserver
from moxtls.message.trace import ClientInfo
from moxtls.smtp.server.interfaces import TRY_LATER
from moxtls.smtp.types import Reply

#: Octets of a message, unless the programmer says otherwise: as C{twistd
#: moxtls} has it.
MAX_MESSAGE_SIZE = 100 * 2**20

#: With which the protocol answers if a message fails.
_FAILED = 550


TOO_LARGE = Reply(552, "5.3.4", "Message is larger than this server takes")

NO_SPACE = Reply(452, "4.3.1", "There is no room for the message now")

#: Octets after which other connections have their turn.
MAX_SLICE = 32 * 1024

_CRLF = b"\r\n"

_LINE_END = re.compile(rb"[\r\n]")


@dataclass(frozen=True, slots=True)
class FilterResult:
    """
    What becomes of a message.

    @ivar refusal: What the client is told if nobody is to get it.
    @ivar trace: Header fields to stand before all others.
    @ivar message: The rest, in chunks, to be read before it is closed.
    @ivar events: One for each recipient, in their order; none if it wasn't
        possible to judge.
    """

    refusal: Reply | None = None
    trace: bytes = b""
    message: Sequence[bytes] = ()
    events: tuple[VerdictEvent, ...] = ()


class IFilteredMessage(Interface):
    """
    Looks at one message.
    """

    def write(chunk: bytes) -> None:
        """
        Take a piece: CRLF line ends, no dot-stuffing.

        @raise OSError: There is no room.
        """

    def finish(recipients: Sequence[str]) -> Deferred[FilterResult]:
        """
        That was all.

        @param recipients: In the order of RCPT.
        """

    def close() -> None:
        """
        Forget the message.  Doing so twice is harmless.
        """


class IMessageFilter(Interface):
    """
    Says what becomes of messages: L{moxtls.twistedmail.verdicts.Screening} does.
    """

    def expect(client: ClientInfo, sender: str) -> None:
        """
        A message is announced.
        """

    def message(client: ClientInfo, sender: str) -> IFilteredMessage:
        """
        A message comes.
        """


@dataclass(frozen=True, slots=True)
class _FilterSettings:
    """
    What is the same for all connections.
    """

    clock: IReactorTime
    messageFilter: IMessageFilter
    maxSize: int
    checkAuthenticated: bool


def filterServer(
    clock: IReactorTime,
    factory: IProtocolFactory,
    messageFilter: IMessageFilter,
    maxSize: int = MAX_MESSAGE_SIZE,
    checkAuthenticated: bool = False,
) -> FilteringServerFactory:
    """
    Have SPF, DKIM and DMARC checked for mail that a server takes.

    @param factory: Builds protocols that are C{twisted.mail.smtp.SMTP}, or
        wrap one as C{twisted.protocols.policies} does.
    @param messageFilter: Such as L{moxtls.twistedmail.verdicts.Screening}.
    @param maxSize: Octets of a message; larger ones are refused.
    @param checkAuthenticated: Whether mail is checked, too, of who has logged
        in with ESMTP AUTH.
    """
    settings = _FilterSettings(clock, messageFilter, maxSize, checkAuthenticated)
    return FilteringServerFactory(factory, settings)


class FilteringServerFactory(ServerFactory):
    """
    Builds the protocols of another factory, each with a L{_ProtocolHooks}.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory, settings: _FilterSettings) -> None:
        self.wrappedFactory = factory
        self._settings = settings

    def doStart(self) -> None:
        self.wrappedFactory.doStart()
        super().doStart()

    def doStop(self) -> None:
        self.wrappedFactory.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        """
        @raise TypeError: There is no C{SMTP} in what the factory builds.
        """
        protocol = self.wrappedFactory.buildProtocol(addr)  # type: ignore[arg-type]
        if protocol is not None:
            _ProtocolHooks(self._settings, _smtpIn(protocol)).install()
        return protocol


class _ProtocolHooks:
    """
    Takes the place of a few methods of one protocol.
    """

    def __init__(self, settings: _FilterSettings, protocol: Any) -> None:
        self._settings = settings
        self._protocol = protocol
        self._validateFrom = protocol.validateFrom
        self._validateTo = protocol.validateTo
        self._receivedHeader = protocol.receivedHeader
        self._sendCode = protocol.sendCode
        # What MAIL has begun; None if that isn't captured.
        self._buffered: BufferedMessage | None = None
        self._latest: RecipientMessage | None = None
        self._reply: Reply | None = None

    def install(self) -> None:
        """
        From here on, the protocol does as we like.
        """
        protocol = self._protocol
        protocol.validateFrom = self.validateFrom
        protocol.validateTo = self.validateTo
        protocol.receivedHeader = self.receivedHeader
        protocol.sendCode = self.sendCode

    # --- what the protocol calls -----------------------------------------------

    def validateFrom(self, helo: tuple[Any, Any], origin: Any) -> Any:
        return _after(
            self._validateFrom(helo, origin), partial(self._accepted, helo, origin)
        )

    def validateTo(self, user: Any) -> Any:
        buffered = self._buffered
        valid = self._validateTo(user)
        if buffered is None:
            return valid
        return _after(valid, lambda make: partial(self._copy, buffered, user, make))

    def receivedHeader(self, helo: Any, origin: Any, recipients: Sequence[Any]) -> Any:
        """
        Asked for just behind each copy, to be its first line.
        """
        header = self._receivedHeader(helo, origin, recipients)
        latest, self._latest = self._latest, None
        if latest is not None:
            latest.hasTrace = bool(header)
        return header

    def sendCode(self, code: int, message: bytes = b"") -> None:
        """
        The protocol knows only one answer to messages that fail.
        """
        reply, self._reply = self._reply, None
        if reply is not None and code == _FAILED:
            code, message = reply.code, textOf(reply)
        self._sendCode(code, message)

    # --- messages ----------------------------------------------------------------

    def _accepted(self, helo: tuple[Any, Any], origin: Any, result: Any) -> Any:
        self._buffered = None
        settings = self._settings
        isKnown = getattr(self._protocol, "authenticated", False)
        if settings.checkAuthenticated or not isKnown:
            client = self._client(helo[0] or b"")
            sender = _text(bytes(origin))
            settings.messageFilter.expect(client, sender)
            self._buffered = BufferedMessage(
                settings.clock,
                lambda: settings.messageFilter.message(client, sender),
                settings.maxSize,
                self._replyWith,
            )
        return result

    def _client(self, helo: bytes) -> ClientInfo:
        peer = self._protocol.transport.getPeer()
        return ClientInfo(str(getattr(peer, "host", "")), _text(helo))

    def _copy(
        self, buffered: BufferedMessage, user: Any, make: Callable[[], Any]
    ) -> RecipientMessage:
        copy = RecipientMessage(buffered, _text(bytes(user.dest)), make())
        buffered.copies.append(copy)
        self._latest = copy
        return copy

    def _replyWith(self, reply: Reply) -> None:
        self._reply = reply


def _after(result: Any, change: Callable[[Any], Any]) -> Any:
    """
    What the application answers now or later, changed.
    """
    if isinstance(result, Deferred):
        return result.addCallback(change)
    return change(result)


def _smtpIn(protocol: Any) -> SMTP:
    inner = protocol
    while not isinstance(inner, SMTP):
        inner = getattr(inner, "wrappedProtocol", None)
        if inner is None:
            raise TypeError(f"{protocol!r} is no twisted.mail.smtp.SMTP")
    return inner


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


@implementer(IMessage)
class RecipientMessage:
    """
    What the protocol takes for the message of one recipient.

    @ivar recipient: The address.
    @ivar message: The application's.
    @ivar hasTrace: Whether the next line is C{Received}, which each copy has
        its own of.
    @ivar trace: That line, if it was there.
    @ivar ended: Fires with what the protocol is to know.
    """

    def __init__(self, buffered: BufferedMessage, recipient: str, message: Any) -> None:
        self._buffered = buffered
        self.recipient = recipient
        self.message = message
        self.hasTrace = False
        self.trace: bytes | None = None
        self.ended: Deferred[Any] | None = None

    def lineReceived(self, line: bytes) -> None:
        """
        @raise SMTPServerError: The message can't be taken.
        """
        if self.hasTrace:
            self.hasTrace, self.trace = False, line
        else:
            self._buffered.lineReceived(self, line)

    def eomReceived(self) -> Deferred[Any]:
        self.ended = Deferred()
        ended = self.ended
        self._buffered.copyEnded()
        return ended

    def connectionLost(self) -> None:
        self._buffered.close()
        self.message.connectionLost()

    def begin(self, trace: Iterable[bytes], event: VerdictEvent | None) -> None:
        """
        Give the application what stands before the message as it came.
        """
        if event is not None and IVerdictObserver.providedBy(self.message):
            told = maybeDeferred(self.message.verdictGiven, event)
            told.addErrback(
                lambda why: BufferedMessage.log.failure("telling a message", why)
            )
        for line in trace:
            self.message.lineReceived(line)
        if self.trace is not None:
            self.message.lineReceived(self.trace)

    def abandon(self) -> None:
        """
        Tell the application that its message won't be complete.
        """
        try:
            self.message.connectionLost()
        except Exception:
            BufferedMessage.log.failure("abandoning a message")


class BufferedMessage:
    """
    One message and its copies.

    @ivar copies: In the order of RCPT; complete once there is a line.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        begin: Callable[[], IFilteredMessage],
        maxSize: int,
        reply: Callable[[Reply], None],
    ) -> None:
        """
        @param begin: A place for the message.
        @param maxSize: Octets it may have.
        @param reply: Told what the client is to hear, just before the protocol
            hears that the message failed.
        """
        self.copies: list[RecipientMessage] = []
        self._clock = clock
        self._begin = begin
        self._maxSize = maxSize
        self._reply = reply
        self._message: IFilteredMessage | None = None
        self._size = 0
        self._inBody = False

    # --- what comes ------------------------------------------------------------

    def lineReceived(self, copy: RecipientMessage, line: bytes) -> None:
        """
        The protocol gives each line to each of the copies; one will do.

        @raise SMTPServerError: The message can't be taken.
        """
        if copy is not self.copies[0]:
            return
        if self._inBody:
            self._write(line)
            return
        # In a header, some who read it take a bare CR or LF for a line end:
        # there shall be no field that wasn't seen here (RFC 5322 2.3 forbids
        # them).  A CR before CRLF is what clients make that are count CRLF
        # where they expect LF.
        for each in _LINE_END.split(line.rstrip(b"\r")):
            self._inBody = self._inBody or not each
            self._write(each)

    def close(self) -> None:
        """
        Forget what has come until now.
        """
        message, self._message = self._message, None
        if message is not None:
            message.close()

    def copyEnded(self) -> None:
        """
        The protocol has seen the end of the message for one of the copies.
        """
        if all(each.ended is not None for each in self.copies):
            Deferred.fromCoroutine(self._finish())

    def _write(self, line: bytes) -> None:
        self._size += len(line) + len(_CRLF)
        if self._size > self._maxSize:
            raise serverError(TOO_LARGE)
        try:
            self._filtered().write(line + _CRLF)
        except OSError as why:
            self.log.failure("keeping a message")
            raise serverError(NO_SPACE) from why

    def _filtered(self) -> IFilteredMessage:
        if self._message is None:
            self._message = self._begin()
        return self._message

    # --- what becomes of it ------------------------------------------------------

    async def _finish(self) -> None:
        try:
            recipients = [each.recipient for each in self.copies]
            result = await self._filtered().finish(recipients)
            if result.refusal is not None:
                self._fail(result.refusal)
                return
            await self._forward(result)
            self._end()
        except CancelledError:
            raise
        except SMTPServerError as refused:
            # As the protocol does if it hears of that in time.
            self._fail(_replyOf(refused))
        except Exception:
            self.log.failure("passing on a message")
            self._fail(TRY_LATER)
        finally:
            self.close()

    async def _forward(self, result: FilterResult) -> None:
        """
        Give everything to everybody, and others a chance on the way.
        """
        events = result.events or (None,) * len(self.copies)
        trace = result.trace.split(_CRLF)[:-1]
        for copy, event in zip(self.copies, events, strict=True):
            copy.begin(trace, event)
        rest = b""
        count = 0
        for chunk in result.message:
            if count > MAX_SLICE:
                await deferLater(self._clock, 0)
                count = 0
            count += len(chunk)
            *lines, rest = (rest + chunk).split(_CRLF)
            for line in lines:
                for copy in self.copies:
                    copy.message.lineReceived(line)

    def _end(self) -> None:
        for copy, ended in self._unanswered():
            answer: Deferred[Any] = copy.message.eomReceived()
            copy.ended = None
            answer.chainDeferred(ended)

    def _fail(self, reply: Reply) -> None:
        """
        Nobody gets it who hasn't got it yet.
        """
        left = list(self._unanswered())
        for copy, _ in left:
            copy.ended = None
            copy.abandon()
        # One failure is enough, and the last one is what makes the protocol
        # answer.
        for _, ended in left[1:]:
            ended.callback(None)
        for _, ended in left[:1]:
            self._reply(reply)
            ended.errback(serverError(reply))

    def _unanswered(self) -> Iterator[tuple[RecipientMessage, Deferred[Any]]]:
        for copy in self.copies:
            if copy.ended is not None:
                yield copy, copy.ended


def textOf(reply: Reply) -> bytes:
    """
    The text of a reply, for C{twisted.mail.smtp.SMTP.sendCode}.
    """
    lines = reply.text.split("\n")
    if reply.enhanced:
        lines = [f"{reply.enhanced} {line}" for line in lines]
    return "\n".join(lines).encode("ascii", "replace")


def serverError(reply: Reply) -> SMTPServerError:
    """
    A reply as what C{twisted.mail.smtp} knows.
    """
    return SMTPServerError(reply.code, textOf(reply))


def _replyOf(error: SMTPServerError) -> Reply:
    text = error.resp
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    return Reply(error.code, text=text)
