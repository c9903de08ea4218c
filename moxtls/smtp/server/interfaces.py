# -*- test-case-name: tests.smtp.server.test_factory -*-
"""
The interfaces through which SMTP servers accept mail, and their settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred
from zope.interface import Interface

from moxtls.message.header import ClientInfo
from moxtls.smtp.server.state import ServerSettings, TransactionState
from moxtls.smtp.types import Reply

#: The usual replies of an L{IMessageDelivery}.
SENDER_OK = Reply(250, "2.1.0", "OK")
RECIPIENT_OK = Reply(250, "2.1.5", "OK")
TRY_LATER = Reply(451, "4.3.0", "The message can't be stored now; try again later")


class IMessage(Interface):
    """
    Receives the data of one message.
    """

    def write(chunk: bytes) -> Deferred[None] | None:
        """
        Take a chunk, cut anywhere: CRLF line ends, no dot-stuffing.

        @return: C{None}, or a Deferred that fires when more can be taken.
        """

    def finish() -> Deferred[Reply]:
        """
        End the message.  No method is called after this.

        @return: Fires with the reply to the client: C{250} means that the message
            is stored safely.  Not cancelled, even if the client disconnects.
        """

    def abort() -> None:
        """
        Discard the message.  No method is called after this.
        """


class IMessageDelivery(Interface):
    """
    Accepts or refuses the mail of a server.  A Deferred that fails results in the
    reply C{451}; it is cancelled if the client disconnects.
    """

    def mailFrom(client: ClientInfo, transaction: TransactionState) -> Deferred[Reply]:
        """
        Fires with the reply to MAIL.
        """

    def rcptTo(
        client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        """
        Fires with the reply to RCPT.

        @param recipient: An address, or C{postmaster} in upper or lower case.
        """

    def message(client: ClientInfo, transaction: TransactionState) -> IMessage:
        """
        Return the receiver of the message data that follow.
        """


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """
    Settings of a listener.

    @ivar immediateTLS: Connections use TLS from the beginning (RFC 8314); the
        endpoint has to start it.
    @ivar idleTimeout: Seconds without a command or message data (RFC 5321
        4.5.3.2.7).
    @ivar sessionTimeout: Seconds for a whole session: a large message over a slow
        connection takes long, but not forever.
    @ivar maxConnections: Simultaneous connections.
    @ivar maxConnectionsPerAddress: Simultaneous connections from one address (for
        IPv6, one C{/64}).
    @ivar maxConnectionsPerNetwork: Simultaneous connections from one network: a
        C{/24}, for IPv6 a C{/48}.
    @ivar maxConnectionRate: New connections per minute from one address; four times
        as many from one network.  0 for no limit.
    @ivar maxMessageRate: Messages per minute, likewise; more get a temporary
        negative reply.
    @ivar bodyGrace: Seconds for a message of any size.
    @ivar minBodyRate: Octets per second that a message must arrive with beyond
        C{bodyGrace}: a client that only pretends to send a message doesn't hold a
        connection for C{sessionTimeout}.  0 for no limit.
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
