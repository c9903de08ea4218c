# -*- test-case-name: tests.inbound.test_spf -*-
"""
Who is checked by SPF, and what macros say of it (RFC 7208 7.2).  No I/O.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from moxtls.dns.answers import RRType
from moxtls.inbound.spfterms import IPMechanism
from moxtls.ipaddresses import IP, parseIP


@dataclass(frozen=True, slots=True)
class SPFClient:
    """
    @ivar localPart: Of the sender.
    @ivar domain: Of the sender.
    """

    ip: IP
    localPart: str
    domain: str
    helo: str
    receiver: str
    now: float

    @property
    def kind(self) -> RRType:
        """
        Of the records that addresses like the client's are in.
        """
        return RRType.A if self.ip.version == 4 else RRType.AAAA

    def isIn(self, network: IPMechanism) -> bool:
        """
        Whether the bits that count are those of C{network}.
        """
        if network.version != self.ip.version:
            return False
        beyond = self.ip.max_prefixlen - network.prefix
        return int(self.ip) >> beyond == network.address >> beyond

    def isNear(self, addresses: Collection[str], prefix: int) -> bool:
        """
        Whether it has the first C{prefix} bits in common with any of
        C{addresses}, which are in canonical form.
        """
        if prefix == self.ip.max_prefixlen:
            return str(self.ip) in addresses
        return any(
            self.isIn(IPMechanism(ip.version, int(ip), prefix))
            for ip in map(parseIP, addresses)
            # The prefix is for addresses of the client's kind.
            if ip is not None and ip.version == self.ip.version
        )

    def values(self, domain: str, name: str) -> dict[str, str]:
        """
        What the letters of macros stand for.

        @param domain: The one whose record it is.
        @param name: The client's, if it's known.
        """
        isV4 = self.ip.version == 4
        return {
            "s": f"{self.localPart}@{self.domain}",
            "l": self.localPart,
            "o": self.domain,
            "d": domain,
            "i": str(self.ip) if isV4 else ".".join(f"{int(self.ip):032x}"),
            "p": name or "unknown",
            "v": "in-addr" if isV4 else "ip6",
            "h": self.helo,
            "c": str(self.ip),
            "r": self.receiver or "unknown",
            "t": str(int(self.now)),
        }
