# -*- test-case-name: tests.test_https -*-
"""
A small HTTPS client, for fetching MTA-STS policies and posting reports.

Names are resolved by our own resolver; nothing is sent before the Web PKI is
content with the certificate; the time and what is read are limited; redirects
are answers like others; there are no proxies, caches, cookies or second
requests on a connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from io import BytesIO
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from moxtls.dns.answers import ExtendedError
from moxtls.domain import Domain, InvalidDomain
from moxtls.httpsconnection import (
    BodyTooLarge,
    CertificateRejected,
    ConnectionBroken,
    HTTPSConnectFailed,
    HTTPSConnection,
    NoAddress,
)
from moxtls.interfaces import IResolver
from moxtls.outbound.records import CertificateVerification
from moxtls.outbound.verify import TrustStore

__all__ = [
    "CertificateVerification",
    "HTTPSClient",
    "HTTPSErrorKind",
    "HTTPSFailure",
    "Response",
]

#: RFC 8461 3.3 suggests a minute for a policy; reports are no more urgent.
TIME_LIMIT = 60.0
#: RFC 8461 3.3 suggests this for a policy; nobody has more to say to a report.
BODY_LIMIT = 64 * 1024
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
        timeLimit: float = TIME_LIMIT,
    ) -> None:
        """
        @param trust: From L{moxtls.outbound.verify.clientContext}.
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
        self, url: str, bodyLimit: int = BODY_LIMIT
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
        bodyLimit: int = BODY_LIMIT,
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
        running = _cancelledAsSuch(attempt)
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


def _cancelledAsSuch(attempt: Deferred[_Result]) -> Deferred[_Result]:
    """
    The same, except that cancelling always ends in L{CancelledError}: the
    Agent makes other things of it.
    """

    def cancel(outer: Deferred[_Result]) -> None:
        outer.errback(CancelledError())
        attempt.cancel()

    def tell(result: _Result | Failure) -> None:
        if not outer.called:
            outer.callback(result)

    outer: Deferred[_Result] = Deferred(cancel)
    attempt.addBoth(tell)
    return outer


def _timedOut(failure: Failure) -> HTTPSFailure:
    failure.trap(TimeoutError)
    return HTTPSFailure(HTTPSErrorKind.TIMEOUT, "took too long")
