# -*- test-case-name: tests.dns.test_wire -*-
"""
DNS questions and answers in wire format, dnspython being the codec.  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass

from moxtls.dns.answers import (
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    RRType,
)
from moxtls.dns.message import (
    DNSHeader,
    DNSMessage,
    MalformedMessage,
    Resource,
    nameText,
    readHeader,
    readMessage,
    readQuestion,
    typeNumber,
)

#: What passes through today's networks without being fragmented, as agreed on
#: by makers of DNS software in 2020 ("DNS flag day").
PAYLOAD = 1232
#: How many CNAMEs are followed: more than anyone needs.
MAX_CHAIN = 16
#: RFC 1035 2.3.4, and each octet may be spelled C{\DDD}.
_MAX_TEXT = 4 * 255

_PLAIN_LABEL = r"[A-Za-z0-9_-]{1,63}"
_PLAIN_NAME = re.compile(rf"{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*\Z")
_MAX_PLAIN_NAME = 253


@dataclass(frozen=True, slots=True)
class Question:
    """
    @ivar name: Lower case, no final dot; empty for the root.
    """

    name: str
    kind: RRType


class UnusableResponse(Enum):
    """
    Why a datagram or message from a server is no L{Answer}.

    C{FOREIGN} is not an answer to what was asked: somebody guessing, or the
    late answer to something else.
    """

    FOREIGN = "an answer to something else"
    TRUNCATED = "truncated"


def question(name: str, kind: RRType) -> Question | None:
    """
    @return: C{None} if C{name} can't be in the DNS.
    """
    normal = normalName(name)
    return None if normal is None else Question(normal, kind)


def normalName(name: str) -> str | None:
    """
    The one spelling of C{name}: lower case, no final dot; C{None} if it can't
    be in the DNS (RFC 1035 2.3.4).
    """
    short = name.removesuffix(".")
    if len(short) <= _MAX_PLAIN_NAME and _PLAIN_NAME.match(short):
        return short.lower()
    if len(name) > _MAX_TEXT or not name.isascii():
        return None
    if name == "@":  # dnspython, as in zone files: the origin
        return None
    try:
        return nameText(dns.name.from_text(name or "."))
    except (dns.exception.DNSException, ValueError):
        return None


def noName(name: str, kind: RRType) -> Answer:
    """
    The answer about a name that can't be in the DNS.
    """
    shown = name.removesuffix(".").lower()[:_MAX_PLAIN_NAME]
    return Answer(shown, kind, LookupStatus.NO_NAME, reason="no name of the DNS")


def failure(
    asked: Question, reason: str, errors: tuple[ExtendedError, ...] = ()
) -> Answer:
    """
    Nobody could say.
    """
    return Answer(
        asked.name, asked.kind, LookupStatus.FAILED, errors=errors, reason=reason
    )


def encodeQuery(asked: Question, messageID: int) -> bytes:
    """
    The query: recursion desired, EDNS0 with DO, and AD set, by which the asker
    says that it understands AD (RFC 6840 5.7).
    """
    query = dns.message.make_query(
        dns.name.from_text(asked.name or "."),
        typeNumber(asked.kind),
        use_edns=0,
        want_dnssec=True,
        payload=PAYLOAD,
        id=messageID,
    )
    query.flags |= dns.flags.AD
    return query.to_wire()


#: The codes that say something about the DNS, not about the server.
_SAYING = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def parseResponse(
    wire: bytes, messageID: int, asked: Question, trusted: bool
) -> Answer | UnusableResponse:
    """
    @param trusted: Whether the server's word is taken for what is authentic.

    @return: Also for garbage, never an exception.  A server that couldn't or
        wouldn't say, or said nonsense in reply to C{asked}, makes for an
        L{Answer} that C{FAILED}.
    """
    header = readHeader(wire)
    if header is None or not _isReply(header, wire, messageID, asked):
        return UnusableResponse.FOREIGN
    if header.isTruncated:
        return UnusableResponse.TRUNCATED
    try:
        message = readMessage(wire, asked.kind)
    except MalformedMessage as error:
        return failure(asked, _unread(header, error))
    if message.rcode not in _SAYING:
        return failure(asked, dns.rcode.to_text(message.rcode), message.errors)
    try:
        return _answer(message, asked, trusted and header.isAuthentic)
    except MalformedMessage as error:
        return failure(asked, str(error), message.errors)


def _isReply(header: DNSHeader, wire: bytes, messageID: int, asked: Question) -> bool:
    """
    RFC 5452 9.1: what an answer has to match, besides addresses and ports.
    """
    if header.messageID != messageID or not header.isResponse:
        return False
    if header.opcode != dns.opcode.QUERY:
        return False
    if header.questions == 0:
        # A server that couldn't read the query may not repeat the question.
        return header.rcode not in _SAYING
    try:
        question = readQuestion(wire)
    except MalformedMessage:
        return False
    expected = (asked.name, typeNumber(asked.kind), dns.rdataclass.IN)
    return header.questions == 1 and question == expected


def _unread(header: DNSHeader, error: MalformedMessage) -> str:
    isSaying = header.rcode in _SAYING
    return str(error) if isSaying else dns.rcode.to_text(header.rcode)


def _answer(message: DNSMessage, asked: Question, authentic: bool) -> Answer:
    sets: dict[tuple[str, RRType], list[Resource]] = {}
    for each in message.answer:
        sets.setdefault((each.owner, each.kind), []).append(each)
    chain, aliases = _chain(sets, asked)
    end = sets.get((chain[-1].target if chain else asked.name, asked.kind), [])
    isName = message.rcode != dns.rcode.NXDOMAIN
    if end and not isName:
        raise MalformedMessage("records at a name that is said not to be")
    used = [each.ttl for each in (*aliases, *end)]
    answer = Answer(
        name=asked.name,
        kind=asked.kind,
        found=LookupStatus.NO_RECORDS if isName else LookupStatus.NO_NAME,
        chain=tuple(replace(each, authentic=authentic) for each in chain),
        authentic=authentic,
        endAuthentic=authentic,
        errors=message.errors,
    )
    if not end:
        return replace(answer, ttl=min([*used, _negativeTTL(message)]))
    records = tuple(dict.fromkeys(each.data for each in end))
    return replace(answer, found=LookupStatus.RECORDS, records=records, ttl=min(used))


def _chain(
    sets: dict[tuple[str, RRType], list[Resource]], asked: Question
) -> tuple[list[CNAMELink], list[Resource]]:
    """
    The CNAMEs from the question on.
    """
    chain: list[CNAMELink] = []
    used: list[Resource] = []
    name = asked.name
    while (name, asked.kind) not in sets and (name, RRType.CNAME) in sets:
        target = _target(sets[name, RRType.CNAME])
        if target == asked.name or any(target == each.target for each in chain):
            raise MalformedMessage("CNAME loop")
        if len(chain) == MAX_CHAIN:
            raise MalformedMessage("CNAME chain too long")
        used += sets[name, RRType.CNAME]
        chain.append(CNAMELink(name, target, authentic=False))
        name = target
    return chain, used


def _target(aliases: Sequence[Resource]) -> str:
    """
    Where a name points to: RFC 2181 10.1 allows for one CNAME only.
    """
    targets = {each.data for each in aliases}
    data = targets.pop()
    if targets or not isinstance(data, NameRecord):
        raise MalformedMessage("several CNAMEs at one name")
    return data.target


def _negativeTTL(message: DNSMessage) -> int:
    """
    RFC 2308 5; nothing is remembered without an SOA.
    """
    for each in message.authority:
        if each.kind is RRType.SOA:
            return min(each.ttl, each.minimum)
    if message.authority:
        # RFC 2308 2.2: the server doesn't know, and doesn't ask for us.
        raise MalformedMessage("a referral: the server doesn't recurse")
    return 0
