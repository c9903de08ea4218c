# -*- test-case-name: tests.inbound.test_dkimbody -*-
"""
The hashes of a body, all that signatures need in one pass (RFC 6376 3.7).
No I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from moxtls.inbound.dkimcanonical import CanonicalBody, Canonicalization

#: Octets that are worked on at a time: enough for calls not to matter, and
#: little enough for a processor's cache.
BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Extent:
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
    body: Iterable[bytes], extents: Collection[Extent]
) -> dict[Extent, BodyHash]:
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

    def __init__(self, how: Canonicalization, extents: Iterable[Extent]) -> None:
        limits = {each.limit for each in extents if each.how is how}
        #: The next one last.
        self._limits = sorted(
            (each for each in limits if each is not None), reverse=True
        )
        self._body = CanonicalBody(how)
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
        if size >= BLOCK:
            yield from _cut(b"".join(waiting))
            waiting, size = [], 0
    yield from _cut(b"".join(waiting))


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[start : start + BLOCK] for start in range(0, len(data), BLOCK))
