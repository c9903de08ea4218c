# -*- test-case-name: tests.message.test_addresses -*-
"""
Reads the author domains in From (RFC 5322 3.6.2).  No I/O.

Reading of RFC 5322 3.6.2: a field is read only if common mail programs find the same
author in it.  Each recipient is shown the author that his program finds, and DMARC is
about the author found here.  Obsolete and wrong forms that all of them read alike are
accepted; a field that one of them reads differently is unreadable.
C{interop/authors.py} compares this module with some of them.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from encodings.aliases import aliases
from enum import StrEnum
from functools import lru_cache

from moxtls.domain import AddressLiteral, Domain, InvalidDomain, parseHost
from moxtls.message.header import Header, commentEnd, unfoldedText

#: Octets of a From field that is read.  A name and an address have some hundred.
MAX_FROM_LENGTH = 10_000
#: Fields in the cache, as frequent senders use the same ones, and octets of a cached
#: field.
MAX_CACHED = 1000
MAX_CACHED_LENGTH = 500

# Known charsets: Python caches unknown names without limit.
_CHARSETS = frozenset((*aliases, *aliases.values()))
# RFC 5322 3.6.8: between these are the characters of a field name.
_FROM = re.compile(rb"(?:.*[^\x21-\x7e])?from[^\x21-\x7e]*+", re.DOTALL)
# A field with an empty name that some programs take for From.
_UNNAMED_FROM = re.compile(
    rb"[^\x21-\x39\x3b-\x7e]++from[^\x21-\x7e]*+:", re.IGNORECASE
)
_VISIBLE = re.compile(rb"[\x21-\x7e]")
# RFC 2047 2: charset, encoding, text.
_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?([BbQq])\?([^?\s]*)\?=")
# An encoded word to some programs; to others an address or a quoted string begins in
# it.
_AMBIGUOUS_WORD = re.compile(
    r"""
    =\?
    (?: [^?<>@"]*+ [<>@"] [^?]*+ \?[BbQq]\? [^?]*+
      | [^?]*+ \?[BbQq]\? [^?<>@"]*+ [<>@"] [^?]*+
    )
    \?=
    """,
    re.VERBOSE,
)

_WHITE = re.compile(r"\s")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# RFC 3490 3.1: the full stops of IDNA; and the beginning of a literal.
_DOT = re.compile(r"[.\[\u3002\uff0e\uff61]")
# Characters by which other words may become part of an address.
_QUOTING = re.compile(r'[<>"\\]')
# RFC 5322 3.2.3; the second set ends a phrase for some programs.
_SPECIAL = re.compile(r'[<>@,;:\\"\[\]]')
_SPECIALS = "@\\[])"
# A quoted string, or other words, perhaps with a quoted name before them.
_LOCAL_PART = re.compile(
    r"""
    \s*
    (?: "(?:[^"\\@<>]|\\[^@<>])*+"
      | (?:"[^"\\@<>]*+"\s+)? [^"()<>@,;:\\\[\]]* [^\s"()<>@,;:\\\[\]]
    )
    \s*\Z
    """,
    re.VERBOSE,
)
# Possessive, so that unclosed strings fail at once.
_TOKEN = re.compile(
    r"""
    "(?:[^"\\]|\\.)*+"
    | \[[0-9A-Za-z.:]*+\]
    | [ \t]++
    | <++ | >++
    | \\[^"()<>@,;:\\]
    | [^ \t"()<>@,;:\\\[\]]++
    | [^"(\\]
    """,
    re.DOTALL | re.VERBOSE,
)


class FromField(StrEnum):
    """
    The state of C{From} in a header.

    C{UNREADABLE}: it has no address, or mail programs differ about which.
    """

    READ = "read"
    MISSING = "there is no From field"
    REPEATED = "there is more than one From field"
    UNREADABLE = "the From field has no address that can be read"


@dataclass(frozen=True, slots=True)
class Authors:
    """
    @ivar domains: The domains of all addresses, each once, in order.  Empty unless
        C{state} is C{READ}, or if there are address literals only.
    """

    state: FromField
    domains: tuple[Domain, ...] = ()


def authorDomains(header: Header) -> Authors:
    """
    The author domains of a message.

    Display names and comments may hold anything that can't be taken for an address.
    Groups (RFC 6854), encoded words, obsolete white space (RFC 5322 4.4), UTF-8 (RFC
    6532) and commas that should have been quoted are accepted.
    """
    values = header.values(b"from")
    if not values:
        return Authors(FromField.MISSING)
    if sum(map(_isFrom, header.names, header.fields)) > 1:
        return Authors(FromField.REPEATED)
    behind = header.names.index(b"from") + 1
    # RFC 5322 2.2.3: only space and tab fold a field, but some programs take other
    # white space, too.
    isFolded = not all(map(_VISIBLE.match, header.fields[behind : behind + 1]))
    if isFolded or len(values[0]) > MAX_FROM_LENGTH:
        return Authors(FromField.UNREADABLE)
    read = _cached if len(values[0]) <= MAX_CACHED_LENGTH else _read
    return read(values[0])


def _isFrom(name: bytes, field: bytes) -> bool:
    """
    True if a field name is C{From} also to programs that strip control characters,
    white space beyond ASCII, colons, and lines that are no field.
    """
    if not name:
        return _UNNAMED_FROM.match(field) is not None
    return b"from" in name and _FROM.fullmatch(name) is not None


def _read(value: bytes) -> Authors:
    try:
        hosts = dict.fromkeys(_hosts(unfoldedText(value)))
    except InvalidDomain:
        return Authors(FromField.UNREADABLE)
    if not hosts:
        return Authors(FromField.UNREADABLE)
    domains = tuple(each for each in hosts if isinstance(each, Domain))
    if domains and len(domains) < len(hosts):
        # Some programs show the first author only, and DMARC is about domains.
        return Authors(FromField.UNREADABLE)
    return Authors(FromField.READ, domains)


_cached = lru_cache(MAX_CACHED)(_read)


def _hosts(text: str) -> Iterator[Domain | AddressLiteral]:
    """
    @raise InvalidDomain: Some mail programs may find other addresses.
    """
    if _CONTROL.search(text) or _AMBIGUOUS_WORD.search(text):
        raise InvalidDomain("ambiguous characters")
    name: list[str] = []
    for item, separator in _items(_tokens(text)):
        brackets = [at for at, each in enumerate(item) if each[0] in "<>"]
        if separator == ":" and (brackets or "@" in item):
            raise InvalidDomain("a group name that may be an address")
        if brackets:
            _checkName(name, item[: brackets[0]])
            yield _hostInBrackets(item, brackets)
            name = []
        elif "@" in item:
            _checkName(name)
            yield _hostOf(_withoutComments(item))
            name = []
        elif "@" in _plain(item):
            raise InvalidDomain("a name that may be an address")
        else:
            name += (*item, separator)
    _checkName(name)


def _checkName(name: list[str], rest: Sequence[str] = ()) -> None:
    """
    @param name: List members without an address.
    @param rest: The words behind them, in front of an address.  Some senders leave
        commas in encoded words, contrary to RFC 2047 5.

    @raise InvalidDomain: Some mail programs may find an address in it.
    """
    if "=?" not in "".join(name):
        return
    decoded = _plain([*name, *rest])
    if "@" in decoded or "=?" in decoded or _QUOTING.search(decoded):
        raise InvalidDomain("a name that may be an address")


def _hostInBrackets(item: list[str], brackets: list[int]) -> Domain | AddressLiteral:
    """
    The domain of an address with a display name.

    @param brackets: The positions of angle brackets.  Some senders double them, or
        omit the last; all mail programs understand that.
    """
    kinds = [item[at] for at in brackets]
    if kinds not in (["<", ">"], ["<<", ">>"], ["<"]):
        raise InvalidDomain("unbalanced angle brackets")
    opening, closing = brackets[0], (*brackets, len(item))[1]
    before, behind = item[:opening], item[closing + 1 :]
    address = item[opening + 1 : closing]
    host = _hostOf(address)
    isRegular = kinds == ["<", ">"] and _isRegular(before, address, behind)
    mayMislead = not isRegular and _mayMislead([*before, *behind])
    if mayMislead and (behind or not _repeatsAddress(before, host)):
        raise InvalidDomain("a display name that may be an address")
    return host


def _isRegular(before: list[str], address: list[str], behind: list[str]) -> bool:
    """
    True if no mail program looks for an address in the display name of an address in
    angle brackets.
    """
    isPhrase = all(each[0] not in _SPECIALS for each in before)
    return isPhrase and address[-1][-1] != "." and all(map(_isCFWS, behind))


def _repeatsAddress(name: list[str], host: Domain | AddressLiteral) -> bool:
    """
    True if an C{@} in a display name begins no other domain: some names repeat the
    address, or are "somebody @ somewhere".
    """
    text = "".join(name)
    if text.count("@") != 1 or "=?" in text:
        return False
    if not _DOT.search(text.partition("@")[2]):
        return True
    return _hostOf([each.strip("'") for each in name]) == host


def _mayMislead(item: list[str]) -> bool:
    """
    True if some mail programs find another address in it, or show text that looks
    like one, perhaps after decoding encoded words.
    """
    decoded = _plain(item)
    return "@" in decoded or "=?" in decoded


def _plain(item: list[str]) -> str:
    return _ENCODED_WORD.sub(_decoded, "".join(item))


def _decoded(word: re.Match[str]) -> str:
    """
    The text of an encoded word, or the word itself if it can't be decoded.
    """
    charset, encoding, text = word.groups()
    # RFC 2231 5: a language may follow.
    name = charset.partition("*")[0].lower().replace("-", "_")
    if name not in _CHARSETS:
        return word[0]
    data = text.encode("utf-8")
    try:
        isBase64 = encoding in "Bb"
        octets = a2b_base64(data) if isBase64 else a2b_qp(data, header=True)
        return octets.decode(name, "replace")
    except (ValueError, LookupError):
        return word[0]


def _hostOf(tokens: list[str]) -> Domain | AddressLiteral:
    """
    The domain of one address.

    RFC 5322 4.4 allows white space around dots and the C{@}, but in a domain some
    programs take it for the end.
    """
    position = tokens.index("@") if "@" in tokens else 0
    local = "".join(tokens[:position])
    domain = "".join(tokens[position + 1 :]).strip(" \t")
    # RFC 2047 5: an encoded word is no part of an address, but some programs decode it.
    isLocal = _LOCAL_PART.match(local) and "=?" not in local
    # Some programs look for an address among several words, and end it at a character
    # beyond ASCII.
    isWhole = domain.isascii() or not _WHITE.search(local.strip())
    if not isLocal or not isWhole:
        raise InvalidDomain("not an address")
    return parseHost(domain)


def _withoutComments(item: list[str]) -> list[str]:
    """
    An address without surrounding comments and white space.
    """
    inside = [at for at, each in enumerate(item) if not _isCFWS(each)]
    return item[inside[0] : inside[-1] + 1]


def _isCFWS(token: str) -> bool:
    """
    True for white space, or a comment without nested ones.
    """
    return token[0] in " \t" or (token[0] == "(" and token.count("(") == 1)


def _items(tokens: Iterator[str]) -> Iterator[tuple[list[str], str]]:
    """
    The members of the list and of its groups (C{name: a, b;}), and the names of
    groups, each with the separator behind it.
    """
    item: list[str] = []
    inBrackets = inGroup = False
    for token in tokens:
        if token[0] in "<>":
            inBrackets = token[0] == "<"
        inGroup = inGroup or token == ":"
        # Some programs read the members of a group again, without quotation marks and
        # parentheses.
        isAgain = inGroup and token[0] in '"('
        if isAgain and _SPECIAL.search(token, 1, len(token) - 1):
            raise InvalidDomain("special characters in a group")
        if token in (",", ";", ":") and not inBrackets:
            yield item, token
            item = []
        else:
            item.append(token)
    yield item, ""


def _tokens(text: str) -> Iterator[str]:
    """
    Quoted strings, comments, domain literals, white space, angle brackets, runs of
    other characters, and single special characters.

    @raise InvalidDomain: Mail programs differ about the tokens.
    """
    position = 0
    while position < len(text):
        if text[position] == "(":
            end = _commentEnd(text, position)
        else:
            token = _TOKEN.match(text, position)
            if token is None:
                raise InvalidDomain("an unclosed quoted string")
            end = token.end()
        yield text[position:end]
        position = end


def _commentEnd(text: str, position: int) -> int:
    """
    The end of a comment, which has to be the same for mail programs without nested
    comments (RFC 5322 3.2.2) or backslashes in them.
    """
    end = commentEnd(text, position)
    first = text.find(")", position)
    if end < 0 or "\\" in text[position:end] or _SPECIAL.search(text, first, end):
        raise InvalidDomain("an ambiguous comment")
    return end
