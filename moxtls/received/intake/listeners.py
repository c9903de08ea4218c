# -*- test-case-name: tests.received.intake.test_listeners -*-
"""
Records the failed TLS handshakes and the certificates of this host's listeners, to
compare received TLS reports with.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import HOUR, MINUTE
from moxtls.outages import logUnlessOutage
from moxtls.received.analysis.correlation import listenerKey
from moxtls.received.interfaces import IListenerHistory
from moxtls.received.types import CertificateSeen, HandshakeFailures
from moxtls.tls.server import IServerTLSObserver, certificateNames
from moxtls.tls.session import TLSError, tlsErrorFailure

#: Seconds between writes.
INTERVAL = MINUTE
#: Reasons of one listener that are counted apart in one hour: clients choose them.
#: There are a dozen in practice.
MAX_REASONS = 20
#: The reason under which further ones are counted.
OTHER = "other"
#: Characters of a reason, and of a certificate's names.
MAX_REASON = 100
MAX_NAMES = 100
#: Counts and certificates that wait while the ledger can't be written.
MAX_WAITING = 2000

_Key = tuple[str, int, str]


class ListenerRecorder(Service):
    """
    Counts in memory, and writes once a minute and when it stops.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        timers: IReactorTime,
        history: IListenerHistory,
        node: str,
    ) -> None:
        """
        @param clock: For dates.
        @param timers: For the interval.
        @param node: The name of this node, as others may share the ledger.
        """
        self._clock = clock
        self._history = history
        self._node = node
        self._counts: Counter[_Key] = Counter()
        self._reasons: dict[str, tuple[int, set[str]]] = {}
        self._certificates: list[CertificateSeen] = []
        self._loop = LoopingCall(self._flush)
        self._loop.clock = timers
        self._running: Deferred[LoopingCall] | None = None

    def observer(self, listener: str) -> IServerTLSObserver:
        """
        The observer of one listener.

        @param listener: Its name in the configuration.
        """
        return _ListenerObserver(self, listenerKey(self._node, listener))

    def startService(self) -> None:
        super().startService()
        self._running = self._loop.start(INTERVAL)

    def stopService(self) -> Deferred[None]:
        """
        @return: Fires once everything is written, or can't be.
        """
        super().stopService()
        running, self._running = self._running, None
        if running is None:
            return succeed(None)
        self._loop.stop()
        # It fires when the last call has ended.
        return running.addCallback(lambda _: self._flush())

    def handshakeFailed(self, listener: str, error: TLSError) -> None:
        """
        Count a failed handshake.
        """
        hour = int(self._clock.seconds()) // HOUR * HOUR
        _, code = tlsErrorFailure(error)
        reason = (code or error.reason or OTHER)[:MAX_REASON]
        key = (listener, hour, self._limited(listener, hour, reason))
        if key in self._counts or len(self._counts) < MAX_WAITING:
            self._counts[key] += 1

    def _limited(self, listener: str, hour: int, reason: str) -> str:
        """
        C{reason}, or C{OTHER} if there were too many in this hour.
        """
        since, reasons = self._reasons.get(listener, (hour, set()))
        if since != hour:
            reasons = set()
        self._reasons[listener] = (hour, reasons)
        if reason not in reasons and len(reasons) >= MAX_REASONS:
            return OTHER
        reasons.add(reason)
        return reason

    def certificateUsed(self, listener: str, certificate: x509.Certificate) -> None:
        """
        Record that a listener begins to use a certificate.
        """
        if len(self._certificates) >= MAX_WAITING:
            return
        seen = CertificateSeen(
            listener,
            self._clock.seconds(),
            sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
            tuple(sorted(certificateNames(certificate))[:MAX_NAMES]),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
        )
        self._certificates.append(seen)

    def _flush(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._write())

    async def _write(self) -> None:
        try:
            while self._certificates:
                await self._history.addCertificate(self._certificates[0])
                del self._certificates[0]
            await self._writeCounts()
        except CancelledError:
            raise
        except Exception:
            # Once a minute they are written again.
            logUnlessOutage(self.log, "recording TLS events of listeners failed")

    async def _writeCounts(self) -> None:
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            await self._history.addFailures(
                [HandshakeFailures(*key, count) for key, count in counts.items()]
            )
        except BaseException:
            self._counts.update(counts)
            raise


@implementer(IServerTLSObserver)
class _ListenerObserver:
    """
    Names the listener of each event.
    """

    def __init__(self, recorder: ListenerRecorder, listener: str) -> None:
        self._recorder = recorder
        self._listener = listener

    def handshakeFailed(self, error: TLSError) -> None:
        self._recorder.handshakeFailed(self._listener, error)

    def certificateUsed(self, certificate: x509.Certificate, isDefault: bool) -> None:
        listener = self._listener
        if not isDefault:
            # Its certificates are replaced one by one.
            names = sorted(certificateNames(certificate))
            listener = listenerKey(listener, names[0] if names else "")
        self._recorder.certificateUsed(listener, certificate)
