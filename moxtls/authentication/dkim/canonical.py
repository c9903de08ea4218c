# -*- test-case-name: tests.authentication.dkim.test_canonical -*-
"""
Messages in the form that is hashed (RFC 6376 3.4).  No I/O.

All is done with whole buffers: a call per line would cost more than the
hashing, and a signature more than the rest of a session.

The hashes of a body, all that signatures need in one pass (RFC 6376 3.7).
No I/O.
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

#: Empty lines that turn out not to be the last ones are passed on so many at a
#: time, so that it doesn't take their memory a second time.
_LINES = CRLF * 4096

_BLANK_END = re.compile(rb" \r\n")

#: By name, in lower case; from the top, each without its CRLF.
Fields = dict[bytes, list[bytes]]


class Canonicalization(StrEnum):
    """
    RFC 6376 3.5: the words of C{c=}.
    """

    SIMPLE = "simple"
    RELAXED = "relaxed"


def canonicalFields(header: bytes, how: Canonicalization) -> Fields:
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


#: Octets that are worked on at a time: enough for calls not to matter, and
#: little enough for a processor's cache.
BLOCK_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class BodyScope:
    """
    What a signature says of a body.

    @ivar limit: C{l=}, octets in canonical form; C{None} for all of it.
    """

    how: Canonicalization
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class BodyHash:
    """
    @ivar digest: SHA-256; empty if the body is shorter than the limit.
    @ivar uncovered: Octets behind the limit, in canonical form.
    """

    digest: bytes
    uncovered: int = 0


def hashBody(
    body: Iterable[bytes], extents: Collection[BodyScope]
) -> dict[BodyScope, BodyHash]:
    """
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
    One canonicalization, hashed once whatever the limits.
    """

    def __init__(self, how: Canonicalization, extents: Iterable[BodyScope]) -> None:
        limits = {each.limit for each in extents if each.how is how}
        #: The next one last.
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
        To be asked when it is finished.
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
    The same in larger or smaller pieces.
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
