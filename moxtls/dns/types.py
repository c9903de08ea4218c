# -*- test-case-name: tests.dns.test_types -*-
"""
DNS servers, DNS answers, and which parts of answers are authentic.  No I/O.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum, StrEnum

#: A failure reason code (RFC 8460 4.3): a lookup failed for an unknown reason.
LOOKUP_FAILED = "dns-lookup"
DNS_PORT = 53


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


class RRType(StrEnum):
    """
    The record types that are looked up.
    """

    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    MX = "MX"
    NS = "NS"
    PTR = "PTR"
    SOA = "SOA"
    TLSA = "TLSA"
    TXT = "TXT"


#: The types of address records, the preferred one first (RFC 6724).
ADDRESS_TYPES = (RRType.AAAA, RRType.A)


class LookupStatus(Enum):
    """
    The status of an answer.

    C{FAILED}: SERVFAIL, a refusal, a malformed answer, or no answer in time.  It is
    always temporary.
    """

    RECORDS = "records"
    NO_RECORDS = "no records"
    NO_NAME = "no such name"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, order=True)
class MX:
    """
    The content of an MX record.

    @ivar exchange: Lower case, no final dot; empty for a null MX (RFC 7505).
    """

    preference: int
    exchange: str


@dataclass(frozen=True, slots=True, order=True)
class TLSA:
    """
    The content of a TLSA record (RFC 6698 2.1).
    """

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


@dataclass(frozen=True, slots=True)
class TXT:
    """
    The content of a TXT record.

    @ivar text: All character-strings of the record, joined.
    """

    text: bytes


@dataclass(frozen=True, slots=True, order=True)
class IP:
    """
    The content of an A or AAAA record, in canonical form.
    """

    address: str


@dataclass(frozen=True, slots=True, order=True)
class NameRecord:
    """
    The content of a CNAME, NS or PTR record, or the MNAME of an SOA.

    @ivar target: Lower case, no final dot.
    """

    target: str


Record = MX | TLSA | TXT | IP | NameRecord


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """
    An extended DNS error (RFC 8914).

    @ivar text: EXTRA-TEXT as sent by the resolver; untrusted.
    """

    code: int
    text: str = ""

    @property
    def isDNSSEC(self) -> bool:
        """
        True if DNSSEC validation failed, or was not possible.
        """
        return self.code in _DNSSEC_ERRORS

    @property
    def reasonCode(self) -> str:
        """
        The RFC 8460 failure-reason-code, such as
        C{dns-extended-error-6-dnssec-bogus}.
        """
        name = _ERROR_NAMES.get(self.code)
        suffix = "-" + name.lower().replace(" ", "-") if name else ""
        return f"dns-extended-error-{self.code}{suffix}"


# RFC 8914 4, IANA "Extended DNS Error Codes".
_ERROR_NAMES = {
    0: "Other",
    1: "Unsupported DNSKEY Algorithm",
    2: "Unsupported DS Digest Type",
    3: "Stale Answer",
    4: "Forged Answer",
    5: "DNSSEC Indeterminate",
    6: "DNSSEC Bogus",
    7: "Signature Expired",
    8: "Signature Not Yet Valid",
    9: "DNSKEY Missing",
    10: "RRSIGs Missing",
    11: "No Zone Key Bit Set",
    12: "NSEC Missing",
    13: "Cached Error",
    14: "Not Ready",
    15: "Blocked",
    16: "Censored",
    17: "Filtered",
    18: "Prohibited",
    19: "Stale NXDOMAIN Answer",
    20: "Not Authoritative",
    21: "Not Supported",
    22: "No Reachable Authority",
    23: "Network Error",
    24: "Invalid Data",
    25: "Signature Expired before Valid",
    26: "Too Early",
    27: "Unsupported NSEC3 Iterations Value",
    28: "Unable to conform to policy",
    29: "Synthesized",
    30: "Invalid Query Type",
    31: "Rate Limited",
    32: "Over Quota",
}
_DNSSEC_ERRORS = frozenset({1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 25, 27})


@dataclass(frozen=True, slots=True)
class CNAMELink:
    """
    One step of a CNAME chain.

    @ivar authentic: True if a trusted resolver validated this step.
    """

    name: str
    target: str
    authentic: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The answer to a question for C{kind} records at C{name}.

    @ivar name: The name in the question: lower case, no final dot.
    @ivar chain: The CNAMEs that were followed, in order.
    @ivar authentic: True if a trusted resolver validated the chain and the records
        at its end (or their absence).  Never true for C{FAILED}.
    @ivar endAuthentic: True if the records at the end of the chain alone were
        validated.
    @ivar errors: Extended errors (RFC 8914), with any status.
    @ivar reason: Why a lookup C{FAILED}, for the log.
    @ivar ttl: Seconds for which the answer may be cached.
    """

    name: str
    kind: RRType
    status: LookupStatus
    records: tuple[Record, ...] = ()
    chain: tuple[CNAMELink, ...] = ()
    authentic: bool = False
    endAuthentic: bool = False
    errors: tuple[ExtendedError, ...] = ()
    reason: str = ""
    ttl: int = 0

    @property
    def failed(self) -> bool:
        return self.status is LookupStatus.FAILED

    @property
    def canonicalName(self) -> str:
        """
        The name of the records, after following all CNAMEs.
        """
        return self.chain[-1].target if self.chain else self.name

    @property
    def dnssecError(self) -> ExtendedError | None:
        """
        The first error about DNSSEC validation, if the lookup failed.
        """
        failed = self.errors if self.failed else ()
        return next((error for error in failed if error.isDNSSEC), None)

    @property
    def mx(self) -> tuple[MX, ...]:
        return tuple(each for each in self.records if isinstance(each, MX))

    @property
    def tlsa(self) -> tuple[TLSA, ...]:
        return tuple(each for each in self.records if isinstance(each, TLSA))

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(each.address for each in self.records if isinstance(each, IP))

    @property
    def texts(self) -> tuple[bytes, ...]:
        return tuple(each.text for each in self.records if isinstance(each, TXT))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            each.target for each in self.records if isinstance(each, NameRecord)
        )
