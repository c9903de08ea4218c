# -*- test-case-name: tests.dns.test_wire -*-
"""
Writes and reads DNS messages in wire format.  No I/O.

Uses dnspython for names and record data, but reads only the records that are
needed, so that other records in a message can't make it unreadable.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.wire

from moxtls.dns.types import (
    IP,
    MX,
    TLSA,
    TXT,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    Record,
    RRType,
)
from moxtls.domain import MAX_LABEL

#: Octets that pass through most networks without fragmentation ("DNS flag day
#: 2020").
MAX_UDP_PAYLOAD = 1232
#: CNAMEs that are followed.
MAX_CHAIN = 16
#: RFC 1035 2.3.4, and each octet may be spelled C{\DDD}.
_MAX_TEXT = 4 * 255

_PLAIN_LABEL = r"[A-Za-z0-9_-]{1,63}"
_PLAIN_NAME = re.compile(rf"{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*\Z")
_MAX_PLAIN_NAME = 253


@dataclass(frozen=True, slots=True)
class Question:
    """
    A question with a normalized name.

    @ivar name: Lower case, no final dot; empty for the root.
    """

    name: str
    kind: RRType


class UnusableResponse(Enum):
    """
    The reason why a datagram or message from a server is no L{Answer}.

    C{FOREIGN}: it doesn't match the query: an attempt to spoof, or the late
    response to another query.
    """

    FOREIGN = "an answer to something else"
    TRUNCATED = "truncated"


def makeQuestion(name: str, kind: RRType) -> Question | None:
    """
    Make a question.

    @return: C{None} if C{name} is not a valid name.
    """
    normal = normalName(name)
    return None if normal is None else Question(normal, kind)


def normalName(name: str) -> str | None:
    """
    Normalize a name: lower case, no final dot.

    @return: C{None} if C{name} is not a valid name (RFC 1035 2.3.4).
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


def invalidNameAnswer(name: str, kind: RRType) -> Answer:
    """
    The answer to a question for an invalid name.
    """
    shown = name.removesuffix(".").lower()[:_MAX_PLAIN_NAME]
    return Answer(shown, kind, LookupStatus.NO_NAME, reason="no name of the DNS")


def failedAnswer(
    asked: Question, reason: str, errors: tuple[ExtendedError, ...] = ()
) -> Answer:
    """
    The answer of a failed lookup.
    """
    return Answer(
        asked.name, asked.kind, LookupStatus.FAILED, errors=errors, reason=reason
    )


def encodeQuery(asked: Question, messageID: int) -> bytes:
    """
    Write a query: recursion desired, EDNS0 with DO, and AD set to say that AD is
    understood (RFC 6840 5.7).
    """
    query = dns.message.make_query(
        dns.name.from_text(asked.name or "."),
        typeNumber(asked.kind),
        use_edns=0,
        want_dnssec=True,
        payload=MAX_UDP_PAYLOAD,
        id=messageID,
    )
    query.flags |= dns.flags.AD
    return query.to_wire()


#: The response codes that are answers, not errors of the server.
_ANSWER_CODES = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def parseResponse(
    wire: bytes, messageID: int, asked: Question, trusted: bool
) -> Answer | UnusableResponse:
    """
    Read a response.  Never raises an exception.

    @param trusted: True if the AD bit of the server is trusted.

    @return: An error code, and an invalid response to C{asked}, make an L{Answer}
        that C{FAILED}.
    """
    header = readHeader(wire)
    if header is None or not _isReply(header, wire, messageID, asked):
        return UnusableResponse.FOREIGN
    if header.isTruncated:
        return UnusableResponse.TRUNCATED
    try:
        message = readMessage(wire, asked.kind)
    except MalformedMessage as error:
        return failedAnswer(asked, _failureReason(header, error))
    if message.rcode not in _ANSWER_CODES:
        return failedAnswer(asked, dns.rcode.to_text(message.rcode), message.errors)
    try:
        return _answer(message, asked, trusted and header.isAuthentic)
    except MalformedMessage as error:
        return failedAnswer(asked, str(error), message.errors)


