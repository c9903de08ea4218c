# -*- test-case-name: tests.mailbox.test_lmtp -*-
"""
Delivery to the mailboxes of another server by LMTP (RFC 2033).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
    gatherResults,
    succeed,
)
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

from moxtls.domain import Address, Domain
from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import (
    MailboxFull,
    MailboxRefused,
    MailboxUnavailable,
    splitMailbox,
)
from moxtls.smtp.client.connection import (
    ClientSettings,
    ConnectFailed,
    SessionError,
    SessionFailed,
    addressEndpoint,
)
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.types import Reply, Timeouts, TLSMode, Transaction
from moxtls.tls.openssl import noTrust

#: Simultaneous connections, each with one message at a time: a few are enough for a
#: server that waits for its disk.
MAX_CONNECTIONS = 10
#: In seconds.
CONNECT_TIMEOUT = 30
#: Seconds that a message may wait for a connection.  The SMTP client waits for ten
#: minutes (RFC 5321 4.5.3.2.6), and then sends the message again.
QUEUE_TIMEOUT = 120
#: Seconds for any reply, and for the server to accept a block of message data: as
#: long as the SMTP client waits for its own reply (RFC 5321 4.5.3.2).
REPLY_TIMEOUT = 300
#: Seconds for which an unused connection is kept open.
IDLE_TIMEOUT = 60

_TIMEOUTS = Timeouts(
    connect=CONNECT_TIMEOUT,
    greeting=REPLY_TIMEOUT,
    command=REPLY_TIMEOUT,
    mail=REPLY_TIMEOUT,
    recipient=REPLY_TIMEOUT,
    data=REPLY_TIMEOUT,
    block=REPLY_TIMEOUT,
    end=REPLY_TIMEOUT,
    quit=REPLY_TIMEOUT,
    session=None,
    idle=IDLE_TIMEOUT,
)

_PATH = re.compile(rb"Return-Path: <([^\r\n<>]*)>\r\n")


def lmtpEndpoint(
    reactor: IReactorTime, address: tuple[str, int] | str
) -> IStreamClientEndpoint:
    """
    An endpoint for an LMTP server.

    @param address: Its IP address and port, or the path of a Unix socket.
    """
    if isinstance(address, tuple):
        return addressEndpoint(reactor, *address)
    return UNIXClientEndpoint(reactor, address, timeout=CONNECT_TIMEOUT)


class LMTPFailed(MailboxUnavailable):
    """
    The server can't be reached, or sent a temporary negative reply.

    @ivar isUnanswered: True if the connection was lost before the server sent
        anything about the message.
    """

    def __init__(
        self, reason: str, isUnanswered: bool = False, reply: Reply | None = None
    ) -> None:
        super().__init__(reason, reply)
        self.isUnanswered = isUnanswered


class LMTPStore:
    """
    The mailboxes of an LMTP server, with a pool of connections to it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        hostname: Domain,
        separator: str,
        maxConnections: int = MAX_CONNECTIONS,
    ) -> None:
        """
        @param separator: Between account and mailbox in local parts.
        @param maxConnections: Simultaneous connections; further messages wait.
        """
        self._clock = clock
        self._endpoint = endpoint
        self._hostname = hostname
        self._separator = separator
        self._slots = DeferredSemaphore(maxConnections)
        self._idle: list[ClientSession] = []
        self._busy: set[ClientSession] = set()
        self._opening: set[Deferred[None]] = set()
        self._settings = ClientSettings(
            hostname.ascii, noTrust(), TLSMode.SKIP, isLMTP=True, timeouts=_TIMEOUTS
        )
        self._maxSize = 0
        self._isOver = False

    def mailboxOf(self, account: str) -> IMailbox:
        return LMTPMailbox(self, account)

    def hasRoom(self, size: int) -> bool:
        """
        True if a message doesn't exceed the size limit that the server announced.
        """
        return not self._maxSize or size <= self._maxSize

    async def deliver(
        self, account: str, mailbox: str, message: Sequence[bytes]
    ) -> None:
        """
        Deliver a message.

        @raise MailboxFull: The mailbox is over quota.
        @raise MailboxRefused: The server sent a permanent negative reply.
        @raise LMTPFailed: The message can't be delivered now.
        """
        recipient = self._recipient(account, splitMailbox(mailbox))
        slot = self._slots.acquire()
        try:
            await slot.addTimeout(QUEUE_TIMEOUT, self._clock)
        except TimeoutError:
            raise LMTPFailed("too many messages wait for the server") from None
        try:
            reply = await self._send(recipient, message)
        finally:
            self._slots.release()
        _raiseFor(reply)

    def stop(self) -> Deferred[None]:
        """
        Close all connections.  Deliveries in progress fail.
        """
        self._isOver = True
        sessions = [*self._idle, *self._busy]
        for opening in tuple(self._opening):
            opening.cancel()
        self._idle.clear()
        closed = gatherResults([each.stop() for each in sessions])
        return closed.addCallback(lambda _: None)

    def _recipient(self, account: str, parts: tuple[str, ...]) -> str:
        localPart = account
        if parts:
            localPart += self._separator + "/".join(parts)
        return str(Address(localPart, self._hostname))

    async def _send(self, recipient: str, message: Sequence[bytes]) -> Reply:
        session = self._idleSession()
        if session is not None:
            try:
                return await self._sendOver(session, recipient, message)
            except LMTPFailed as why:
                # The server had closed the idle connection: try a new one.
                if not why.isUnanswered:
                    raise
        return await self._sendOver(await self._connect(), recipient, message)

    def _idleSession(self) -> ClientSession | None:
        while self._idle:
            session = self._idle.pop()
            if session.usable:
                return session
        return None

    async def _sendOver(
        self, session: ClientSession, recipient: str, message: Sequence[bytes]
    ) -> Reply:
        extensions = session.extensions
        sender, body = _withoutPath(message)
        if not (sender.isascii() or extensions.smtputf8):
            # Deliver with a null reverse-path rather than not at all.
            sender = ""
        size = sum(map(len, body))
        transaction = Transaction(
            sender, (recipient,), Path(), size, extensions.eightBit
        )
        self._busy.add(session)
        try:
            # The stream is read like a file and holds no resources.
            stream: BinaryIO = io.BufferedReader(_Reader(body))
            [result] = await session.deliver(transaction, message=stream)
            return result.reply
        except SessionFailed as why:
            raise _failed(why) from why
        finally:
            self._busy.discard(session)
            if session.usable:
                self._idle.append(session)

    async def _connect(self) -> ClientSession:
        if self._isOver:
            raise LMTPFailed("stopped")
        session = ClientSession(self._clock, self._settings)
        opening = Deferred.fromCoroutine(session.open(self._endpoint))
        self._busy.add(session)
        self._opening.add(opening)
        try:
            await opening
        except CancelledError:
            if self._isOver:
                raise LMTPFailed("stopped") from None
            raise
        except ConnectFailed as why:
            raise LMTPFailed(f"can't connect: {why}") from why
        except SessionError as why:
            raise _failed(why) from why
        finally:
            self._opening.discard(opening)
            self._busy.discard(session)
        self._maxSize = session.extensions.size or 0
        return session


