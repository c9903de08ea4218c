# -*- test-case-name: tests.delivery.test_ownhosts -*-
"""
Decides whether a host to which mail would go is this one: mail for a domain that
isn't ours would come back for ever (RFC 5321 5.1).  No I/O.
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
    The names and addresses by which this host is known to others.

    @ivar hostname: What we call ourselves.
    @ivar listening: The addresses of listeners at the port of mail hosts, also
        those that stand for all of a family.
    @ivar isLocalAddress: Says whether a network interface of this host has an
        address.
    """

    hostname: Domain
    listening: frozenset[str]
    isLocalAddress: Callable[[str], bool]

    def hasName(self, host: Domain | AddressLiteral) -> bool:
        """
        Whether a host is this one by its name alone.
        """
        if isinstance(host, AddressLiteral):
            return self.hasAddress(host.ip)
        return host == self.hostname

    def hasAddress(self, ip: str) -> bool:
        """
        Whether a connection to C{ip} would lead here.  Addresses that are
        special on every host do so whoever listens there.
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
    Why no mail goes to C{host}, for people.
    """
    return f"mail for this domain goes to {host}, which is this host itself"


def _plain(ip: str) -> _IP:
    """
    RFC 4291 2.5.5.2: an IPv4 address may be written as one of IPv6.
    """
    address = ipaddress.ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
