"""
SMTP servers that accept and discard everything, each as one process: C{python -m
bench.discarding NAME}.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import react
from twisted.internet.tcp import Connection, Port
from twisted.mail.smtp import ESMTP, IMessage, IMessageDelivery, SMTPFactory
from zope.interface import implementer

from bench.children import printPorts, readPEM
from bench.identity import HOST
from bench.settings import IReactor
from moxtls.message.header import ClientInfo
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import RECIPIENT_OK, SENDER_OK, ListenerSettings
from moxtls.smtp.server.interfaces import IMessage as IServerMessage
from moxtls.smtp.server.interfaces import IMessageDelivery as IServerDelivery
from moxtls.smtp.server.state import ServerSettings, TransactionState
from moxtls.smtp.types import Reply
from moxtls.tls.server import ReloadingContext

_BACKLOG = 1000
_ACCEPTED = Reply(250, "2.0.0", "OK")


@implementer(IServerDelivery, IServerMessage)
class DiscardingDelivery:
    """
    Accepts and discards everything.
    """

    def mailFrom(
        self, client: ClientInfo, transaction: TransactionState
    ) -> Deferred[Reply]:
        return succeed(SENDER_OK)

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        return succeed(RECIPIENT_OK)

    def message(
        self, client: ClientInfo, transaction: TransactionState
    ) -> IServerMessage:
        return self

    def write(self, chunk: bytes) -> None:
        return None

    def finish(self) -> Deferred[Reply]:
        return succeed(_ACCEPTED)

    def abort(self) -> None:
        pass


@implementer(IMessage, IMessageDelivery)
class StockDiscardingDelivery:
    """
    The same for C{twisted.mail}.
    """

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Callable[[], StockDiscardingDelivery]:
        return lambda: self

    def lineReceived(self, line: bytes) -> None:
        pass

    def eomReceived(self) -> Deferred[None]:
        return succeed(None)

    def connectionLost(self) -> None:
        pass


class NoDelayESMTP(ESMTP):
    """
    Sends small packets at once (TCP_NODELAY).
    """

    def connectionMade(self) -> None:
        assert isinstance(self.transport, Connection)
        self.transport.setTcpNoDelay(True)
        super().connectionMade()


class StockFactory(SMTPFactory):
    """
    Listens with the server of C{twisted.mail}.
    """

    noisy = False

    def __init__(self, tls: Any, protocol: type[ESMTP]) -> None:
        super().__init__()
        self._tls = tls
        self._protocol = protocol
        self._delivery = StockDiscardingDelivery()

    def buildProtocol(self, addr: Any) -> ESMTP:
        protocol = self._protocol(contextFactory=self._tls)
        protocol.delivery = self._delivery
        protocol.factory = self
        protocol.host = HOST.encode("ascii")
        return protocol


def _ours(reactor: IReactor, tls: ReloadingContext) -> ServerFactory:
    server = ServerSettings(HOST, starttls=True)
    return SMTPServerFactory(
        reactor, ListenerSettings(server), DiscardingDelivery(), tls
    )


def _stock(reactor: IReactor, tls: ReloadingContext) -> ServerFactory:
    return StockFactory(tls, ESMTP)


def _stockAtOnce(reactor: IReactor, tls: ReloadingContext) -> ServerFactory:
    return StockFactory(tls, NoDelayESMTP)


_FACTORIES = {
    "moxtls": _ours,
    "twisted.mail": _stock,
    "twisted.mail, TCP_NODELAY": _stockAtOnce,
}


async def _aiosmtpd(file: Path) -> None:
    from aiosmtpd.smtp import SMTP  # not installed everywhere

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            return "250 2.0.0 OK"

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), hostname=HOST, tls_context=context, loop=loop),
        "127.0.0.1",
        0,
        backlog=_BACKLOG,
    )
    printPorts(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _serve(reactor: IReactor, name: str, file: Path) -> Deferred[None]:
    factory = _FACTORIES[name](reactor, ReloadingContext(file, file))
    port = reactor.listenTCP(0, factory, _BACKLOG, "127.0.0.1")
    assert isinstance(port, Port)
    printPorts(port.getHost().port)
    # The parent ends it.
    return Deferred()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as folder:
        file = Path(folder) / "certificate.pem"
        file.write_bytes(readPEM())
        name = sys.argv[1]
        if name == "aiosmtpd":
            asyncio.run(_aiosmtpd(file))
        else:
            react(lambda reactor: _serve(reactor, name, file))


if __name__ == "__main__":
    main()
