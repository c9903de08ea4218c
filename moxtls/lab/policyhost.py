# -*- test-case-name: tests.lab.test_policyhost -*-
"""
A web server for MTA-STS policies (RFC 8461 3.3), good and bad, and for TLS
reports that are sent by HTTPS (RFC 8460 5.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.http import INTERNAL_SERVER_ERROR, NOT_FOUND, OK
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Site

from moxtls.lab.arrivals import Arrival, Arrivals
from moxtls.lab.certificates import LabCA, selfSigned
from moxtls.lab.conditions import INTAKE_HOST, INTAKE_PATH, LabDestination, PolicyHost
from moxtls.lab.plan import policyText
from moxtls.lab.tls import Presenting

POLICY_PATH = "/.well-known/mta-sts.txt"
#: More than any report in the lab has.
MAX_REPORT = 1024 * 1024
TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """
    What is said to whoever asks for a policy.
    """

    status: int
    body: bytes


def servedPolicies(destinations: Sequence[LabDestination]) -> dict[str, ServedPolicy]:
    """
    By name of the policy host.
    """
    served = {}
    for each in destinations:
        if each.sts is not None:
            status = _STATUS.get(each.sts.host, OK)
            body = policyText(each) if status == OK else None
            served[policyHost(each)] = ServedPolicy(status, body or b"")
    return served


_STATUS = {
    PolicyHost.MISSING: NOT_FOUND,
    PolicyHost.BROKEN: INTERNAL_SERVER_ERROR,
}


def policyHost(destination: LabDestination) -> str:
    return f"mta-sts.{destination.domain}"


class _Pages(Resource):
    """
    Everything there is, on all hosts.
    """

    isLeaf = True

    def __init__(
        self, policies: Mapping[str, ServedPolicy], arrivals: Arrivals
    ) -> None:
        super().__init__()
        self._policies = policies
        self._arrivals = arrivals

    def render_GET(self, request: IRequest) -> bytes:
        """
        A policy.
        """
        policy = self._policies.get(_host(request))
        if policy is None or request.path != POLICY_PATH.encode():
            return _say(request, NOT_FOUND, b"")
        return _say(request, policy.status, policy.body)

    def render_POST(self, request: IRequest) -> bytes:
        """
        Take a report.
        """
        place, path = _host(request), request.path.decode("ascii", "replace")
        if place != INTAKE_HOST or not path.startswith(f"{INTAKE_PATH}/"):
            return _say(request, NOT_FOUND, b"")
        content = request.content.read(MAX_REPORT + 1)
        if len(content) > MAX_REPORT:
            return _say(request, TOO_LARGE, b"")
        kind = request.getHeader("content-type") or ""
        arrival = Arrival(
            f"https://{place}{path}",
            str(getattr(request.getClientAddress(), "host", "")),
            place,
            "HTTPS",
            content,
            kind,
        )
        self._arrivals.add(arrival, "json.gz")
        return _say(request, OK, b"")


def _host(request: IRequest) -> str:
    name: str = request.getRequestHostname().decode("ascii", "replace")
    return name.lower()


def _say(request: IRequest, status: int, body: bytes) -> bytes:
    request.setResponseCode(status)
    request.setHeader("content-type", "text/plain")
    return body


class WebHost(Service):
    """
    Listens on one address, for all names.

    @param reactor: Also provides C{IReactorTCP}.
    @param place: An address and a port.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        place: tuple[str, int],
        destinations: Sequence[LabDestination],
        ca: LabCA,
        arrivals: Arrivals,
    ) -> None:
        self._reactor = reactor
        self._address, self._port = place
        self._listening: IListeningPort | None = None
        policies = servedPolicies(destinations)
        bad = [
            policyHost(each)
            for each in destinations
            if each.sts is not None and each.sts.host is PolicyHost.BAD_CERTIFICATE
        ]
        tls = Presenting(
            ca.issue([INTAKE_HOST, *sorted(policies)]),
            {name: selfSigned(name, ca.now) for name in bad},
        )
        site = Site(_Pages(policies, arrivals), reactor=reactor)
        site.noisy = False
        self._factory = TLSMemoryBIOFactory(tls, False, site, clock=reactor)
        self._factory.noisy = False

    def startService(self) -> None:
        super().startService()
        # TLSMemoryBIOFactory calls itself a ClientFactory, and is both.
        self._listening = IReactorTCP(self._reactor).listenTCP(
            self._port,
            self._factory,  # type: ignore[arg-type]
            interface=self._address,
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._listening is None:
            return succeed(None)
        for connection in tuple(self._factory.protocols):
            connection.abortConnection()
        closed = maybeDeferred(self._listening.stopListening)
        return closed.addCallback(lambda result: None)
