# -*- test-case-name: tests.delivery.test_mx -*-
"""
DNS lookups for direct delivery: the hosts of a domain, their addresses, and their
TLSA records (RFC 7672 2.2).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from moxtls.delivery.mx import (
    Host,
    HostAddresses,
    NextHop,
    OwnHosts,
    baseDomains,
    hostAddresses,
    isDANECandidate,
    literalAddresses,
    literalHop,
    nextHop,
    referenceNames,
)
from moxtls.dns.types import ADDRESS_TYPES, Answer, RRType
from moxtls.domain import AddressLiteral, Domain
from moxtls.interfaces import IResolver
from moxtls.tasks import gather
from moxtls.tls.dane import TLSALookup, TLSALookupError, usableRecords

SMTP_PORT = 25


async def lookUpNextHop(
    resolver: IResolver,
    domain: Host,
    jitter: Callable[[], float],
    own: OwnHosts | None = None,
) -> NextHop:
    """
    The hosts of C{domain}, in the order in which to try them.

    @param own: As in L{nextHop}.
    """
    if isinstance(domain, AddressLiteral):
        return literalHop(domain, own)
    answer = await resolver.lookup(domain.ascii, RRType.MX)
    return nextHop(domain, answer, jitter, own)


def isLocalAddress(ip: str) -> bool:
    """
    True if C{ip} is an address of this host: then the local address of a socket
    connected to it is the same.  Nothing is sent.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probing:
        try:
            probing.connect((ip, SMTP_PORT))
        except OSError:
            return False
        return bool(probing.getsockname()[0] == ip)


async def lookUpAddresses(
    resolver: IResolver, host: Host, families: Sequence[RRType] = ADDRESS_TYPES
) -> HostAddresses:
    """
    The addresses of C{host}.

    @param families: C{A}, C{AAAA} or both, the preferred one first.
    """
    if isinstance(host, AddressLiteral):
        return literalAddresses(host)
    pending = [resolver.lookup(host.ascii, kind) for kind in families]
    return hostAddresses(host, await gather(pending))


async def lookUpTLSA(
    resolver: IResolver, hop: NextHop, found: HostAddresses, port: int = SMTP_PORT
) -> TLSALookup:
    """
    The TLSA records of a host of C{hop}.

    @param found: The addresses of the host, looked up before.
    @param port: The port of the connections.
    """
    host = found.host
    if not isinstance(host, Domain):
        return TLSALookup(None)
    if not resolver.validating or not isDANECandidate(hop, found):
        return TLSALookup(host, (host,))
    for base in baseDomains(found):
        answer = await resolver.lookup(f"_{port}._tcp.{base}", RRType.TLSA)
        names = referenceNames(hop, host, base)
        if answer.failed:
            # RFC 7672 2.1.2: the other candidate is not tried, or an attacker who
            # can make a lookup fail could choose between the two.
            return TLSALookup(base, names, error=_lookupError(answer))
        # RFC 7672 2.2.3: insecure records, also behind a secure CNAME, don't
        # count; the next candidate is tried.
        if answer.authentic and answer.tlsa:
            return TLSALookup(base, names, answer.tlsa, usableRecords(answer.tlsa))
    # The other reference names are for DANE only: without it, RFC 8461 4.2 wants
    # a certificate for the host.
    return TLSALookup(host, (host,))


def _lookupError(answer: Answer) -> TLSALookupError:
    error = answer.dnssecError or next(iter(answer.errors), None)
    return TLSALookupError(answer.name, error, answer.reason)
