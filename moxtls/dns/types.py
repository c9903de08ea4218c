# -*- test-case-name: tests.dns.test_types -*-
"""
DNS servers, DNS answers, which parts of answers are authentic, and generators for
decisions that depend on answers.  No I/O.

A L{LookupGenerator} yields the questions that can be asked at the same time, is
sent the answers in the same order, and returns its result.
L{moxtls.tasks.resolve} runs one with a resolver, L{parallel} combines several.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import TypeVar

#: A failure reason code (RFC 8460 4.3): a lookup failed for an unknown reason.
LOOKUP_FAILED = "dns-lookup"
DNS_PORT = 53
#: MAXNS in resolv.conf(5): further servers are not used.
MAX_SERVERS = 3

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class LookupQuestion:
    """
    A question for a resolver.

    @ivar name: As in L{moxtls.interfaces.IResolver.lookup}.
    """

    name: str
    kind: RRType


LookupQuestions = tuple[LookupQuestion, ...]
Answers = tuple[Answer, ...]
LookupGenerator = Generator[LookupQuestions, Answers, T]


def runWithAnswers(
    generator: LookupGenerator[T], answer: Callable[[LookupQuestion], Answer]
) -> T:
    """
    The result of a generator with known answers: for tests, and for answers that
    were looked up before.
    """
    try:
        questions = next(generator)
        while True:
            questions = generator.send(tuple(map(answer, questions)))
    except StopIteration as end:
        found: T = end.value
        return found


def parallel(
    generators: Sequence[LookupGenerator[T]],
) -> LookupGenerator[tuple[T, ...]]:
    """
    Run generators side by side.

    There are as many rounds of questions as the longest generator has.  A question
    of several generators in the same round is asked once.

    @return: The results, in order.
    """
    results: dict[int, T] = {}
    waiting: dict[int, LookupQuestions] = {}

    def advance(index: int, answers: Answers | None) -> None:
        try:
            if answers is None:
                waiting[index] = next(generators[index])
            else:
                waiting[index] = generators[index].send(answers)
        except StopIteration as end:
            waiting.pop(index, None)
            results[index] = end.value

    for index in range(len(generators)):
        advance(index, None)
    while waiting:
        known = yield from _ask(tuple(waiting.values()))
        for index, questions in tuple(waiting.items()):
            advance(index, tuple(known[each] for each in questions))
    return tuple(results[index] for index in range(len(generators)))


def _ask(
    wanted: Sequence[LookupQuestions],
) -> LookupGenerator[dict[LookupQuestion, Answer]]:
    distinct = tuple(dict.fromkeys(each for questions in wanted for each in questions))
    answers = yield distinct
    return dict(zip(distinct, answers, strict=True))