def _isReply(header: DNSHeader, wire: bytes, messageID: int, asked: Question) -> bool:
    """
    True if a response matches the query (RFC 5452 9.1), besides addresses and
    ports.
    """
    if header.messageID != messageID or not header.isResponse:
        return False
    if header.opcode != dns.opcode.QUERY:
        return False
    if header.questions == 0:
        # A server that couldn't read the query may leave the question out.
        return header.rcode not in _ANSWER_CODES
    try:
        question = readQuestion(wire)
    except MalformedMessage:
        return False
    expected = (asked.name, typeNumber(asked.kind), dns.rdataclass.IN)
    return header.questions == 1 and question == expected


def _failureReason(header: DNSHeader, error: MalformedMessage) -> str:
    isAnswer = header.rcode in _ANSWER_CODES
    return str(error) if isAnswer else dns.rcode.to_text(header.rcode)


def _answer(message: DNSMessage, asked: Question, authentic: bool) -> Answer:
    sets: dict[tuple[str, RRType], list[ResourceRecord]] = {}
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
        status=LookupStatus.NO_RECORDS if isName else LookupStatus.NO_NAME,
        chain=tuple(replace(each, authentic=authentic) for each in chain),
        authentic=authentic,
        endAuthentic=authentic,
        errors=message.errors,
    )
    if not end:
        return replace(answer, ttl=min([*used, _negativeTTL(message)]))
    records = tuple(dict.fromkeys(each.data for each in end))
    return replace(answer, status=LookupStatus.RECORDS, records=records, ttl=min(used))


def _chain(
    sets: dict[tuple[str, RRType], list[ResourceRecord]], asked: Question
) -> tuple[list[CNAMELink], list[ResourceRecord]]:
    """
    The CNAMEs that lead from the question to the records.
    """
    chain: list[CNAMELink] = []
    used: list[ResourceRecord] = []
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


def _target(aliases: Sequence[ResourceRecord]) -> str:
    """
    The target of a CNAME: RFC 2181 10.1 allows only one at a name.
    """
    targets = {each.data for each in aliases}
    data = targets.pop()
    if targets or not isinstance(data, NameRecord):
        raise MalformedMessage("several CNAMEs at one name")
    return data.target


def _negativeTTL(message: DNSMessage) -> int:
    """
    The TTL of a negative answer (RFC 2308 5); without an SOA it is not cached.
    """
    for each in message.authority:
        if each.kind is RRType.SOA:
            return min(each.ttl, each.minimum)
    if message.authority:
        # RFC 2308 2.2: the server isn't recursive.
        raise MalformedMessage("a referral: the server doesn't recurse")
    return 0


#: Characters of RFC 8914's EXTRA-TEXT that are kept, and number of errors.
MAX_EXTRA_TEXT = 200
MAX_ERRORS = 8
#: Records of all sections.  Hardly more MX records fit into the 64 KiB of a message
#: (RFC 1035 4.2.2), though smaller invalid records do.
MAX_RECORDS = 4000
#: Labels of all names that are read: ten for each record.  With compression, a
#: message may have a hundred times as many, and take seconds to read.
MAX_LABELS = 40_000
#: RFC 2181 8: a larger time to live counts as 0.
MAX_TTL = 0x7FFFFFFF

#: RFC 1035 4.1.1: id, flags, and the number of records in each section.
_HEADER = struct.Struct("!HHHHHH")
#: RFC 1035 4.1.2.
_QUESTION = struct.Struct("!HH")
#: RFC 1035 4.1.4: two octets that point to the rest of a name.
_POINTER = 0xC0
#: RFC 1035 4.1.3: type, class, TTL, length; all but the name.
_RECORD = struct.Struct("!HHIH")
_OPTION = struct.Struct("!HH")
#: RFC 8914 2.
_EXTENDED_ERROR = 15

_TYPES = {kind: dns.rdatatype.from_text(kind.value) for kind in RRType}
_KINDS = {int(number): kind for kind, number in _TYPES.items()}
_OPT = int(dns.rdatatype.OPT)


class MalformedMessage(Exception):
    """
    A message is invalid.
    """


