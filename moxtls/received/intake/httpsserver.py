# -*- test-case-name: tests.received.intake.test_httpsserver -*-
"""
Receives TLS reports by HTTPS (RFC 8460 3, 5.4).

Anybody may send a report by HTTPS in the name of anybody else, so that its submitter is
not authenticated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request, datetimeToString
from twisted.web.http_headers import Headers

from moxtls.ipaddresses import parseIP
from moxtls.outages import logUnlessOutage
from moxtls.received.intake.authenticity import judge
from moxtls.received.intake.intake import (
    IntakeResult,
    Judged,
    ReadingUnavailable,
    ReportIntake,
)
from moxtls.received.reading.documents import MAX_INPUT
from moxtls.received.types import (
    AddResult,
    Channel,
    Origin,
    ParsedReport,
    ReceivedKind,
    RefusedReport,
)
from moxtls.smtp.rates import (
    ClientNetwork,
    ConnectionLimits,
    LogLimiter,
    RateLimiter,
    networkOf,
)
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.tasks import TaskGroup
from moxtls.tlsrpt.parse import escapeUnprintable

#: RFC 8460 6.4, 6.5.
MEDIA_TYPES = ("application/tlsrpt+gzip", "application/tlsrpt+json")
#: Seconds without data from the client.
IDLE_TIMEOUT = 20
#: Seconds for a whole request until its last octet: 25 MB at 1.7 Mbit/s.
REQUEST_TIMEOUT = 120
#: Seconds until the response after that; most clients wait for a minute.  What is
#: stored later is a duplicate when the client tries again.
RESPONSE_TIMEOUT = 50
#: Octets of all requests in memory, and of those of one network.
MAX_MEMORY = 100 * 2**20
MAX_NETWORK_MEMORY = 2 * MAX_INPUT
#: Octets, and seconds, of the rest of a refused request, which is read and discarded: a
#: client that is still sending when the connection is closed wouldn't see the reason.
MAX_DISCARDED = 2**20
DISCARD_TIMEOUT = 5
#: Octets of the pieces in which a request is kept: clients may send it in chunks of one
#: octet, which would need 40 times their memory.
MIN_PIECE = 64 * 1024
#: Header fields of a request, and their octets.
MAX_FIELDS = 100
MAX_HEADER = 16 * 1024
#: Seconds after which a client is to try again.
RETRY_AFTER = 60
#: Characters of the reason in a response.
MAX_REASON = 300

_BRIEF = (
    "TLS reports (RFC 8460) are taken here by POST, as application/tlsrpt+gzip or "
    "application/tlsrpt+json"
)
#: RFC 9110 15.6.4, RFC 6585 4: worth trying again.
_TEMPORARY = (429, 503)


class _Memory:
    """
    Octets of requests in memory, by network.
    """

    def __init__(self) -> None:
        self._total = 0
        self._perNetwork: Counter[str] = Counter()

    def take(self, network: str, octets: int) -> bool:
        """
        Return false if there isn't enough left.
        """
        isFull = self._total + octets > MAX_MEMORY
        if isFull or self._perNetwork[network] + octets > MAX_NETWORK_MEMORY:
            return False
        self._total += octets
        self._perNetwork[network] += octets
        return True

    def giveBack(self, network: str, octets: int) -> None:
        self._total -= octets
        self._perNetwork[network] -= octets
        if not self._perNetwork[network]:
            del self._perNetwork[network]


class ReportServerFactory(ServerFactory):
    """
    Makes the connections of one listener for reports, and enforces its limits.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        settings: ListenerSettings,
        intake: ReportIntake,
        ours: Collection[str],
        now: Callable[[], float],
        tls: IOpenSSLServerConnectionCreator | None = None,
    ) -> None:
        """
        @param clock: For limits.
        @param ours: As for L{judge}.
        @param now: The date in Unix seconds.
        """
        self.clock = clock
        self.settings = settings
        self.tls = tls
        self.now = now
        self.memory = _Memory()
        self.maxSize = min(settings.server.maxSize or MAX_INPUT, MAX_INPUT)
        self._intake = intake
        self._ours = ours
        self._limits = ConnectionLimits(
            settings.maxConnectionsPerAddress,
            settings.maxConnectionsPerNetwork,
            settings.maxConnectionRate,
        )
        self._requestRate = RateLimiter(settings.maxMessageRate)
        self._logLimiter = LogLimiter()
        self._channels: set[ReportChannel] = set()
        # Their number is limited by L{_Memory}.
        self._taking = TaskGroup(MAX_MEMORY)
        self._isStopping = False
        self._closed: Deferred[None] | None = None

    @property
    def hasImmediateTLS(self) -> bool:
        return self.settings.immediateTLS

    def buildProtocol(self, addr: IAddress | None) -> ReportChannel | None:
        """
        Make the protocol of a connection; C{None} to close one that exceeds a limit.
        """
        peer = str(getattr(addr, "host", ""))
        source = networkOf(peer)
        if self._isStopping:
            return None
        isFull = len(self._channels) >= self.settings.maxConnections
        exceeded = self._limits.exceeded(source, self.clock.seconds())
        limit = "MaxConnections" if isFull else exceeded
        if limit:
            self._logLimit(limit, source)
            return None
        return ReportChannel(self, peer, source)

    def _logLimit(self, limit: str, source: ClientNetwork) -> None:
        count = self._logLimiter.due(limit, self.clock.seconds())
        if count:
            self.log.warn(
                "refusing HTTPS clients, as {limit} is reached: {count} refused, the "
                "latest {host!r}",
                limit=limit,
                count=count,
                host=source.address,
            )

    def opened(self, channel: ReportChannel) -> None:
        self._channels.add(channel)
        self._limits.opened(channel.source)

    def closed(self, channel: ReportChannel) -> None:
        self._channels.discard(channel)
        self._limits.closed(channel.source)
        if self._closed is not None and not self._channels:
            self._closed.callback(None)

    def allowsRequest(self, client: str) -> bool:
        source = networkOf(client)
        isAllowed = self._requestRate.take(source, self.clock.seconds())
        if not isAllowed:
            self._logLimit("MaxMessageRate", source)
        return isAllowed

    def take(self, content: list[bytes | bytearray], client: str) -> Deferred[Answer]:
        """
        Store the report in a request.

        @return: Fires with the response once the report is stored.
        """
        return self._taking.begin(self._take(content, client))

    def stop(self) -> Deferred[None]:
        """
        Close all connections; those with a report that is being stored get their
        response first.  To be called when all ports have stopped listening.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._isStopping = True
        for channel in tuple(self._channels):
            channel.stop()
        await self._taking.finished()
        if self._channels:
            self._closed = Deferred()
            await self._closed

    async def _take(self, content: list[bytes | bytearray], client: str) -> Answer:
        origin = Origin(Channel.HTTPS, client, "", self.now())
        judge = partial(judgeSent, origin=origin, ours=self._ours)
        network = networkOf(client).network
        try:
            results = await self._intake.take(content, origin, judge, client=network)
        except CancelledError:
            raise
        except ReadingUnavailable as error:
            return Answer(503, str(error))
        except Exception:
            logUnlessOutage(self.log, "storing a report received by HTTPS failed")
            return Answer(503, "the report can't be stored now")
        answer = answerTo(results)
        self.log.info(
            "report by HTTPS from {host!r}: {status}: {text!r}",
            host=client,
            status=answer.status,
            text=answer.text[:MAX_REASON],
        )
        return answer


def judgeSent(report: ParsedReport, origin: Origin, ours: Collection[str]) -> Judged:
    """
    Decide about a report that was sent by HTTPS.
    """
    if report.kind is not ReceivedKind.TLS:
        reason = "only TLS reports are taken by HTTPS"
        return RefusedReport(origin, reason, report.kind, report)
    return judge(report, origin, ours)


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A response.

    @ivar status: The status code (RFC 9110 15).
    @ivar text: One line.
    """

    status: int
    text: str

    @property
    def content(self) -> bytes:
        return escapeUnprintable(self.text)[:MAX_REASON].encode() + b"\n"


