# -*- test-case-name: tests.test_ipaddresses -*-
"""
Canonical IP addresses and networks: an IPv4-mapped IPv6 address becomes the IPv4
address.  No I/O.

The system shows IPv4 clients of an IPv6 socket as C{::ffff:192.0.2.1} (RFC 4291
2.5.5.2).  SPF (RFC 7208 5), C{source_ip} of RFC 9990, reverse names and networks in
the configuration all mean the IPv4 address.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Length of the prefix of IPv4-mapped IPv6 addresses, in bits.
_MAPPED_PREFIX = 96


def parseIP(text: str) -> IP | None:
    """
    Parse an address; its zone is dropped.

    @return: C{None} if C{text} is not an IP address.
    """
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped or ip
    return ip


@lru_cache(maxsize=4096)
def canonicalIP(text: str) -> str:
    """
    The canonical text of an address.

    @return: C{text} itself if it is not an address, such as the path of a Unix socket.
    """
    ip = parseIP(text)
    return text if ip is None else str(ip)


def ipOrEmpty(text: str) -> str:
    """
    The canonical text of an address.

    @return: Empty if C{text} is not an IP address.
    """
    ip = parseIP(text)
    return "" if ip is None else str(ip)


def parseNetwork(text: str) -> IPNetwork | None:
    """
    Parse a network in CIDR notation.

    @return: C{None} if C{text} is not a network.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= _MAPPED_PREFIX:
            prefix = network.prefixlen - _MAPPED_PREFIX
            return ipaddress.IPv4Network((int(mapped), prefix))
    return network
