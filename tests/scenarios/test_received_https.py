"""
Reports by HTTPS, from the socket of a real server to the ledger.
"""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.configfiles import ConfigFiles
from moxtls.app.service import Server
from moxtls.dates import DAY, utcDay
from moxtls.dns.types import RRType
from moxtls.ledger.ledger import Ledger
from moxtls.received.types import (
    Channel,
    ReceivedKind,
    ReportFilter,
    StoredReport,
    dayOf,
)
from tests import MAX_WAIT
from tests.certificates import Identity, good, root
from tests.cli.outcomes import broken
from tests.configs import ed25519Key
from tests.queue.killing import quickDirectory
from tests.received.reading.samples import tlsReport
from tests.servers import ServerCase, closedPort, startPython
from tests.test_tap import TWISTD

reactor: Any = installed

HOST, OTHER = "reports.b.example", "reports.c.example"
REPORT = gzip.compress(tlsReport(domain="b.example"), mtime=0)
TYPE = {"Content-Type": "application/tlsrpt+gzip"}
LISTENER = """
[Listeners.reports]
Port = {port}
Service = "reports"
TLS = "immediate"
CertificateFile = "host.pem"
KeyFile = "host.pem"
"""
DOMAINS = """
[Domains."b.example"]
[Domains."c.example"]
CertificateFile = "other.pem"
KeyFile = "other.pem"
"""


def writeIdentity(folder: Path, name: str, identity: Identity) -> None:
    new = folder / f"{name}.new"
    new.write_bytes(identity.pem)
    new.rename(folder / f"{name}.pem")


def writeServer(folder: Path, port: int = 0) -> str:
    """
    Write the certificates of a server that takes reports.

    @return: Its configuration after the host name.
    """
    writeIdentity(folder, "host", good(HOST))
    writeIdentity(folder, "other", good(OTHER))
    return f'Hostname = "mx.b.example"\n{LISTENER.format(port=port)}{DOMAINS}'


class Client(http.client.HTTPSConnection):
    """
    A client of C{host} on loopback that trusts the tests' authority.

    @ivar certificate: The server's, after the connection.
    """

    certificate: bytes | None = None

    def __init__(self, port: int, host: str = HOST) -> None:
        context = ssl.create_default_context()
        # The tests' authority has none of the extensions that this demands, which is
        # the default from Python 3.13 on.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_verify_locations(
            cadata=root().certificate.public_bytes(Encoding.PEM).decode()
        )
        self._tls = context
        super().__init__(host, port, timeout=MAX_WAIT)

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), MAX_WAIT)
        secured = self._tls.wrap_socket(plain, server_hostname=self.host)
        self.certificate = secured.getpeercert(True)
        self.sock = secured

    def post(
        self, content: bytes = REPORT, headers: dict[str, str] = TYPE
    ) -> tuple[int, str]:
        self.request("POST", "/v1/tlsrpt", content, headers)
        response = self.getresponse()
        return response.status, response.read().decode()


