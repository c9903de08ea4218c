# -*- test-case-name: tests.smtp.test_servercapture -*-
"""
Verdicts on mail that servers made with C{twisted.mail.smtp} take.

The wrapper stands between such a protocol and the application's delivery,
whether that comes from a factory, a portal or an attribute.  Commands, replies,
TLS and logins remain the protocol's.
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

from moxtls.smtp.collecting import BufferedMessage, RecipientMessage, wordsOf
from moxtls.smtp.received import ClientInfo
from moxtls.smtp.screened import IMessageFilter
from moxtls.smtp.values import Reply

#: Octets of a message, unless the programmer says otherwise: as C{twistd
#: moxtls} has it.
MAX_MESSAGE_SIZE = 100 * 2**20

#: With which the protocol answers if a message fails.
_FAILED = 550


@dataclass(frozen=True, slots=True)
class _Setting:
    """
    What is the same for all connections.
    """

    clock: IReactorTime
    screening: IMessageFilter
    largest: int
    checkAuthenticated: bool


def captureServer(
    clock: IReactorTime,
    factory: IProtocolFactory,
    screening: IMessageFilter,
    largest: int = MAX_MESSAGE_SIZE,
    checkAuthenticated: bool = False,
) -> CapturingServerFactory:
    """
    Have SPF, DKIM and DMARC checked for mail that a server takes.

    @param factory: Builds protocols that are C{twisted.mail.smtp.SMTP}, or
        wrap one as C{twisted.protocols.policies} does.
    @param screening: Such as L{moxtls.inbound.screening.Screening}.
    @param largest: Octets of a message; larger ones are refused.
    @param checkAuthenticated: Whether mail is checked, too, of who has logged
        in with ESMTP AUTH.
    """
    setting = _Setting(clock, screening, largest, checkAuthenticated)
    return CapturingServerFactory(factory, setting)


class CapturingServerFactory(ServerFactory):
    """
    Builds the protocols of another factory, each with a L{_Capture}.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory, setting: _Setting) -> None:
        self.wrappedFactory = factory
        self._setting = setting

    def doStart(self) -> None:
        self.wrappedFactory.doStart()
        super().doStart()

    def doStop(self) -> None:
        self.wrappedFactory.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        """
        @raise TypeError: There is no C{SMTP} in what the factory builds.
        """
        protocol = self.wrappedFactory.buildProtocol(addr)  # type: ignore[arg-type]
        if protocol is not None:
            _Capture(self._setting, _smtpIn(protocol)).install()
        return protocol


class _Capture:
    """
    Takes the place of a few methods of one protocol.
    """

    def __init__(self, setting: _Setting, protocol: Any) -> None:
        self._setting = setting
        self._protocol = protocol
        self._validateFrom = protocol.validateFrom
        self._validateTo = protocol.validateTo
        self._receivedHeader = protocol.receivedHeader
        self._sendCode = protocol.sendCode
        # What MAIL has begun; None if that isn't captured.
        self._collecting: BufferedMessage | None = None
        self._latest: RecipientMessage | None = None
        self._reply: Reply | None = None

    def install(self) -> None:
        """
        From here on, the protocol does as we like.
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
        collecting = self._collecting
        valid = self._validateTo(user)
        if collecting is None:
            return valid
        return _after(valid, lambda make: partial(self._copy, collecting, user, make))

    def receivedHeader(self, helo: Any, origin: Any, recipients: Sequence[Any]) -> Any:
        """
        Asked for just behind each copy, to be its first line.
        """
        header = self._receivedHeader(helo, origin, recipients)
        latest, self._latest = self._latest, None
        if latest is not None:
            latest.hasTrace = bool(header)
        return header

    def sendCode(self, code: int, message: bytes = b"") -> None:
        """
        The protocol knows only one answer to messages that fail.
        """
        reply, self._reply = self._reply, None
        if reply is not None and code == _FAILED:
            code, message = reply.code, wordsOf(reply)
        self._sendCode(code, message)

    # --- messages ----------------------------------------------------------------

    def _accepted(self, helo: tuple[Any, Any], origin: Any, result: Any) -> Any:
        self._collecting = None
        setting = self._setting
        isKnown = getattr(self._protocol, "authenticated", False)
        if setting.checkAuthenticated or not isKnown:
            client = self._client(helo[0] or b"")
            sender = _text(bytes(origin))
            setting.screening.expect(client, sender)
            self._collecting = BufferedMessage(
                setting.clock,
                lambda: setting.screening.message(client, sender),
                setting.largest,
                self._replyWith,
            )
        return result

    def _client(self, helo: bytes) -> ClientInfo:
        peer = self._protocol.transport.getPeer()
        return ClientInfo(str(getattr(peer, "host", "")), _text(helo))

    def _copy(
        self, collecting: BufferedMessage, user: Any, make: Callable[[], Any]
    ) -> RecipientMessage:
        copy = RecipientMessage(collecting, _text(bytes(user.dest)), make())
        collecting.copies.append(copy)
        self._latest = copy
        return copy

    def _replyWith(self, reply: Reply) -> None:
        self._reply = reply


def _after(result: Any, change: Callable[[Any], Any]) -> Any:
    """
    What the application answers now or later, changed.
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
