# -*- test-case-name: tests.smtp.test_reception -*-
"""
Reception of mail for a few addresses of ours: bounces of reports, and the
postmaster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.domain import Address
from moxtls.smtp.acceptor import (
    RECIPIENT_OK,
    SENDER_OK,
    TRY_LATER,
    IAcceptor,
    IMessageSink,
)
from moxtls.smtp.events import Incoming
from moxtls.smtp.received import Client, receivedHeader
from moxtls.smtp.submission import addressOf
from moxtls.smtp.values import Reply

#: Recipients are few, and what comes for them is small.  To be given to the
#: listener as the size it announces: messages are kept in memory.
LARGEST_MESSAGE = 10 * 1024 * 1024

_NOBODY = Reply(550, "5.1.1", "No such mailbox here")


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """
    A message that has arrived.

    @ivar sender: The reverse-path; empty for the null one.
    @ivar recipients: Of ours, each once.
    @ivar message: Chunks of it, with trace fields (RFC 5321 4.4).
    """

    sender: str
    recipients: tuple[Address, ...]
    message: Sequence[bytes]


@implementer(IAcceptor)
class LocalReception:
    """
    Takes mail for those it is told of, and for nobody else.
    """

    def __init__(
        self,
        clock: IReactorTime,
        hostname: str,
        newID: Callable[[], str],
        accepts: Callable[[Address], bool],
        deliver: Callable[[ReceivedMessage], Deferred[None]],
    ) -> None:
        """
        @param newID: Letters and digits, never the same twice.
        @param accepts: Whether there is mail for an address.
        @param deliver: Fires once the message is in safe hands; if it fails,
            the client tries again later.
        """
        self._clock = clock
        self._hostname = hostname
        self._newID = newID
        self._accepts = accepts
        self.deliver = deliver

    def mailFrom(self, client: Client, incoming: Incoming) -> Deferred[Reply]:
        """
        Anybody may be the sender.
        """
        return succeed(SENDER_OK)

    def rcptTo(
        self, client: Client, incoming: Incoming, recipient: str
    ) -> Deferred[Reply]:
        """
        Somebody of ours is wanted.
        """
        accepted = self._accepts(addressOf(recipient, self._hostname))
        return succeed(RECIPIENT_OK if accepted else _NOBODY)

    def message(self, client: Client, incoming: Incoming) -> IMessageSink:
        """
        Begin a message.
        """
        addresses = [addressOf(each, self._hostname) for each in incoming.recipients]
        recipients = tuple(dict.fromkeys(addresses))
        only = str(recipients[0]) if len(recipients) == 1 else ""
        ourID, now = self._newID(), self._clock.seconds()
        smtputf8 = incoming.parameters.smtputf8
        trace = receivedHeader(client, self._hostname, ourID, now, smtputf8, only)
        # RFC 5321 4.4: added at final delivery.
        returnPath = f"Return-Path: <{incoming.sender}>\r\n".encode()
        return _Received(self, incoming.sender, recipients, returnPath + trace)


@implementer(IMessageSink)
class _Received:
    """
    One message for people here.
    """

    log = Logger()

    def __init__(
        self,
        reception: LocalReception,
        sender: str,
        recipients: tuple[Address, ...],
        prefix: bytes,
    ) -> None:
        self._reception = reception
        self._sender = sender
        self._recipients = recipients
        # Not a list: strangers may send bytes one by one.
        self._message = bytearray(prefix)

    def write(self, chunk: bytes) -> Deferred[None] | None:
        self._message += chunk
        return None

    def finish(self) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._deliver())

    def abort(self) -> None:
        self._message.clear()

    async def _deliver(self) -> Reply:
        chunks = (bytes(self._message),)
        self._message.clear()
        try:
            await self._reception.deliver(
                ReceivedMessage(self._sender, self._recipients, chunks)
            )
        except CancelledError:
            raise
        except Exception:
            self.log.failure("delivering a message from {who!r}", who=self._sender)
            return TRY_LATER
        return Reply(250, "2.0.0", "OK")
