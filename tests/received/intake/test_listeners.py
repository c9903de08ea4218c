"""
Tests for L{moxtls.received.intake.listeners}, with the hooks in L{moxtls.tls.server}.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.dates import DAY, HOUR
from moxtls.interfaces import StoreUnavailable
from moxtls.received.intake.listeners import (
    INTERVAL,
    MAX_REASONS,
    MAX_WAITING,
    OTHER,
    ListenerRecorder,
)
from moxtls.received.interfaces import IListenerHistory
from moxtls.received.types import CertificateSeen, HandshakeFailures
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.smtp.server.state import ServerSettings
from moxtls.tls.server import IServerTLSObserver, ReloadingContext
from moxtls.tls.session import TLSError
from tests import MAX_WAIT
from tests.certificates import selfSigned
from tests.network import AcceptingDelivery
from tests.servers import reactor
from tests.smtp.pem import writeCertificate

NOON = 20784 * DAY + 12 * HOUR


@implementer(IListenerHistory)
class RecordedHistory:
    """
    A history in memory.

    @ivar error: With which writes fail.
    """

    def __init__(self) -> None:
        self.counted: list[HandshakeFailures] = []
        self.seen: list[CertificateSeen] = []
        self.error: Exception | None = None
        self.writes = 0

    def addFailures(self, failures: Iterable[HandshakeFailures]) -> Deferred[None]:
        self.writes += 1
        if self.error is not None:
            return fail(self.error)
        self.counted.extend(failures)
        return succeed(None)

    def addCertificate(self, seen: CertificateSeen) -> Deferred[None]:
        if self.error is not None:
            return fail(self.error)
        self.seen.append(seen)
        return succeed(None)

    def failures(
        self, start: float, end: float
    ) -> Deferred[tuple[HandshakeFailures, ...]]:
        return succeed(tuple(self.counted))

    def certificates(
        self, start: float, end: float
    ) -> Deferred[tuple[CertificateSeen, ...]]:
        return succeed(tuple(self.seen))

    def expireHistory(self, before: float) -> Deferred[None]:
        return succeed(None)

    def sums(self) -> dict[str, int]:
        """
        The failures of each reason.
        """
        found: dict[str, int] = {}
        for each in self.counted:
            found[each.reason] = found.get(each.reason, 0) + each.count
        return found


class RecorderTests(SynchronousTestCase):
    """
    Tests for L{ListenerRecorder}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.history = RecordedHistory()
        self.recorder = ListenerRecorder(self.clock, self.clock, self.history, "n")
        self.observer = self.recorder.observer("mx")

    def alert(self, number: int = 45, count: int = 1) -> None:
        """
        Clients send an alert.
        """
        for _ in range(count):
            error = TLSError(TLSError.Kind.REMOTE_ALERT, number)
            self.observer.handshakeFailed(error)

    def test_interfaces(self) -> None:
        """
        The observer of a listener is an L{IServerTLSObserver}.
        """
        verifyObject(IServerTLSObserver, self.observer)
        verifyObject(IListenerHistory, self.history)

    def test_counted(self) -> None:
        """
        Failures are counted by listener, hour and reason, and written once a minute;
        none are written while there are none.
        """
        self.recorder.startService()
        self.assertEqual(self.history.writes, 0)
        self.alert(count=3)
        self.recorder.observer("submission").handshakeFailed(
            TLSError(TLSError.Kind.NOT_TLS)
        )
        self.assertEqual(self.history.counted, [])
        self.clock.advance(INTERVAL)
        self.assertEqual(
            self.history.counted,
            [
                HandshakeFailures(
                    "n/mx", NOON, "tls-remote-alert-45-expired-certificate", 3
                ),
                HandshakeFailures("n/submission", NOON, "tls-record-header-error", 1),
            ],
        )
        self.clock.advance(INTERVAL)
        self.assertEqual(self.history.writes, 1)
        self.clock.pump([INTERVAL] * 60)
        self.alert()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.history.counted[-1].hour, NOON + HOUR)

    def test_stop(self) -> None:
        """
        The stop writes the rest, also without a start.
        """
        self.successResultOf(self.recorder.stopService())
        self.recorder.startService()
        self.alert()
        self.successResultOf(self.recorder.stopService())
        self.assertEqual(len(self.history.counted), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_outage(self) -> None:
        """
        What can't be written waits, and is written once it can be.
        """
        self.history.error = StoreUnavailable("down")
        self.recorder.startService()
        self.observer.certificateUsed(selfSigned("mx.example").certificate, True)
        self.alert(count=2)
        self.clock.pump([INTERVAL] * 3)
        self.alert()
        self.history.error = None
        self.clock.advance(INTERVAL)
        self.assertEqual(sum(self.history.sums().values()), 3)
        self.assertEqual(len(self.history.seen), 1)

    def test_defect(self) -> None:
        """
        A store that fails in another way is logged, and asked again.
        """
        self.history.error = ValueError("defect")
        self.recorder.startService()
        self.alert()
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.history.error = None
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.history.counted), 1)

    def test_reasons(self) -> None:
        """
        Clients can't cause more than a number of reasons in an hour, however often
        the counts are written; all failures are counted.
        """
        self.recorder.startService()
        for number in range(250):
            self.alert(number)
            if number % 50 == 0:
                self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL)
        sums = self.history.sums()
        self.assertEqual(len(sums), MAX_REASONS + 1)
        self.assertEqual(sum(sums.values()), 250)
        self.assertEqual(sums[OTHER], 250 - MAX_REASONS)

    def test_memory(self) -> None:
        """
        During a long outage the memory is bounded: new hours aren't counted.
        """
        self.history.error = StoreUnavailable("down")
        self.recorder.startService()
        for _ in range(MAX_WAITING // MAX_REASONS + 50):
            for number in range(MAX_REASONS):
                self.alert(number)
            self.clock.advance(HOUR)
        self.history.error = None
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.history.counted), MAX_WAITING)

    def test_certificates(self) -> None:
        """
        A certificate is recorded with its names and validity; one that is used only
        for clients that ask for its name, under that name.
        """
        one = selfSigned("b.example", "A.example").certificate
        self.observer.certificateUsed(one, True)
        self.observer.certificateUsed(one, False)
        self.recorder.startService()
        default, other = self.history.seen
        self.assertEqual((default.listener, other.listener), ("n/mx", "n/mx/a.example"))
        self.assertEqual(default.names, ("a.example", "b.example"))
        self.assertEqual((default.since, len(default.fingerprint)), (NOON, 64))
        self.assertLess(default.notBefore, default.notAfter)