@implementer(IMailbox)
class LMTPMailbox:
    """
    The mailboxes of one account in an L{LMTPStore}.
    """

    def __init__(self, store: LMTPStore, account: str) -> None:
        self._store = store
        self._account = account

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        """
        Deliver a message.

        @param seen: Ignored, as LMTP can't express it.
        """
        delivering = self._store.deliver(self._account, mailbox, message)
        return Deferred.fromCoroutine(delivering)

    def hasRoom(self, size: int) -> Deferred[bool]:
        """
        Fires with true unless the message exceeds the server's announced limit.
        """
        return succeed(self._store.hasRoom(size))


def _failed(why: SessionError) -> LMTPFailed:
    reply = why.reply if isinstance(why, SessionFailed) else None
    isRefusal = reply is not None and not reply.accepted
    unanswered = isinstance(why, SessionFailed) and why.isUnanswered
    return LMTPFailed(why.reason, unanswered, reply if isRefusal else None)


def _raiseFor(reply: Reply) -> None:
    if 200 <= reply.code < 300:
        # RFC 2033 4.2: the server has taken responsibility.
        return
    if not reply.permanent:
        raise LMTPFailed(str(reply), reply=reply)
    # RFC 5321 4.2.3, RFC 3463 3.3; 552 with another 5.x.x has another reason.
    if reply.enhanced == "5.2.2" or (reply.code == 552 and not reply.enhanced):
        raise MailboxFull(str(reply))
    raise MailboxRefused(reply.text if reply.isLocal else str(reply), reply)


def _withoutPath(message: Sequence[bytes]) -> tuple[str, Sequence[bytes]]:
    """
    Separate the Return-Path field from a message: its address is sent with MAIL, and
    the server that stores the message adds the field again (RFC 5321 4.4).
    """
    if not message:
        return "", message
    found = _PATH.match(message[0])
    if found is None:
        return "", message
    rest = _Replaced(message, message[0][found.end() :])
    return found[1].decode("utf-8", "replace"), rest


class _Replaced(Sequence[bytes]):
    """
    A sequence of chunks with the first one replaced.
    """

    def __init__(self, chunks: Sequence[bytes], first: bytes) -> None:
        self._chunks = chunks
        self._first = first

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self._chunk(each) for each in range(*index.indices(len(self)))]
        return self._chunk(range(len(self))[index])

    def _chunk(self, index: int) -> bytes:
        return self._chunks[index] if index else self._first


class _Reader(io.RawIOBase):
    """
    Reads a sequence of chunks as a file.
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