@dataclass(frozen=True, slots=True)
class DNSHeader:
    """
    The header of a message.

    @ivar rcode: The lower four bits of the code: the header has no others.
    """

    messageID: int
    flags: dns.flags.Flag
    opcode: dns.opcode.Opcode
    rcode: dns.rcode.Rcode
    questions: int

    @property
    def isResponse(self) -> bool:
        return bool(self.flags & dns.flags.QR)

    @property
    def isTruncated(self) -> bool:
        return bool(self.flags & dns.flags.TC)

    @property
    def isAuthentic(self) -> bool:
        return bool(self.flags & dns.flags.AD)


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """
    One record of a message.

    @ivar minimum: The MINIMUM of an SOA: the TTL of negative answers (RFC 2308 4).
    """

    owner: str
    kind: RRType
    ttl: int
    data: Record
    minimum: int = 0


@dataclass(frozen=True, slots=True)
class DNSMessage:
    """
    The contents of a response that are needed.
    """

    rcode: dns.rcode.Rcode
    answer: tuple[ResourceRecord, ...]
    authority: tuple[ResourceRecord, ...]
    errors: tuple[ExtendedError, ...]


def typeNumber(kind: RRType) -> dns.rdatatype.RdataType:
    return _TYPES[kind]


def nameText(name: dns.name.Name) -> str:
    """
    Lower case, no final dot; empty for the root.
    """
    return "" if name == dns.name.root else name.canonicalize().to_text(True)


def readHeader(wire: bytes) -> DNSHeader | None:
    """
    Read the header of a message.

    @return: C{None} if C{wire} is too short.
    """
    if len(wire) < _HEADER.size:
        return None
    messageID, bits, questions, _, _, _ = _HEADER.unpack_from(wire)
    flags = dns.flags.Flag(bits)
    return DNSHeader(
        messageID,
        flags,
        dns.opcode.from_flags(flags),
        dns.rcode.from_flags(flags, 0),
        questions,
    )


def readQuestion(wire: bytes) -> tuple[str, int, int]:
    """
    Name, type and class of the first question.

    @raise MalformedMessage: It can't be read.
    """
    parser = dns.wire.Parser(wire)
    try:
        parser.seek(_HEADER.size)
        name = dns.name.from_wire_parser(parser)
        kind, klass = _QUESTION.unpack(parser.get_bytes(_QUESTION.size))
    except (dns.exception.DNSException, ValueError) as error:
        raise MalformedMessage("unreadable question") from error
    return nameText(name), kind, klass


def readMessage(wire: bytes, kind: RRType) -> DNSMessage:
    """
    Read a message.

    @param kind: The record type in the question; other records in the answer
        section, except CNAMEs, are skipped.

    @raise MalformedMessage: It can't be read.
    """
    parser = dns.wire.Parser(wire)
    names = _Names(parser)
    try:
        _, bits, *counts = _HEADER.unpack(parser.get_bytes(_HEADER.size))
        if sum(counts[1:]) > MAX_RECORDS:
            raise MalformedMessage("too many records")
        for _ in range(counts[0]):
            names.skip()
            parser.get_bytes(_QUESTION.size)
        answer = _section(names, counts[1], {kind, RRType.CNAME})
        authority = _section(names, counts[2], {RRType.SOA, RRType.NS})
        extended, errors = _additional(names, counts[3])
    except (dns.exception.DNSException, ValueError, struct.error) as error:
        raise MalformedMessage("unreadable message") from error
    # RFC 6891 6.1.3: eight more bits of the code.
    return DNSMessage(dns.rcode.from_flags(bits, extended), answer, authority, errors)


class _Names:
    """
    Reads the names of one message, at most L{MAX_LABELS} labels in all.
    """

    def __init__(self, parser: dns.wire.Parser) -> None:
        self.parser = parser
        self._known: dict[bytes, str] = {}
        self._labels = 0

    def skip(self) -> None:
        """
        Skip a name.
        """
        while length := self.parser.get_uint8():
            if length >= _POINTER:
                self.parser.get_bytes(1)
                return
            if length > MAX_LABEL:
                raise MalformedMessage("a label of no known type")
            self.parser.get_bytes(length)

    def readAt(self, offset: int) -> str:
        """
        The name at an offset of the message.
        """
        wire = self.parser.wire
        pointer = wire[offset : offset + 2] if wire[offset] >= _POINTER else b""
        # Most records have the same owner, to which they point.
        if pointer in self._known:
            return self._known[pointer]
        text = self.text(dns.name.from_wire(wire, offset)[0])
        if pointer:
            self._known[pointer] = text
        return text

    def text(self, name: dns.name.Name) -> str:
        """
        A name as L{nameText} has it.
        """
        self._labels += len(name)
        if self._labels > MAX_LABELS:
            raise MalformedMessage("names that are too long")
        return nameText(name)


