# -*- test-case-name: tests.test_https -*-
"""
HTTPS client for fetching MTA-STS policies and posting reports.

Uses the DNSSEC-aware resolver for names; sends nothing before the certificate is
verified; limits the time and the size of responses.  Redirects are not followed.
There are no proxies, caches, cookies or persistent connections.
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
from moxtls.tls.openssl import RecordingVerifier, TrustStore
from moxtls.tls.session import CertificateVerification

__all__ = [
    "CertificateVerification",
    "HTTPSClient",
    "HTTPSErrorKind",
    "HTTPSFailure",
    "Response",
]


#: Seconds for a whole request.  RFC 8461 3.3 suggests a minute for a policy; reports
#: are no more urgent.
REQUEST_TIMEOUT = 60.0
#: Octets.  RFC 8461 3.3 suggests this for a policy; responses to reports are smaller.
MAX_BODY = 64 * 1024
#: Octets: more than the header fields of any valid response, interim responses
#: included.
MAX_HEADER_BYTES = 64 * 1024
#: Addresses of a host that are tried, and seconds for each.
MAX_ADDRESSES = 6
CONNECT_TIMEOUT = 15
HTTPS_PORT = 443
#: Header fields that a L{Response} keeps, and characters of each.
KEPT_FIELDS = ("content-type", "location", "retry-after")
_MAX_FIELD = 1000


class HTTPSErrorKind(Enum):
    """
    The reason why there was no response.

    C{NO_NAME}: the host doesn't exist, or has no address.  C{LOOKUP}: the DNS
    lookup failed.  C{CONNECT}: none of its addresses accepts connections.
    C{CERTIFICATE}: the Web PKI doesn't verify the certificate.  C{TIMEOUT}: the
    whole request took too long.  C{TOO_LARGE}: the body is too large.
    C{PROTOCOL}: the peer sent something other than TLS or HTTP, or an incomplete
    response; or the URL is not supported.
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
    A request without a response.

    @ivar reason: For the log; may contain untrusted text.
    @ivar verification: The verification errors, for C{CERTIFICATE}.
    @ivar dnssecError: The error of DNSSEC validation, for C{LOOKUP} if that
        failed.
    """

    kind: HTTPSErrorKind
    reason: str = ""
    verification: CertificateVerification | None = None
    dnssecError: ExtendedError | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """
    A response, of any status.

    @ivar headers: The fields of L{KEPT_FIELDS} that are present.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """
        The value of a field; empty if there is none.

        @param name: In lower case.
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
    Makes requests, each on a new connection.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        clock: IReactorTime,
        resolver: IResolver,
        trust: TrustStore,
        port: int = HTTPS_PORT,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        """
        @param trust: From L{moxtls.tls.openssl.loadTrustStore}.
        @param port: The port for URLs without one.
        @param timeout: Seconds for a whole request, from the DNS lookup to the
            end of the body.
        """
        self._reactor = reactor
        self._clock = clock
        self._resolver = resolver
        self._trust = trust
        self._port = port
        self._timeout = timeout

    def get(
        self, url: str, maxBody: int = MAX_BODY
    ) -> Deferred[Response | HTTPSFailure]:
        """
        Make a GET request.

        @param maxBody: Octets.

        @return: Fires with the response, or with the reason why there is none.
            Cancelling closes the connection.
        """
        return self._run(b"GET", url, {}, None, maxBody)

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        maxBody: int = MAX_BODY,
    ) -> Deferred[Response | HTTPSFailure]:
        """
        Make a POST request.

        @param headers: Header fields to send, such as C{Content-Type}.

        @return: As L{get}.
        """
        return self._run(b"POST", url, headers, body, maxBody)

    def _run(
        self,
        method: bytes,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        maxBody: int,
    ) -> Deferred[Response | HTTPSFailure]:
        fields = Headers({"User-Agent": ["moxtls"]})
        for name, value in headers.items():
            fields.setRawHeaders(name, [value])
        producer = None if body is None else FileBodyProducer(BytesIO(body))
        attempt = Deferred.fromCoroutine(
            self._attempt(method, url, fields, producer, maxBody)
        )
        # The Agent makes other errors of being cancelled.
        running = cancelPromptly(attempt)
        running.addTimeout(self._timeout, self._clock)
        return running.addErrback(_timedOut)

    async def _attempt(
        self,
        method: bytes,
        url: str,
        headers: Headers,
        producer: FileBodyProducer | None,
        maxBody: int,
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
            body = await connection.readBody(response, maxBody)
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
    # Certificates of the Web PKI for addresses are not supported.
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
            # The exceptions of Agent and its parser for invalid HTTP have no common
            # base class.
            return HTTPSFailure(HTTPSErrorKind.PROTOCOL, type(error).__name__)


def _timedOut(failure: Failure) -> HTTPSFailure:
    failure.trap(TimeoutError)
    return HTTPSFailure(HTTPSErrorKind.TIMEOUT, "took too long")


class NoAddress(Exception):
    """
    A host has no address, or the lookup failed.

    @ivar failed: True if a lookup failed.
    @ivar dnssecError: The error of DNSSEC validation, if that failed.
    """

    def __init__(
        self, failed: bool, reason: str, dnssecError: ExtendedError | None
    ) -> None:
        super().__init__(reason)
        self.failed = failed
        self.dnssecError = dnssecError


class HTTPSConnectFailed(Exception):
    """
    No address of a host accepts connections.
    """


class CertificateRejected(Exception):
    """
    The Web PKI doesn't verify the peer's certificate.
    """

    def __init__(self, verification: CertificateVerification) -> None:
        super().__init__()
        self.verification = verification


class ConnectionBroken(Exception):
    """
    The connection ended early.
    """


class BodyTooLarge(Exception):
    """
    The body of a response is larger than the limit.
    """


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class HTTPSConnection:
    """
    The connection of one request: looks up the host, connects, verifies the
    certificate, and reads the body.  Is its own endpoint for C{Agent}.
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
        self._protocol: _VerifyingProtocol | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect.

        @return: Fires with a protocol from C{protocolFactory} once the
            certificate is verified.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def readBody(self, response: IResponse, limit: int) -> bytes:
        """
        Read the body of a response.

        @raise BodyTooLarge: It has more than C{limit} octets.
        @raise ConnectionBroken: The connection ended within it.
        """
        protocol = self._protocol
        if protocol is not None:
            protocol.limitsHeader = False
        body = _Body(limit, lambda: protocol is not None and protocol.endedInOrder)
        response.deliverBody(body)
        return await body.done

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        if self._protocol is not None:
            self._protocol.abort()

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        reason = ""
        for address in await self._addresses():
            verifier = RecordingVerifier(self._trust, (self._host.ascii,))
            protocol = _VerifyingProtocol(verifier, factory)
            try:
                await self._endpoint(address, verifier).connect(
                    _SingleProtocolFactory(protocol)
                )
            except CancelledError:
                raise
            except Exception as error:
                # Another address may work.
                reason = f"{address}: {error}"
                continue
            self._protocol = protocol
            return await protocol.verified
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
        self, address: str, verifier: RecordingVerifier
    ) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        tcp = kind(self._reactor, address, self._port, timeout=CONNECT_TIMEOUT)
        return wrapClientTLS(verifier, tcp, clock=self._clock)


