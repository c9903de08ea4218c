# -*- test-case-name: tests.twistedmail.test_server -*-
"""
Messages of a C{twisted.mail.smtp} server that are buffered and filtered before they are
delivered, and the interface of the filter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.mail.smtp import IMessage, SMTPServerError
from zope.interface import Interface, implementer

from moxtls.dmarc.types import VerdictEvent
from moxtls.interfaces import IVerdictObserver
from moxtls.message.header import ClientInfo
from moxtls.smtp.server.interfaces import TRY_LATER
from moxtls.smtp.types import Reply

TOO_LARGE = Reply(552, "5.3.4", "Message is larger than this server takes")
NO_SPACE = Reply(452, "4.3.1", "There is no room for the message now")
#: Octets processed before other connections are served.
MAX_SLICE = 32 * 1024
_CRLF = b"\r\n"
_LINE_END = re.compile(rb"[\r\n]")


@dataclass(frozen=True, slots=True)
class FilterResult:
    """
    The result of filtering a message.

    @ivar refusal: The negative reply, if the message is refused.
    @ivar trace: Header fields to prepend.
    @ivar message: The message in chunks, to be read before it is closed.
    @ivar events: The verdict for each recipient, in their order; empty if there is
        none.
    """

    refusal: Reply | None = None
    trace: bytes = b""
    message: Sequence[bytes] = ()
    events: tuple[VerdictEvent, ...] = ()


class IFilteredMessage(Interface):
    """
    The filter of one message.
    """

    def write(chunk: bytes) -> None:
        """
        Take a chunk: CRLF line ends, no dot-stuffing.

        @raise OSError: There is no space to store it.
        """

    def finish(recipients: Sequence[str]) -> Deferred[FilterResult]:
        """
        End the message.

        @param recipients: In the order of RCPT.
        """

    def close() -> None:
        """
        Discard the message.  May be called repeatedly.
        """


class IMessageFilter(Interface):
    """
    Accepts or refuses messages.  Implemented by
    L{moxtls.twistedmail.verdicts.MessageFilter}.
    """

    def expect(client: ClientInfo, sender: str) -> None:
        """
        Called after MAIL.
        """

    def message(client: ClientInfo, sender: str) -> IFilteredMessage:
        """
        Start the filter of a message.
        """


@implementer(IMessage)
class RecipientMessage:
    """
    The message of one recipient, as the protocol sees it.

    @ivar recipient: The address.
    @ivar message: The application's message.
    @ivar hasTrace: True if the next line is the C{Received} field of this recipient.
    @ivar trace: The C{Received} field, once received.
    @ivar ended: Fires with the result of the message for the protocol.
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
        Take a line.

        @raise SMTPServerError: The message is refused.
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
        Pass the verdict and the prepended header fields to the application.
        """
        if event is not None and IVerdictObserver.providedBy(self.message):
            told = maybeDeferred(self.message.verdictGiven, event)
            told.addErrback(
                lambda why: BufferedMessage.log.failure("verdictGiven failed", why)
            )
        for line in trace:
            self.message.lineReceived(line)
        if self.trace is not None:
            self.message.lineReceived(self.trace)

    def abandon(self) -> None:
        """
        Tell the application that its message is incomplete.
        """
        try:
            self.message.connectionLost()
        except Exception:
            BufferedMessage.log.failure("aborting a message failed")


class BufferedMessage:
    """
    A message, buffered once for all its recipients.

    @ivar copies: The message of each recipient, in the order of RCPT.  Complete
        when the first line arrives.
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
        @param begin: Starts the filter of the message.
        @param maxSize: Octets of the message.
        @param reply: Called with the reply to the client just before the protocol
            is told that the message failed.
        """
        self.copies: list[RecipientMessage] = []
        self._clock = clock
        self._begin = begin
        self._maxSize = maxSize
        self._reply = reply
        self._message: IFilteredMessage | None = None
        self._size = 0
        self._inBody = False

    # --- input -----------------------------------------------------------------

    def lineReceived(self, copy: RecipientMessage, line: bytes) -> None:
        """
        Take a line.  The protocol passes each line to each copy; only the first is
        used.

        @raise SMTPServerError: The message is refused.
        """
        if copy is not self.copies[0]:
            return
        if self._inBody:
            self._write(line)
            return
        # Some software accepts a bare CR or LF as a line end in a header (RFC 5322
        # 2.3 forbids them): no field may escape the filter.  A CR before CRLF comes
        # from clients that convert LF to CRLF in text that has CRLF already.
        for each in _LINE_END.split(line.rstrip(b"\r")):
            self._inBody = self._inBody or not each
            self._write(each)

    def close(self) -> None:
        """
        Discard the message.
        """
        message, self._message = self._message, None
        if message is not None:
            message.close()

    def copyEnded(self) -> None:
        """
        Called when the protocol has ended one of the copies.
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
            self.log.failure("storing a message failed")
            raise serverError(NO_SPACE) from why

    def _filtered(self) -> IFilteredMessage:
        if self._message is None:
            self._message = self._begin()
        return self._message

    # --- delivery ----------------------------------------------------------------

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
            # The protocol does the same for errors during the data.
            self._fail(_replyOf(refused))
        except Exception:
            self.log.failure("filtering or delivering a message failed")
            self._fail(TRY_LATER)
        finally:
            self.close()

    async def _forward(self, result: FilterResult) -> None:
        """
        Pass the message to all copies, letting the reactor run in between.
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
        Fail all copies that haven't ended.
        """
        left = list(self._unanswered())
        for copy, _ in left:
            copy.ended = None
            copy.abandon()
        # The last result makes the protocol reply; one failure is enough.
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
    A reply as an exception of C{twisted.mail.smtp}.
    """
    return SMTPServerError(reply.code, textOf(reply))


def _replyOf(error: SMTPServerError) -> Reply:
    text = error.resp
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    return Reply(error.code, text=text)