def _section(
    names: _Names, count: int, wanted: Container[RRType]
) -> tuple[ResourceRecord, ...]:
    parser = names.parser
    found: list[ResourceRecord] = []
    for _ in range(count):
        owner = parser.current
        names.skip()
        number, klass, ttl, length = _RECORD.unpack(parser.get_bytes(_RECORD.size))
        kind = _KINDS.get(number)
        if kind is None or kind not in wanted or klass != dns.rdataclass.IN:
            parser.get_bytes(length)
            continue
        data, minimum = _data(names, kind, length)
        ttl = ttl if ttl <= MAX_TTL else 0
        found.append(ResourceRecord(names.readAt(owner), kind, ttl, data, minimum))
    return tuple(found)


def _data(names: _Names, kind: RRType, length: int) -> tuple[Record, int]:
    parser = names.parser
    if kind is RRType.TLSA:
        # dnspython refuses digests of the wrong length; for DANE they are unusable
        # records, not an unreadable answer (RFC 7671 4).
        return _tlsa(parser.get_bytes(length)), 0
    with parser.restrict_to(length):
        data = dns.rdata.from_wire_parser(dns.rdataclass.IN, _TYPES[kind], parser)
    minimum = data.minimum if isinstance(data, dns.rdtypes.ANY.SOA.SOA) else 0
    return _record(data, names), minimum


def _tlsa(data: bytes) -> TLSA:
    if len(data) < 3:
        raise MalformedMessage("a TLSA record that is too short")
    return TLSA(data[0], data[1], data[2], data[3:])


def _record(data: dns.rdata.Rdata, names: _Names) -> Record:
    match data:
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return IP(data.address)
        case dns.rdtypes.ANY.MX.MX():
            return MX(data.preference, names.text(data.exchange))
        case dns.rdtypes.ANY.TXT.TXT():
            return TXT(b"".join(data.strings))
        case dns.rdtypes.ANY.SOA.SOA():
            return NameRecord(names.text(data.mname))
        case (
            dns.rdtypes.ANY.CNAME.CNAME()
            | dns.rdtypes.ANY.NS.NS()
            | dns.rdtypes.ANY.PTR.PTR()
        ):
            return NameRecord(names.text(data.target))
    raise MalformedMessage("a record that isn't what its type says")


def _additional(names: _Names, count: int) -> tuple[int, tuple[ExtendedError, ...]]:
    """
    The TTL of the OPT record, which isn't one but flags (RFC 6891 6.1.3), and
    the errors in it.
    """
    extended = 0
    errors: tuple[ExtendedError, ...] = ()
    parser = names.parser
    for _ in range(count):
        names.skip()
        number, _, ttl, length = _RECORD.unpack(parser.get_bytes(_RECORD.size))
        data = parser.get_bytes(length)
        if number == _OPT:
            extended, errors = ttl, _errors(data)
    return extended, errors


def _errors(options: bytes) -> tuple[ExtendedError, ...]:
    parser = dns.wire.Parser(options)
    errors: list[ExtendedError] = []
    while parser.remaining():
        code, length = _OPTION.unpack(parser.get_bytes(_OPTION.size))
        data = parser.get_bytes(length)
        if code == _EXTENDED_ERROR and len(data) >= 2 and len(errors) < MAX_ERRORS:
            # RFC 8914 2: UTF-8, which may or may not end in a NUL.
            text = data[2:].decode("utf-8", "replace").rstrip("\0")
            number = int.from_bytes(data[:2], "big")
            errors.append(ExtendedError(number, text[:MAX_EXTRA_TEXT]))
    return tuple(errors)