def answerTo(results: Sequence[IntakeResult]) -> Answer:
    """
    The response to a request whose content was taken in, with these results.
    """
    added = [each.added for each in results if each.added is not None]
    refused = [
        each.judged for each in results if isinstance(each.judged, RefusedReport)
    ]
    known = added.count(AddResult.DUPLICATE)
    said = []
    if len(added) > known:
        said.append(f"{len(added) - known} stored")
    if known:
        said.append(f"{known} stored already")
    if refused:
        said.append(f"refused: {refused[0].reason}")
    # RFC 9110 15.5.21: the syntax is correct, but not the content.
    isReport = any(each.report is not None for each in refused)
    status = 200 if added else 422 if isReport else 400
    return Answer(status, "; ".join(said))


class ReportRequest(Request):
    """
    One request.

    @ivar isTaken: True once its report is being stored.
    """

    channel: ReportChannel

    def __init__(self, channel: ReportChannel, queued: object = False) -> None:
        super().__init__(channel, False)
        self.isTaken = False
        self._server = channel.server
        self._client = channel.peer
        self._refusal: Answer | None = None
        self._isAnswered = False
        self._isComplete = False
        self._pieces: list[bytes | bytearray] = []
        self._size = 0
        self._discarded = 0
        self._timer: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """
        Called after the header.

        @param length: Octets of the content; C{None} if it is sent in chunks.
        """
        self._client = clientOf(self.channel.peer, self.requestHeaders)
        self._refusal = self._refusalOf(length)
        if self._refusal is not None and length != 0:
            self._refuse(self._refusal)

    def _refusalOf(self, length: int | None) -> Answer | None:
        if not self._server.allowsRequest(self._client):
            return Answer(429, "too many requests from you; try again later")
        if length == 0:
            return None
        if length is not None and length > self._server.maxSize:
            return _tooLarge(self._server.maxSize)
        return None if _isReport(self.requestHeaders) else _WRONG_TYPE

    def handleContentChunk(self, data: bytes) -> None:
        if self._isAnswered:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.channel.abort()
        elif self._size + len(data) > self._server.maxSize:
            self._refuse(_tooLarge(self._server.maxSize))
        elif not self._server.memory.take(self._network, len(data)):
            self._refuse(Answer(503, "too many reports at a time; try again later"))
        else:
            self._size += len(data)
            if len(data) >= MIN_PIECE:
                self._pieces.append(data)
            else:
                self._append(data)

    def _append(self, data: bytes) -> None:
        last = self._pieces[-1] if self._pieces else b""
        if isinstance(last, bytearray) and len(last) < MIN_PIECE:
            last += data
        else:
            self._pieces.append(bytearray(data))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        Called after the content.
        """
        self._isComplete = True
        self.method, self.uri, self.clientproto = command, path, version
        if self._isAnswered:
            self.finish()
        else:
            self.process()

    def process(self) -> None:
        if self._refusal is not None:
            self._respond(self._refusal)
        elif self.method != b"POST":
            self.setHeader(b"Allow", b"POST")
            self._respond(Answer(405, _BRIEF))
        elif not _isReport(self.requestHeaders):
            self._respond(_WRONG_TYPE)
        elif not self._size:
            self._respond(Answer(400, "the request has no content"))
        else:
            self._take()

    def _take(self) -> None:
        late = Answer(503, "storing the report takes long; try again later")
        clock = self._server.clock
        self._timer = clock.callLater(RESPONSE_TIMEOUT, self._respond, late)
        self.isTaken = True
        pieces, self._pieces = self._pieces, []
        size, self._size = self._size, 0
        taking = self._server.take(pieces, self._client)
        taking.addBoth(self._taken, size)
        taking.addCallback(self._respond)
        taking.addErrback(self._failed)

    def _taken(self, result: Answer | Failure, size: int) -> Answer | Failure:
        self._server.memory.giveBack(self._network, size)
        return result

    def _failed(self, failure: Failure) -> None:
        self._server.log.failure("answering an HTTPS request failed", failure)
        self.channel.abort()

    def connectionLost(self, reason: Failure) -> None:
        self._isAnswered = True
        self._release()
        super().connectionLost(reason)

    def _release(self) -> None:
        """
        Discard the content.
        """
        self._server.memory.giveBack(self._network, self._size)
        self._size = 0
        self._pieces.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    @property
    def _network(self) -> str:
        return networkOf(self._client).network

    def _refuse(self, answer: Answer) -> None:
        """
        Respond before the end of the content.
        """
        # Twisted would ask for the content.
        self.requestHeaders.removeHeader(b"Expect")
        self.clientproto = b"HTTP/1.1"
        self.channel.persistent = False
        self.channel.setDeadline(DISCARD_TIMEOUT)
        self._respond(answer)

    def _respond(self, answer: Answer) -> None:
        if self._isAnswered:
            return
        self._isAnswered = True
        self._release()
        content = answer.content
        self.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode())
        self.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        self.setHeader(b"Content-Length", b"%d" % len(content))
        self.setHeader(b"X-Content-Type-Options", b"nosniff")
        self.setHeader(b"Date", datetimeToString(self._server.now()))
        if answer.status in _TEMPORARY:
            self.setHeader(b"Retry-After", b"%d" % RETRY_AFTER)
        if not self.channel.persistent:
            self.setHeader(b"Connection", b"close")
        self.write(content)
        if self._isComplete:
            self.finish()


class ReportChannel(HTTPChannel):
    """
    One connection.

    @ivar source: The network of the peer.
    """

    transport: ITCPTransport | None
    requestFactory = ReportRequest  # type: ignore[assignment]  # not called otherwise
    maxHeaders = MAX_FIELDS
    totalHeadersSize = MAX_HEADER
    timeOut = IDLE_TIMEOUT

    def __init__(
        self, factory: ReportServerFactory, peer: str, source: ClientNetwork
    ) -> None:
        super().__init__()
        self.server = factory
        self.peer = peer
        self.source = source
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self.server.opened(self)
        super().connectionMade()
        self.setDeadline(REQUEST_TIMEOUT)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setDeadline(None)
        super().connectionLost(reason)
        self.server.closed(self)

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        return self.server.clock.callLater(period, func)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # A Content-Length with more digits than Python converts.
            self.abort()
            return False

    def timeoutConnection(self) -> None:
        # Not logged: strangers decide how often it happens.
        self.abort()

    def allContentReceived(self) -> None:
        self.setDeadline(None)
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self.setDeadline(REQUEST_TIMEOUT)
        super().requestDone(request)

    def stop(self) -> None:
        """
        Close the connection, after the response to a request that is complete.
        """
        if any(each.isTaken for each in self.requests):
            self.persistent = False
        else:
            self.abort()

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        if self.transport is not None:
            self.transport.abortConnection()

    def setDeadline(self, seconds: float | None) -> None:
        """
        Close the connection unless the request is complete by then.
        """
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = self.server.clock.callLater(seconds, self.abort)


_WRONG_TYPE = Answer(415, f"expected {' or '.join(MEDIA_TYPES)}")


def _isReport(headers: Headers) -> bool:
    value = (headers.getRawHeaders(b"content-type") or [b""])[-1]
    # RFC 9110 8.3.1: types are case-insensitive, and may have parameters.
    mediaType = value.decode("latin-1").partition(";")[0]
    return mediaType.strip().lower() in MEDIA_TYPES


def _tooLarge(limit: int) -> Answer:
    return Answer(413, f"reports of at most {limit} bytes are taken")


def clientOf(peer: str, headers: Headers) -> str:
    """
    The IP address of a client.  A reverse proxy on this host adds it at the end of
    X-Forwarded-For; from others that field is ignored, as anybody may send it.
    """
    ip = parseIP(peer)
    if ip is None or not ip.is_loopback:
        return peer
    values = headers.getRawHeaders(b"x-forwarded-for") or [b""]
    forwarded = parseIP(values[-1].decode("latin-1").rpartition(",")[2].strip())
    return peer if forwarded is None else str(forwarded)
