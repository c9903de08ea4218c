"""
A whole server on loopback, for tests.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from smtplib import SMTP
from typing import Any, TypeVar

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

import moxtls
from moxtls.app.service import Server
from moxtls.dns.types import RRType
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.smtp.server.state import ServerSettings
from tests import MAX_WAIT
from tests.certificates import good
from tests.configs import writeConfig
from tests.dns.server import SOA, LoopbackServer
from tests.network import AcceptingDelivery, Serving
from tests.queue.killing import quickDirectory

T = TypeVar("T")

ROOT = Path(moxtls.__file__).parents[1]

reactor: Any = globalReactor

#: Linux gives away those from 32768 up, other systems from 49152.
CLOSED = (20000, 32767)

SUBMISSION = "[Listeners.submission]\nPort = 0\n"
RECEPTION = '[Listeners.reception]\nPort = 0\nService = "reception"\n'


def closedPort() -> int:
    """
    A port that is unused and stays so: it is below the range of ephemeral ports.
    """
    while True:
        port = random.randint(*CLOSED)
        with suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            return port


def startPython(
    case: SynchronousTestCase, folder: Path, *words: object, **environment: str
) -> subprocess.Popen[str]:
    """
    Start Python with C{words} in C{folder}; it is killed when the test ends.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        if process.poll() is None:
            process.kill()
        process.communicate()

    case.addCleanup(end)
    return process


def children() -> list[int]:
    """
    The processes that this one has started.
    """
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            _, _, behind = file.read_text().rpartition(") ")
            parents[int(file.parent.name)] = int(behind.split()[1])
    return [each for each, parent in parents.items() if parent == os.getpid()]


class ServerCase(TestCase):
    """
    Servers that use the DNS server C{self.dns}, which claims to validate.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.folder: Path = quickDirectory(self)
        self.dns = LoopbackServer(reactor, reactor, "127.0.0.1")
        self.addCleanup(self.dns.stop)
        self.validates(True)

    def validates(self, ad: bool) -> None:
        """
        Whether the DNS server does.
        """
        for kind, text in ((RRType.SOA, SOA), (RRType.NS, "ns.example.")):
            self.dns.zone.put("", kind, text, ad=ad)

    def server(
        self, text: str, deliveryPort: int = 0, allowOwnHosts: bool = True
    ) -> Server:
        """
        A server that isn't started.

        @param deliveryPort: Where mail hosts listen; by default nowhere.
        """
        delivery = f"[Delivery]\nPort = {deliveryPort or closedPort()}\n"
        delivery += f"AllowOwnHosts = {str(allowOwnHosts).lower()}\n"
        resolver = f'[Resolver]\nServers = ["{self.dns.address}"]\n'
        configFiles = writeConfig(self.folder, f"{text}{delivery}{resolver}")
        server = Server(reactor, configFiles)
        self.addCleanup(server.stopService)
        return server

    def started(
        self, text: str, deliveryPort: int = 0, allowOwnHosts: bool = True
    ) -> Server:
        """
        A server that runs.
        """
        server = self.server(text, deliveryPort, allowOwnHosts)
        server.privilegedStartService()
        server.startService()
        return server

    def mailHost(self, postbox: AcceptingDelivery, starttls: bool = True) -> int:
        """
        Start a mail host, C{mx.a.example}, whose certificate nobody trusts.

        @return: Its port.
        """
        settings = ListenerSettings(ServerSettings("mx.a.example", starttls=starttls))
        tls = Serving(good("mx.a.example").context())
        factory = SMTPServerFactory(reactor, settings, postbox, tls)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")

        async def stop() -> None:
            await maybeDeferred(port.stopListening)
            await factory.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        number: int = port.getHost().port
        return number

    async def talk(self, port: int, conversation: Callable[[SMTP], T]) -> T:
        """
        Hold an SMTP session with C{port}.
        """

        def hold() -> T:
            with SMTP("127.0.0.1", port, "client.example", timeout=MAX_WAIT) as client:
                return conversation(client)

        return await deferToThread(hold)

    async def until(self, condition: Callable[[], Deferred[bool]]) -> None:
        """
        Poll a condition that becomes true within moments.
        """
        while not await condition():
            await deferLater(reactor, 0.02)

    def delivered(self, mailbox: str) -> list[Path]:
        """
        The files of a mailbox.
        """
        folder = self.folder / "data" / "mail" / f".{mailbox}"
        return [each for part in ("new", "cur") for each in (folder / part).glob("*")]
