# -*- test-case-name: tests.smtp.test_session -*-
"""
Opens sessions with SMTP servers.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from moxtls.smtp.connection import ClientSession
from moxtls.smtp.settings import (
    ClientSettings,
    ConnectFailed,
    SessionError,
    SessionFailed,
    TLSFailed,
)

__all__ = [
    "ClientSession",
    "ClientSettings",
    "ConnectFailed",
    "SessionError",
    "SessionFailed",
    "TLSFailed",
    "addressEndpoint",
    "openSession",
]


def addressEndpoint(
    reactor: IReactorTime, address: str, port: int, localAddress: str = ""
) -> IStreamClientEndpoint:
    """
    @param address: IPv4 or IPv6.
    @param localAddress: From which to connect; empty for any.
    """
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    bind = (localAddress, 0) if localAddress else None
    return kind(reactor, address, port, bindAddress=bind)


async def openSession(
    reactor: IReactorTime, endpoint: IStreamClientEndpoint, settings: ClientSettings
) -> ClientSession:
    """
    Connect, come to TLS as C{settings} ask, and log in if they say so.
    Cancelling aborts the connection.

    @raise SessionError: It didn't come to a session.
    """
    session = ClientSession(reactor, settings)
    opened = session.opened()
    await _connect(reactor, endpoint, session, settings.timeouts.connect)
    await opened
    return session


async def _connect(
    reactor: IReactorTime,
    endpoint: IStreamClientEndpoint,
    session: ClientSession,
    seconds: float,
) -> None:
    factory = Factory.forProtocol(lambda: session)
    # Twisted would log each connection twice.
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
        raise ConnectFailed(session.record, str(why)) from why
