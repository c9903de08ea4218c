# -*- test-case-name: tests.test_config -*-
"""
Parses network addresses in a configuration. No I/O.
"""

from __future__ import annotations

import ipaddress

from moxtls.config.types import DMARC
from moxtls.domain import Domain, InvalidDomain
from moxtls.ipaddresses import IPNetwork, parseIP, parseNetwork

#: An IP address and a port.
SocketAddress = tuple[str, int]

#: The maximum path length of a Unix socket, including the final NUL (unix(7)).
MAX_SOCKET_LENGTH = 108


def serverAddress(text: str) -> SocketAddress | None:
    """
    Parse the address of a DNS server: C{127.0.0.1}, C{127.0.0.1:5353}, C{::1} or
    C{[::1]:5353}.

    @return: IP address and port, or C{None} if it is malformed.
    """
    hasPort = text.startswith("[") or text.count(":") == 1
    return _withPort(text) if hasPort else _socketAddress(text, "53")


def lmtpAddress(text: str) -> SocketAddress | str | None:
    """
    Parse the address of an LMTP server: C{127.0.0.1:24}, C{[::1]:24}, or the absolute
    path of a Unix socket.

    @return: IP address and port; the path; or C{None} if it is malformed.
    """
    if not text.startswith("/"):
        return _withPort(text)
    isPath = "\0" not in text and len(text.encode("utf-8")) < MAX_SOCKET_LENGTH
    return text if isPath else None


def _withPort(text: str) -> SocketAddress | None:
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    else:
        host, _, port = text.partition(":")
    return _socketAddress(host, port)


def _socketAddress(host: str, port: str) -> SocketAddress | None:
    isNumber = port.isascii() and port.isdigit() and len(port) <= 5
    if not isNumber or not 0 < int(port) < 65536:
        return None
    ip = parseIP(host)
    return None if ip is None else (str(ip), int(port))


def networkOrDomain(text: str) -> IPNetwork | Domain | None:
    """
    Parse a source of mail: C{192.0.2.0/24}, C{2001:db8::/32}, one IP address, or a
    domain.

    @return: C{None} if it is none of these.
    """
    network = parseNetwork(text)
    if network is not None:
        return network
    try:
        domain = Domain.parse(text)
    except InvalidDomain:
        return None
    return None if isNumeric(domain) else domain


def isNumeric(domain: Domain) -> bool:
    """
    True if a domain looks like an IPv4 address: no top-level domain is a number (RFC
    1123 2.1).
    """
    return domain.ascii.rpartition(".")[2].isdigit()


def forwarders(dmarc: DMARC) -> tuple[tuple[IPNetwork, ...], tuple[Domain, ...]]:
    """
    Parse C{TrustedForwarders} into networks and domains.
    """
    parsed = [networkOrDomain(each) for each in dmarc.trustedForwarders]
    domains = tuple(each for each in parsed if isinstance(each, Domain))
    networks = (ipaddress.IPv4Network, ipaddress.IPv6Network)
    return tuple(each for each in parsed if isinstance(each, networks)), domains
