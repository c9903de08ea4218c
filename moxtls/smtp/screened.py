# -*- test-case-name: tests.smtp.test_servercapture -*-
"""
What is asked about a message that a server made with C{twisted.mail.smtp} takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from zope.interface import Interface

from moxtls.dmarc.values import VerdictEvent
from moxtls.smtp.received import ClientInfo
from moxtls.smtp.values import Reply


@dataclass(frozen=True, slots=True)
class FilterResult:
    """
    What becomes of a message.

    @ivar refusal: What the client is told if nobody is to get it.
    @ivar trace: Header fields to stand before all others.
    @ivar message: The rest, in chunks, to be read before it is closed.
    @ivar judgements: One for each recipient, in their order; none if it wasn't
        possible to judge.
    """

    refusal: Reply | None = None
    trace: bytes = b""
    message: Sequence[bytes] = ()
    judgements: tuple[VerdictEvent, ...] = ()


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
    Says what becomes of messages: L{moxtls.inbound.screening.Screening} does.
    """

    def expect(client: ClientInfo, sender: str) -> None:
        """
        A message is announced.
        """

    def message(client: ClientInfo, sender: str) -> IFilteredMessage:
        """
        A message comes.
        """
