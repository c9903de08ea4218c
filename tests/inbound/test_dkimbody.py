"""
Tests for L{moxtls.authentication.dkim.canonical}.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.canonical import (
    BLOCK,
    BodyHash,
    Canonicalization,
    Extent,
    hashBody,
)
from tests.inbound.dkimsamples import chunks

SIMPLE, RELAXED = Canonicalization
LIMITS = st.none() | st.integers(0, 40)
BODIES = st.lists(st.sampled_from([b" ", b"\r\n", b"ab", b"\tc"]), max_size=20)


def expected(body: bytes, extent: Extent) -> BodyHash:
    """
    By what dkimpy makes of a body.
    """
    canonicalize = Simple if extent.how is SIMPLE else Relaxed
    whole = canonicalize.canonicalize_body(body)
    limit = len(whole) if extent.limit is None else extent.limit
    if limit > len(whole):
        return BodyHash(b"")
    return BodyHash(sha256(whole[:limit]).digest(), len(whole) - limit)


class HashBodyTests(SynchronousTestCase):
    """
    Tests for L{hashBody}.
    """

    def test_empty(self) -> None:
        """
        The hashes of nothing (RFC 6376 3.4.3, 3.4.4).
        """
        for body in ([], [b""], [b"\r\n", b"\r\n"]):
            hashes = hashBody(body, {Extent(SIMPLE), Extent(RELAXED)})
            for how, hashed in [
                (SIMPLE, "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),
                (RELAXED, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
            ]:
                self.assertEqual(b64encode(hashes[Extent(how)].digest).decode(), hashed)

    def test_limits(self) -> None:
        """
        A limit counts octets of the canonical body; what is behind it is
        known, and that a body is shorter (RFC 6376 3.5, "l=").
        """
        extents = {Extent(RELAXED, limit) for limit in (0, 1, 4, 5, None)}
        hashes = hashBody([b"a \t", b"b\r\n\r\n"], extents)
        for limit, digest, uncovered in [
            (0, sha256(b"").digest(), 5),
            (1, sha256(b"a").digest(), 4),
            (4, sha256(b"a b\r").digest(), 1),
            (5, sha256(b"a b\r\n").digest(), 0),
            (None, sha256(b"a b\r\n").digest(), 0),
        ]:
            self.assertEqual(
                hashes[Extent(RELAXED, limit)], BodyHash(digest, uncovered)
            )
        for limit in (6, 10**75):
            extent = Extent(RELAXED, limit)
            self.assertEqual(hashBody([b"a b\r\n"], {extent})[extent], BodyHash(b""))

    @settings(max_examples=100, deadline=None)
    @given(BODIES, st.sets(st.tuples(st.sampled_from(Canonicalization), LIMITS)))
    def test_together(
        self, parts: list[bytes], pairs: set[tuple[Canonicalization, int | None]]
    ) -> None:
        """
        All that is wanted of a body comes out of one pass as if it were
        wanted alone, however the body is cut.
        """
        body = b"".join(parts) + b"\r\n"
        extents = {Extent(how, limit) for how, limit in pairs}
        wanted = {each: expected(body, each) for each in extents}
        for size in (1, 2, 3, 7, 1000):
            self.assertEqual(hashBody(chunks(body, size), extents), wanted)

    def test_blocks(self) -> None:
        """
        A body that is larger than what is worked on at a time, with line ends
        and runs of white space across each boundary.
        """
        line = b"a" * 5 + b" \t " + b"b\r\n" * 2
        body = line * (3 * BLOCK // len(line)) + b" \r\n" * BLOCK + b"c"
        extents = {Extent(SIMPLE), Extent(RELAXED), Extent(RELAXED, 2 * BLOCK + 1)}
        wanted = {each: expected(body, each) for each in extents}
        for size in (1000, BLOCK - 1, BLOCK, BLOCK + 1, len(body)):
            self.assertEqual(hashBody(chunks(body, size), extents), wanted, size)
