# -*- test-case-name: tests.authentication.dkim.test_canonical -*-
"""
Canonical forms of header and body, and their hashes (RFC 6376 3.4, 3.7).  No I/O.

Works on whole buffers: a call for each line would take longer than hashing.  All
hashes of a body that signatures need are computed in one pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from operator import itemgetter

from moxtls.message.header import FWS, splitHeader

CRLF = b"\r\n"

#: Trailing empty lines that turn out not to be the last ones are passed on in pieces of
#: this size, so that they don't take their memory a second time.
_LINES = CRLF * 4096

_BLANK_END = re.compile(rb" \r\n")

#: Fields by name in lower case; of each name from the top, each field without its CRLF.
Fields = dict[bytes, list[bytes]]

#: Octets processed at a time: enough to make the cost of calls negligible, and little
#: enough for a processor's cache.
BLOCK_SIZE = 64 * 1024


class Canonicalization(StrEnum):
    """
    The values of C{c=} (RFC 6376 3.5).
    """

    SIMPLE = "simple"
    RELAXED = "relaxed"


def canonicalFields(header: bytes, how: Canonicalization) -> Fields:
    """
    The canonical fields of a header (RFC 6376 3.4.1, 3.4.2).  Lines that are no field
    are left out.

    @param header: Through the CRLF of the last field.
    """
    found: Fields = {}
    for name, field in _named(header, how):
        found.setdefault(name, []).append(field)
    return found


def canonicalField(field: bytes, how: Canonicalization) -> bytes:
    """
    The canonical form of one field.

    @param field: Without its CRLF.
    """
    return next((field for _, field in _named(field, how)), b"")


def headerHash(
    fields: Fields, names: Iterable[bytes], field: bytes, how: Canonicalization
) -> bytes:
    """
    SHA-256 of the signed header fields and the signature field (RFC 6376 3.7).

    @param fields: The header fields, canonicalized.
    @param names: C{h=}, in lower case.  Of several fields with one name the last
        comes first; a name without a field (left) is signed as absent (RFC 6376
        5.4.2).
    @param field: The DKIM-Signature field with an empty C{b=}, without its CRLF.
    """
    left: dict[bytes, list[bytes]] = {}
    chosen = []
    for name in names:
        if name not in left:
            left[name] = list(fields.get(name, ()))
        if left[name]:
            chosen.append(left[name].pop())
    chosen.append(canonicalField(field, how))
    return sha256(CRLF.join(chosen)).digest()


def _named(header: bytes, how: Canonicalization) -> Iterator[tuple[bytes, bytes]]:
    if how is Canonicalization.SIMPLE:
        split = splitHeader(header)
        yield from filter(itemgetter(0), zip(split.names, split.fields, strict=True))
        return
    # Canonicalized as a whole before it is split, which is faster than field by field.
    unfolded = header.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    for line in _squeezed(unfolded).split(CRLF):
        name, colon, value = line.partition(b":")
        if colon:
            name = name.rstrip(b" ").lower()
            yield name.rstrip(FWS), b"%b:%b" % (name, value.strip(b" "))


class BodyCanonicalizer:
    """
    Converts a body to canonical form piece by piece (RFC 6376 3.4.3, 3.4.4).
    """

    def __init__(self, how: Canonicalization) -> None:
        self._isRelaxed = how is Canonicalization.RELAXED
        self._hasContent = False
        #: The last octets fed, at most two, if they may belong to what follows.
        self._rest = b""
        #: Line ends behind the content, which count only if more content follows.
        self._lineEnds = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """
        @param piece: Of any size.

        @return: Canonical pieces, to be consumed before the next call.
        """
        data = self._rest + piece if self._rest else piece
        if self._isRelaxed:
            # In this order the time is linear for any input: a regular expression for
            # white space before CRLF would look at each position of a run.
            data = _squeezed(data)
            # Searching first halves the time of bodies without a match.
            if _BLANK_END.search(data):
                data = data.replace(b" \r\n", CRLF)
        end = len(data) - data.endswith(b"\r")
        if self._isRelaxed:
            end -= data.endswith(b" ", 0, end)
        self._rest = data[end:]
        return self._passed(data[:end])

    def finish(self) -> Iterator[bytes]:
        """
        The last pieces of the canonical body.
        """
        # A lone CR is content; a lone space would end the last line.
        if self._rest.endswith(b"\r") or not self._isRelaxed:
            yield from self._passed(self._rest)
        # An unterminated line is terminated; an empty body becomes one line with
        # "simple" (RFC 6376 3.4.3), and none with "relaxed" (3.4.4).
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
    The data with each run of WSP reduced to one space.
    """
    data = data.replace(b"\t", b" ")
    # Searching from the end takes a fourth of the time.
    if data.rfind(b"  ") < 0:
        return data
    # A run of pairs becomes one space, an odd run two: a third of the time of a regular
    # expression for runs.  Guards at both ends keep their white space.
    parts = (b"|%b|" % data).split(b"  ")
    return b" ".join(filter(None, parts)).replace(b"  ", b" ")[1:-1]


