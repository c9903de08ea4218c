# -*- test-case-name: tests.dns.test_resolvconf -*-
"""
Which DNS servers this host is set up to ask.  No I/O: the text of
C{/etc/resolv.conf} is an argument.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

DNS_PORT = 53
#: Further ones are not asked by anyone: MAXNS in resolv.conf(5).
MAX_SERVERS = 3


@dataclass(frozen=True, slots=True)
class NameServer:
    """
    A DNS server that answers from anywhere in the DNS ("recursive").

    @ivar host: An IP address.
    @ivar trusted: The operator says that it validates, and that nobody can
        change what it says on its way here (RFC 6840 5.8).
    """

    host: str
    port: int = DNS_PORT
    trusted: bool = False

    @property
    def trustsAD(self) -> bool:
        """
        Whether its AD bit means anything; on the same host it always does.
        """
        return self.trusted or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.port == DNS_PORT:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


#: What resolv.conf(5) says is asked if nothing is configured.
DEFAULT_SERVERS = (NameServer("127.0.0.1"),)


def systemNameServers(text: str) -> tuple[NameServer, ...]:
    """
    @param text: The content of C{/etc/resolv.conf}; empty if there is none.
        Lines that make no sense are passed over.
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
    An address with a scope (C{fe80::1%eth0}) depends on names of interfaces,
    which come and go; it is passed over.
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
