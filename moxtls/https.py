# -*- test-case-name: tests.test_https -*-
"""
A small HTTPS client, for fetching MTA-STS policies and posting reports.

Names are resolved by our own resolver; nothing is sent before the Web PKI is
content with the certificate; the time and what is read are limited; redirects
are answers like others; there are no proxies, caches, cookies or second
requests on a connection.

One connection of L{moxtls.https.HTTPSClient}: from a name to a verified peer,
and the body that comes from there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from io import BytesIO
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from moxtls.dns.types import ADDRESS_TYPES, ExtendedError
from moxtls.domain import Domain, InvalidDomain
from moxtls.interfaces import IResolver
from moxtls.tasks import cancelPromptly, gather
from moxtls.tls.session import CertificateVerification
from moxtls.tls.verify import RecordingVerifier, TrustStore

__all__ = [
    "CertificateVerification",
    "HTTPSClient",
    "HTTPSErrorKind",
    "HTTPSFailure",
    "Response",
]


#: RFC 8461 3.3 suggests a minute for a policy; reports are no more urgent.
REQUEST_TIMEOUT = 60.0
#: RFC 8461 3.3 suggests this for a policy; nobody has more to say to a report.
MAX_BODY = 64 * 1024
HTTPS_PORT = 443
#: Header fields of answers that somebody might want to look at.
KEPT_FIELDS = ("content-type", "location", "retry-after")
_MAX_FIELD = 1000


class HTTPSErrorKind(Enum):
    """
    Why there was no answer.

    C{NO_NAME}: the host doesn't exist, or has no address.  C{LOOKUP}: the DNS
    couldn't say.  C{CONNECT}: none of its addresses takes connections.
    C{CERTIFICATE}: the Web PKI objects.  C{TIMEOUT}: it took too long, all in
    all.  C{TOO_LARGE}: the body is.  C{PROTOCOL}: what came was not TLS, not
    HTTP, or not complete; or the URL is none for this client.
    """

    NO_NAME = auto()
    LOOKUP = auto()
    CONNECT = auto()
    CERTIFICATE = auto()
    TIMEOUT = auto()
    TOO_LARGE = auto()
    PROTOCOL = auto()


@dataclass(frozen=True, slots=True)
class HTTPSFailure:
    """
    There was no answer.

    @ivar reason: For the log; may hold a stranger's words.
    @ivar verification: What is wrong with the certificate, for
        C{CERTIFICATE}.
    @ivar dnssecError: Why the addresses were refused, for C{LOOKUP}, if it was
        because of DNSSEC.
    """

    kind: HTTPSErrorKind
    reason: str = ""
    verification: CertificateVerification | None = None
    dnssecError: ExtendedError | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """
    An answer, whatever its status.

    @ivar headers: Those of L{KEPT_FIELDS} that it has.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """
        The first field of that name, in lower case; empty if there is none.
        """
        return next((value for field, value in self.headers if field == name), "")


_Result = Response | HTTPSFailure


@dataclass(frozen=True, slots=True)
class _Target:
    host: Domain
    port: int
    uri: bytes


