# -*- test-case-name: tests.lab.test_validator -*-
"""
Proofs that there is nothing (RFC 4034 4, RFC 4035 5.4).  No I/O; signatures
are somebody else's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.NSEC import NSEC


def isDenied(reply: dns.message.Message, name: dns.name.Name, kind: RdataType) -> bool:
    """
    Whether it is proved that there is nothing (RFC 4035 5.4).
    """
    denials = _denials(reply)
    if reply.rcode() == dns.rcode.NXDOMAIN:
        return _noWildcard(denials, name)
    return any(_hasNot(owner, nsec, name, kind) for owner, nsec in denials)


def isDelegation(reply: dns.message.Message, name: dns.name.Name) -> bool:
    """
    Whether C{name} is another zone, according to who says it has no DS.
    """
    return any(
        owner == name and _lists(nsec, dns.rdatatype.NS)
        for owner, nsec in _denials(reply)
    )


def _denials(reply: dns.message.Message) -> list[tuple[dns.name.Name, NSEC]]:
    return [
        (each.name, rdata)
        for each in reply.authority
        for rdata in each
        if isinstance(rdata, NSEC)
    ]


def _covers(owner: dns.name.Name, nsec: NSEC, name: dns.name.Name) -> bool:
    """
    Whether C{name} would have to be in the gap, and isn't above what ends it.
    """
    following: dns.name.Name = nsec.next
    behind = name < following or following <= owner
    return owner < name and behind and not following.is_subdomain(name)


def _noWildcard(
    denials: Sequence[tuple[dns.name.Name, NSEC]], name: dns.name.Name
) -> bool:
    """
    Whether C{name} isn't there, nor a wildcard below the closest name above
    it that is.
    """
    gap = next((each for each in denials if _covers(*each, name)), None)
    if gap is None:
        return False
    closest = max(
        (_common(name, gap[0]), _common(name, gap[1].next)),
        key=lambda each: len(each.labels),
    )
    wildcard = dns.name.from_text("*", closest)
    return any(_covers(owner, nsec, wildcard) for owner, nsec in denials)


def _common(first: dns.name.Name, second: dns.name.Name) -> dns.name.Name:
    _, _, labels = first.fullcompare(second)
    return first.split(labels)[1]


def _hasNot(
    owner: dns.name.Name, nsec: NSEC, name: dns.name.Name, kind: RdataType
) -> bool:
    """
    Whether C{name} is there, without records of C{kind}.
    """
    if owner == name:
        return not _lists(nsec, kind) and not _lists(nsec, dns.rdatatype.CNAME)
    # RFC 4592 2.2.2: a name that only has names below it.
    following: dns.name.Name = nsec.next
    return owner < name and following.is_subdomain(name)


def _lists(nsec: NSEC, kind: RdataType) -> bool:
    # RFC 4034 4.1.2: windows of 256 types, as a bit map each.
    windows: list[tuple[int, bytes]] = list(nsec.windows)
    for window, bitmap in windows:
        byte, bit = divmod(kind % 256, 8)
        if window == kind // 256 and byte < len(bitmap):
            return (bitmap[byte] & (0x80 >> bit)) != 0
    return False
