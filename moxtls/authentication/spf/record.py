# -*- test-case-name: tests.authentication.spf.test_record -*-
"""
Parses SPF records (RFC 7208 12), and expands macros in records and explanations (RFC
7208 7).  No I/O.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from moxtls.authentication.results import AuthResult
from moxtls.domain import MAX_DOMAIN_LENGTH

#: Octets: many times what fits into a DNS answer comfortably (RFC 7208 3.4), and little
#: to parse.
MAX_RECORD_LENGTH = 16384
#: Octets of records that are cached, and entries in the cache.  Most mail comes from a
#: few providers, whose records are included everywhere.  Records within the size that
#: RFC 7208 3.4 recommends take a few megabytes, and some 20 if an attacker fills the
#: cache.
MAX_CACHED_LENGTH = 512
MAX_CACHED = 512

_VERSION = b"v=spf1"
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)\Z", re.DOTALL)
_DIRECTIVE = re.compile(r"([+?~-]?)([A-Za-z0-9]+)(.*)\Z", re.DOTALL)
_CIDR = re.compile(r"(?:/([0-9]{1,3}))?(?://([0-9]{1,3}))?\Z")
# RFC 7208 7.1: letters, digits and hyphens, no hyphen at either end, and not all
# digits.
_TOP_LABEL = re.compile(r"(?![0-9]+\Z)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")
_QUALIFIERS = {
    "": AuthResult.PASS,
    "+": AuthResult.PASS,
    "-": AuthResult.FAIL,
    "~": AuthResult.SOFTFAIL,
    "?": AuthResult.NEUTRAL,
}
_MAX_SHOWN_LENGTH = 80


class InvalidSPFRecord(ValueError):
    """
    A record with a syntax error (RFC 7208 12); names the term and the reason.
    """


def isSPF(text: bytes) -> bool:
    """
    True if a TXT record is one of SPF version 1 (RFC 7208 4.5).
    """
    return text[:6].lower() == _VERSION and text[6:7] in (b"", b" ")


def parseSPFRecord(text: bytes) -> SPFRecord:
    """
    @param text: A record for which L{isSPF} is true.

    @raise InvalidSPFRecord: There is an error anywhere in it (RFC 7208 4.6).
    """
    if len(text) > MAX_RECORD_LENGTH:
        raise InvalidSPFRecord(f"longer than {MAX_RECORD_LENGTH} octets")
    return _cached(text) if len(text) <= MAX_CACHED_LENGTH else _parsed(text)


def clearRecordCache() -> None:
    """
    Empty the cache, for benchmarks of the parser.
    """
    _cached.cache_clear()


def _parsed(text: bytes) -> SPFRecord:
    directives: list[Directive] = []
    modifiers: dict[str, DomainSpec] = {}
    # Characters beyond ASCII are in no term, so any decoding will do.
    for term in filter(None, text[len(_VERSION) :].decode("latin-1").split(" ")):
        modifier = _MODIFIER.match(term)
        try:
            if modifier:
                _addModifier(modifiers, modifier[1].lower(), modifier[2])
            else:
                directives.append(_directive(term))
        except ValueError as error:
            shown = printable(term, _MAX_SHOWN_LENGTH)
            raise InvalidSPFRecord(f"{shown!r}: {error}") from None
    return _record(directives, modifiers)


_cached = lru_cache(maxsize=MAX_CACHED)(_parsed)


def _record(directives: list[Directive], modifiers: dict[str, DomainSpec]) -> SPFRecord:
    redirect = modifiers.get("redirect")
    for index, each in enumerate(directives):
        if isinstance(each.mechanism, AllMechanism):
            directives, redirect = directives[: index + 1], None
            break
    return SPFRecord(tuple(directives), redirect, modifiers.get("exp"))


def _addModifier(found: dict[str, DomainSpec], name: str, value: str) -> None:
    if name not in ("redirect", "exp"):
        # Unknown modifiers are ignored if their syntax is right (RFC 7208 6).
        parseMacroString(value, explaining=True)
    elif name in found:
        raise ValueError("it is repeated")
    else:
        found[name] = _domainSpec(value)


def _directive(term: str) -> Directive:
    match = _DIRECTIVE.match(term)
    parse = match and _MECHANISMS.get(match[2].lower())
    if not match or not parse:
        raise ValueError("no such mechanism")
    return Directive(_QUALIFIERS[match[1]], parse(match[3]), term)


def _all(rest: str) -> AllMechanism:
    if rest:
        raise ValueError("it has no value")
    return AllMechanism()


def _include(rest: str) -> IncludeMechanism:
    return IncludeMechanism(_neededDomain(rest))


def _exists(rest: str) -> ExistsMechanism:
    return ExistsMechanism(_neededDomain(rest))


def _ptr(rest: str) -> PTRMechanism:
    return PTRMechanism(_optionalDomain(rest))


def _a(rest: str) -> AMechanism:
    return AMechanism(*_domainAndPrefixes(rest))


def _mx(rest: str) -> MXMechanism:
    return MXMechanism(*_domainAndPrefixes(rest))


def _ip4(rest: str) -> IPMechanism:
    return _network(rest, ipaddress.IPv4Address)


def _ip6(rest: str) -> IPMechanism:
    return _network(rest, ipaddress.IPv6Address)


_MECHANISMS: dict[str, Callable[[str], Mechanism]] = {
    "all": _all,
    "include": _include,
    "a": _a,
    "mx": _mx,
    "ptr": _ptr,
    "ip4": _ip4,
    "ip6": _ip6,
    "exists": _exists,
}


def _network(
    rest: str, family: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
) -> IPMechanism:
    text, slash, prefix = _value(rest).partition("/")
    try:
        # RFC 4291 2.2 has no zones.
        address = family("" if "%" in text else text)
    except ValueError:
        raise ValueError("not an address of that family") from None
    bits = address.max_prefixlen
    return IPMechanism(
        address.version, int(address), _prefix(prefix, bits) if slash else bits
    )


def _domainAndPrefixes(rest: str) -> tuple[DomainSpec | None, int, int]:
    # The domain may have slashes, but doesn't end in such a number.
    cidr = _CIDR.search(rest)
    assert cidr is not None  # It matches nothing at the end, if need be.
    return (
        _optionalDomain(rest[: cidr.start()]),
        32 if cidr[1] is None else _prefix(cidr[1], 32),
        128 if cidr[2] is None else _prefix(cidr[2], 128),
    )


def _prefix(digits: str, bits: int) -> int:
    isNumber = digits.isascii() and digits.isdigit() and len(digits) <= 3
    if not isNumber or str(int(digits)) != digits or int(digits) > bits:
        raise ValueError(f"the prefix length isn't a number up to {bits}")
    return int(digits)


def _optionalDomain(rest: str) -> DomainSpec | None:
    return _neededDomain(rest) if rest else None


def _neededDomain(rest: str) -> DomainSpec:
    return _domainSpec(_value(rest))


def _value(rest: str) -> str:
    if not rest.startswith(":"):
        raise ValueError("no colon and value follow it")
    return rest[1:]


def _domainSpec(text: str) -> DomainSpec:
    parts = parseMacroString(text)
    if not parts:
        raise InvalidMacro("the domain is missing")
    last = parts[-1]
    if isinstance(last, str):
        _, dot, label = last.removesuffix(".").rpartition(".")
        if not dot or not _TOP_LABEL.match(label):
            raise InvalidMacro(_aboutTheEnd(text))
    return DomainSpec(parts, macroLetters(parts))


def _aboutTheEnd(text: str) -> str:
    if _isAddress(text):
        return "an address isn't a domain; use ip4 or ip6"
    return "the domain doesn't end in a top-level domain"


def _isAddress(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """
    A domain-spec.

    @ivar letters: Of the macros in it.
    """

    parts: MacroString
    letters: frozenset[str]


@dataclass(frozen=True, slots=True)
class AllMechanism:
    """
    RFC 7208 5.1.
    """


@dataclass(frozen=True, slots=True)
class IncludeMechanism:
    """
    RFC 7208 5.2.
    """

    domain: DomainSpec


@dataclass(frozen=True, slots=True)
class AMechanism:
    """
    RFC 7208 5.3; without a C{domain}, that of the record is used.

    @ivar prefix4: Bits of an IPv4 address that are compared.
    @ivar prefix6: Bits of an IPv6 address that are compared.
    """

    domain: DomainSpec | None = None
    prefix4: int = 32
    prefix6: int = 128


@dataclass(frozen=True, slots=True)
class MXMechanism:
    """
    RFC 7208 5.4; see L{AMechanism}.
    """

    domain: DomainSpec | None = None
    prefix4: int = 32
    prefix6: int = 128


@dataclass(frozen=True, slots=True)
class PTRMechanism:
    """
    RFC 7208 5.5; see L{AMechanism}.
    """

    domain: DomainSpec | None = None


@dataclass(frozen=True, slots=True)
class IPMechanism:
    """
    RFC 7208 5.6: C{ip4} and C{ip6}.

    @ivar version: 4 or 6.
    @ivar address: As an integer; bits beyond C{prefix} may be set.
    """

    version: int
    address: int
    prefix: int


@dataclass(frozen=True, slots=True)
class ExistsMechanism:
    """
    RFC 7208 5.7.
    """

    domain: DomainSpec


Mechanism = (
    AllMechanism
    | IncludeMechanism
    | AMechanism
    | MXMechanism
    | PTRMechanism
    | IPMechanism
    | ExistsMechanism
)


@dataclass(frozen=True, slots=True)
class Directive:
    """
    @ivar result: The result if C{mechanism} matches.
    @ivar text: As published.
    """

    result: AuthResult
    mechanism: Mechanism
    text: str


@dataclass(frozen=True, slots=True)
class SPFRecord:
    """
    @ivar directives: Up to the first C{all}; later ones have no effect.
    @ivar redirect: C{None} also if there is an C{all} (RFC 7208 6.1).
    """

    directives: tuple[Directive, ...] = ()
    redirect: DomainSpec | None = None
    explanation: DomainSpec | None = None


# --- macros (RFC 7208 7) ---

#: Characters of an explanation: a reply line has 512 octets (RFC 5321 4.5.3.1.5), and
#: needs room for other text.
MAX_EXPLANATION_LENGTH = 400

_TOKEN = re.compile(
    r"%\{(?P<letter>[A-Za-z])(?P<digits>[0-9]*)(?P<reverse>[rR]?)"
    r"(?P<delimiters>[.+,/_=-]*)\}"
    r"|%(?P<escape>[%_-])"
    r"|(?P<literal>[ !-$&-~]+)"
)
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
#: RFC 7208 7.2; the second set is for explanations only.
_LETTERS = "slodiphv"
_EXPLAINING = "crt"
#: Digits that are read: no address or name has more parts.
_MAX_DIGITS = 4


class InvalidMacro(ValueError):
    """
    A text that is no macro-string.
    """


@dataclass(frozen=True, slots=True)
class Macro:
    """
    One macro-expand.

    @ivar letter: Lower case; or the character behind the C{%} of C{%%}, C{%_} and
        C{%-}.
    @ivar count: The number of right-hand parts used; 0 for all.
    @ivar delimiters: Of the parts; empty for a dot.
    @ivar escaped: True if the value is URL-escaped: the letter was upper case.
    """

    letter: str
    count: int = 0
    reverse: bool = False
    delimiters: str = ""
    escaped: bool = False


#: Without two literals in a row.
MacroString = tuple[str | Macro, ...]


def parseMacroString(text: str, explaining: bool = False) -> MacroString:
    """
    @param explaining: True for an explain-string, which may have spaces and more
        letters.

    @raise InvalidMacro: C{text} is no macro-string.
    """
    parts: list[str | Macro] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise InvalidMacro(_problem(text[position : position + 20]))
        parts.append(_part(token, explaining))
        position = token.end()
    return tuple(parts)


def macroLetters(parts: MacroString) -> frozenset[str]:
    """
    The letters of all macros in C{parts}.
    """
    return frozenset(each.letter for each in parts if isinstance(each, Macro))


def expandName(parts: MacroString, values: Mapping[str, str]) -> str:
    """
    The name for a lookup, without the final dot; labels on the left are removed until
    it is short enough (RFC 7208 7.3).

    @param values: Of each letter.

    @return: Empty if the last label alone is too long.
    """
    pieces: list[str] = []
    size = 0
    # Room for a final dot and one octet more, which shows that the name is too long.
    for part in reversed(parts):
        pieces.append(_expanded(part, values))
        size += len(pieces[-1])
        if size > MAX_DOMAIN_LENGTH + 2:
            break
    name = "".join(reversed(pieces)).removesuffix(".")
    if len(name) <= MAX_DOMAIN_LENGTH:
        return name
    return name[-MAX_DOMAIN_LENGTH - 1 :].partition(".")[2]


def expandText(parts: MacroString, values: Mapping[str, str]) -> str:
    """
    The text of an explanation in printable ASCII, truncated if it is too long.
    """
    pieces: list[str] = []
    size = 0
    for part in parts:
        pieces.append(_expanded(part, values))
        size += len(pieces[-1])
        if size > MAX_EXPLANATION_LENGTH:
            break
    return printable("".join(pieces), MAX_EXPLANATION_LENGTH)


def printable(text: str, limit: int) -> str:
    """
    The beginning of a text from another host, in printable ASCII.
    """
    shown = text[:limit]
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(each if " " <= each <= "~" else "?" for each in shown)


def _part(token: re.Match[str], explaining: bool) -> str | Macro:
    literal, escape = token["literal"], token["escape"]
    if escape:
        return Macro(escape)
    if not literal:
        return _macro(token, explaining)
    if " " in literal and not explaining:
        raise InvalidMacro("it contains a space")
    return str(literal)


def _macro(token: re.Match[str], explaining: bool) -> Macro:
    letter = token["letter"].lower()
    if letter not in _LETTERS and not (explaining and letter in _EXPLAINING):
        raise InvalidMacro(f"macro %{{{letter}}} isn't allowed here")
    digits = token["digits"].lstrip("0")
    if token["digits"] and not digits:
        raise InvalidMacro(f"the number of parts of %{{{letter}}} is 0")
    return Macro(
        letter,
        int(digits[:_MAX_DIGITS] or 0),
        bool(token["reverse"]),
        token["delimiters"],
        token["letter"].isupper(),
    )


def _problem(rest: str) -> str:
    if rest.startswith("%"):
        return f"{printable(rest, 20)!r} is no macro"
    return "not in printable ASCII"


def _expanded(part: str | Macro, values: Mapping[str, str]) -> str:
    if isinstance(part, str):
        return part
    if part.letter in _ESCAPES:
        return _ESCAPES[part.letter]
    value = values[part.letter]
    if part.count or part.reverse or part.delimiters:
        value = _transformed(part, value)
    # A lone surrogate, from octets that aren't UTF-8, must not raise.
    return quote(value, safe="", errors="replace") if part.escaped else value


def _transformed(macro: Macro, value: str) -> str:
    delimiters = macro.delimiters or "."
    for each in delimiters[1:]:
        value = value.replace(each, delimiters[0])
    parts = value.split(delimiters[0])
    if macro.reverse:
        parts.reverse()
    return ".".join(parts[-macro.count :])
