# -*- test-case-name: tests.dns.test_wire -*-
"""
DNS questions and answers in wire format, dnspython being the codec.  No I/O.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from enum import Enum

import dns.edns
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
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rrset

from moxtls.dns.answers import (
    IP,
    MX,
    TLSA,
    TXT,
    Alias,
    Answer,
    ExtendedError,
    Found,
    Kind,
    Name,
    Record,
)

#: What passes through today's networks without being fragmented, as agreed on
#: by makers of DNS software in 2020 ("DNS flag day").
PAYLOAD = 1232
#: How many CNAMEs are followed: more than anyone needs.
LONGEST_CHAIN = 16
#: RFC 1035 2.3.4, and each octet may be spelled C{\DDD}.
_LONGEST_TEXT = 4 * 255
#: How much of RFC 8914's EXTRA-TEXT is kept, and of how many errors.
_LONGEST_EXTRA_TEXT = 200
MOST_ERRORS = 8

_PLAIN_LABEL = r"[A-Za-z0-9_-]{1,63}"
_PLAIN_NAME = re.compile(rf"{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*\Z")
_LONGEST_PLAIN_NAME = 253

_HEADER = struct.Struct("!HHHHHH")
_TYPE_AND_CLASS = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class Question:
    """
    @ivar name: Lower case, no final dot; empty for the root.
    """

    name: str
    kind: Kind


class Unusable(Enum):
    """
    Why a datagram or message from a server is no L{Answer}.

    C{FOREIGN} is not an answer to what was asked: somebody guessing, or the
    late answer to something else.
    """

    FOREIGN = "an answer to something else"
    TRUNCATED = "truncated"


class _Malformed(Exception):
    """
    A message says something that makes no sense.
    """


def question(name: str, kind: Kind) -> Question | None:
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
    if len(short) <= _LONGEST_PLAIN_NAME and _PLAIN_NAME.match(short):
        return short.lower()
    if len(name) > _LONGEST_TEXT or not name.isascii():
        return None
    if name == "@":  # dnspython, as in zone files: the origin
        return None
    try:
        return _text(dns.name.from_text(name or "."))
    except (dns.exception.DNSException, ValueError):
        return None


def noName(name: str, kind: Kind) -> Answer:
    """
    The answer about a name that can't be in the DNS.
    """
    shown = name.removesuffix(".").lower()[:_LONGEST_PLAIN_NAME]
    return Answer(shown, kind, Found.NO_NAME, reason="no name of the DNS")


def failure(
    asked: Question, reason: str, errors: tuple[ExtendedError, ...] = ()
) -> Answer:
    """
    Nobody could say.
    """
    return Answer(asked.name, asked.kind, Found.FAILED, errors=errors, reason=reason)


def encodeQuery(asked: Question, messageID: int) -> bytes:
    """
    The query: recursion desired, EDNS0 with DO, and AD set, by which the asker
    says that it understands AD (RFC 6840 5.7).
    """
    query = dns.message.make_query(
        dns.name.from_text(asked.name or "."),
        dns.rdatatype.from_text(asked.kind.value),
        use_edns=0,
        want_dnssec=True,
        payload=PAYLOAD,
        id=messageID,
    )
    query.flags |= dns.flags.AD
    return query.to_wire()


def parseResponse(
    wire: bytes, messageID: int, asked: Question, trusted: bool
) -> Answer | Unusable:
    """
    @param trusted: Whether the server's word is taken for what is authentic.

    @return: Also for garbage, never an exception.  A server that couldn't or
        wouldn't say, or said nonsense in reply to C{asked}, makes for an
        L{Answer} that C{FAILED}.
    """
    if not _isReply(wire, messageID, asked):
        return Unusable.FOREIGN
    flags = dns.flags.Flag(_HEADER.unpack_from(wire)[1])
    if flags & dns.flags.TC:
        return Unusable.TRUNCATED
    try:
        message = dns.message.from_wire(wire, keyring=False, ignore_trailing=True)
    except Exception:
        # Whatever dnspython makes of hostile octets: FormError, but also
        # ValueError, UnicodeDecodeError, struct.error.
        return failure(asked, _withoutBody(flags))
    try:
        return _answer(message, asked, trusted)
    except (_Malformed, dns.exception.DNSException, ValueError) as error:
        return failure(asked, f"malformed answer: {error}", _errors(message))


def _isReply(wire: bytes, messageID: int, asked: Question) -> bool:
    """
    RFC 5452 9.1: what an answer has to match, besides addresses and ports.
    """
    if len(wire) < _HEADER.size:
        return False
    header = _HEADER.unpack_from(wire)
    flags = dns.flags.Flag(header[1])
    if header[0] != messageID or not flags & dns.flags.QR:
        return False
    if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        return False
    if header[2] == 0:
        # A server that couldn't read the query may not repeat the question.
        return _rcode(flags) not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    return header[2] == 1 and _sameQuestion(wire, asked)


def _sameQuestion(wire: bytes, asked: Question) -> bool:
    try:
        name, length = dns.name.from_wire(wire, _HEADER.size)
        kind, klass = _TYPE_AND_CLASS.unpack_from(wire, _HEADER.size + length)
    except (dns.exception.DNSException, struct.error, ValueError, IndexError):
        return False
    return (name, kind, klass) == (
        dns.name.from_text(asked.name or "."),
        dns.rdatatype.from_text(asked.kind.value),
        dns.rdataclass.IN,
    )


def _rcode(flags: dns.flags.Flag) -> dns.rcode.Rcode:
    return dns.rcode.from_flags(flags, 0)


def _withoutBody(flags: dns.flags.Flag) -> str:
    code = _rcode(flags)
    if code in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return "malformed answer"
    return dns.rcode.to_text(code)


def _answer(message: dns.message.Message, asked: Question, trusted: bool) -> Answer:
    errors = _errors(message)
    code = message.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return failure(asked, dns.rcode.to_text(code), errors)
    authentic = trusted and bool(message.flags & dns.flags.AD)
    chain, ttls = _chain(message, asked, authentic)
    end = chain[-1].target if chain else asked.name
    found = _rrset(message, end, asked.kind)
    if found and code == dns.rcode.NXDOMAIN:
        raise _Malformed("records at a name that is said not to be")
    answer = Answer(
        name=asked.name,
        kind=asked.kind,
        found=Found.NO_NAME if code == dns.rcode.NXDOMAIN else Found.NO_RECORDS,
        chain=chain,
        authentic=authentic,
        endAuthentic=authentic,
        errors=errors,
    )
    if not found:
        return replace(answer, ttl=min([*ttls, _negativeTTL(message)]))
    records = tuple(_record(each) for each in found)
    return replace(
        answer, found=Found.RECORDS, records=records, ttl=min([*ttls, found.ttl])
    )


def _chain(
    message: dns.message.Message, asked: Question, authentic: bool
) -> tuple[tuple[Alias, ...], list[int]]:
    """
    The CNAMEs from the question on, and their times to live.
    """
    chain: list[Alias] = []
    ttls: list[int] = []
    name = asked.name
    while asked.kind is not Kind.CNAME and not _rrset(message, name, asked.kind):
        step = _rrset(message, name, Kind.CNAME)
        if not step:
            break
        if len(step) > 1:
            raise _Malformed("several CNAMEs at one name")
        target = _text(step[0].target)
        if target == asked.name or any(target == each.name for each in chain):
            raise _Malformed("CNAME loop")
        if len(chain) == LONGEST_CHAIN:
            raise _Malformed("CNAME chain too long")
        chain.append(Alias(name, target, authentic))
        ttls.append(step.ttl)
        name = target
    return tuple(chain), ttls


def _rrset(
    message: dns.message.Message, name: str, kind: Kind
) -> dns.rrset.RRset | None:
    return message.get_rrset(
        message.answer,
        dns.name.from_text(name or "."),
        dns.rdataclass.IN,
        dns.rdatatype.from_text(kind.value),
    )


def _negativeTTL(message: dns.message.Message) -> int:
    """
    RFC 2308 5; nothing is remembered without an SOA.
    """
    authority = [
        each for each in message.authority if each.rdclass == dns.rdataclass.IN
    ]
    for rrset in authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return min([rrset.ttl, *(int(each.minimum) for each in rrset)])
    if any(each.rdtype == dns.rdatatype.NS for each in authority):
        # RFC 2308 2.2: the server doesn't know, and doesn't ask for us.
        raise _Malformed("a referral: the server doesn't recurse")
    return 0


def _errors(message: dns.message.Message) -> tuple[ExtendedError, ...]:
    options = [each for each in message.options if isinstance(each, dns.edns.EDEOption)]
    return tuple(
        ExtendedError(int(each.code), (each.text or "")[:_LONGEST_EXTRA_TEXT])
        for each in options[:MOST_ERRORS]
    )


def _record(data: dns.rdata.Rdata) -> Record:
    match data:
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return IP(data.address)
        case dns.rdtypes.ANY.MX.MX():
            return MX(data.preference, _text(data.exchange))
        case dns.rdtypes.ANY.TLSA.TLSA():
            return TLSA(data.usage, data.selector, data.mtype, data.cert)
        case dns.rdtypes.ANY.TXT.TXT():
            return TXT(b"".join(data.strings))
        case dns.rdtypes.ANY.SOA.SOA():
            return Name(_text(data.mname))
        case (
            dns.rdtypes.ANY.CNAME.CNAME()
            | dns.rdtypes.ANY.NS.NS()
            | dns.rdtypes.ANY.PTR.PTR()
        ):
            return Name(_text(data.target))
    raise _Malformed("a record that isn't what its type says")


def _text(name: dns.name.Name) -> str:
    return "" if name == dns.name.root else name.canonicalize().to_text(True)
