"""
Tests for L{moxtls.authentication.dkim.canonical}.
"""

from __future__ import annotations

import time
from base64 import b64encode
from hashlib import sha256
from itertools import pairwise

from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.canonical import (
    BLOCK_SIZE,
    BodyCanonicalizer,
    BodyHash,
    BodyScope,
    Canonicalization,
    canonicalField,
    canonicalFields,
    hashBody,
)
from tests.authentication.dkim.samples import chunks

SIMPLE_BODY, RELAXED_BODY = Canonicalization
LIMITS = st.none() | st.integers(0, 40)
BODIES = st.lists(st.sampled_from([b" ", b"\r\n", b"ab", b"\tc"]), max_size=20)


def expected(body: bytes, extent: BodyScope) -> BodyHash:
    """
    The canonical body by dkimpy.
    """
    canonicalize = Simple if extent.how is SIMPLE_BODY else Relaxed
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
        The hashes of empty bodies (RFC 6376 3.4.3, 3.4.4).
        """
        for body in ([], [b""], [b"\r\n", b"\r\n"]):
            hashes = hashBody(body, {BodyScope(SIMPLE_BODY), BodyScope(RELAXED_BODY)})
            for how, hashed in [
                (SIMPLE_BODY, "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),
                (RELAXED_BODY, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
            ]:
                self.assertEqual(
                    b64encode(hashes[BodyScope(how)].digest).decode(), hashed
                )

    def test_limits(self) -> None:
        """
        A limit counts octets of the canonical body; the octets beyond it are counted,
        and a shorter body is detected (RFC 6376 3.5, "l=").
        """
        extents = {BodyScope(RELAXED_BODY, limit) for limit in (0, 1, 4, 5, None)}
        hashes = hashBody([b"a \t", b"b\r\n\r\n"], extents)
        for limit, digest, uncovered in [
            (0, sha256(b"").digest(), 5),
            (1, sha256(b"a").digest(), 4),
            (4, sha256(b"a b\r").digest(), 1),
            (5, sha256(b"a b\r\n").digest(), 0),
            (None, sha256(b"a b\r\n").digest(), 0),
        ]:
            self.assertEqual(
                hashes[BodyScope(RELAXED_BODY, limit)], BodyHash(digest, uncovered)
            )
        for limit in (6, 10**75):
            extent = BodyScope(RELAXED_BODY, limit)
            self.assertEqual(hashBody([b"a b\r\n"], {extent})[extent], BodyHash(b""))

    @settings(max_examples=100, deadline=None)
    @given(BODIES, st.sets(st.tuples(st.sampled_from(Canonicalization), LIMITS)))
    def test_together(
        self, parts: list[bytes], pairs: set[tuple[Canonicalization, int | None]]
    ) -> None:
        """
        Several canonicalizations in one pass equal separate ones, for any chunks.
        """
        body = b"".join(parts) + b"\r\n"
        extents = {BodyScope(how, limit) for how, limit in pairs}
        wanted = {each: expected(body, each) for each in extents}
        for size in (1, 2, 3, 7, 1000):
            self.assertEqual(hashBody(chunks(body, size), extents), wanted)

    def test_blocks(self) -> None:
        """
        A body larger than a block, with line ends and runs of white space across each
        boundary.
        """
        line = b"a" * 5 + b" \t " + b"b\r\n" * 2
        body = line * (3 * BLOCK_SIZE // len(line)) + b" \r\n" * BLOCK_SIZE + b"c"
        extents = {
            BodyScope(SIMPLE_BODY),
            BodyScope(RELAXED_BODY),
            BodyScope(RELAXED_BODY, 2 * BLOCK_SIZE + 1),
        }
        wanted = {each: expected(body, each) for each in extents}
        for size in (1000, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, len(body)):
            self.assertEqual(hashBody(chunks(body, size), extents), wanted, size)


SIMPLE, RELAXED = Canonicalization
# RFC 6376 3.4.5, example 1.
HEADER = b"A: X\r\nB : Y\t\r\n\tZ  \r\n"
BODY = b" C \r\nD \t E\r\n\r\n\r\n"

PIECES = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"b c", b"\r", b"\n"]), max_size=30
)
VALUES = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b":", b"B c"]), max_size=12
).map(b"".join)


def canonical(how: Canonicalization, *pieces: bytes) -> bytes:
    """
    A body fed in pieces.
    """
    body = BodyCanonicalizer(how)
    fed = [b"".join(body.feed(each)) for each in pieces]
    return b"".join([*fed, *body.finish()])


def octets(data: bytes) -> list[bytes]:
    return [bytes([each]) for each in data]


class BodyCanonicalizerTests(SynchronousTestCase):
    """
    Tests for L{BodyCanonicalizer}.
    """

    def test_example(self) -> None:
        """
        RFC 6376 3.4.5.
        """
        self.assertEqual(canonical(RELAXED, BODY), b" C\r\nD E\r\n")
        self.assertEqual(canonical(SIMPLE, BODY), b" C \r\nD \t E\r\n")

    def test_ends(self) -> None:
        """
        Empty lines at the end are ignored, a missing line end is added, and an empty
        body becomes a line end or nothing (RFC 6376 3.4.3, 3.4.4).
        """
        for body, simple, relaxed in [
            (b"", b"\r\n", b""),
            (b"\r\n", b"\r\n", b""),
            (b"\r\n\r\n\r\n", b"\r\n", b""),
            (b" \r\n\t\r\n", b" \r\n\t\r\n", b""),
            (b"a", b"a\r\n", b"a\r\n"),
            (b"a \t", b"a \t\r\n", b"a\r\n"),
            (b"a \r\n \r\n", b"a \r\n \r\n", b"a\r\n"),
            (b"\r\n\r\na\r\n\r\n", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
            (b"a\r\n\r", b"a\r\n\r\r\n", b"a\r\n\r\r\n"),
            (b"a\n\r\n\r\n", b"a\n\r\n", b"a\n\r\n"),
            (b"a\r\r\n\n\r\n", b"a\r\r\n\n\r\n", b"a\r\r\n\n\r\n"),
            (b"a \r", b"a \r\r\n", b"a \r\r\n"),
        ]:
            for pieces in ([body], octets(body)):
                self.assertEqual(canonical(SIMPLE, *pieces), simple, body)
                self.assertEqual(canonical(RELAXED, *pieces), relaxed, body)

    @settings(max_examples=100, deadline=None)
    @given(PIECES)
    def test_likeOthers(self, pieces: list[bytes]) -> None:
        """
        The canonical body equals dkimpy's, except for white space at the end of an
        unterminated last line, which dkimpy leaves (RFC 6376 3.4.4).
        """
        body = b"".join(pieces)
        self.assertEqual(canonical(SIMPLE, *pieces), Simple.canonicalize_body(body))
        if body.endswith((b" ", b"\t")):
            body += b"\r\n"
        relaxed = Relaxed.canonicalize_body(body)
        self.assertEqual(canonical(RELAXED, body), relaxed)

    @settings(max_examples=100, deadline=None)
    @given(PIECES, st.lists(st.integers(0, 60), max_size=6))
    def test_pieces(self, parts: list[bytes], cuts: list[int]) -> None:
        """
        Chunk boundaries don't matter.
        """
        body = b"".join(parts)
        places = [0, *sorted(cuts), len(body)]
        pieces = [body[start:end] for start, end in pairwise(places)]
        for how in Canonicalization:
            whole = canonical(how, body)
            self.assertEqual(canonical(how, *pieces), whole)
            self.assertEqual(canonical(how, *octets(body)), whole)

    def test_worst(self) -> None:
        """
        Any run of characters takes linear time.
        """
        size = 256 * 1024
        for unit in (
            b" ",
            b"\t \r",
            b"\r\n",
            b"\r",
            b"\n",
            b"\r\n\n",
            b" \r\n",
            b"  a",
        ):
            body = unit * (size // len(unit))
            start = time.process_time()
            for how in Canonicalization:
                canonical(how, body)
                canonical(how, *(body[at : at + 1000] for at in range(0, size, 1000)))
            self.assertLess(time.process_time() - start, 1, unit)

    def test_lineEnds(self) -> None:
        """
        Very many empty lines are passed on in bounded pieces when something
        comes behind them.
        """
        body = BodyCanonicalizer(RELAXED)
        self.assertEqual(list(body.feed(b"\r\n" * 100_000)), [])
        pieces = list(body.feed(b"a"))
        self.assertEqual(b"".join(pieces), b"\r\n" * 100_000 + b"a")
        self.assertLessEqual(max(map(len, pieces)), 8192)


class CanonicalFieldsTests(SynchronousTestCase):
    """
    Tests for L{canonicalFields} and L{canonicalField}.
    """

    def test_example(self) -> None:
        """
        RFC 6376 3.4.5.
        """
        self.assertEqual(
            canonicalFields(HEADER, RELAXED), {b"a": [b"a:X"], b"b": [b"b:Y Z"]}
        )
        self.assertEqual(
            canonicalFields(HEADER, SIMPLE),
            {b"a": [b"A: X"], b"b": [b"B : Y\t\r\n\tZ  "]},
        )

    def test_several(self) -> None:
        """
        Fields of one name are in order; lines that aren't fields don't count, nor
        does a continuation without a field.
        """
        header = b" x: 0\r\nx: 1\r\nnothing\r\nX: 2\r\n:3\r\nx\r\n : 4\r\n"
        for how in Canonicalization:
            found = [each[-1:] for each in canonicalFields(header, how)[b"x"]]
            self.assertEqual(found, [b"1", b"2", b"4"])

    @settings(max_examples=100, deadline=None)
    @given(VALUES)
    def test_likeOthers(self, value: bytes) -> None:
        """
        The canonical field equals dkimpy's (RFC 6376 3.4.2).
        """
        ((name, rest),) = Relaxed.canonicalize_headers([(b"Sub-Ject ", value)])
        field = canonicalField(b"Sub-Ject :" + value, RELAXED)
        self.assertEqual(field + b"\r\n", b"%b:%b" % (name, rest))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [b"\r\n", b" ", b"\t", b":", b"a", b"DKIM-Signature", b"\r", b"\n"]
            ),
            max_size=20,
        ).map(b"".join)
    )
    def test_agree(self, header: bytes) -> None:
        """
        Both functions find the same fields in any header: a signature is excluded by
        its index.
        """
        relaxed, simple = (canonicalFields(header, each) for each in (RELAXED, SIMPLE))
        name = b"dkim-signature"
        self.assertEqual(len(relaxed.get(name, ())), len(simple.get(name, ())))
