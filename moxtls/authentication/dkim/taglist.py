# -*- test-case-name: tests.authentication.dkim.test_taglist -*-
"""
The tag=value lists of signatures and key records (RFC 6376 3.2).  No I/O.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

#: RFC 6376 and all that extends it know of fewer than twenty.
MAX_TAGS = 64

# RFC 6376 3.2:
#   tag-list  =  tag-spec *( ";" tag-spec ) [ ";" ]
#   tag-spec  =  [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]
#   tag-name  =  ALPHA *ALNUMPUNC
#   VALCHAR   =  %x21-3A / %x3C-7E
# and UTF-8 (RFC 8616 5), of which nothing is decided here.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
# What most signatures have; they need no closer look.
_KNOWN_NAMES = frozenset(("v", "a", "b", "bh", "c", "d", "h", "i", "q", "s", "t", "x"))
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
WSP = " \t"


@dataclass(frozen=True, slots=True)
class TagList:
    """
    @ivar values: Without the white space around them; of tags that are there
        twice the first.
    @ivar problem: Why it is no tag-list; empty if it is one.
    """

    values: dict[str, str]
    problem: str = ""

    def get(self, name: str, default: str = "") -> str:
        return self.values.get(name, default)


def readTags(text: bytes) -> TagList:
    """
    @param text: May be folded; as in L{flattened}.
    """
    flat = flattened(text)
    problem = ""
    # What is printable needs no closer look.
    if not flat.isprintable() and _CONTROL.search(flat):
        problem = "control characters among the tags"
    # What is left behind that many is one part, and too much.
    parts = flat.split(";", MAX_TAGS)
    if not parts[-1].strip(WSP):
        parts.pop()
    if len(parts) > MAX_TAGS:
        problem = "too many tags"
    values: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip(WSP)
        if not equals or not (name in _KNOWN_NAMES or _NAME.match(name)):
            problem = problem or "not a list of tags"
        elif name in values:
            problem = problem or "a tag is there twice"
        else:
            values[name] = value.strip(WSP)
    return TagList(values, problem)


def flattened(text: bytes) -> str:
    """
    In one line.  What is not UTF-8 becomes U+FFFD.
    """
    # A tab at the beginning of a line is white space like a space.
    unfolded = text.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    return unfolded.decode("utf-8", "replace")


def listed(value: str, most: int = MAX_TAGS) -> tuple[str, ...]:
    """
    What is separated by colons, in lower case.

    Reading of RFC 6376 3.2: the names of methods, algorithms and fields are
    literals of ABNF, whose case doesn't matter (RFC 5234 2.3).

    @param most: What is behind so many is left as one, colons and all.
    """
    return tuple([each.strip(WSP) for each in value.lower().split(":", most)])


def withoutSpace(value: str) -> str:
    """
    For values in which FWS means nothing, such as base64.
    """
    return value.replace(" ", "").replace("\t", "")


def decoded(value: str) -> bytes:
    """
    RFC 6376 2.10, where "=" at the end may be missing.

    @raise ValueError: It is not base64.
    """
    bare = withoutSpace(value)
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error:
        raise ValueError("not base64") from None
