# -*- test-case-name: tests.dns.test_resolvconf -*-
"""
Reads the DNS servers of this host from C{/etc/resolv.conf}.  No I/O: its text is an
argument.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from moxtls.dns.types import NameServer

#: MAXNS in resolv.conf(5): further servers are not used.
MAX_SERVERS = 3
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
