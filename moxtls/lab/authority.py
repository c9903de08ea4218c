# -*- test-case-name: tests.lab.test_dnsserver -*-
"""
What a server says that has the authority over some zones (RFC 1034, RFC 4035
3.1).  No I/O.

There are no wildcards here, and every zone that another delegates to is
served too, so there is never a referral.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.zone
from dns.rdatatype import RdataType

#: What an answer of ours may weigh over UDP (the DNS flag day of 2020).
PAYLOAD = 1232


class _Holding:
    """
    One zone, with its names in order.
    """

    def __init__(self, zone: dns.zone.Zone) -> None:
        assert zone.origin is not None
        self.zone = zone
        self.origin = zone.origin
        nodes = {name: zone.get_node(name) for name in zone}
        self.names = sorted(nodes)
        self.denying = [
            name
            for name, node in sorted(nodes.items())
            if node and node.get_rdataset(zone.rdclass, dns.rdatatype.NSEC)
        ]

    def exists(self, name: dns.name.Name) -> bool:
        """
        Whether there is such a name, or one below it (RFC 4592 2.2.2).
        """
        at = bisect_left(self.names, name)
        return at < len(self.names) and self.names[at].is_subdomain(name)

    def denier(self, name: dns.name.Name) -> dns.name.Name | None:
        """
        The last name with an NSEC record that isn't behind C{name}.
        """
        at = bisect_right(self.denying, name)
        return self.denying[at - 1] if at else None

    def records(
        self, name: dns.name.Name, kind: RdataType, signed: bool
    ) -> list[dns.rrset.RRset]:
        """
        A set of records, if it is there, with its signatures, if wanted.
        """
        found = self.zone.get_rrset(name, kind)
        if found is None:
            return []
        signatures = self.zone.get_rrset(name, dns.rdatatype.RRSIG, kind)
        return [found, signatures] if signatures and signed else [found]


class Authority:
    """
    Answers queries about some zones.
    """

    def __init__(self, zones: Iterable[dns.zone.Zone]) -> None:
        holdings = [_Holding(zone) for zone in zones]
        self._holdings = {each.origin: each for each in holdings}

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        """
        @param query: One with a single question.
        """
        response = dns.message.make_response(query, our_payload=PAYLOAD)
        if query.ednsflags & dns.flags.DO:
            response.want_dnssec(True)
        question = query.question[0]
        holding = self._holding(question.name, question.rdtype)
        if query.opcode() != dns.opcode.QUERY or _isMeta(question.rdtype):
            response.set_rcode(dns.rcode.NOTIMP)
        elif holding is None:
            response.set_rcode(dns.rcode.REFUSED)
        else:
            response.flags |= dns.flags.AA
            _fill(response, holding, question.name, question.rdtype)
        return response

    def _holding(self, name: dns.name.Name, kind: RdataType) -> _Holding | None:
        # RFC 4035 3.1.4.1: DS records are on the parent's side.
        if kind == dns.rdatatype.DS and name != dns.name.root:
            name = name.parent()
        while name not in self._holdings:
            if name == dns.name.root:
                return None
            name = name.parent()
        return self._holdings[name]


def _isMeta(kind: RdataType) -> bool:
    """
    Whether it isn't for records but for transfers and the like.
    """
    return dns.rdatatype.is_metatype(kind)


def _fill(
    response: dns.message.Message,
    holding: _Holding,
    name: dns.name.Name,
    kind: RdataType,
) -> None:
    signed = bool(response.ednsflags & dns.flags.DO)
    found = holding.records(name, kind, signed)
    if not found:
        found = holding.records(name, dns.rdatatype.CNAME, signed)
    response.answer.extend(found)
    if found:
        return
    response.authority.extend(
        holding.records(holding.origin, dns.rdatatype.SOA, signed)
    )
    deniers = [holding.denier(name)]
    if not holding.exists(name):
        response.set_rcode(dns.rcode.NXDOMAIN)
        deniers.append(holding.denier(_wildcard(holding, name)))
    if signed:
        for denier in dict.fromkeys(deniers):
            if denier is not None:
                response.authority.extend(
                    holding.records(denier, dns.rdatatype.NSEC, True)
                )


def _wildcard(holding: _Holding, name: dns.name.Name) -> dns.name.Name:
    """
    Which wildcard would have produced C{name} (RFC 4592 2.1.1).
    """
    while not holding.exists(name):
        name = name.parent()
    return dns.name.from_text("*", name)
