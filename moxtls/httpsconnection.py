# -*- test-case-name: tests.test_https -*-
"""
One connection of L{moxtls.https.HTTPSClient}: from a name to a verified peer,
and the body that comes from there.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
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
from twisted.web.client import URI, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from moxtls.dns.answers import ExtendedError
from moxtls.domain import Domain
from moxtls.interfaces import IResolver
from moxtls.outbound.hosts import FAMILIES, lookUpAll
from moxtls.outbound.records import CertificateVerification
from moxtls.outbound.verify import RecordingVerifier, TrustStore

#: More than the header fields of a sane answer, interim ones included.
MAX_HEADER_BYTES = 64 * 1024
#: How many addresses of a host are tried, and for how many seconds each.
MAX_ADDRESSES = 6
CONNECT_TIME = 15


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
        answers = await lookUpAll(self._resolver, self._host, FAMILIES)
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
        tcp = kind(self._reactor, address, self._port, timeout=CONNECT_TIME)
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
