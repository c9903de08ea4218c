# -*- test-case-name: tests.test_taglist -*-
"""
Lists of tag=value pairs (RFC 6376 3.2): DKIM signatures and key records, DMARC
records; and split the same way, TLSRPT and MTA-STS records.  No I/O.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

#: RFC 6376 and its extensions define fewer than twenty.
MAX_TAGS = 64

# RFC 6376 3.2:
#   tag-list  =  tag-spec *( ";" tag-spec ) [ ";" ]
#   tag-spec  =  [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]
#   tag-name  =  ALPHA *ALNUMPUNC
#   VALCHAR   =  %x21-3A / %x3C-7E
# and UTF-8 (RFC 8616 5), which isn't restricted here.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
# The tags of most signatures, which needn't be matched with the pattern.
_KNOWN_NAMES = frozenset(("v", "a", "b", "bh", "c", "d", "h", "i", "q", "s", "t", "x"))
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
WSP = " \t"


@dataclass(frozen=True, slots=True)
class TagList:
    """
    The tags of a DKIM signature or key record.

    @ivar values: By name, without white space around them; the first value of a
        repeated tag.
    @ivar problem: The syntax error; empty if there is none.
    """

    values: dict[str, str]
    problem: str = ""

    def get(self, name: str, default: str = "") -> str:
        return self.values.get(name, default)


def splitTagSpecs(text: str, maxTags: int = -1) -> list[str]:
    """
    The parts between semicolons, without white space around them and without the
    empty one behind a final semicolon.

    @param maxTags: Beyond that many, the rest is left together as one part more.
    """
    parts = [each.strip(WSP) for each in text.split(";", maxTags)]
    if not parts[-1]:
        parts.pop()
    return parts


def parseTagSpec(part: str) -> tuple[str, str] | None:
    """
    Name and value, without white space around the equals sign; C{None} if there is
    no equals sign.
    """
    name, equals, value = part.partition("=")
    return (name.rstrip(WSP), value.lstrip(WSP)) if equals else None


def parseTagList(text: bytes) -> TagList:
    """
    A tag-list of DKIM, strictly by its syntax.

    @param text: May be folded; see L{unfoldTags}.
    """
    flat = unfoldTags(text)
    problem = ""
    # Printable text has no control characters; this check is the quicker one.
    if not flat.isprintable() and _CONTROL.search(flat):
        problem = "control characters among the tags"
    parts = splitTagSpecs(flat, MAX_TAGS)
    if len(parts) > MAX_TAGS:
        problem = "too many tags"
    values: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.rstrip(WSP)
        if not equals or not (name in _KNOWN_NAMES or _NAME.match(name)):
            problem = problem or "not a list of tags"
        elif name in values:
            problem = problem or "a tag is repeated"
        else:
            values[name] = value.lstrip(WSP)
    return TagList(values, problem)


def unfoldTags(text: bytes) -> str:
    """
    The list on one line.  Octets that aren't UTF-8 become U+FFFD.
    """
    # A tab at the beginning of a line is white space like a space.
    unfolded = text.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    return unfolded.decode("utf-8", "replace")


def colonList(value: str, maxItems: int = MAX_TAGS) -> tuple[str, ...]:
    """
    The items of a list separated by colons, in lower case.

    Reading of RFC 6376 3.2: the names of methods, algorithms and fields are
    literals of ABNF, whose case doesn't matter (RFC 5234 2.3).

    @param maxItems: Beyond that many, the rest is left together as one item more.
    """
    return tuple([each.strip(WSP) for each in value.lower().split(":", maxItems)])


def removeWSP(value: str) -> str:
    """
    The value without white space, for values in which FWS means nothing, such as
    base64.
    """
    return value.replace(" ", "").replace("\t", "")


def decodeBase64(value: str) -> bytes:
    """
    RFC 6376 2.10; missing padding is accepted.

    @raise ValueError: Not base64.
    """
    bare = removeWSP(value)
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error:
        raise ValueError("not base64") from None
