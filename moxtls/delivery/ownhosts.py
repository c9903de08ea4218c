# -*- test-case-name: tests.delivery.test_ownhosts -*-
"""
Loop detection: decides whether a next hop is this host itself, to which mail for
a foreign domain would return for ever (RFC 5321 5.1).  No I/O.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from moxtls.domain import AddressLiteral, Domain

#: RFC 3463 3.5: routing loop detected.
LOOP_STATUS = "5.4.6"

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class OwnHosts:
    """
    The names and addresses of this host.

    @ivar hostname: The name in EHLO.
    @ivar listening: The addresses of the listeners at the SMTP port; C{0.0.0.0}
        and C{::} stand for all addresses of their family.
    @ivar isLocalAddress: Returns true if a network interface of this host has an
        address.
    """

    hostname: Domain
    listening: frozenset[str]
    isLocalAddress: Callable[[str], bool]

    def hasName(self, host: Domain | AddressLiteral) -> bool:
        """
        True if a host is this one by its name alone.
        """
        if isinstance(host, AddressLiteral):
            return self.hasAddress(host.ip)
        return host == self.hostname

    def hasAddress(self, ip: str) -> bool:
        """
        True if a connection to C{ip} would reach this host.  Loopback and
        unspecified addresses always do.
        """
        address = _plain(ip)
        if address.is_loopback or address.is_unspecified:
            return True
        listening = [_plain(each) for each in self.listening]
        if address in listening:
            return True
        isAny = any(
            each.is_unspecified and each.version == address.version
            for each in listening
        )
        return isAny and self.isLocalAddress(str(address))


def ownHostReason(host: object) -> str:
    """
    A human-readable reason why no mail is sent to C{host}.
    """
    return f"mail for this domain goes to {host}, which is this host itself"


def _plain(ip: str) -> _IP:
    """
    The IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2).
    """
    address = ipaddress.ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
