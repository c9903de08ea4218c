# -*- test-case-name: tests.inbound.test_authors -*-
"""
Who a message says that it is from (RFC 5322 3.6.2).  No I/O.

Tolerant, as what people see is the name of an author, however it is written;
but whatever looks like an address is one to us, or makes the field unreadable,
so that nobody is shown an author of whom we didn't know.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass
from encodings.aliases import aliases
from enum import StrEnum
from functools import lru_cache

from moxtls.domain import AddressLiteral, Domain, InvalidDomain, parseHost
from moxtls.inbound.headers import Header, commentEnd, unfolded

#: Of the field.  A name and an address have some hundred.
LONGEST_FROM = 10_000
#: Who sends a lot has the same in all of it: so many fields are remembered as
#: read, up to so many octets each.
MOST_KNOWN = 1000
LONGEST_KNOWN = 500

# Those that there are: Python remembers for ever which names it looked for in vain.
_CHARSETS = frozenset((*aliases, *aliases.values()))
# RFC 2047 2: charset, encoding, text.
_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?([BbQq])\?([^?\s]*)")


class FromField(StrEnum):
    """
    What is to be said of C{From} in a header.

    C{UNREADABLE}: no address can be found in it, or something that looks like
    one and isn't.
    """

    READ = "read"
    MISSING = "there is no From field"
    REPEATED = "there is more than one From field"
    UNREADABLE = "the From field has no address that can be read"


@dataclass(frozen=True, slots=True)
class Authors:
    """
    @ivar domains: Those of all addresses, each once, in order.  None if
        C{state} isn't C{READ}, or there are address literals only.
    """

    state: FromField
    domains: tuple[Domain, ...] = ()


def authorDomains(header: Header) -> Authors:
    """
    The domains of who wrote a message.

    Display names and comments may hold anything, and say nothing; groups
    (RFC 6854), encoded words, what RFC 5322 4.4 calls obsolete, UTF-8 (RFC
    6532), and commas that should have been quoted are no obstacle.
    """
    values = header.values(b"from")
    if len(values) != 1:
        return Authors(FromField.REPEATED if values else FromField.MISSING)
    if len(values[0]) > LONGEST_FROM:
        return Authors(FromField.UNREADABLE)
    read = _known if len(values[0]) <= LONGEST_KNOWN else _read
    return read(values[0])


def _read(value: bytes) -> Authors:
    try:
        hosts = dict.fromkeys(_hosts(unfolded(value)))
    except InvalidDomain:
        return Authors(FromField.UNREADABLE)
    if not hosts:
        return Authors(FromField.UNREADABLE)
    domains = tuple(each for each in hosts if isinstance(each, Domain))
    return Authors(FromField.READ, domains)


_known = lru_cache(MOST_KNOWN)(_read)


# --- addresses --------------------------------------------------------------------


def _hosts(text: str) -> Iterator[Domain | AddressLiteral]:
    """
    @raise InvalidDomain: There is something like an address that is none.
    """
    for item in _items(_tokens(text)):
        addresses, rest = _bracketed(item)
        if not addresses and "@" in item:
            yield from _hostOf(item)
        elif not (addresses and _isPlain(item)) and _mayMislead(rest):
            raise InvalidDomain("two things that may be the address")
        for address in addresses:
            yield from _hostOf(address)


def _isPlain(item: list[str]) -> bool:
    """
    Whether nobody takes it for anything else than one address with a name.
    """
    text = "".join(item).rstrip()
    brackets = [each for each in item if each in ("<", ">")]
    isWhole = brackets == ["<", ">"] and text.endswith(">") and "," not in item
    return isWhole and "@" in item[item.index("<") :]


def _mayMislead(name: list[str]) -> bool:
    """
    Whether some find an address in what is none to us.
    """
    text = "".join(name)
    return "@" in text or _isEncodedAddress(text)


def _isEncodedAddress(text: str) -> bool:
    """
    Whether those who decode words before they look for addresses find one.
    """
    return any("@" in _decoded(*each) for each in _ENCODED_WORD.findall(text))


def _decoded(charset: str, encoding: str, text: str) -> str:
    # RFC 2231 5: there may be a language behind it.
    name = charset.partition("*")[0].lower().replace("-", "_")
    if name not in _CHARSETS:
        return ""
    data = text.encode("utf-8")
    try:
        isBase64 = encoding in "Bb"
        octets = a2b_base64(data) if isBase64 else a2b_qp(data, header=True)
        return octets.decode(name, "replace")
    except (ValueError, LookupError):
        return ""


def _hostOf(tokens: list[str]) -> Iterator[Domain | AddressLiteral]:
    """
    What is behind the C{@} of one address; nothing, if there is no C{@}.

    RFC 5322 4.4 allows white space around dots and the C{@}; but in a domain
    some take it for the end.
    """
    if "@" not in tokens:
        return
    place = len(tokens) - 1 - tokens[::-1].index("@")
    before = [each for each in tokens[:place] if not each.isspace()]
    # RFC 5322 4.4: a route before the address begins with an @, and ends at a
    # colon.
    if ":" in before and before[0] == "@":
        before = before[len(before) - before[::-1].index(":") :]
    # RFC 2047 5: an encoded word is no part of an address; those who decode it
    # nevertheless may find another address in it.
    local = "".join(before)
    isQuoted = len(before) == 1 and local[0] == '"'
    others = "@" in local and not isQuoted
    if not before or others or _ENCODED_WORD.search(local):
        raise InvalidDomain("not an address")
    behind = "".join(tokens[place + 1 :]).strip()
    yield parseHost(behind)


def _items(tokens: Iterator[str]) -> Iterator[list[str]]:
    """
    What commas separate, and what is in groups (C{name: a, b;}).
    """
    item: list[str] = []
    inBrackets = False
    for token in tokens:
        if token in ("<", ">"):
            inBrackets = token == "<"
        if token in (",", ";", ":") and not inBrackets:
            yield item
            item = []
        else:
            item.append(token)
    yield item


def _bracketed(item: list[str]) -> tuple[list[list[str]], list[str]]:
    """
    The addresses in angle brackets, and the rest; opening ones that aren't closed
    reach to the end.
    """
    inside: list[list[str]] = []
    outside: list[str] = []
    isOpen = False
    for token in item:
        if isOpen and token != ">":
            inside[-1].append(token)
        elif token == "<":
            isOpen = True
            inside.append([])
        else:
            isOpen = False
            outside.append(token)
    empty = [token for each in inside if "@" not in each for token in each]
    return inside, outside + empty


# --- words --------------------------------------------------------------------------

# Possessive, so that what isn't closed is found out at once.  A quotation mark
# that nothing closes is a character like others.
_TOKEN = re.compile(
    r"""
    "(?:[^"\\]|\\.)*+"
    | \[[^\[\]\\]*+\]
    | [ \t\r\n]++
    | \\.
    | [^\s"()<>@,;:\\.\[\]]++
    | .
    """,
    re.DOTALL | re.VERBOSE,
)


def _tokens(text: str) -> Iterator[str]:
    """
    Quoted strings, domain literals, white space, runs of other characters,
    and single special ones; a space in place of a comment.
    """
    place = 0
    hasComments = True
    while place < len(text):
        end = commentEnd(text, place) if hasComments and text[place] == "(" else place
        # A parenthesis that nothing closes is a character like others; what
        # is behind it isn't searched again and again.
        hasComments = hasComments and end >= 0
        if end > place:
            yield " "
            place = end
            continue
        token = _TOKEN.match(text, place)
        if token is None:
            return
        yield token[0]
        place = token.end()
