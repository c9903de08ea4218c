# -*- test-case-name: tests.mailbox.test_lmtp -*-
"""
Mailboxes that another program keeps, which speaks LMTP (RFC 2033).
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

from moxtls.config import lmtpAddress
from moxtls.domain import Address, Domain
from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import (
    MailboxFull,
    MailboxRefused,
    MailboxUnavailable,
    splitMailbox,
)
from moxtls.smtp.client.session import (
    ClientSession,
    ClientSettings,
    ConnectFailed,
    SessionError,
    SessionFailed,
    addressEndpoint,
)
from moxtls.smtp.types import Reply, Timeouts, TLSMode, Transaction
from moxtls.tls.verify import noTrust

#: As many messages at a time as there are connections: a few keep any server
#: busy that waits for its disk.
MAX_CONNECTIONS = 10
#: Seconds.
CONNECT_TIMEOUT = 30
#: Seconds that a message waits for a connection.  Whoever sent it waits for ten
#: minutes (RFC 5321 4.5.3.2.6), and then sends it again while it still comes.
QUEUE_TIMEOUT = 120

#: Seconds for any reply, and for a part of a message to be taken: as long as a
#: client in front of us waits for its own (RFC 5321 4.5.3.2).
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


def lmtpEndpoint(reactor: IReactorTime, address: str) -> IStreamClientEndpoint:
    """
    @param address: As in the configuration.
    """
    target = lmtpAddress(address)
    if isinstance(target, tuple):
        return addressEndpoint(reactor, *target)
    return UNIXClientEndpoint(reactor, target, timeout=CONNECT_TIMEOUT)


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


class LMTPStore:
    """
    Says how to reach everybody's mailboxes, over connections that all share.
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
        @param separator: In local parts, between account and mailbox.
        @param maxConnections: Connections at a time; further messages wait.
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
        self._largest = 0
        self._isOver = False

    def mailboxOf(self, account: str) -> IMailbox:
        return LMTPMailbox(self, account)

    def hasRoom(self, size: int) -> bool:
        """
        By what the server last said it takes at most.
        """
        return not self._largest or size <= self._largest

    async def deliver(
        self, account: str, mailbox: str, message: Sequence[bytes]
    ) -> None:
        """
        Hand over a message.

        @raise MailboxFull: The server says so.
        @raise MailboxRefused: It won't take it, now or later.
        @raise LMTPFailed: It can't take it now.
        """
        recipient = self._recipient(account, splitMailbox(mailbox))
        slot = self._slots.acquire()
        try:
            await slot.addTimeout(QUEUE_TIMEOUT, self._clock)
        except TimeoutError:
            raise LMTPFailed("too much is waiting for the server") from None
        try:
            reply = await self._send(recipient, message)
        finally:
            self._slots.release()
        _raiseFor(reply)

    def stop(self) -> Deferred[None]:
        """
        Close all connections.  What is on its way fails.
        """
        self._isOver = True
        sessions = [*self._idle, *self._busy]
        for opening in tuple(self._opening):
            opening.cancel()
        self._idle.clear()
        closed = gatherResults([each.quit() for each in sessions])
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
                # The server had hung up on it, which isn't about the message.
                if not why.unheard:
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
        known = session.extensions
        sender, body = _withoutPath(message)
        if not (sender.isascii() or known.smtputf8):
            # Better without it than not at all.
            sender = ""
        size = sum(map(len, body))
        transaction = Transaction(sender, (recipient,), Path(), size, known.eightBit)
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
        self._largest = session.extensions.size or 0
        return session


@implementer(IMailbox)
class LMTPMailbox:
    """
    One account's mailboxes in an L{LMTPStore}.
    """

    def __init__(self, store: LMTPStore, account: str) -> None:
        self._store = store
        self._account = account

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        """
        Hand over a message.

        @param seen: Can't be said in LMTP.
        """
        handing = self._store.deliver(self._account, mailbox, message)
        return Deferred.fromCoroutine(handing)

    def hasRoom(self, size: int) -> Deferred[bool]:
        """
        As far as the server has said what it takes.
        """
        return succeed(self._store.hasRoom(size))


def _failed(why: SessionError) -> LMTPFailed:
    reply = why.reply if isinstance(why, SessionFailed) else None
    isRefusal = reply is not None and not reply.accepted
    unanswered = isinstance(why, SessionFailed) and why.isUnanswered
    return LMTPFailed(why.reason, unanswered, reply if isRefusal else None)


def _raiseFor(reply: Reply) -> None:
    if 200 <= reply.code < 300:
        # RFC 2033 4.2: it is in the server's hands.
        return
    if not reply.permanent:
        raise LMTPFailed(str(reply), reply=reply)
    # RFC 5321 4.2.3, RFC 3463 3.3; another 5.x.x behind 552 says otherwise.
    if reply.enhanced == "5.2.2" or (reply.code == 552 and not reply.enhanced):
        raise MailboxFull(str(reply))
    raise MailboxRefused(reply.text if reply.isLocal else str(reply), reply)


def _withoutPath(message: Sequence[bytes]) -> tuple[str, Sequence[bytes]]:
    """
    RFC 5321 4.4: the reverse-path is said in MAIL, and whoever stores the
    message writes it down.
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
    Chunks with another one in the place of the first.
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
