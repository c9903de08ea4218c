# -*- test-case-name: tests.smtp.server.test_factory -*-
"""
What listeners ask of those who use them.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred
from zope.interface import Interface

from moxtls.message.trace import ClientInfo
from moxtls.smtp.server.events import ServerSettings, TransactionState
from moxtls.smtp.types import Reply

#: What acceptors have to say, mostly.
SENDER_OK = Reply(250, "2.1.0", "OK")
RECIPIENT_OK = Reply(250, "2.1.5", "OK")
TRY_LATER = Reply(451, "4.3.0", "The message can't be kept now; try again later")


class IMessage(Interface):
    """
    Takes one message.
    """

    def write(chunk: bytes) -> Deferred[None] | None:
        """
        Take a piece: CRLF line ends, no dot-stuffing.

        @return: C{None}, or what fires when there is room for more.
        """

    def finish() -> Deferred[Reply]:
        """
        That was all.  Nothing else is called after this.

        @return: Fires with what the client is told: a C{250} means that the
            message is in safe hands.  Not cancelled, also if the client is
            gone.
        """

    def abort() -> None:
        """
        Forget it.  Nothing else is called after this.
        """


class IMessageDelivery(Interface):
    """
    Decides what a listener accepts.  A C{Deferred} that fails counts as
    C{451}; it is cancelled if the client goes away.
    """

    def mailFrom(client: ClientInfo, transaction: TransactionState) -> Deferred[Reply]:
        """
        Fires with the answer to MAIL.
        """

    def rcptTo(
        client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        """
        Fires with the answer to RCPT.

        @param recipient: An address, or C{postmaster} in any case.
        """

    def message(client: ClientInfo, transaction: TransactionState) -> IMessage:
        """
        A place for the message that comes now.
        """


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """
    @ivar immediateTLS: Whether connections have TLS from the beginning
        (RFC 8314), which the endpoint has to see to.
    @ivar idleTimeout: Seconds without a command or a piece of a message (RFC 5321
        4.5.3.2.7).
    @ivar sessionTimeout: Seconds for a connection altogether: a large message over a
        slow line takes long, but not forever.
    @ivar maxConnections: The most at a time.
    @ivar maxConnectionsPerAddress: The most at a time from one address (for IPv6, one
        C{/64}).
    @ivar maxConnectionsPerNetwork: The most at a time from one network: a C{/24}, for IPv6 a
        C{/48}.
    @ivar maxConnectionRate: New connections a minute from one address; a network
        may make four times as many.  0 for no limit.
    @ivar maxMessageRate: Messages a minute, likewise; who sends more is told to
        come again later.
    @ivar bodyGrace: Seconds for a message of any size, and
    @ivar minBodyRate: the bytes a second it has to come with beyond that: a slow
        line takes long for a large message, but who only pretends to send one
        doesn't hold a connection for C{sessionTimeout}.  0 for no limit.
    """

    server: ServerSettings
    immediateTLS: bool = False
    idleTimeout: float = 300
    sessionTimeout: float = 2 * 3600
    maxConnections: int = 500
    maxConnectionsPerAddress: int = 50
    maxConnectionsPerNetwork: int = 200
    maxConnectionRate: float = 0
    maxMessageRate: float = 0
    bodyGrace: float = 300
    minBodyRate: float = 1000