class SocketTests(TestCase):
    """
    Tests for the events of real handshakes on a listener.
    """

    def setUp(self) -> None:
        self.history = RecordedHistory()
        self.recorder = ListenerRecorder(reactor, reactor, self.history, "n")
        self.folder = Path(self.mktemp())
        self.files = writeCertificate(self.folder, "one.example")
        self.context = ReloadingContext(*self.files, (), self.recorder.observer("mx"))

    def listen(self, immediate: bool) -> int:
        """
        Start a listener, and return its port.
        """
        settings = ListenerSettings(
            ServerSettings("mx.example", starttls=not immediate), immediateTLS=immediate
        )
        factory = SMTPServerFactory(
            reactor,
            settings,
            AcceptingDelivery(),
            self.context,
        )
        over = TLSMemoryBIOFactory(self.context, False, factory)
        port = reactor.listenTCP(
            0, over if immediate else factory, interface="127.0.0.1"
        )

        async def stop() -> None:
            await maybeDeferred(port.stopListening)
            await factory.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        number: int = port.getHost().port
        return number

    async def connect(
        self, port: int, starttls: bool, talk: Callable[[socket.socket], None]
    ) -> None:
        """
        Connect, say STARTTLS if wanted, and hand the socket over.
        """

        def run() -> None:
            with socket.create_connection(("127.0.0.1", port), MAX_WAIT) as line:
                if starttls:
                    line.recv(1000)
                    line.sendall(b"EHLO client.example\r\n")
                    line.recv(1000)
                    line.sendall(b"STARTTLS\r\n")
                    line.recv(1000)
                talk(line)

        await deferToThread(run)

    async def reasons(self, count: int) -> dict[str, int]:
        """
        Wait for C{count} failures, and write them.
        """
        for _ in range(int(MAX_WAIT / 0.02)):
            await self.recorder._flush()
            if sum(self.history.sums().values()) >= count:
                break
            await deferLater(reactor, 0.02)
        return self.history.sums()

    async def test_failures(self) -> None:
        """
        Handshakes that fail are counted by their reasons, with STARTTLS and with
        immediate TLS: clients that reject the certificate, that have no common version,
        that speak no TLS, and that give up.
        """
        for immediate in (False, True):
            self.history.counted.clear()
            port = self.listen(immediate)
            for talk in (_reject, _oldTLS, _noTLS, _giveUp):
                await self.connect(port, not immediate, talk)
            reasons = await self.reasons(4)
            self.assertEqual(
                reasons,
                {
                    "tls-remote-alert-48-unknown-certificate-authority": 1,
                    "tls-local-alert-70-protocol-version-not-supported": 1,
                    "tls-record-header-error": 1,
                    "connection-closed-during-handshake": 1,
                },
            )

    async def test_successes(self) -> None:
        """
        Handshakes that complete aren't counted, nor connections without one.
        """
        port = self.listen(immediate=True)
        await self.connect(port, False, _accept)
        await self.connect(port, False, lambda line: None)
        await self.connect(port, False, _giveUp)
        reasons = await self.reasons(1)
        self.assertEqual(reasons, {"connection-closed-during-handshake": 1})

    async def test_reload(self) -> None:
        """
        The certificate in use is recorded at the start, and when it is replaced.
        """
        port = self.listen(immediate=True)
        await self.connect(port, False, _accept)
        writeCertificate(self.folder, "two.example")
        await self.connect(port, False, _accept)
        await self.recorder._flush()
        names = [each.names for each in self.history.seen]
        self.assertEqual(names, [("one.example",), ("two.example",)])


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return context


def _reject(line: socket.socket) -> None:
    try:
        _context().wrap_socket(line)
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("the certificate was accepted")


def _accept(line: socket.socket) -> None:
    context = _context()
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(line) as secure:
        secure.recv(1000)


def _oldTLS(line: socket.socket) -> None:
    # A ClientHello of TLS 1.0, without extensions.
    body = b"\3\1" + bytes(32) + b"\0" + b"\0\2\0\x2f" + b"\1\0"
    message = b"\1" + len(body).to_bytes(3, "big") + body
    line.sendall(b"\x16\3\1" + len(message).to_bytes(2, "big") + message)
    line.recv(1000)


def _noTLS(line: socket.socket) -> None:
    line.sendall(b"GET / HTTP/1.0\r\n\r\n")
    line.recv(1000)


def _giveUp(line: socket.socket) -> None:
    # The half of a ClientHello.
    line.sendall(b"\x16\3\1\2\0" + bytes(100))
