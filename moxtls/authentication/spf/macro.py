# -*- test-case-name: tests.authentication.spf.test_macro -*-
"""
Macros in SPF records and explanations (RFC 7208 7).  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from moxtls.domain import MAX_DOMAIN_LENGTH

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
