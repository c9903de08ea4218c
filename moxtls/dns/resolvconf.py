# -*- test-case-name: tests.dns.test_resolvconf -*-
"""
Reads the DNS servers of this host from C{/etc/resolv.conf}.  No I/O: its text is an
argument.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

DNS_PORT = 53
#: MAXNS in resolv.conf(5): further servers are not used.
MAX_SERVERS = 3


@dataclass(frozen=True, slots=True)
class NameServer:
    """
    A recursive DNS server.

    @ivar host: An IP address.
    @ivar trusted: The operator has declared that it validates, and that the
        channel to it is secure (RFC 6840 5.8).
    """

    host: str
    port: int = DNS_PORT
    trusted: bool = False

    @property
    def trustsAD(self) -> bool:
        """
        True if its AD bit is trusted; on the same host it always is.
        """
        return self.trusted or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.port == DNS_PORT:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


#: The default of resolv.conf(5).
DEFAULT_SERVERS = (NameServer("127.0.0.1"),)


def systemNameServers(text: str) -> tuple[NameServer, ...]:
    """
    Read C{resolv.conf}.

    @param text: The content of C{/etc/resolv.conf}; empty if there is none.
        Invalid lines are ignored.
    """
    servers: list[NameServer] = []
    trusted = False
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if keyword == "nameserver" and words and _isAddress(words[0]):
            servers.append(NameServer(str(ipaddress.ip_address(words[0]))))
        elif keyword == "options":
            trusted = trusted or "trust-ad" in words
    found = tuple(dict.fromkeys(servers))[:MAX_SERVERS] or DEFAULT_SERVERS
    return tuple(replace(each, trusted=trusted) for each in found)


def _isAddress(text: str) -> bool:
    """
    True for an IP address without a scope.  One with a scope (C{fe80::1%eth0})
    depends on the names of interfaces, which change; it is ignored.
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
