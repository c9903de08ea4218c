# -*- test-case-name: tests.smtp.test_servercapture -*-
"""
A message that a server made with C{twisted.mail.smtp} takes: collected once for
all its recipients, looked at, and only then given to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.mail.smtp import IMessage, SMTPServerError
from zope.interface import implementer

from moxtls.dmarc.values import VerdictEvent
from moxtls.interfaces import IVerdictObserver
from moxtls.smtp.acceptor import TRY_LATER
from moxtls.smtp.screened import FilterResult, IFilteredMessage
from moxtls.smtp.values import Reply

TOO_LARGE = Reply(552, "5.3.4", "Message is larger than this server takes")
NO_SPACE = Reply(452, "4.3.1", "There is no room for the message now")

#: Octets after which other connections have their turn.
PAUSE = 32 * 1024

_CRLF = b"\r\n"
_LINE_END = re.compile(rb"[\r\n]")


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

    def __init__(
        self, collecting: BufferedMessage, recipient: str, message: Any
    ) -> None:
        self._collecting = collecting
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
            self._collecting.lineReceived(self, line)

    def eomReceived(self) -> Deferred[Any]:
        self.ended = Deferred()
        ended = self.ended
        self._collecting.copyEnded()
        return ended

    def connectionLost(self) -> None:
        self._collecting.close()
        self.message.connectionLost()

    def begin(self, trace: Iterable[bytes], judgement: VerdictEvent | None) -> None:
        """
        Give the application what stands before the message as it came.
        """
        if judgement is not None and IVerdictObserver.providedBy(self.message):
            told = maybeDeferred(self.message.verdictGiven, judgement)
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
        largest: int,
        reply: Callable[[Reply], None],
    ) -> None:
        """
        @param begin: A place for the message.
        @param largest: Octets it may have.
        @param reply: Told what the client is to hear, just before the protocol
            hears that the message failed.
        """
        self.copies: list[RecipientMessage] = []
        self._clock = clock
        self._begin = begin
        self._largest = largest
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
        # them).  A CR before CRLF is what clients make that are given CRLF
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
        if self._size > self._largest:
            raise serverError(TOO_LARGE)
        try:
            self._place().write(line + _CRLF)
        except OSError as why:
            self.log.failure("keeping a message")
            raise serverError(NO_SPACE) from why

    def _place(self) -> IFilteredMessage:
        if self._message is None:
            self._message = self._begin()
        return self._message

    # --- what becomes of it ------------------------------------------------------

    async def _finish(self) -> None:
        try:
            recipients = [each.recipient for each in self.copies]
            screened = await self._place().finish(recipients)
            if screened.refusal is not None:
                self._fail(screened.refusal)
                return
            await self._give(screened)
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

    async def _give(self, screened: FilterResult) -> None:
        """
        Give everything to everybody, and others a chance on the way.
        """
        judgements = screened.judgements or (None,) * len(self.copies)
        trace = screened.trace.split(_CRLF)[:-1]
        for copy, judgement in zip(self.copies, judgements, strict=True):
            copy.begin(trace, judgement)
        rest = b""
        given = 0
        for chunk in screened.message:
            if given > PAUSE:
                await deferLater(self._clock, 0)
                given = 0
            given += len(chunk)
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


def wordsOf(reply: Reply) -> bytes:
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
    return SMTPServerError(reply.code, wordsOf(reply))


def _replyOf(error: SMTPServerError) -> Reply:
    text = error.resp
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    return Reply(error.code, text=text)
