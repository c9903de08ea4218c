# -*- test-case-name: tests.mailbox.test_lmtp -*-
"""
Mailboxes that another program keeps, which speaks LMTP (RFC 2033).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
    gatherResults,
    succeed,
)
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from moxtls.config import lmtpAddress
from moxtls.domain import Address, Domain
from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import MailboxFull, MailboxRefused, splitMailbox
from moxtls.smtp.client.lmtp import LMTPFailed, LMTPSession
from moxtls.smtp.client.session import addressEndpoint
from moxtls.smtp.types import Reply, Transaction

#: As many messages at a time as there are connections: a few keep any server
#: busy that waits for its disk.
MAX_CONNECTIONS = 10
#: Seconds.
CONNECT = 30
#: Seconds that a message waits for a connection.  Whoever sent it waits for ten
#: minutes (RFC 5321 4.5.3.2.6), and then sends it again while it still comes.
TURN = 120

_PATH = re.compile(rb"Return-Path: <([^\r\n<>]*)>\r\n")


def lmtpEndpoint(reactor: IReactorTime, address: str) -> IStreamClientEndpoint:
    """
    @param address: As in the configuration.
    """
    place = lmtpAddress(address)
    if isinstance(place, tuple):
        return addressEndpoint(reactor, *place)
    return UNIXClientEndpoint(reactor, place, timeout=CONNECT)


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
        most: int = MAX_CONNECTIONS,
    ) -> None:
        """
        @param separator: In local parts, between account and mailbox.
        @param most: Connections at a time; further messages wait.
        """
        self._clock = clock
        self._endpoint = endpoint
        self._hostname = hostname
        self._separator = separator
        self._turns = DeferredSemaphore(most)
        self._idle: list[LMTPSession] = []
        self._busy: set[LMTPSession] = set()
        self._connecting: set[Deferred[Any]] = set()
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
        turn = self._turns.acquire()
        try:
            await turn.addTimeout(TURN, self._clock)
        except TimeoutError:
            raise LMTPFailed("too much is waiting for the server") from None
        try:
            reply = await self._handOver(recipient, message)
        finally:
            self._turns.release()
        _judge(reply)

    def stop(self) -> Deferred[None]:
        """
        Close all connections.  What is on its way fails.
        """
        self._isOver = True
        for connecting in tuple(self._connecting):
            connecting.cancel()
        sessions = [*self._idle, *self._busy]
        self._idle.clear()
        closed = gatherResults([each.quit() for each in sessions])
        return closed.addCallback(lambda _: None)

    def _recipient(self, account: str, parts: tuple[str, ...]) -> str:
        localPart = account
        if parts:
            localPart += self._separator + "/".join(parts)
        return str(Address(localPart, self._hostname))

    async def _handOver(self, recipient: str, message: Sequence[bytes]) -> Reply:
        session = self._kept()
        if session is not None:
            try:
                return await self._over(session, recipient, message)
            except LMTPFailed as why:
                # The server had hung up on it, which isn't about the message.
                if not why.unheard:
                    raise
        return await self._over(await self._connect(), recipient, message)

    def _kept(self) -> LMTPSession | None:
        while self._idle:
            session = self._idle.pop()
            if session.usable:
                return session
        return None

    async def _over(
        self, session: LMTPSession, recipient: str, message: Sequence[bytes]
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
            return await session.deliver(transaction, body)
        finally:
            self._busy.discard(session)
            if session.usable:
                self._idle.append(session)

    async def _connect(self) -> LMTPSession:
        if self._isOver:
            raise LMTPFailed("stopped")
        session = LMTPSession(self._clock, self._hostname.ascii)
        opened = session.opened()
        factory = Factory.forProtocol(lambda: session)
        # Twisted would log each connection twice.
        factory.noisy = False
        self._busy.add(session)
        connecting = self._endpoint.connect(factory)
        self._connecting.add(connecting)
        try:
            await connecting
            await opened
        except (ConnectError, OSError) as why:
            opened.addErrback(lambda _: None)
            session.abort()
            raise LMTPFailed(f"can't connect: {why}") from why
        except (CancelledError, ConnectingCancelledError):
            opened.addErrback(lambda _: None)
            session.abort()
            if self._isOver:
                raise LMTPFailed("stopped") from None
            raise CancelledError() from None
        finally:
            self._connecting.discard(connecting)
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


def _judge(reply: Reply) -> None:
    if 200 <= reply.code < 300:
        # RFC 2033 4.2: it is in the server's hands.
        return
    if not reply.permanent:
        raise LMTPFailed(str(reply), reply=reply)
    # RFC 5321 4.2.3, RFC 3463 3.3; another 5.x.x behind 552 says otherwise.
    if reply.enhanced == "5.2.2" or (reply.code == 552 and not reply.enhanced):
        raise MailboxFull(str(reply))
    raise MailboxRefused(reply.text if reply.isOurs else str(reply), reply)


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
    rest = _Without(message, message[0][found.end() :])
    return found[1].decode("utf-8", "replace"), rest


class _Without(Sequence[bytes]):
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

    def _chunk(self, place: int) -> bytes:
        return self._chunks[place] if place else self._first