class HTTPSClient:
    """
    Makes one request per connection.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        clock: IReactorTime,
        resolver: IResolver,
        trust: TrustStore,
        port: int = HTTPS_PORT,
        timeLimit: float = REQUEST_TIMEOUT,
    ) -> None:
        """
        @param trust: From L{moxtls.tls.verify.loadTrustStore}.
        @param port: To connect to where a URL names none.
        @param timeLimit: For everything from the DNS to the end of the body.
        """
        self._reactor = reactor
        self._clock = clock
        self._resolver = resolver
        self._trust = trust
        self._port = port
        self._timeLimit = timeLimit

    def get(
        self, url: str, bodyLimit: int = MAX_BODY
    ) -> Deferred[Response | HTTPSFailure]:
        """
        @return: Fires with the answer, or with why there is none.  Cancelling
            closes the connection.
        """
        return self._run(b"GET", url, {}, None, bodyLimit)

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        bodyLimit: int = MAX_BODY,
    ) -> Deferred[Response | HTTPSFailure]:
        """
        @param headers: To be sent, such as C{Content-Type}.

        @return: As L{get}.
        """
        return self._run(b"POST", url, headers, body, bodyLimit)

    def _run(
        self,
        method: bytes,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        bodyLimit: int,
    ) -> Deferred[Response | HTTPSFailure]:
        fields = Headers({"User-Agent": ["moxtls"]})
        for name, value in headers.items():
            fields.setRawHeaders(name, [value])
        producer = None if body is None else FileBodyProducer(BytesIO(body))
        attempt = Deferred.fromCoroutine(
            self._attempt(method, url, fields, producer, bodyLimit)
        )
        # The Agent makes other errors of being cancelled.
        running = cancelPromptly(attempt)
        running.addTimeout(self._timeLimit, self._clock)
        return running.addErrback(_timedOut)

    async def _attempt(
        self,
        method: bytes,
        url: str,
        headers: Headers,
        producer: FileBodyProducer | None,
        bodyLimit: int,
    ) -> Response | HTTPSFailure:
        target = _target(url, self._port)
        if target is None:
            return HTTPSFailure(HTTPSErrorKind.PROTOCOL, "not a usable https: URL")
        connection = HTTPSConnection(
            self._reactor,
            self._clock,
            self._resolver,
            self._trust,
            target.host,
            target.port,
        )
        agent = Agent.usingEndpointFactory(self._reactor, connection)
        try:
            response = await agent.request(method, target.uri, headers, producer)
            body = await connection.readBody(response, bodyLimit)
        except CancelledError:
            raise
        except Exception as error:
            return _failure(error)
        finally:
            connection.abort()
        return Response(response.code, _kept(response), body)


def _target(url: str, port: int) -> _Target | None:
    try:
        parts = urlsplit(url)
        host = Domain.parse(parts.hostname or "")
        given = parts.port
        uri = parts._replace(fragment="").geturl().encode("ascii")
    except (ValueError, InvalidDomain):
        return None
    if parts.scheme != "https" or "@" in parts.netloc or _isAddress(host.ascii):
        return None
    return _Target(host, given or port, uri)


def _isAddress(host: str) -> bool:
    # No certificate that the Web PKI issues for names could match.
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _kept(response: IResponse) -> tuple[tuple[str, str], ...]:
    fields = ((name, response.headers.getRawHeaders(name)) for name in KEPT_FIELDS)
    return tuple((name, got[0][:_MAX_FIELD]) for name, got in fields if got)


def _failure(error: Exception) -> HTTPSFailure:
    match error:
        case NoAddress():
            kind = HTTPSErrorKind.LOOKUP if error.failed else HTTPSErrorKind.NO_NAME
            return HTTPSFailure(kind, str(error), dnssecError=error.dnssecError)
        case HTTPSConnectFailed():
            return HTTPSFailure(HTTPSErrorKind.CONNECT, str(error))
        case CertificateRejected():
            return HTTPSFailure(
                HTTPSErrorKind.CERTIFICATE, "not trusted", error.verification
            )
        case BodyTooLarge():
            return HTTPSFailure(HTTPSErrorKind.TOO_LARGE, "body is too large")
        case ConnectionBroken():
            return HTTPSFailure(HTTPSErrorKind.PROTOCOL, str(error))
        case _:
            # What the Agent and its parser raise when they meet what is no
            # HTTP has no common base.
            return HTTPSFailure(HTTPSErrorKind.PROTOCOL, type(error).__name__)


def _timedOut(failure: Failure) -> HTTPSFailure:
    failure.trap(TimeoutError)
    return HTTPSFailure(HTTPSErrorKind.TIMEOUT, "took too long")


#: More than the header fields of a sane answer, interim ones included.
MAX_HEADER_BYTES = 64 * 1024
#: How many addresses of a host are tried, and for how many seconds each.
MAX_ADDRESSES = 6
CONNECT_TIMEOUT = 15


class NoAddress(Exception):
    """
    @ivar failed: A lookup failed; otherwise there is none.
    @ivar dnssecError: It failed because of DNSSEC.
    """

    def __init__(
        self, failed: bool, reason: str, dnssecError: ExtendedError | None
    ) -> None:
        super().__init__(reason)
        self.failed = failed
        self.dnssecError = dnssecError


class HTTPSConnectFailed(Exception):
    """
    No address took a connection.
    """


class CertificateRejected(Exception):
    """
    The Web PKI objects to the peer's certificate.
    """

    def __init__(self, verification: CertificateVerification) -> None:
        super().__init__()
        self.verification = verification


class ConnectionBroken(Exception):
    """
    The connection ended, or was ended, too early.
    """


class BodyTooLarge(Exception):
    """
    The body of an answer has more than the limit.
    """


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class HTTPSConnection:
    """
    Both the endpoint of one request and what may be done with its connection.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        clock: IReactorTime,
        resolver: IResolver,
        trust: TrustStore,
        host: Domain,
        port: int,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._resolver = resolver
        self._trust = trust
        self._host = host
        self._port = port
        self._gate: _Gate | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Fires with a protocol from C{protocolFactory} once the handshake has
        completed and the certificate will do.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def readBody(self, response: IResponse, limit: int) -> bytes:
        """
        @raise BodyTooLarge: It has more than C{limit} bytes.
        @raise Broken: The connection ended within it.
        """
        gate = self._gate
        if gate is not None:
            gate.bounded = False
        body = _Body(limit, lambda: gate is not None and gate.endedInOrder)
        response.deliverBody(body)
        return await body.done

    def abort(self) -> None:
        """
        Close it, whatever its state.
        """
        if self._gate is not None:
            self._gate.abort()

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        reason = ""
        for address in await self._addresses():
            witness = RecordingVerifier(self._trust, (self._host.ascii,))
            gate = _Gate(witness, factory)
            try:
                await self._endpoint(address, witness).connect(_Only(gate))
            except CancelledError:
                raise
            except Exception as error:
                # Whatever is wrong with one address, there may be another.
                reason = f"{address}: {error}"
                continue
            self._gate = gate
            return await gate.passed
        raise HTTPSConnectFailed(reason)

    async def _addresses(self) -> list[str]:
        lookUp = self._resolver.lookup
        pending = [lookUp(self._host.ascii, kind) for kind in ADDRESS_TYPES]
        answers = await gather(pending)
        addresses = [each for answer in answers for each in answer.addresses]
        failed = [answer for answer in answers if answer.failed]
        if not addresses:
            reason = failed[0].reason if failed else "host has no address"
            errors = [each.dnssecError for each in failed if each.dnssecError]
            raise NoAddress(bool(failed), reason, next(iter(errors), None))
        return addresses[:MAX_ADDRESSES]

    def _endpoint(
        self, address: str, witness: RecordingVerifier
    ) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        tcp = kind(self._reactor, address, self._port, timeout=CONNECT_TIMEOUT)
        return wrapClientTLS(witness, tcp, clock=self._clock)


