# -*- test-case-name: tests.inbound.test_dkimcanonical -*-
"""
Messages in the form that is hashed (RFC 6376 3.4).  No I/O.

All is done with whole buffers: a call per line would cost more than the
hashing, and a signature more than the rest of a session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

CRLF = b"\r\n"

#: Empty lines that turn out not to be the last ones are passed on so many at a
#: time, so that it doesn't take their memory a second time.
_LINES = CRLF * 4096

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_BLANK_END = re.compile(rb" \r\n")
#: Before the colon there should be none of it (RFC 5322 4.5.8 has WSP); all
#: who look for a field have to agree.
FWS = b" \t\r\n"

#: By name, in lower case; from the top, each without its CRLF.
Fields = dict[bytes, list[bytes]]


class Canonicalization(StrEnum):
    """
    RFC 6376 3.5: the words of C{c=}.
    """

    SIMPLE = "simple"
    RELAXED = "relaxed"


def fieldsOf(header: bytes, how: Canonicalization) -> Fields:
    """
    The fields of a header in canonical form (RFC 6376 3.4.1, 3.4.2).  Lines
    that are none are left out.

    @param header: Through the CRLF of the last field.
    """
    found: Fields = {}
    for name, field in _named(header, how):
        found.setdefault(name, []).append(field)
    return found


def canonicalField(field: bytes, how: Canonicalization) -> bytes:
    """
    @param field: One field, without its CRLF.
    """
    return next((field for _, field in _named(field, how)), b"")


def _named(header: bytes, how: Canonicalization) -> Iterator[tuple[bytes, bytes]]:
    if how is Canonicalization.SIMPLE:
        for line in _FIELD_END.split(header):
            name, colon, _ = line.partition(b":")
            if colon:
                yield name.rstrip(FWS).lower(), line
        return
    unfolded = header.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    for line in _squeezed(unfolded).split(CRLF):
        name, colon, value = line.partition(b":")
        if colon:
            name = name.rstrip(b" ").lower()
            yield name.rstrip(FWS), b"%b:%b" % (name, value.strip(b" "))


class CanonicalBody:
    """
    Takes a body in pieces, and gives it back in canonical form (RFC 6376
    3.4.3, 3.4.4).
    """

    def __init__(self, how: Canonicalization) -> None:
        self._isRelaxed = how is Canonicalization.RELAXED
        self._hasContent = False
        #: The end of what was fed that may belong to what comes; at most two
        #: octets.
        self._rest = b""
        #: Line ends behind the content, which count if there is more of it.
        self._lineEnds = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """
        @param piece: Of any size.

        @return: To be used up before more is fed.
        """
        data = self._rest + piece if self._rest else piece
        if self._isRelaxed:
            # In this order it is linear whatever there is: an expression for
            # white space before a CRLF would look at each place of a run.
            data = _squeezed(data)
            # To find out that there is none takes half the time this way.
            if _BLANK_END.search(data):
                data = data.replace(b" \r\n", CRLF)
        end = len(data) - data.endswith(b"\r")
        if self._isRelaxed:
            end -= data.endswith(b" ", 0, end)
        self._rest = data[end:]
        return self._passed(data[:end])

    def finish(self) -> Iterator[bytes]:
        """
        What remains when there is no more to feed.
        """
        # A CR alone is content; a space alone ends the last line.
        if self._rest.endswith(b"\r") or not self._isRelaxed:
            yield from self._passed(self._rest)
        # A line that isn't ended is ended; a body without lines has one
        # nevertheless if it is "simple" (RFC 6376 3.4.3), and none if it is
        # "relaxed" (3.4.4).
        if self._hasContent or not self._isRelaxed:
            yield CRLF

    def _passed(self, data: bytes) -> Iterator[bytes]:
        ends = _lineEnds(data)
        content = data[: len(data) - ends * len(CRLF)] if ends else data
        if content:
            self._hasContent = True
            yield from _repeated(self._lineEnds)
            yield content
            self._lineEnds = 0
        self._lineEnds += ends


def _squeezed(data: bytes) -> bytes:
    """
    Each run of WSP as one space.
    """
    data = data.replace(b"\t", b" ")
    # From the end it takes a fourth of the time.
    if data.rfind(b"  ") < 0:
        return data
    # A run of pairs comes to one space, an odd one to two: a third of the time
    # that an expression for runs takes.  The ends are held by something else.
    parts = (b"|%b|" % data).split(b"  ")
    return b" ".join(filter(None, parts)).replace(b"  ", b" ")[1:-1]


def _lineEnds(data: bytes) -> int:
    """
    How many CRLF there are at the end.
    """
    if not data.endswith(b"\n"):
        return 0
    tail = data[len(data.rstrip(CRLF)) :]
    # Behind the last place where they don't, CR and LF take turns.
    start = max(tail.rfind(b"\r\r"), tail.rfind(b"\n\n")) + 1
    return (len(tail) - start) // len(CRLF)


def _repeated(lines: int) -> Iterable[bytes]:
    most = len(_LINES) // len(CRLF)
    for left in range(lines, 0, -most):
        yield _LINES[: left * len(CRLF)]
