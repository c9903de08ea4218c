# -*- test-case-name: tests.test_config -*-
"""
What the values of a configuration, each right by itself, get wrong together.
No I/O.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from moxtls.config.delivery import RelayTLS, Smarthost
from moxtls.config.domains import LocalDomain
from moxtls.config.errors import Inconsistency
from moxtls.config.feedback import reportAddressErrors, wrongKeys
from moxtls.config.listeners import Listener, ListenerTLS, Service
from moxtls.config.places import serverAddress
from moxtls.config.residents import mailboxErrors
from moxtls.config.values import Config
from moxtls.domain import Domain, InvalidDomain
from moxtls.ipaddresses import IP, parseIP

# RFC 6376 3.1: sub-domain *( "." sub-domain ), as in RFC 5321 4.1.2.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")


def inconsistencies(config: Config) -> Iterator[Inconsistency]:
    """
    What each value alone doesn't show: table, key, value, what was expected.
    """
    for name, listener in config.listeners.items():
        yield from _wrongListener(f"Listeners.{name}", listener, config)
    yield from _wrongPorts(config)
    for name, host in config.transports.items():
        yield from _wrongSmarthost(f"Transports.{name}", name, host)
    yield from _wrongDelivery(config)
    yield from mailboxErrors(config)
    yield from _wrongDomains(config)
    yield from reportAddressErrors(config)
    for server in (*config.resolver.servers, *config.resolver.trusted):
        if serverAddress(server) is None:
            yield "Resolver", "Servers", server, "expected an IP address, or [IP]:port"


def _wrongListener(
    table: str, listener: Listener, config: Config
) -> Iterator[Inconsistency]:
    if not listener.address:
        yield table, "Address", [], "expected an IP address"
    if len(set(listener.address)) < len(listener.address):
        yield table, "Address", list(listener.address), "expected each address once"
    for address in listener.address:
        if parseIP(address) is None:
            yield table, "Address", address, "expected an IP address"
    if listener.port > 65535:
        yield table, "Port", listener.port, "expected an integer from 0 to 65535"
    if listener.tls is not ListenerTLS.NONE and not listener.certificateFile:
        yield table, "CertificateFile", None, "expected a file, as TLS is on"
    yield from _wrongKeyPair(table, listener)
    yield from _wrongLimits(table, listener)
    if listener.authentication and listener.service is Service.RECEPTION:
        # Whoever passes mail to an MX is nobody's user.
        expected = 'expected Service = "submission", as Authentication is on'
        yield table, "Service", listener.service, expected
    if listener.authentication and listener.tls is ListenerTLS.NONE:
        # RFC 4954 9: no passwords in the clear.
        yield table, "TLS", listener.tls, "expected TLS, as Authentication is on"
    if listener.authentication and not config.users:
        yield "", "Users", None, f"expected somebody, as [{table}] Authentication is on"
    open_ = listener.service is Service.SUBMISSION and not listener.authentication
    for address in listener.address if open_ else ():
        ip = parseIP(address)
        if ip is not None and not ip.is_loopback:
            expected = "expected a loopback address, or Authentication = true"
            yield table, "Address", address, expected


def _wrongPorts(config: Config) -> Iterator[Inconsistency]:
    """
    Ports that two listeners can't both have.
    """
    taken: list[tuple[str, int, tuple[IP, str]]] = []
    for name, listener in config.listeners.items():
        own = [
            (ip, address.partition("%")[2])
            for address in listener.address
            if (ip := parseIP(address)) is not None
        ]
        others = (
            other
            for other, port, there in taken
            if port == listener.port and any(_overlap(there, here) for here in own)
        )
        other = next(others, None)
        if other is not None:
            expected = f"expected another port or address than [Listeners.{other}] has"
            yield f"Listeners.{name}", "Port", listener.port, expected
        if listener.port:
            taken += [(name, listener.port, here) for here in own]


def _overlap(one: tuple[IP, str], other: tuple[IP, str]) -> bool:
    """
    @param one: An address and its zone, such as C{eth0}.
    """
    # An IPv6 listener takes no IPv4 (RFC 3493 5.3).
    anywhere = one[0].is_unspecified or other[0].is_unspecified
    return one == other or (anywhere and one[0].version == other[0].version)


def remarks(config: Config) -> Iterator[Inconsistency]:
    """
    What can be used, but may not have been meant: table, key, value, and what
    comes of it.
    """
    for name, listener in config.listeners.items():
        if listener.service is Service.RECEPTION and not config.accounts:
            reports = "" if config.hostTLSRPT is None else ", TLS reports"
            why = f"no Accounts: mail for postmaster, DSNs{reports}, and no other mail"
            yield f"Listeners.{name}", "Service", listener.service, f"{why} is taken"


def _wrongKeyPair(table: str, named: Listener | LocalDomain) -> Iterator[Inconsistency]:
    if named.certificateFile and not named.keyFile:
        yield table, "KeyFile", None, "expected a file, as CertificateFile is set"
    if named.keyFile and not named.certificateFile:
        yield table, "CertificateFile", None, "expected a file, as KeyFile is set"


def _wrongLimits(table: str, listener: Listener) -> Iterator[Inconsistency]:
    limits = {
        "MaxConnections": listener.maxConnections,
        "MaxConnectionsPerAddress": listener.maxConnectionsPerAddress,
        "MaxConnectionsPerNetwork": listener.maxConnectionsPerNetwork,
        "MaxMessageSize": listener.maxMessageSize,
    }
    for key, limit in limits.items():
        if limit < 1:
            yield table, key, limit, "expected an integer from 1 up"


def _wrongSmarthost(table: str, name: str, host: Smarthost) -> Iterator[Inconsistency]:
    if name == "direct":
        yield table, "", None, 'expected another name: "direct" is built in'
    if not 0 < host.port <= 65535:
        yield table, "Port", host.port, "expected an integer from 1 to 65535"
    try:
        ipaddress.ip_address(host.host)
    except ValueError:
        try:
            Domain.parse(host.host)
        except InvalidDomain:
            yield table, "Host", host.host, "expected a domain name or an IP address"
    if host.user and not host.passwordFile:
        yield table, "PasswordFile", None, "expected a file, as User is set"
    if host.user and host.tls is RelayTLS.NONE:
        yield table, "TLS", host.tls, "expected TLS, as User is set"


def _wrongDelivery(config: Config) -> Iterator[Inconsistency]:
    delivery = config.delivery
    known = {"direct", *config.transports}
    expected = f"expected one of {', '.join(sorted(known))}"
    if delivery.transport not in known:
        yield "Delivery", "Transport", delivery.transport, expected
    for domain, transport in delivery.routes.items():
        if transport not in known:
            yield "Delivery.Routes", domain, transport, expected
    yield from wrongKeys("Delivery.Routes", delivery.routes)
    for key, port in (("Port", delivery.port), ("HTTPSPort", delivery.httpsPort)):
        if not 0 < port <= 65535:
            yield "Delivery", key, port, "expected an integer from 1 to 65535"
    limits = {
        "MaxConnections": delivery.maxConnections,
        "MaxPerDestination": delivery.maxPerDestination,
        "MaxAge": delivery.maxAge,
        "MaxBriefAge": delivery.maxBriefAge,
    }
    for key, limit in limits.items():
        if limit < 1:
            yield "Delivery", key, limit, "expected an integer from 1 up"
    if not delivery.retrySchedule or min(delivery.retrySchedule) < 1:
        value = list(delivery.retrySchedule)
        yield "Delivery", "RetrySchedule", value, "expected seconds, each from 1 up"


def _wrongDomains(config: Config) -> Iterator[Inconsistency]:
    for domain, local in config.domains.items():
        yield from _wrongKeyPair(f"Domains.{domain}", local)
        for name in local.dkim.selectors:
            if not _SELECTOR.match(name):
                table = f"Domains.{domain}.DKIM.Selectors"
                yield table, name, None, "expected a DNS label as the key"