class _Only(Factory):
    """
    Has made its one protocol already.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


@implementer(IHandshakeListener)
class _Gate(Protocol):
    """
    Lets a protocol in when the certificate has been looked at, not before.

    @ivar passed: Fires with that protocol.
    @ivar bounded: Whether there is a limit to what may still come.
    @ivar endedInOrder: Whether the peer has said goodbye (RFC 8446 6.1), so
        that nothing was cut off.
    """

    transport: ITCPTransport | None

    def __init__(self, witness: RecordingVerifier, factory: IProtocolFactory) -> None:
        self.passed: Deferred[IProtocol] = Deferred(self._cancel)
        self.bounded = True
        self.endedInOrder = False
        self._witness = witness
        self._factory = factory
        self._inner: IProtocol | None = None
        self._received = 0

    def handshakeCompleted(self) -> None:
        verification = self._witness.verification()
        transport = self.transport
        if self.passed.called or transport is None:
            return
        if not verification.ok:
            self._end(CertificateRejected(verification))
            return
        inner = self._factory.buildProtocol(transport.getPeer())
        if inner is None:
            self._end(ConnectionBroken("not wanted any more"))
            return
        self._inner = inner
        inner.makeConnection(transport)
        self.passed.callback(inner)

    def dataReceived(self, data: bytes) -> None:
        if self.bounded and self._received > MAX_HEADER_BYTES:
            self.abort()
        elif self._inner is not None:
            self._received += len(data)
            self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.endedInOrder = reason.check(ConnectionDone) is not None
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.passed.called:
            self.passed.errback(
                ConnectionBroken(f"no handshake: {reason.value!r}"[:200])
            )

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()

    def _cancel(self, passed: Deferred[IProtocol]) -> None:
        self._end(CancelledError())

    def _end(self, error: Exception) -> None:
        self.passed.errback(error)
        self.abort()


class _Body(Protocol):
    """
    Collects the body of an answer.
    """

    def __init__(self, limit: int, endedInOrder: Callable[[], bool]) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._limit = limit
        self._endedInOrder = endedInOrder
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
        elif not self.done.called:
            # Whoever waits closes the connection.
            self._parts.clear()
            self.done.errback(BodyTooLarge())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # PotentialDataLoss: neither a length nor chunks, so the end of the
        # connection is that of the body.  RFC 9112 9.8: not if it was cut.
        if reason.check(ResponseDone) or (
            reason.check(PotentialDataLoss) and self._endedInOrder()
        ):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(ConnectionBroken("ended within the body"))
