"""
Tests for L{moxtls.https}, over loopback sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLContextFactory,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.https import (
    MAX_HEADER_BYTES,
    HTTPSClient,
    HTTPSErrorKind,
    HTTPSFailure,
    Response,
)
from tests import MAX_WAIT
from tests.certificates import Identity, good, root, selfSigned, trusting

HOST = "web.host.example"
Answering = Callable[["Server"], None]


@implementer(IOpenSSLContextFactory)
class Contexts:
    """
    Presents one certificate.
    """

    def __init__(self, identity: Identity, newest: int | None = None) -> None:
        self._context = identity.context()
        if newest is not None:
            self._context.set_min_proto_version(0)
            self._context.set_max_proto_version(newest)
            self._context.set_cipher_list(b"ALL:@SECLEVEL=0")

    def getContext(self) -> SSL.Context:
        return self._context


class Server(Protocol):
    """
    Remembers requests, and calls a function for each that is complete.
    """

    factory: Servers

    def connectionMade(self) -> None:
        self.received = b""
        self.factory.connected += 1

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        lengths = [each[16:] for each in fields if each.startswith(b"content-length: ")]
        if end and len(body) >= int(lengths[0] if lengths else b"0"):
            self.factory.requests.append(self.received)
            self.factory.answer(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lost.append(reason)


class Servers(Factory):
    """
    A scripted web server.
    """

    noisy = False

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.lost: list[Failure] = []
        self.connected = 0

    def buildProtocol(self, addr: object) -> Any:
        server = Server()
        server.factory = self
        return server


def saying(data: bytes, close: bool = True) -> Answering:
    """
    Answers C{data}.
    """

    def answer(server: Server) -> None:
        assert server.transport is not None
        server.transport.write(data)
        if close:
            server.transport.loseConnection()

    return answer


def ok(body: bytes, *fields: str) -> bytes:
    """
    An answer in order.
    """
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def portOf(port: IListeningPort) -> int:
    """
    The port of a listening server.
    """
    address = port.getHost()
    assert isinstance(address, IPv4Address)
    return address.port


class HTTPSTests(TestCase):
    """
    Tests for L{HTTPSClient}.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.dns = MemoryResolver({(HOST, RRType.A): ["127.0.0.1"]})
        self.ports: list[IListeningPort] = []
        self.addCleanup(self.close)

    async def close(self) -> None:
        """
        Stop all servers.
        """
        for port in self.ports:
            await (port.stopListening() or deferLater(IReactorTime(reactor), 0))
        # Connections that were closed at our end are about to be at the other.
        for servers in self.serving:
            while len(servers.lost) < servers.connected:
                await deferLater(IReactorTime(reactor), 0.001)

    serving: tuple[Servers, ...] = ()

    def serve(
        self,
        answer: Answering,
        identity: Identity | None = None,
        newest: int | None = None,
    ) -> Servers:
        """
        Start a server.
        """
        servers = Servers(answer)
        self.serving = (*self.serving, servers)
        contexts = Contexts(identity or good(HOST), newest)
        self.listen(
            TLSMemoryBIOFactory(contexts, False, servers, clock=IReactorTime(reactor))
        )
        return servers

    def listen(self, factory: Any) -> None:
        """
        Start a server of any kind.
        """
        port = IReactorTCP(reactor).listenTCP(0, factory, interface="127.0.0.1")
        self.ports.append(port)

    def client(self, timeout: float = 10) -> HTTPSClient:
        """
        A client that finds the latest server at C{https://web.example}.
        """
        port = portOf(self.ports[-1]) if self.ports else 1
        return HTTPSClient(
            IReactorTCP(reactor),
            IReactorTime(reactor),
            self.dns,
            trusting(root()),
            port,
            timeout,
        )

    async def get(
        self, url: str = f"https://{HOST}/path", limit: int = 1000
    ) -> Response | HTTPSFailure:
        """
        The client's response.
        """
        return await self.client().get(url, limit)

    async def fails(self, kind: HTTPSErrorKind, **more: int) -> HTTPSFailure:
        """
        The failure of a request.
        """
        found = await self.get(limit=more.get("limit", 1000))
        assert isinstance(found, HTTPSFailure), found
        self.assertIs(found.kind, kind, found)
        return found

    async def test_get(self) -> None:
        """
        One request is sent, for the host as given; the response comes with its body.
        """
        servers = self.serve(saying(ok(b"hello", "Content-Type: text/plain")))
        found = await self.get(f"https://{HOST}/path?query#fragment")
        expected = Response(200, (("content-type", "text/plain"),), b"hello")
        self.assertEqual(found, expected)
        [request] = servers.requests
        self.assertTrue(request.startswith(b"GET /path?query HTTP/1.1\r\n"))
        self.assertIn(f"\r\nHost: {HOST}\r\n".encode(), request)
        self.assertIn(b"\r\nConnection: close\r\n", request)

    async def test_POST(self) -> None:
        """
        A body is sent with its type.
        """
        servers = self.serve(saying(ok(b"")))
        client = self.client()
        headers = {"Content-Type": "application/tlsrpt+gzip"}
        found = await client.post(f"https://{HOST}/in", headers, b"\x1f\x8breport")
        assert isinstance(found, Response), found
        [request] = servers.requests
        head, _, body = request.partition(b"\r\n\r\n")
        self.assertEqual(body, b"\x1f\x8breport")
        self.assertTrue(head.startswith(b"POST /in HTTP/1.1\r\n"))
        self.assertIn(b"Content-Type: application/tlsrpt+gzip", head)

    async def test_portOfURL(self) -> None:
        """
        A port that the URL names is where to connect to.
        """
        self.serve(saying(ok(b"one")))
        url = f"https://{HOST}:{portOf(self.ports[0])}/"
        self.serve(saying(ok(b"two")))
        found = await self.get(url)
        assert isinstance(found, Response), found
        self.assertEqual(found.body, b"one")

    async def test_redirect(self) -> None:
        """
        RFC 8461 3.3: redirects must not be followed.
        """
        answer = b"HTTP/1.1 302 Found\r\nLocation: https://web.example/x\r\n"
        servers = self.serve(saying(answer + b"Content-Length: 0\r\n\r\n"))
        found = await self.get()
        assert isinstance(found, Response), found
        self.assertEqual(found.status, 302)
        self.assertEqual(found.header("location"), "https://web.example/x")
        self.assertEqual(len(servers.requests), 1)

    async def test_framings(self) -> None:
        """
        RFC 9112 6: a body may come in chunks, or last until the end of the
        connection.
        """
        head = b"HTTP/1.1 200 OK\r\n"
        for answer in (
            head
            + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            head + b"\r\nhello",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
        ):
            self.serve(saying(answer))
            found = await self.get()
            assert isinstance(found, Response), (answer, found)
            self.assertEqual(found.body, b"hello", answer)

    async def test_certificateRejected(self) -> None:
        """
        RFC 8461 3.3: nothing is sent to a server whose certificate is invalid, and
        the fault is reported.
        """
        for identity, objections, matches in (
            (selfSigned(HOST), [18], True),
            (root().issue(HOST, days=-1), [10], True),
            (root().issue("other.example"), [], False),
        ):
            servers = self.serve(saying(ok(b"")), identity)
            failure = await self.fails(HTTPSErrorKind.CERTIFICATE)
            verification = failure.verification
            assert verification is not None
            numbers = [number for number, _ in verification.verifyErrors]
            self.assertEqual(numbers, objections)
            self.assertEqual(verification.nameMatches, matches)
            self.assertEqual(verification.chain[0], identity.certificate)
            self.assertEqual(servers.requests, [])

    async def test_wildcard(self) -> None:
        """
        RFC 8461 3.3: a certificate may be for all hosts of a domain.
        """
        self.serve(saying(ok(b"")), root().issue("*.host.example"))
        self.assertIsInstance(await self.get(), Response)

    async def test_oldTLS(self) -> None:
        """
        RFC 8996: TLS 1.1 is no TLS.
        """
        servers = self.serve(saying(ok(b"")), newest=SSL.TLS1_1_VERSION)
        await self.fails(HTTPSErrorKind.PROTOCOL)
        self.assertEqual(servers.requests, [])
        self.serve(saying(ok(b"")), newest=SSL.TLS1_2_VERSION)
        self.assertIsInstance(await self.get(), Response)

    async def test_tooLarge(self) -> None:
        """
        RFC 8461 3.3: the size of a body is limited, whether or not its length is
        announced; the limit itself is allowed.
        """
        self.serve(saying(ok(b"x" * 1000)))
        self.assertIsInstance(await self.get(), Response)
        self.serve(saying(ok(b"x" * 1001), close=False))
        await self.fails(HTTPSErrorKind.TOO_LARGE)
        head = b"HTTP/1.1 200 OK\r\n"
        self.serve(saying(head + b"\r\n" + b"x" * 100_000, close=False))
        await self.fails(HTTPSErrorKind.TOO_LARGE)
        chunk = b"10\r\n" + b"x" * 16 + b"\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 100
        self.serve(saying(chunked, close=False))
        await self.fails(HTTPSErrorKind.TOO_LARGE)

    async def test_endlessHeader(self) -> None:
        """
        Header fields, and interim answers, have a limit too.
        """
        field = b"X: " + b"y" * 1000 + b"\r\n"
        count = MAX_HEADER_BYTES // 1000 * 3
        self.serve(saying(b"HTTP/1.1 200 OK\r\n" + field * count, close=False))
        await self.fails(HTTPSErrorKind.PROTOCOL)
        interim = b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEADER_BYTES // 8)
        self.serve(saying(interim, close=False))
        await self.fails(HTTPSErrorKind.PROTOCOL)

    async def test_noHTTP(self) -> None:
        """
        Invalid and incomplete HTTP is a failure with a kind of its own.
        """
        for answer in (
            b"",
            b"220 mail.example ESMTP\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"\x00" * 100,
        ):
            self.serve(saying(answer))
            await self.fails(HTTPSErrorKind.PROTOCOL)

    async def test_cut(self) -> None:
        """
        RFC 9112 9.8: a body that lasts until the end of the connection is incomplete
        without a TLS closure alert: anybody on the path can cut it.
        """

        def cut(server: Server) -> None:
            assert server.transport is not None
            server.transport.write(b"HTTP/1.1 200 OK\r\n\r\nversion: STSv1\r\n")
            below = getattr(server.transport, "transport")  # noqa: B009
            IReactorTime(reactor).callLater(0.05, below.abortConnection)

        self.serve(cut)
        await self.fails(HTTPSErrorKind.PROTOCOL)

    async def test_noTLS(self) -> None:
        """
        A server that speaks without TLS, or hangs up, is a failure too.
        """

        class Plain(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.transport.loseConnection()

        self.listen(Factory.forProtocol(Plain))
        await self.fails(HTTPSErrorKind.PROTOCOL)

    async def test_refused(self) -> None:
        """
        No address accepts connections.
        """
        self.serve(saying(ok(b"")))
        client = self.client()
        await (self.ports.pop().stopListening() or deferLater(IReactorTime(reactor), 0))
        found = await client.get(f"https://{HOST}/")
        assert isinstance(found, HTTPSFailure)
        self.assertIs(found.kind, HTTPSErrorKind.CONNECT)

    async def test_nextAddress(self) -> None:
        """
        The next address is tried if one refuses connections.
        """
        self.dns.put(HOST, RRType.A, "127.0.0.2", "127.0.0.1")
        self.serve(saying(ok(b"")))
        self.assertIsInstance(await self.get(), Response)

    async def test_time(self) -> None:
        """
        RFC 8461 3.3: the timeout applies to the whole request, wherever it hangs.
        """

        def nothing(server: Server) -> None:
            pass

        head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        for answer in (nothing, saying(head + b"x", close=False)):
            self.serve(answer)
            found = await self.client(timeout=0.2).get(f"https://{HOST}/")
            assert isinstance(found, HTTPSFailure)
            self.assertIs(found.kind, HTTPSErrorKind.TIMEOUT)
        self.listen(Factory.forProtocol(Protocol))
        found = await self.client(timeout=0.2).get(f"https://{HOST}/")
        assert isinstance(found, HTTPSFailure)
        self.assertIs(found.kind, HTTPSErrorKind.TIMEOUT)

    async def test_cancel(self) -> None:
        """
        Giving up closes the connection.
        """
        asked: Deferred[None] = Deferred()
        servers = self.serve(lambda server: asked.callback(None))
        running = self.client().get(f"https://{HOST}/")
        await asked
        running.cancel()
        self.failureResultOf(running, CancelledError)
        while not servers.lost:
            await deferLater(IReactorTime(reactor), 0.001)


class ConnectionFailureTests(SynchronousTestCase):
    """
    Tests for L{HTTPSClient} where it doesn't come to a connection.
    """

    def get(self, url: str, dns: MemoryResolver) -> HTTPSFailure:
        """
        The failure of a request.
        """
        client = HTTPSClient(
            IReactorTCP(reactor), IReactorTime(reactor), dns, trusting(root())
        )
        found = self.successResultOf(client.get(url))
        assert isinstance(found, HTTPSFailure), found
        return found

    def test_noName(self) -> None:
        """
        A host that doesn't exist, or has no address, is different from one whose
        lookup failed.
        """
        dns = MemoryResolver({("empty.example", RRType.TXT): ["x"]})
        dns.fail("broken.example", RRType.A)
        for host, kind in (
            ("nowhere.example", HTTPSErrorKind.NO_NAME),
            ("empty.example", HTTPSErrorKind.NO_NAME),
            ("broken.example", HTTPSErrorKind.LOOKUP),
        ):
            self.assertIs(self.get(f"https://{host}/", dns).kind, kind, host)

    def test_dnssec(self) -> None:
        """
        A host whose addresses fail DNSSEC is reported with the extended error (RFC
        8914), if there is one.
        """
        for error, told in (
            (ExtendedError(6), ExtendedError(6)),
            (ExtendedError(22), None),
        ):
            dns = MemoryResolver()
            for kind in (RRType.A, RRType.AAAA):
                dns.fail("broken.example", kind, error)
            found = self.get("https://broken.example/", dns)
            self.assertEqual(
                (found.kind, found.dnssecError), (HTTPSErrorKind.LOOKUP, told)
            )

    def test_url(self) -> None:
        """
        Invalid URLs are refused before any lookup.
        """
        dns = MemoryResolver()
        for url in (
            "http://web.example/",
            "https:///path",
            "https://192.0.2.1/",
            "https://[2001:db8::1]/",
            "https://user@web.example/",
            "https://web.example:99999/",
            "https://web.example:x/",
            "https://-web.example/",
            "https://web.example/\r\nX: y",
            "https://web.example/\xe4",
            "https://web.example/ space",
            "https://[",
            "",
        ):
            self.assertIs(self.get(url, dns).kind, HTTPSErrorKind.PROTOCOL, url)
        self.assertEqual(dns.asked, [])

    def test_hangingLookup(self) -> None:
        """
        Cancellation cancels the DNS lookup.
        """
        dns = MemoryResolver()
        dns.hang(HOST, RRType.A)
        client = HTTPSClient(
            IReactorTCP(reactor), IReactorTime(reactor), dns, trusting(root())
        )
        running = client.get(f"https://{HOST}/")
        self.assertNoResult(running)
        running.cancel()
        self.failureResultOf(running, CancelledError)
