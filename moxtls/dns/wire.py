# -*- test-case-name: tests.dns.test_wire -*-
"""
DNS questions and answers in wire format, dnspython being the codec.  No I/O.

Reads DNS messages: names and record data with dnspython, and of all records
only those that matter, so that nothing else in a message can spoil it.  No
I/O.
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

#: What passes through today's networks without being fragmented, as agreed on
#: by makers of DNS software in 2020 ("DNS flag day").
MAX_UDP_PAYLOAD = 1232
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


def makeQuestion(name: str, kind: RRType) -> Question | None:
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


def invalidNameAnswer(name: str, kind: RRType) -> Answer:
    """
    The answer about a name that can't be in the DNS.
    """
    shown = name.removesuffix(".").lower()[:_MAX_PLAIN_NAME]
    return Answer(shown, kind, LookupStatus.NO_NAME, reason="no name of the DNS")


def failedAnswer(
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
        payload=MAX_UDP_PAYLOAD,
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
        return failedAnswer(asked, _unread(header, error))
    if message.rcode not in _SAYING:
        return failedAnswer(asked, dns.rcode.to_text(message.rcode), message.errors)
    try:
        return _answer(message, asked, trusted and header.isAuthentic)
    except MalformedMessage as error:
        return failedAnswer(asked, str(error), message.errors)


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
    The CNAMEs from the question on.
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


#: How much of RFC 8914's EXTRA-TEXT is kept, and of how many errors.
MAX_EXTRA_TEXT = 200
MAX_ERRORS = 8
#: Of all sections together.  Hardly more MX records fit into the 64 KiB of a
#: message (RFC 1035 4.2.2); of what is no sensible record there may be more.
MAX_RECORDS = 4000
#: Labels of all names that are read: ten for each record.  Compressed, the names of
#: a message may have a hundred times as many, and take seconds to read.
MAX_LABELS = 40_000
#: RFC 2181 8: beyond this, a time to live is taken for 0.
MAX_TTL = 0x7FFFFFFF

#: RFC 1035 4.1.1: id, flags, and the number of records in each section.
_HEADER = struct.Struct("!HHHHHH")
#: RFC 1035 4.1.2.
_QUESTION = struct.Struct("!HH")
#: RFC 1035 4.1.4: two octets that say where the rest of a name is.
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
    A message says something that makes no sense.
    """


@dataclass(frozen=True, slots=True)
class DNSHeader:
    """
    What stands in front of a message.

    @ivar rcode: The lower four bits, which is all there is of it here.
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
    One record, and where it is.

    @ivar minimum: That of an SOA: how long its absences last (RFC 2308 4).
    """

    owner: str
    kind: RRType
    ttl: int
    data: Record
    minimum: int = 0


@dataclass(frozen=True, slots=True)
class DNSMessage:
    """
    What is of interest in a response.
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

    @raise Malformed: It can't be read.
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
    @param kind: What was asked for; other records in the answer are passed
        over, but for CNAMEs.

    @raise Malformed: It can't be read.
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
    Reads the names of one message, not more than L{MAX_LABELS} of their
    labels.
    """

    def __init__(self, parser: dns.wire.Parser) -> None:
        self.parser = parser
        self._known: dict[bytes, str] = {}
        self._labels = 0

    def skip(self) -> None:
        """
        Pass over a name.
        """
        while length := self.parser.get_uint8():
            if length >= _POINTER:
                self.parser.get_bytes(1)
                return
            if length > MAX_LABEL:
                raise MalformedMessage("a label of no known type")
            self.parser.get_bytes(length)

    def readAt(self, place: int) -> str:
        """
        The name that begins at C{place} of the message.
        """
        wire = self.parser.wire
        pointer = wire[place : place + 2] if wire[place] >= _POINTER else b""
        # Most records have the same owner, to which they point.
        if pointer in self._known:
            return self._known[pointer]
        text = self.text(dns.name.from_wire(wire, place)[0])
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
        # dnspython refuses digests of the wrong length; to DANE they are
        # records that can't be used, not an answer that can't be read (RFC
        # 7671 4).
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