class ServerTests(ServerCase):
    """
    A server with a listener for reports.
    """

    def startB(self) -> Server:
        folder = self.folder / "b"
        folder.mkdir()
        return self.begin(folder, writeServer(folder))

    def begin(self, folder: Path, text: str) -> Server:
        (folder / "moxtls.toml").write_text(
            f'{text}\n[Resolver]\nServers = ["{self.dns.address}"]\n'
        )
        server = Server(reactor, ConfigFiles.read(folder / "moxtls.toml"))
        self.addCleanup(server.stopService)
        server.privilegedStartService()
        server.startService()
        return server

    async def stored(self, server: Server) -> tuple[StoredReport, ...]:
        return await server.ledger.received.reports(ReportFilter(), 10)

    async def using(
        self, server: Server, work: Callable[[Client], Any], host: str = HOST
    ) -> Any:
        """
        The result of C{work} with a client, in a thread.
        """

        def use() -> Any:
            client = Client(server.ports["reports"], host)
            try:
                return work(client)
            finally:
                client.close()

        return await deferToThread(use)

    async def test_post(self) -> None:
        """
        RFC 8460 5.4: a report that is posted over TLS is in the ledger when the
        response arrives, not authenticated, and counted once, also if it is sent again.
        """
        server = self.startB()

        def work(client: Client) -> list[tuple[int, str]]:
            return [client.post(), client.post()]

        answers = await self.using(server, work)
        self.assertEqual(answers, [(200, "1 stored\n"), (200, "1 stored already\n")])
        [report] = await self.stored(server)
        self.assertEqual(report.origin.channel, Channel.HTTPS)
        self.assertEqual(report.origin.sender, "127.0.0.1")
        self.assertEqual(report.origin.authentication, "")
        day = dayOf(report.start)
        [counted] = await server.ledger.received.tlsDays("b.example", day, day)
        self.assertEqual((counted.succeeded, counted.failed), (5, 2))

    async def test_certificates(self) -> None:
        """
        The certificate is chosen by SNI, and a new one is used without a restart.
        """
        server = self.startB()

        def certificate(client: Client) -> bytes | None:
            client.connect()
            return client.certificate

        self.assertEqual(await self.using(server, certificate), good(HOST).der)
        other = await self.using(server, certificate, OTHER)
        self.assertEqual(other, good(OTHER).der)
        renewed = root().issue(HOST)
        writeIdentity(self.folder / "b", "host", renewed)
        self.assertEqual(await self.using(server, certificate), renewed.der)

    async def test_refused(self) -> None:
        """
        A client that sends much more than is accepted, or in another type, still gets
        the response.
        """
        server = self.startB()
        large = bytes(25 * 2**20 + 1)

        def work(client: Client) -> list[int]:
            codes = []
            for content, headers in ((large, TYPE), (bytes(500_000), {})):
                client.close()
                try:
                    codes.append(client.post(content, headers)[0])
                except OSError:
                    # The connection was closed while the client was sending.
                    codes.append(client.getresponse().status)
            return codes

        self.assertEqual(await self.using(server, work), [413, 415])
        self.assertEqual(await self.stored(server), ())

    async def test_bomb(self) -> None:
        """
        Content that becomes too large when it is decompressed is refused, and the next
        report accepted.
        """
        server = self.startB()
        bomb = gzip.compress(b'{"a": "' + bytes(2**25), 1)

        def work(client: Client) -> list[int]:
            return [client.post(each)[0] for each in (bomb, REPORT)]

        self.assertEqual(await self.using(server, work), [400, 200])

    async def test_many(self) -> None:
        """
        Many clients at a time are answered, each once its own report is stored.
        """
        server = self.startB()

        def work(client: Client) -> int:
            clients = [Client(client.port) for _ in range(20)]
            for number, each in enumerate(clients):
                content = tlsReport(f"t-{number}", "b.example")
                each.request("POST", "/", gzip.compress(content), TYPE)
            codes = {each.getresponse().status for each in clients}
            for each in clients:
                each.close()
            return codes.pop() if len(codes) == 1 else 0

        self.assertEqual(await self.using(server, work), 200)
        listed = await server.ledger.received.reports(ReportFilter(), 100)
        self.assertEqual(len(listed), 20)

    async def test_stopping(self) -> None:
        """
        A server with idle connections stops.
        """
        server = self.startB()
        stopped: list[Deferred[None]] = []

        def work(client: Client) -> bytes:
            client.post()
            reactor.callFromThread(lambda: stopped.append(server.stopService()))
            try:
                return client.sock.recv(1)
            except ConnectionResetError:
                # Closed as well.
                return b""

        self.assertEqual(await self.using(server, work), b"")
        await stopped[0]

    async def test_ourOwn(self) -> None:
        """
        A report that another node posts is stored and counted once there, and delivered
        for the sender.
        """
        b = self.startB()
        folder = self.folder / "a"
        folder.mkdir()
        (folder / "ca.pem").write_bytes(root().certificate.public_bytes(Encoding.PEM))
        (folder / "key.pem").write_bytes(ed25519Key())
        self.dns.zone.put(HOST, RRType.A, "127.0.0.1")
        self.dns.zone.put(
            "_smtp._tls.b.example",
            RRType.TXT,
            f'"v=TLSRPTv1; rua=https://{HOST}/v1/tlsrpt"',
        )
        a = self.begin(
            folder,
            'Hostname = "mail.example.org"\nCAFile = "ca.pem"\n'
            '[Domains."example.org".DKIM.Selectors.s]\nKeyFile = "key.pem"\n'
            'Algorithm = "ed25519-sha256"\n'
            f"[Delivery]\nHTTPSPort = {b.ports['reports']}\nAllowOwnHosts = true\n",
        )
        day = utcDay(reactor.seconds() - DAY)
        await a.ledger.outcomes.record(day, broken("b.example"))
        self.assertEqual(await a.reports.runNow(), 1)

        async def isDelivered() -> bool:
            [report] = await a.ledger.archive.reports(None, None, None, 10, None)
            return str(report.state) == "delivered"

        await self.until(lambda: Deferred.fromCoroutine(isDelivered()))
        [report] = await self.stored(b)
        self.assertEqual(report.kind, ReceivedKind.TLS)
        self.assertEqual(report.organization, "example.org")
        self.assertEqual((report.total, report.failed), (2, 1))
        counted = await b.ledger.received.tlsDays(
            "b.example", report.start // DAY, report.start // DAY
        )
        self.assertEqual([(each.succeeded, each.failed) for each in counted], [(1, 1)])


class KilledTests(SynchronousTestCase):
    """
    A server that is killed.
    """

    def test_killed(self) -> None:
        """
        A report that was answered with 200 is in the ledger after C{kill -9}.
        """
        folder, port = quickDirectory(self), closedPort()
        text = writeServer(folder, port)
        file = folder / "moxtls.toml"
        file.write_text(f'{text}[Resolver]\nServers = ["127.0.0.1:{closedPort()}"]\n')
        words = ("--nodaemon", "--pidfile=", "moxtls", "-c", file)
        process = startPython(self, folder, "-c", TWISTD, *words)
        client = Client(port)
        while client.sock is None:
            try:
                client.connect()
            except ConnectionError:
                self.assertIsNone(process.poll())
                time.sleep(0.05)
        self.assertEqual(client.post()[0], 200)
        process.kill()
        process.wait()
        client.close()
        ledger = Ledger(None, f"sqlite:///{folder}/data/ledger.sqlite")
        stored = self.successResultOf(ledger.received.reports(ReportFilter(), 10))
        self.assertEqual([each.reportID for each in stored], ["t-1"])
        self.successResultOf(ledger.stop())
