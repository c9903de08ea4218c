# -*- test-case-name: tests.smtp.client.test_session -*-
"""
Settings and timeouts of client connections, the errors that end them, and the sender of
message data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import BinaryIO

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.dns.types import TLSA
from moxtls.smtp.client.conversation import Awaiting
from moxtls.smtp.dotstuffing import DotStuffing
from moxtls.smtp.types import Credentials, RecipientReply, Reply, Timeouts, TLSMode
from moxtls.tls.openssl import TrustStore
from moxtls.tls.session import SessionRecord

#: Octets of a message in memory at a time: what Twisted's transports buffer before
#: they pause a producer.
CHUNK_SIZE = 65536

# RFC 5321 4.5.3.2.
_TIMEOUT = {
    Awaiting.NOTHING: attrgetter("idle"),
    Awaiting.GREETING: attrgetter("greeting"),
    Awaiting.HANDSHAKE: attrgetter("handshake"),
    Awaiting.HELLO: attrgetter("command"),
    Awaiting.STARTTLS: attrgetter("command"),
    Awaiting.AUTH: attrgetter("command"),
    Awaiting.RESET: attrgetter("command"),
    Awaiting.MAIL: attrgetter("mail"),
    Awaiting.RECIPIENT: attrgetter("recipient"),
    Awaiting.DATA: attrgetter("data"),
    Awaiting.BODY: attrgetter("block"),
    Awaiting.END: attrgetter("end"),
    Awaiting.QUIT: attrgetter("quit"),
}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """
    Settings of a session, independent of each other.

    @ivar ehlo: The client's own name.
    @ivar trust: Trusted roots, shared by all sessions.
    @ivar names: The reference identifiers of the server: A-labels, or one IP
        address.  The first is sent in SNI.
    @ivar webNames: The reference identifiers for the Web PKI, if they are fewer:
        RFC 8461 4.1 only allows the name in the MX record, RFC 7672 3.2.2 more.
    @ivar enforcePKIX: Fail if the Web PKI doesn't validate the certificate.  It is
        validated in any case, for the record.
    @ivar dane: TLSA records; if any of them is usable, fail unless one matches.
    @ivar ignoreVerifyErrors: Record verification errors without failing.
    @ivar credentials: For AUTH, which is only used over TLS.
    @ivar isLMTP: Speak LMTP (RFC 2033); transactions must have one recipient.
    """

    ehlo: str
    trust: TrustStore
    mode: TLSMode = TLSMode.OPPORTUNISTIC
    names: tuple[str, ...] = ()
    enforcePKIX: bool = False
    dane: tuple[TLSA, ...] | None = None
    ignoreVerifyErrors: bool = False
    credentials: Credentials | None = None
    webNames: tuple[str, ...] = ()
    isLMTP: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)


class SessionError(Exception):
    """
    A session can't be opened or continued.

    @ivar record: The TLS record of the session.
    @ivar reason: A text for the log; may contain untrusted text.
    """

    def __init__(self, record: SessionRecord, reason: str) -> None:
        super().__init__(reason)
        self.record = record
        self.reason = reason


class ConnectFailed(SessionError):
    """
    No connection could be made.
    """


class TLSFailed(SessionError):
    """
    TLS couldn't be negotiated, or the certificate was rejected.

    @ivar reply: A negative reply to STARTTLS.
    """

    def __init__(
        self, record: SessionRecord, reason: str, reply: Reply | None = None
    ) -> None:
        super().__init__(record, reason)
        self.reply = reply


class SessionFailed(SessionError):
    """
    The session failed for another reason than the connection or TLS.

    @ivar reply: The server's reply, if that ended the session.
    @ivar decided: The replies for recipients of the interrupted transaction that
        were final already.
    @ivar isUnanswered: True if the connection was lost before the server sent
        anything about that transaction.
    """

    def __init__(
        self,
        record: SessionRecord,
        reason: str,
        reply: Reply | None = None,
        decided: tuple[RecipientReply, ...] = (),
        isUnanswered: bool = False,
    ) -> None:
        super().__init__(record, reason)
        self.reply = reply
        self.decided = decided
        self.isUnanswered = isUnanswered


class TransactionCancelled(CancelledError):
    """
    A transaction was cancelled when the server had the whole message, and has ended.

    @ivar decided: The replies for all recipients.
    """

    def __init__(self, decided: tuple[RecipientReply, ...]) -> None:
        super().__init__()
        self.decided = decided


class TransactionsExhausted(SessionFailed):
    """
    The server's announced limit of transactions in a session is reached (RFC 9422
    MAILMAX).  Another session can continue.
    """


def timeoutFor(timeouts: Timeouts, awaiting: Awaiting) -> float | None:
    """
    Seconds to wait for a step of a conversation; C{None} for ever.
    """
    timeout = _TIMEOUT.get(awaiting)
    seconds: float | None = timeout and timeout(timeouts)
    return seconds


def addressEndpoint(
    reactor: IReactorTime, address: str, port: int, localAddress: str = ""
) -> IStreamClientEndpoint:
    """
    An endpoint for an IP address and a port.

    @param address: IPv4 or IPv6.
    @param localAddress: The source address; empty for any.
    """
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    bind = (localAddress, 0) if localAddress else None
    return kind(reactor, address, port, bindAddress=bind)


async def connect(
    reactor: IReactorTime,
    endpoint: IStreamClientEndpoint,
    protocol: Protocol,
    record: SessionRecord,
    seconds: float,
) -> None:
    """
    Connect C{protocol}.

    @param record: For the error.
    @param seconds: The timeout.

    @raise ConnectFailed: No connection could be made.
    """
    factory = Factory.forProtocol(lambda: protocol)
    # Otherwise Twisted logs each connection twice.
    factory.noisy = False
    connecting = endpoint.connect(factory)
    connecting.addTimeout(
        seconds, reactor, lambda result, timeout: Failure(ConnectTimeout())
    )
    try:
        await connecting
    except ConnectingCancelledError:
        raise CancelledError() from None
    except (ConnectError, OSError) as why:
        raise ConnectFailed(record, str(why)) from why


@implementer(IPushProducer)
class BodySender:
    """
    Reads a file and writes it dot-stuffed, with the end of data indication.
    """

    def __init__(
        self,
        message: BinaryIO,
        consumer: IConsumer,
        progressed: Callable[[], None],
        ended: Callable[[OSError | None], None],
    ) -> None:
        """
        @param progressed: Called after each chunk.
        @param ended: Called once: with C{None} when everything was written, or with
            the error if the file can't be read.  Not called if the connection is
            lost.
        """
        self._message = message
        self._consumer = consumer
        self._progressed = progressed
        self._ended = ended
        self._encoding = DotStuffing()
        self._paused = False
        self._over = False

    def start(self) -> None:
        self._consumer.registerProducer(self, True)
        self._write()

    def resumeProducing(self) -> None:
        self._paused = False
        self._write()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._over = True

    def stop(self) -> None:
        """
        Stop writing.
        """
        self._over = True
        self._consumer.unregisterProducer()

    def _write(self) -> None:
        while not self._paused and not self._over:
            try:
                part = self._message.read(CHUNK_SIZE)
            except OSError as why:
                self._end(why)
                return
            if not part:
                self._consumer.write(self._encoding.end())
                self._end(None)
                return
            self._consumer.write(self._encoding.feed(part))
            self._progressed()

    def _end(self, why: OSError | None) -> None:
        self.stop()
        self._ended(why)
