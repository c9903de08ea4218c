# -*- test-case-name: tests.mailbox.test_lmtp -*-
"""
A connection to an LMTP server.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from moxtls.mailbox.names import MailboxUnavailable
from moxtls.smtp.client.conversation import (
    Awaiting,
    Cause,
    ClientConversation,
    Ended,
    Event,
    Ready,
    Send,
    SendBody,
    Transferred,
)
from moxtls.smtp.client.extensions import Extensions
from moxtls.smtp.client.sender import BodySender
from moxtls.smtp.types import Reply, TLSMode, Transaction
from moxtls.tasks import Timeout

#: Seconds for any reply, and for a part of a message to be taken: as long as a
#: client in front of us waits for its own (RFC 5321 4.5.3.2).
TIMEOUT = 300
#: Seconds for which a connection is kept that nobody uses.
IDLE = 60


class LMTPFailed(MailboxUnavailable):
    """
    The server can't be reached, or says that it can't store a message now.

    @ivar unheard: Whether the connection was lost before the server said
        anything about the message.
    """

    def __init__(
        self, reason: str, unheard: bool = False, reply: Reply | None = None
    ) -> None:
        super().__init__(reason, reply)
        self.unheard = unheard


class LMTPSession(Protocol):
    """
    Hands over one message after the other, each to one recipient.
    """

    def __init__(self, clock: IReactorTime, hostname: str) -> None:
        self._talk = ClientConversation(hostname, TLSMode.SKIP, isLMTP=True)
        self._deadline = Timeout(clock, self._tooLate)
        self._opening: Deferred[LMTPSession] | None = None
        self._transfer: Deferred[Reply] | None = None
        self._message: Sequence[bytes] = ()
        self._sender: BodySender | None = None
        self._closing: list[Deferred[None]] = []
        self._failure: LMTPFailed | None = None
        self._heard = False
        self._isConnected = False

    # --- for whoever has mail ----------------------------------------------

    @property
    def extensions(self) -> Extensions:
        return self._talk.extensions

    @property
    def usable(self) -> bool:
        """
        Whether C{deliver} can be called.
        """
        return self._failure is None and self._isConnected and self._talk.usable

    def opened(self) -> Deferred[LMTPSession]:
        """
        Fires with this once messages may be handed over; fails with
        L{LMTPFailed}.  Cancelling hangs up.
        """
        self._opening = Deferred(self._cancelled)
        return self._opening

    def deliver(
        self, transaction: Transaction, message: Sequence[bytes]
    ) -> Deferred[Reply]:
        """
        @param transaction: With one recipient; C{path} isn't looked at.

        @return: Fires with the reply that decided; fails with L{LMTPFailed}
            or what made C{message} unreadable.  Cancelling hangs up.
        """
        transfer = self._transfer = Deferred(self._cancelled)
        self._message = message
        self._heard = False
        self._carryOut(self._talk.begin(transaction))
        return transfer

    def quit(self) -> Deferred[None]:
        """
        Say goodbye, or hang up if that can't be said now.  Fires when the
        connection is closed.
        """
        if self.usable:
            self._carryOut(self._talk.quit())
        else:
            self.abort()
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        if not self._isConnected:
            self._tellClosed()
        return closed

    def abort(self) -> None:
        """
        Hang up at once.
        """
        self._end(LMTPFailed("hung up"))
        if self.transport is not None and self._isConnected:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    # --- Protocol ------------------------------------------------------------

    def connectionMade(self) -> None:
        self._isConnected = True
        if self._failure is None:
            self._wait()
        else:
            # It was given up while the connection was made.
            self.abort()

    def dataReceived(self, data: bytes) -> None:
        if self._failure is None:
            self._heard = True
            self._carryOut(self._talk.receive(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._isConnected = False
        why = f"connection lost: {reason.getErrorMessage()}"
        self._end(LMTPFailed(why, not self._heard))
        self._tellClosed()

    # --- what the conversation wants -----------------------------------------

    def _carryOut(self, events: Sequence[Event]) -> None:
        for event in events:
            self._carryOutOne(event)
        self._wait()

    def _carryOutOne(self, event: Event) -> None:
        match event:
            case Send(data):
                assert self.transport is not None
                self.transport.write(data)
            case SendBody():
                self._sendBody()
            case Transferred(replies):
                transfer, self._transfer = self._transfer, None
                if transfer is not None:
                    transfer.callback(replies[0].reply)
            case Ready():
                opening, self._opening = self._opening, None
                if opening is not None:
                    opening.callback(self)
            case Ended():
                said = event.reply if event.cause is Cause.REFUSED else None
                self._end(LMTPFailed(event.reason, reply=said))
                if self.transport is not None:
                    self.transport.loseConnection()

    def _sendBody(self) -> None:
        transport: Any = self.transport
        reader = io.BufferedReader(_Reader(self._message))
        self._sender = BodySender(reader, transport, self._wait, self._bodySent)
        self._sender.start()

    def _bodySent(self, why: Exception | None) -> None:
        self._sender = None
        self._message = ()
        if why is None:
            self._talk.finish()
            self._wait()
            return
        # Only hanging up keeps half a message from being stored.
        transfer, self._transfer = self._transfer, None
        self.abort()
        if transfer is not None:
            transfer.errback(why)

    # --- time, and the end -----------------------------------------------------

    def _wait(self) -> None:
        if self._failure is None:
            isIdle = self._talk.awaiting is Awaiting.NOTHING
            self._deadline.set(IDLE if isIdle else TIMEOUT)

    def _tooLate(self) -> None:
        if self.usable:
            self.quit()
            return
        self._end(LMTPFailed(f"too slow: {self._talk.awaiting.name}"))
        self.abort()

    def _end(self, why: LMTPFailed) -> None:
        if self._failure is not None:
            return
        self._failure = why
        self._deadline.set(None)
        self._message = ()
        if self._sender is not None:
            self._sender.stop()
            self._sender = None
        self._tell(why)

    def _tell(self, why: LMTPFailed) -> None:
        opening, self._opening = self._opening, None
        transfer, self._transfer = self._transfer, None
        for each in (opening, transfer):
            if each is not None:
                each.errback(why)

    def _cancelled(self, waiting: object) -> None:
        # Twisted tells who waits.
        self._opening = self._transfer = None
        self.abort()

    def _tellClosed(self) -> None:
        closing, self._closing = self._closing, []
        for each in closing:
            each.callback(None)


class _Reader(io.RawIOBase):
    """
    Chunks as a file.
    """

    def __init__(self, chunks: Sequence[bytes]) -> None:
        super().__init__()
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
