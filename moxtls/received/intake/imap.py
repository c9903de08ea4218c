# -*- test-case-name: tests.received.intake.test_imap -*-
"""
Reads the messages of a mailbox on an IMAP server, without changing it: over TLS, with a
verified certificate.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.mail.imap4 import IMAP4Client, IMAP4Exception
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.received.intake.inputs import Found, Input, tooLarge
from moxtls.received.reading.documents import MAX_INPUT
from moxtls.received.types import Unreadable
from moxtls.tls.openssl import RecordingVerifier, TrustStore

T = TypeVar("T")

SCHEME = "imaps"
#: RFC 8314 7.3: IMAP over TLS from the beginning.
PORT = 993
#: Messages whose sizes are asked for at once.
PAGE = 500
#: Seconds without any data from the server.
TIMEOUT = 120
#: Lines of the response to a command: one for each message of a page, and what else
#: happens in the mailbox.
MAX_LINES = 10_000
#: Characters of a server's reason.
MAX_REASON = 300
#: Seconds before each attempt to connect again, if there is no message in between.
PAUSES = (1, 5, 30)


class InvalidURL(ValueError):
    """
    An URL isn't that of a mailbox.
    """


class MailboxError(Exception):
    """
    A mailbox can't be read; the message is one line.
    """


@dataclass(frozen=True, slots=True)
class MailboxURL:
    """
    A mailbox on a server (RFC 5092).
    """

    user: str
    host: str
    port: int
    mailbox: str

    @classmethod
    def parse(cls, text: str) -> MailboxURL:
        """
        Parse C{imaps://USER@HOST:PORT/MAILBOX}, with the usual port and C{INBOX} if
        they are left out.

        @raise InvalidURL: It is malformed, or has a password.
        """
        try:
            parts = urlsplit(text)
            host, port, user = parts.hostname, parts.port, parts.username
        except ValueError as error:
            raise InvalidURL(str(error)) from None
        if parts.scheme != SCHEME or not host or not user:
            raise InvalidURL("expected imaps://USER@HOST/MAILBOX")
        if parts.password is not None:
            # Other users see the arguments of a command.
            raise InvalidURL("expected no password, but --password-file or a prompt")
        mailbox = unquote(parts.path.removeprefix("/")) or "INBOX"
        if not (unquote(user) + mailbox).isprintable():
            # A line end would begin another command.
            raise InvalidURL("expected no control characters")
        return cls(unquote(user), host, port or PORT, mailbox)

    def __str__(self) -> str:
        port = "" if self.port == PORT else f":{self.port}"
        return f"{SCHEME}://{self.user}@{self.host}{port}/{self.mailbox}"


class Mailbox:
    """
    The messages of one mailbox.

    @ivar total: The number of messages, once it is known.
    """

    def __init__(
        self, reactor: Any, url: MailboxURL, password: str, trust: TrustStore
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._password = password
        self._trust = trust
        self._client: _Client | None = None
        self._validity: object = None
        # The UID of the last message that was read.
        self._last = 0
        self._failures = 0
        self._isKnown = False
        self.total = 0

    async def messages(self) -> AsyncGenerator[Found]:
        """
        All messages, in the order of their UIDs.  After a lost connection they go on
        with the one after the last.

        @raise MailboxError: The server refuses, or can't be reached.
        """
        try:
            while True:
                try:
                    async for found in self._remaining():
                        self._failures = 0
                        yield found
                    return
                except (MailboxError, CancelledError, GeneratorExit):
                    raise
                except IMAP4Exception as error:
                    raise MailboxError(_text(error)) from None
                except Exception as error:
                    await self._pause(error)
        finally:
            await self._close()

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _pause(self, error: Exception) -> None:
        await self._close()
        # A server that was never reached is probably the wrong one.
        if not self._isKnown or self._failures >= len(PAUSES):
            raise MailboxError(str(error) or type(error).__name__)
        await deferLater(self._reactor, PAUSES[self._failures])
        self._failures += 1

    async def _remaining(self) -> AsyncGenerator[Found]:
        client = await self._connected()
        chosen = await client.examine(self._url.mailbox)
        self._isKnown = True
        # RFC 9051 2.3.1.1: with another value, the UIDs are those of other messages.
        if chosen.get("UIDVALIDITY") != self._validity:
            self._validity, self._last = chosen.get("UIDVALIDITY"), 0
        self.total = chosen.get("EXISTS", 0)
        for first in range(1, self.total + 1, PAGE):
            for uid, size in await self._page(client, first):
                name = f"{self._url}/{uid}"
                if size > MAX_INPUT:
                    yield tooLarge(name)
                else:
                    try:
                        content = await client.content(uid)
                    except IMAP4Exception as error:
                        # It can't be read, but others can.
                        yield Unreadable(name, _text(error))
                    else:
                        if content is not None:
                            yield Input(name, content, 1, True)
                self._last = uid

    async def _page(self, client: _Client, first: int) -> list[tuple[int, int]]:
        """
        UID and size of the messages of a page that weren't read yet.
        """
        numbers = f"{first}:{min(first + PAGE - 1, self.total)}"
        uids = await client.fetchUID(numbers)
        new = {
            number: uid
            for number, values in uids.items()
            if (uid := int(values["UID"])) > self._last
        }
        if not new:
            return []
        sizes = await client.fetchSize(numbers)
        return [
            (uid, int(sizes[number]["RFC822.SIZE"]))
            for number, uid in sorted(new.items())
            # Others were removed in the meantime.
            if number in sizes
        ]

    async def _connected(self) -> _Client:
        url = self._url
        verifier = RecordingVerifier(self._trust, (url.host,))
        client = _Client(verifier, url.host)
        tcp = HostnameEndpoint(self._reactor, url.host, url.port)
        endpoint = wrapClientTLS(verifier, tcp, clock=self._reactor)
        await endpoint.connect(Factory.forProtocol(lambda: client))
        self._client = client
        await client.greeted
        await client.login(url.user.encode(), self._password.encode())
        return client


def _text(error: IMAP4Exception) -> str:
    value = error.args[0] if error.args else ""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text[:MAX_REASON]


_TOO_MUCH = MailboxError("the server sends more than it was asked for")


@implementer(IHandshakeListener)
class _Client(IMAP4Client):
    """
    An IMAP client that verifies the server before it sends anything.

    @ivar greeted: Fires once the certificate is verified, and the server has sent its
        greeting.
    """

    transport: ITCPTransport | None
    timeout = TIMEOUT

    def __init__(self, verifier: RecordingVerifier, host: str) -> None:
        super().__init__()
        self.greeted: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._verifier = verifier
        self._host = host
        self._error: Exception | None = None
        # Of the response to the current command.
        self._octets = 0
        self._lines = 0

    def handshakeCompleted(self) -> None:
        verification = self._verifier.verification()
        if not verification.ok:
            isName = verification.chain and not verification.nameMatches
            what = f"isn't for {self._host}" if isName else "isn't trusted"
            self._fail(MailboxError(f"the certificate {what}"))

    def serverGreeting(self, caps: object) -> None:
        if not self.greeted.called:
            self.greeted.callback(None)

    def sendCommand(self, command: Any) -> Any:
        self._octets = self._lines = 0
        return super().sendCommand(command)

    def dataReceived(self, data: bytes) -> None:
        self._octets += len(data)
        # A little more than announced in RFC822.SIZE.
        if self._octets > 3 * MAX_INPUT:
            self._fail(_TOO_MUCH)
        else:
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        self._lines += 1
        if self._lines > MAX_LINES:
            self._fail(_TOO_MUCH)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._fail(_TOO_MUCH)

    def timeoutConnection(self) -> None:
        self._fail(TimeoutError("the server doesn't answer"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._error is not None:
            reason = Failure(self._error)
        super().connectionLost(reason)
        if not self.greeted.called:
            self.greeted.errback(reason)
        self._ended.callback(None)

    def messageFile(self, octets: int) -> Any:
        if octets > 2 * MAX_INPUT:
            self._fail(_TOO_MUCH)
            return BytesIO()
        return super().messageFile(octets)

    def content(self, uid: int) -> Awaitable[bytes | None]:
        """
        Fires with a message; with C{None} if it was removed.
        """
        fetching = self.fetchSpecific(str(uid), uid=1, peek=True)
        return fetching.addCallback(_contentOf)  # type: ignore[no-any-return]

    def _fail(self, error: Exception) -> None:
        """
        Close the connection at once: the server might not answer when TLS is ended.
        """
        self._error = self._error or error
        if self.transport is not None:
            self.transport.abortConnection()

    def close(self) -> Deferred[None]:
        """
        Close the connection at once.  Fires when that is done.
        """
        if self.transport is not None:
            self.transport.abortConnection()
        return self._ended


def _contentOf(fetched: dict[int, list[list[Any]]]) -> bytes | None:
    """
    The value of BODY[] among the attributes of a message.
    """
    for attributes in fetched.values():
        for each in attributes:
            if "BODY" in each:
                # The client has decoded it from ISO 8859-1.
                return str(each[each.index("BODY") + 2]).encode("latin-1")
    return None