class _SingleProtocolFactory(Factory):
    """
    A factory for one existing protocol.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


@implementer(IHandshakeListener)
class _VerifyingProtocol(Protocol):
    """
    Connects a protocol to the transport once the certificate is verified.

    @ivar verified: Fires with that protocol.
    @ivar limitsHeader: True while the octets received are limited to
        L{MAX_HEADER_BYTES}.
    @ivar endedInOrder: True if the peer has sent close_notify (RFC 8446 6.1), so
        that the data was not truncated.
    """

    transport: ITCPTransport | None

    def __init__(self, verifier: RecordingVerifier, factory: IProtocolFactory) -> None:
        self.verified: Deferred[IProtocol] = Deferred(self._cancel)
        self.limitsHeader = True
        self.endedInOrder = False
        self._verifier = verifier
        self._factory = factory
        self._inner: IProtocol | None = None
        self._received = 0

    def handshakeCompleted(self) -> None:
        verification = self._verifier.verification()
        transport = self.transport
        if self.verified.called or transport is None:
            return
        if not verification.ok:
            self._end(CertificateRejected(verification))
            return
        inner = self._factory.buildProtocol(transport.getPeer())
        if inner is None:
            self._end(ConnectionBroken("the request was cancelled"))
            return
        self._inner = inner
        inner.makeConnection(transport)
        self.verified.callback(inner)

    def dataReceived(self, data: bytes) -> None:
        if self.limitsHeader and self._received > MAX_HEADER_BYTES:
            self.abort()
        elif self._inner is not None:
            self._received += len(data)
            self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.endedInOrder = reason.check(ConnectionDone) is not None
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.verified.called:
            self.verified.errback(
                ConnectionBroken(f"no handshake: {reason.value!r}"[:200])
            )

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()

    def _cancel(self, verified: Deferred[IProtocol]) -> None:
        self._end(CancelledError())

    def _end(self, error: Exception) -> None:
        self.verified.errback(error)
        self.abort()


class _Body(Protocol):
    """
    Collects the body of a response.

    @ivar done: Fires with it.
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
            # The request then closes the connection.
            self._parts.clear()
            self.done.errback(BodyTooLarge())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # PotentialDataLoss: without a length or chunks the body ends with the
        # connection.  RFC 9112 9.8: it is incomplete without close_notify.
        if reason.check(ResponseDone) or (
            reason.check(PotentialDataLoss) and self._endedInOrder()
        ):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(ConnectionBroken("ended within the body"))