def _lineEnds(data: bytes) -> int:
    """
    The number of CRLF at the end.
    """
    if not data.endswith(b"\n"):
        return 0
    tail = data[len(data.rstrip(CRLF)) :]
    # CR and LF alternate behind the last repetition of either.
    start = max(tail.rfind(b"\r\r"), tail.rfind(b"\n\n")) + 1
    return (len(tail) - start) // len(CRLF)


def _repeated(lines: int) -> Iterable[bytes]:
    most = len(_LINES) // len(CRLF)
    for left in range(lines, 0, -most):
        yield _LINES[: left * len(CRLF)]


@dataclass(frozen=True, slots=True)
class BodyScope:
    """
    The part of the body that a signature covers, and its canonicalization.

    @ivar limit: C{l=}, octets of the canonical body; C{None} for all of it.
    """

    how: Canonicalization
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class BodyHash:
    """
    @ivar digest: SHA-256; empty if the body is shorter than the limit.
    @ivar uncovered: Octets of the canonical body behind the limit.
    """

    digest: bytes
    uncovered: int = 0


def hashBody(
    body: Iterable[bytes], extents: Collection[BodyScope]
) -> dict[BodyScope, BodyHash]:
    """
    The hash for each of several scopes, in one pass.

    @param body: Chunks of any size.
    """
    ways = sorted({each.how for each in extents})
    runs = {how: _Run(how, extents) for how in ways}
    for block in _blocks(body):
        for run in runs.values():
            run.feed(block)
    for run in runs.values():
        run.finish()
    return {each: runs[each.how].hashOf(each.limit) for each in extents}


class _Run:
    """
    One canonicalization, hashed once for all limits.
    """

    def __init__(self, how: Canonicalization, extents: Iterable[BodyScope]) -> None:
        limits = {each.limit for each in extents if each.how is how}
        #: Ascending from the end: the next limit is the last item.
        self._limits = sorted(
            (each for each in limits if each is not None), reverse=True
        )
        self._body = BodyCanonicalizer(how)
        self._hash = sha256()
        self._length = 0
        self._digests: dict[int, bytes] = {}

    def feed(self, block: bytes) -> None:
        for piece in self._body.feed(block):
            self._take(piece)

    def finish(self) -> None:
        for piece in self._body.finish():
            self._take(piece)

    def hashOf(self, limit: int | None) -> BodyHash:
        """
        To be called after C{finish}.
        """
        if limit is None or limit == self._length:
            return BodyHash(self._hash.digest())
        return BodyHash(self._digests.get(limit, b""), max(0, self._length - limit))

    def _take(self, piece: bytes) -> None:
        while self._limits and self._limits[-1] <= self._length + len(piece):
            limit = self._limits.pop()
            before = limit - self._length
            self._hash.update(piece[:before])
            self._digests[limit] = self._hash.digest()
            self._length = limit
            piece = piece[before:]
        self._hash.update(piece)
        self._length += len(piece)


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """
    The same octets in pieces of about L{BLOCK_SIZE}.
    """
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= BLOCK_SIZE:
            yield from _cut(b"".join(waiting))
            waiting, size = [], 0
    yield from _cut(b"".join(waiting))


def _cut(data: bytes) -> Iterator[bytes]:
    return (
        data[start : start + BLOCK_SIZE] for start in range(0, len(data), BLOCK_SIZE)
    )
