"""
Tests for L{moxtls.received.intake.httpsserver}, in memory; those over sockets are in
C{tests.scenarios.test_received_https}.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from moxtls.interfaces import StoreUnavailable
from moxtls.received.intake import httpsserver
from moxtls.received.intake.httpsserver import (
    DISCARD_TIMEOUT,
    IDLE_TIMEOUT,
    MAX_DISCARDED,
    REQUEST_TIMEOUT,
    RESPONSE_TIMEOUT,
    ReportChannel,
    ReportServerFactory,
)
from moxtls.received.intake.intake import ReadingUnavailable, ReportIntake, ReportReader
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.reading.read import readReports
from moxtls.received.types import AcceptedReport, Channel, ReadResult
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.smtp.server.state import ServerSettings
from tests.received.intake.fakes import RecordingStore
from tests.received.reading.samples import aggregateReport, tlsReport

#: 2026-11-24 12:00:00 UTC: after the samples.
NOW = 1_795_521_600
OURS = frozenset({"example.org", "mail.example.org"})
SETTINGS = ListenerSettings(
    ServerSettings("mail.example.org", maxSize=100 * 2**20),
    maxConnections=10,
    maxConnectionsPerAddress=4,
    maxMessageRate=20,
)
REPORT = gzip.compress(tlsReport(), mtime=0)
GZIP, JSON = "application/tlsrpt+gzip", "application/tlsrpt+json"


class InlineReader(ReportReader):
    """
    Reads inputs in this process.

    @ivar waiting: Inputs of which the results are to be fired by the test, if it isn't
        C{None}.
    """

    def __init__(self) -> None:
        self.waiting: list[Deferred[ReadResult]] | None = None
        self.error: Exception | None = None
        self.clients: list[str] = []

    def read(self, source: Any, name: str = "", client: str = "") -> Any:
        self.clients.append(client)
        if self.error is not None:
            return fail(self.error)
        result = readReports(b"".join(source), name)
        if self.waiting is None:
            return succeed(result)
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)  # type: ignore[arg-type]
        return waiting.addCallback(lambda _: result)


def post(
    content: bytes,
    mediaType: str = GZIP,
    *,
    method: str = "POST",
    path: str = "/",
    fields: str = "",
) -> bytes:
    """
    A request.
    """
    head = f"{method} {path} HTTP/1.1\r\nHost: mail.example.org\r\n"
    head += f"Content-Type: {mediaType}\r\nContent-Length: {len(content)}\r\n"
    return f"{head}{fields}\r\n".encode() + content


class Transport(StringTransport):
    """
    A transport that ends when it is closed.
    """

    protocol: ReportChannel
    isAborted = False

    def loseConnection(self) -> None:
        self._lost()

    def abortConnection(self) -> None:
        self.isAborted = True
        self._lost()

    def _lost(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionDone()))


class HTTPSServerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = RecordingStore()
        self.reader = InlineReader()
        self.intake = ReportIntake(cast(IReceivedReportStore, self.store), self.reader)
        self.factory = self.made(SETTINGS)

    def made(self, settings: ListenerSettings) -> ReportServerFactory:
        return ReportServerFactory(self.clock, settings, self.intake, OURS, lambda: NOW)

    def connect(self, host: str = "192.0.2.1") -> Transport:
        kind = IPv6Address if ":" in host else IPv4Address
        transport = Transport(peerAddress=kind("TCP", host, 4000))
        protocol = self.factory.buildProtocol(transport.getPeer())
        assert protocol is not None
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def responses(self, transport: Transport) -> list[tuple[int, dict[str, str], str]]:
        """
        The responses so far: status, header fields and text.
        """
        data, found = transport.value(), []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines)
            length = int(fields.get("Content-Length", 0))
            found.append((int(status.split()[1]), fields, data[:length].decode()))
            data = data[length:]
        return found

    def send(self, data: bytes, host: str = "192.0.2.1") -> tuple[int, str]:
        """
        The status and text of the response to one request.
        """
        transport = self.connect(host)
        transport.protocol.dataReceived(data)
        [(status, _, text)] = self.responses(transport)
        transport.loseConnection()
        return status, text

    def stored(self) -> list[AcceptedReport]:
        """
        The accepted reports, the latest first.
        """
        found = self.store.stored[::-1]
        return [each for each in found if isinstance(each, AcceptedReport)]


class RequestTests(HTTPSServerCase):
    """
    Tests for single requests.
    """

    def test_stored(self) -> None:
        """
        RFC 8460 5.4: a report is taken by POST, in gzip or as JSON, at any path; the
        response is 200 once it is stored, without authentication.
        """
        for number, (content, mediaType, path) in enumerate(
            (
                (REPORT, GZIP, "/"),
                (tlsReport("t-2"), JSON, "/v1/tlsrpt?x=y"),
                (gzip.compress(tlsReport("t-3")), f"{GZIP.upper()}; x=y", "/a"),
            ),
            1,
        ):
            answer = self.send(post(content, mediaType, path=path))
            self.assertEqual(answer, (200, "1 stored\n"))
            stored = self.stored()
            self.assertEqual(len(stored), number)
            origin = stored[0].origin
            self.assertEqual(
                (origin.channel, origin.sender, origin.authentication, origin.received),
                (Channel.HTTPS, "192.0.2.1", "", NOW),
            )
            self.assertEqual(stored[0].domains, {"example.org"})

    def test_duplicate(self) -> None:
        """
        A report that was sent before is accepted and not stored again.
        """
        self.send(post(REPORT))
        self.assertEqual(self.send(post(REPORT)), (200, "1 stored already\n"))
        self.assertEqual(len(self.stored()), 1)

    def test_fields(self) -> None:
        """
        A response is text that no browser interprets, with a date (RFC 9110 6.6.1) and
        without the name of a program.
        """
        transport = self.connect()
        transport.protocol.dataReceived(post(REPORT))
        [(_, fields, text)] = self.responses(transport)
        self.assertEqual(
            fields,
            {
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Length": str(len(text)),
                "X-Content-Type-Options": "nosniff",
                "Date": fields["Date"],
            },
        )
        self.assertRegex(fields["Date"], r"\A\w{3}, \d\d \w{3} 2026 \d\d:\d\d:\d\d GMT")

    def test_notStored(self) -> None:
        """
        What isn't a report is refused with 400, one that isn't about a domain of ours
        with 422 (RFC 9110 15.5.21); both with one line.
        """
        foreign = tlsReport(domain="other.example")
        for content, status, reason in (
            (b"x", 400, "there is no report in it"),
            (REPORT[:-20], 400, "cut off"),
            (gzip.compress(b'{"a": 1}'), 400, ""),
            (gzip.compress(foreign), 422, "it is about other.example, none of"),
            (gzip.compress(aggregateReport()), 422, "only TLS reports are taken"),
        ):
            code, text = self.send(post(content))
            self.assertEqual(code, status, text)
            self.assertRegex(text, rf"\Arefused: .*{reason}.*\n\Z")
        self.assertEqual(self.stored(), [])

    def test_partly(self) -> None:
        """
        Of a report about several domains, only ours are counted.
        """
        report = json.loads(tlsReport())
        report["policies"] += json.loads(tlsReport(domain="other.example"))["policies"]
        self.assertEqual(self.send(post(json.dumps(report).encode(), JSON))[0], 200)
        self.assertEqual(self.stored()[0].domains, {"example.org"})

    def test_escaped(self) -> None:
        """
        Nothing from a report gets into a response or the log unescaped or in any
        length.
        """
        report = tlsReport(domain="<script>\x1b[31m" + "x" * 1000)
        with capturedLogs() as logs:
            _, text = self.send(post(report, JSON))
        logged = "".join(filter(None, map(formatEvent, logs)))
        self.assertRegex(logged, r"\Areport by HTTPS from '[0-9.]+': 422: .refused: ")
        self.assertTrue(logged.isprintable())
        self.assertLess(len(logged), 500)
        self.assertRegex(text, r"\Arefused: .*script.*\\x1b")
        self.assertTrue(text[:-1].isprintable())
        self.assertLessEqual(len(text), 301)

    def test_type(self) -> None:
        """
        RFC 8460 6.4, 6.5: other types are refused with 415, before their content.
        """
        for mediaType in ("text/plain", "application/json", "", "tlsrpt"):
            transport = self.connect()
            request = post(b"x" * 1000, mediaType)
            transport.protocol.dataReceived(request[:-1000])
            [(status, fields, text)] = self.responses(transport)
            self.assertEqual((status, fields["Connection"]), (415, "close"))
            self.assertEqual(text, f"expected {GZIP} or {JSON}\n")
            transport.loseConnection()
        self.assertEqual(self.send(b"POST / HTTP/1.1\r\n\r\n")[0], 415)

    def test_methods(self) -> None:
        """
        RFC 9110 15.5.6: other methods are refused, with the one that is allowed; a
        person who looks is told what this is.
        """
        for method in ("GET", "PUT", "OPTIONS", "DELETE"):
            transport = self.connect()
            transport.protocol.dataReceived(f"{method} / HTTP/1.1\r\n\r\n".encode())
            [(status, fields, text)] = self.responses(transport)
            self.assertEqual((status, fields["Allow"]), (405, "POST"))
            self.assertRegex(text, r"\ATLS reports \(RFC 8460\) are taken here.*\n\Z")
        transport = self.connect("192.0.3.1")
        transport.protocol.dataReceived(b"HEAD / HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.value().endswith(b"\r\n\r\n"))

    def test_empty(self) -> None:
        """
        A request without content is refused.
        """
        self.assertEqual(self.send(post(b"")), (400, "the request has no content\n"))

    def test_malformed(self) -> None:
        """
        What isn't HTTP is refused.
        """
        for data in (
            b"EHLO x\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: " + b"1" * 5000 + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
            b"POST / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        ):
            transport = self.connect()
            transport.protocol.dataReceived(data)
            self.assertTrue(transport.disconnecting)
        self.assertEqual(self.stored(), [])

    def test_expect(self) -> None:
        """
        RFC 9110 10.1.1: a client that waits is asked for its content, unless the
        request is refused.
        """
        request = post(REPORT, fields="Expect: 100-continue\r\n")
        transport = self.connect()
        transport.protocol.dataReceived(request[: -len(REPORT)])
        self.assertEqual(transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        transport.protocol.dataReceived(REPORT)
        self.assertEqual([each[0] for each in self.responses(transport)], [100, 200])
        transport = self.connect()
        request = post(REPORT, "text/xml", fields="Expect: 100-continue\r\n")
        transport.protocol.dataReceived(request[: -len(REPORT)])
        self.assertEqual([each[0] for each in self.responses(transport)], [415])

    def test_pipelined(self) -> None:
        """
        Requests on one connection are answered in order, one after the other.
        """
        self.reader.waiting = []
        transport = self.connect()
        second = gzip.compress(tlsReport("t-2"))
        transport.protocol.dataReceived(post(REPORT) + post(second) + post(b"x"))
        self.assertEqual(len(self.reader.waiting), 1)
        for _ in range(3):
            self.reader.waiting.pop().callback(None)  # type: ignore[arg-type]
        codes = [each[0] for each in self.responses(transport)]
        self.assertEqual(codes, [200, 200, 400])

    def test_manyPipelined(self) -> None:
        """
        Reading stops while requests wait, so that they take little memory.
        """
        self.reader.waiting = []
        transport = self.connect()
        transport.protocol.dataReceived(post(REPORT))
        transport.protocol.dataReceived(b"x" * 20_000)
        self.assertEqual(transport.producerState, "paused")

    def test_oldProtocol(self) -> None:
        """
        After a request by HTTP/1.0 the connection is closed.
        """
        transport = self.connect()
        transport.protocol.dataReceived(post(REPORT).replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assertEqual(self.responses(transport)[0][0], 200)
        self.assertTrue(transport.disconnecting)


class LimitTests(HTTPSServerCase):
    """
    Tests for limits.
    """

    def test_size(self) -> None:
        """
        A request that announces too much is refused with 413 before its content.
        """
        self.factory.maxSize = 1000
        transport = self.connect()
        transport.protocol.dataReceived(post(b"x" * 1001)[:-1001])
        [(status, fields, text)] = self.responses(transport)
        self.assertEqual((status, fields["Connection"]), (413, "close"))
        self.assertEqual(text, "reports of at most 1000 bytes are taken\n")
        self.assertEqual(
            self.made(SETTINGS).maxSize, 25 * 2**20, "whatever is configured"
        )

    def test_chunks(self) -> None:
        """
        RFC 9112 7.1: content in chunks is accepted, and refused as soon as it is too
        large.
        """
        head = f"POST / HTTP/1.1\r\nContent-Type: {GZIP}\r\n".encode()
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        chunk = b"%x\r\n%b\r\n" % (len(REPORT), REPORT)
        self.assertEqual(self.send(head + chunk + b"0\r\n\r\n")[0], 200)
        self.factory.maxSize = 1000
        transport = self.connect()
        transport.protocol.dataReceived(head)
        for count in range(4):
            self.assertEqual(transport.value(), b"", count)
            transport.protocol.dataReceived(b"12c\r\n" + b"x" * 300 + b"\r\n")
        self.assertEqual(self.responses(transport)[0][0], 413)

    def test_discarded(self) -> None:
        """
        The rest of a refused request is read for a while, so that the client sees the
        response; neither its size nor its time is unlimited.
        """
        for isSlow in (False, True):
            transport = self.connect()
            transport.protocol.dataReceived(post(b"x" * 2 * MAX_DISCARDED, "x/y")[:200])
            self.assertEqual(self.responses(transport)[0][0], 415)
            self.assertFalse(transport.disconnecting)
            if isSlow:
                self.clock.advance(DISCARD_TIMEOUT)
            else:
                transport.protocol.dataReceived(b"x" * (MAX_DISCARDED - 200))
                self.assertFalse(transport.disconnecting)
                transport.protocol.dataReceived(b"x" * 200)
            self.assertTrue(transport.isAborted)
        transport = self.connect()
        transport.protocol.dataReceived(post(b"x" * 1000, "x/y"))
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.isAborted)

    def test_slow(self) -> None:
        """
        A client that sends nothing, or a little now and then, is disconnected, without
        a line in the log.
        """
        with capturedLogs() as logs:
            silent, slow = self.connect(), self.connect()
            self.clock.advance(IDLE_TIMEOUT)
            self.assertTrue(silent.isAborted)
            slow = self.connect()
            slow.protocol.dataReceived(post(b"x" * 1000)[:-1000])
            for _ in range(REQUEST_TIMEOUT // 10):
                self.assertFalse(slow.isAborted)
                slow.protocol.dataReceived(b"x")
                self.clock.advance(10)
            self.assertTrue(slow.isAborted)
        self.assertEqual(logs, [])

    def test_rate(self) -> None:
        """
        RFC 6585 4: more requests than the configured rate get 429, with the time to
        wait; four times as many are accepted from a network.
        """
        codes = [self.send(post(b"x"))[0] for _ in range(21)]
        self.assertEqual(codes, [400] * 20 + [429])
        transport = self.connect()
        with capturedLogs():
            transport.protocol.dataReceived(post(REPORT))
        [(status, fields, _)] = self.responses(transport)
        self.assertEqual((status, fields["Retry-After"]), (429, "60"))
        for host in ("192.0.2.2", "192.0.2.3", "192.0.2.4"):
            codes = [self.send(post(b"x"), host)[0] for _ in range(20)]
            self.assertEqual(codes, [400] * 20)
        self.assertEqual(self.send(post(REPORT), "192.0.2.5")[0], 429)
        self.assertEqual(self.send(post(REPORT), "192.0.3.5")[0], 200)

    def test_connections(self) -> None:
        """
        Connections are limited for each address, and for all; the log says so once.
        """
        with capturedLogs() as logs:
            for _ in range(4):
                self.connect()
            peer = IPv4Address("TCP", "192.0.2.1", 1)
            self.assertIsNone(self.factory.buildProtocol(peer))
            self.assertIsNone(self.factory.buildProtocol(peer))
            last = [self.connect(f"192.0.2.{n}") for n in range(2, 8)][-1]
            other = IPv4Address("TCP", "192.0.2.9", 1)
            self.assertIsNone(self.factory.buildProtocol(other))
        reached = [each["limit"] for each in logs]
        self.assertEqual(reached, ["MaxConnectionsPerAddress", "MaxConnections"])
        last.loseConnection()
        self.assertIsNotNone(self.factory.buildProtocol(other))

    def test_memory(self) -> None:
        """
        All requests together, and those of one network, take limited memory; more get
        503.  What has ended is free again.
        """
        self.patch(httpsserver, "MAX_NETWORK_MEMORY", 1000)
        self.patch(httpsserver, "MAX_MEMORY", 1500)

        def begin(host: str) -> Transport:
            transport = self.connect(host)
            transport.protocol.dataReceived(post(b"x" * 900)[:-100])
            return transport

        first = begin("192.0.2.1")
        self.assertEqual(self.responses(first), [])
        [(status, fields, _)] = self.responses(begin("192.0.2.2"))
        self.assertEqual((status, fields["Retry-After"]), (503, "60"))
        self.assertEqual(self.responses(begin("198.51.100.1"))[0][0], 503)
        first.loseConnection()
        last = begin("192.0.2.2")
        self.assertEqual(self.responses(last), [])
        last.protocol.dataReceived(b"x" * 100)
        self.assertEqual(self.responses(last)[0][0], 400)
        self.assertEqual(self.responses(begin("192.0.2.1")), [])

    def test_tinyChunks(self) -> None:
        """
        RFC 9112 7.1: chunks of a few octets take little more memory than those octets.
        """
        transport = self.connect()
        fields = b"Transfer-Encoding: chunked\r\n\r\n"
        head = f"POST / HTTP/1.1\r\nContent-Type: {JSON}\r\n".encode()
        transport.protocol.dataReceived(head + fields)
        count = 100_000
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            transport.protocol.dataReceived(b"2\r\nab\r\n" * (count // 10))
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 3 * 2 * count)
        transport.protocol.dataReceived(b"0\r\n\r\n")
        self.assertEqual(self.responses(transport)[0][0], 400)

    def test_forwarded(self) -> None:
        """
        X-Forwarded-For counts only from a proxy on this host, and only the last
        address, which that has added.
        """
        fields = "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n"
        for number, (host, expected) in enumerate(
            (
                ("127.0.0.1", "198.51.100.7"),
                ("::1", "198.51.100.7"),
                ("192.0.2.1", "192.0.2.1"),
            )
        ):
            content = gzip.compress(tlsReport(f"t-{number}"))
            self.assertEqual(self.send(post(content, fields=fields), host)[0], 200)
            self.assertEqual(self.stored()[0].origin.sender, expected)
        for value in ("x", "", "198.51.100.7, unknown"):
            self.send(post(REPORT, fields=f"X-Forwarded-For: {value}\r\n"), "127.0.0.1")
        self.assertEqual(self.reader.clients[-3:], ["127.0.0.0/24"] * 3)


class UnavailableTests(HTTPSServerCase):
    """
    Tests for reports that can't be stored.
    """

    def assertUnavailable(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(post(REPORT))
        [(status, fields, _)] = self.responses(transport)
        self.assertEqual((status, fields["Retry-After"]), (503, "60"))
        transport.loseConnection()

    def test_ledger(self) -> None:
        """
        While the ledger is unavailable the client is to try again later.
        """
        self.store.failure = StoreUnavailable("away")
        self.assertUnavailable()

    def test_defect(self) -> None:
        """
        An unexpected failure is logged.
        """
        self.store.failure = ValueError("x")
        self.assertUnavailable()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_reader(self) -> None:
        """
        The same if too many reports wait to be read.
        """
        self.reader.error = ReadingUnavailable("too many reports are waiting")
        self.assertUnavailable()

    def test_late(self) -> None:
        """
        A client isn't left without a response for longer than it waits; the report is
        stored all the same.
        """
        self.reader.waiting = []
        transport = self.connect()
        transport.protocol.dataReceived(post(REPORT))
        self.clock.advance(RESPONSE_TIMEOUT)
        self.assertEqual(self.responses(transport)[0][0], 503)
        self.reader.waiting.pop().callback(None)  # type: ignore[arg-type]
        self.assertEqual(len(self.stored()), 1)
        self.assertEqual(len(self.responses(transport)), 1)

    def test_gone(self) -> None:
        """
        The report of a client that doesn't wait for the response is stored.
        """
        self.reader.waiting = []
        transport = self.connect()
        transport.protocol.dataReceived(post(REPORT))
        transport.loseConnection()
        self.reader.waiting.pop().callback(None)  # type: ignore[arg-type]
        self.assertEqual(len(self.stored()), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StopTests(HTTPSServerCase):
    """
    Tests for L{ReportServerFactory.stop}.
    """

    def test_stop(self) -> None:
        """
        Connections are closed; one with a complete report gets its response first.
        """
        self.reader.waiting = []
        idle, partial, taken = (self.connect(f"192.0.2.{n}") for n in range(3))
        partial.protocol.dataReceived(post(REPORT)[:-1])
        taken.protocol.dataReceived(post(REPORT))
        stopped = self.factory.stop()
        self.assertTrue(idle.isAborted and partial.isAborted)
        self.assertNoResult(stopped)
        self.assertIsNone(self.factory.buildProtocol(idle.getPeer()))
        self.reader.waiting.pop().callback(None)  # type: ignore[arg-type]
        self.successResultOf(stopped)
        self.assertEqual(self.responses(taken)[0][0], 200)
        self.assertTrue(taken.disconnecting)
