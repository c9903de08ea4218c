# -*- test-case-name: tests.twistedmail.test_server -*-
"""
Filters the mail of servers made with C{twisted.mail.smtp}.

The filter sits between such a protocol and the application's delivery, whether that
comes from a factory, a portal or an attribute.  The protocol still handles
commands, replies, TLS and authentication.  A message is buffered once for all its
recipients, passed to an L{IMessageFilter}, and only then delivered to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory
from twisted.mail.smtp import SMTP

from moxtls.message.header import ClientInfo
from moxtls.smtp.types import Reply
from moxtls.twistedmail.messages import (
    BufferedMessage,
    IMessageFilter,
    RecipientMessage,
    textOf,
)

#: The default maximum size of a message in octets, as of C{twistd moxtls}.
MAX_MESSAGE_SIZE = 100 * 2**20

#: The code of the protocol's reply if a message fails.
_FAILED = 550


@dataclass(frozen=True, slots=True)
class _FilterSettings:
    """
    Settings shared by all connections.
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
    Filter the mail that a server accepts, by SPF, DKIM and DMARC.

    @param clock: The reactor.
    @param factory: Builds protocols that are C{twisted.mail.smtp.SMTP}, or
        wrap one as C{twisted.protocols.policies} does.
    @param messageFilter: Such as L{moxtls.twistedmail.verdicts.MessageFilter}.
    @param maxSize: Octets of a message; larger ones are refused.
    @param checkAuthenticated: Also filter mail of clients that have authenticated
        with ESMTP AUTH.

    @return: To be listened with in place of C{factory}.  Its C{buildProtocol} raises
        C{TypeError} for other protocols.
    """
    settings = _FilterSettings(clock, messageFilter, maxSize, checkAuthenticated)
    return FilteringServerFactory(factory, settings)


class FilteringServerFactory(ServerFactory):
    """
    Builds the protocols of another factory, with L{_ProtocolHooks} installed.
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
        Build a protocol of the wrapped factory, and install the filter.

        @raise TypeError: The protocol is not, and doesn't wrap, an C{SMTP}.
        """
        protocol = self.wrappedFactory.buildProtocol(addr)  # type: ignore[arg-type]
        if protocol is not None:
            _ProtocolHooks(self._settings, _smtpIn(protocol)).install()
        return protocol


class _ProtocolHooks:
    """
    Replaces some methods of one protocol.
    """

    def __init__(self, settings: _FilterSettings, protocol: Any) -> None:
        self._settings = settings
        self._protocol = protocol
        self._validateFrom = protocol.validateFrom
        self._validateTo = protocol.validateTo
        self._receivedHeader = protocol.receivedHeader
        self._sendCode = protocol.sendCode
        # The message of the current transaction; None if it isn't filtered.
        self._buffered: BufferedMessage | None = None
        self._latest: RecipientMessage | None = None
        self._reply: Reply | None = None

    def install(self) -> None:
        """
        Replace the methods.
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
        The protocol calls this after making each recipient's message, for its first
        line.
        """
        header = self._receivedHeader(helo, origin, recipients)
        latest, self._latest = self._latest, None
        if latest is not None:
            latest.hasTrace = bool(header)
        return header

    def sendCode(self, code: int, message: bytes = b"") -> None:
        """
        Replace the protocol's only reply to messages that fail.
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
    Apply C{change} to a result or to that of a Deferred.
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
