# -*- test-case-name: tests.test_config -*-
"""
What the values of a configuration, each right by itself, get wrong together.
No I/O.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from moxtls.config.values import (
    Config,
    Listener,
    ListenerTLS,
    RelayTLS,
    Service,
    Smarthost,
)
from moxtls.domain import Address, Domain, InvalidAddress, InvalidDomain
from moxtls.mailbox.names import InvalidMailbox, splitMailbox

# RFC 6376 3.1: sub-domain *( "." sub-domain ), as in RFC 5321 4.1.2.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")

Inconsistency = tuple[str, str, object, str]


def inconsistencies(config: Config) -> Iterator[Inconsistency]:
    """
    What each value alone doesn't show: table, key, value, what was expected.
    """
    for name, listener in config.listeners.items():
        yield from _wrongListener(f"Listeners.{name}", listener, config)
    for name, host in config.transports.items():
        yield from _wrongSmarthost(f"Transports.{name}", name, host)
    yield from _wrongDelivery(config)
    yield from _wrongMailboxes(config)
    yield from _wrongSelectors(config)
    for server in (*config.resolver.servers, *config.resolver.trusted):
        if serverAddress(server) is None:
            yield "Resolver", "Servers", server, "expected an IP address, or [IP]:port"


def _wrongListener(
    table: str, listener: Listener, config: Config
) -> Iterator[Inconsistency]:
    loopback = _isLoopback(listener.address)
    if loopback is None:
        yield table, "Address", listener.address, "expected an IP address"
    if listener.port > 65535:
        yield table, "Port", listener.port, "expected an integer from 0 to 65535"
    if listener.tls is not ListenerTLS.NONE and not listener.certificateFile:
        yield table, "CertificateFile", None, "expected a file, as TLS is on"
    if listener.certificateFile and not listener.keyFile:
        yield table, "KeyFile", None, "expected a file, as CertificateFile is set"
    if listener.authentication and listener.tls is ListenerTLS.NONE:
        # RFC 4954 9: no passwords in the clear.
        yield table, "TLS", listener.tls, "expected TLS, as Authentication is on"
    if listener.authentication and not config.users:
        yield "", "Users", None, f"expected somebody, as [{table}] Authentication is on"
    open_ = listener.service is Service.SUBMISSION and not listener.authentication
    if open_ and loopback is False:
        expected = "expected a loopback address, or Authentication = true"
        yield table, "Address", listener.address, expected


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
        try:
            Domain.parse(domain)
        except InvalidDomain:
            yield "Delivery.Routes", domain, None, "expected a domain name as the key"
    for key, port in (("Port", delivery.port), ("HTTPSPort", delivery.httpsPort)):
        if not 0 < port <= 65535:
            yield "Delivery", key, port, "expected an integer from 1 to 65535"
    limits = {
        "MaxConnections": delivery.maxConnections,
        "MaxPerDestination": delivery.maxPerDestination,
    }
    for key, limit in limits.items():
        if limit < 1:
            yield "Delivery", key, limit, "expected an integer from 1 up"
    if not delivery.retrySchedule or min(delivery.retrySchedule) < 1:
        value = list(delivery.retrySchedule)
        yield "Delivery", "RetrySchedule", value, "expected seconds, each from 1 up"


def _wrongSelectors(config: Config) -> Iterator[Inconsistency]:
    for domain, local in config.domains.items():
        for name in local.dkim.selectors:
            if not _SELECTOR.match(name):
                table = f"Domains.{domain}.DKIM.Selectors"
                yield table, name, None, "expected a DNS label as the key"


def _wrongMailboxes(config: Config) -> Iterator[Inconsistency]:
    if not _isMailbox(config.postmaster.mailbox):
        yield "Postmaster", "Mailbox", config.postmaster.mailbox, _MAILBOX
    if config.hostTLSRPT is None:
        return
    if not _isMailbox(config.hostTLSRPT.mailbox):
        yield "HostTLSRPT", "Mailbox", config.hostTLSRPT.mailbox, _MAILBOX
    text = f"{config.hostTLSRPT.localPart}@{config.hostname}"
    try:
        ascii_ = Address.parse(text).localPart.isascii()
    except InvalidAddress:
        ascii_ = False
    if not ascii_:
        expected = "expected the local part of an address, in ASCII"
        yield "HostTLSRPT", "Localpart", config.hostTLSRPT.localPart, expected


_MAILBOX = "expected names of letters, digits, spaces and _+@-, separated by /"


def _isMailbox(name: str) -> bool:
    try:
        # Below it are those of DSNs about reports.
        splitMailbox(f"{name}/tlsrpt")
    except InvalidMailbox:
        return False
    return True


def _isLoopback(address: str) -> bool | None:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return None


def serverAddress(text: str) -> tuple[str, int] | None:
    """
    A DNS server as written: C{127.0.0.1}, C{127.0.0.1:5353}, C{::1} or
    C{[::1]:5353}.

    @return: IP address and port, or C{None} if it is something else.
    """
    host, port = text, "53"
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return None
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        return None
