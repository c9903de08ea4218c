"""
Tests for L{moxtls.message.mime}.
"""

from __future__ import annotations

from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.message.mime import (
    MAX_BOUNDARY_LENGTH,
    MAX_DEPTH,
    Part,
    contentType,
    leafParts,
)

NESTED = b"""\
Content-Type: multipart/mixed;
\tboundary="a b"

preamble
--a b
Content-Type: multipart/report; boundary=c

--c
content-type: TEXT/plain
Content-Transfer-Encoding: quoted-printable

caf=C3=A9
--c
Content-Type: application/x
Content-Transfer-Encoding: base64

aGVs bG8
--c--
--a b

just text
--a b--
epilogue
"""


class LeafPartsTests(SynchronousTestCase):
    """
    Tests for L{leafParts}.
    """

    def test_nested(self) -> None:
        """
        Multiparts are split, transfer encodings decoded; LF and CRLF both end lines
        (RFC 2046 5.1.1, RFC 2045 6).
        """
        expected = [
            Part("text/plain", "café".encode()),
            Part("application/x", b"hello"),
            Part("text/plain", b"just text"),
        ]
        self.assertEqual(list(leafParts(NESTED)), expected)
        self.assertEqual(list(leafParts(NESTED.replace(b"\n", b"\r\n"))), expected)

    def test_single(self) -> None:
        """
        A message that isn't a multipart is its own only part.
        """
        message = b"Content-Type: application/x; y=z\n\nbody"
        self.assertEqual(list(leafParts(message)), [Part("application/x", b"body")])
        self.assertEqual(list(leafParts(b"\nbody")), [Part("text/plain", b"body")])

    def test_cutOff(self) -> None:
        """
        Truncated messages are read up to their end.
        """
        firstEnd = NESTED.index(b"=A9") + 3
        for end in range(firstEnd, len(NESTED)):
            first = next(leafParts(NESTED[:end]))
            self.assertEqual(first.type, "text/plain")
            self.assertEqual(first.content[:5], "café".encode())

    def test_depth(self) -> None:
        """
        The depth of nested multiparts is limited.
        """
        message = b"Content-Type: text/plain\n\nbottom"
        for level in range(MAX_DEPTH):
            message = (
                f"Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n"
            ).encode() + message
        self.assertEqual(list(leafParts(message)), [Part("text/plain", b"bottom")])
        self.assertEqual(
            list(
                leafParts(b"Content-Type: multipart/x; boundary=b\n\n--b\n" + message)
            ),
            [],
        )

    def test_longBoundary(self) -> None:
        """
        RFC 2046 5.1.1: 70 characters; a little more doesn't matter, much more
        is no boundary.
        """
        for length, expected in ((70, 1), (MAX_BOUNDARY_LENGTH, 1), (100_000, 0)):
            boundary = b"x" * length
            start = b"Content-Type: multipart/x; boundary=" + boundary
            message = start + b"\n\n--" + boundary + b"\n\nhere\n"
            self.assertEqual(len(list(leafParts(message))), expected, length)

    def test_noBase64(self) -> None:
        """
        RFC 2045 6.8: characters outside base64 are skipped, in linear time.
        """
        begin = process_time()
        message = b"Content-Transfer-Encoding: base64\n\naG" + b"!" * 10_000_000
        [part] = leafParts(message + b"\r\n\0k=aGk")
        self.assertEqual(part.content, b"hi")
        self.assertLess(process_time() - begin, 1)

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=300), st.sampled_from(["base64", "quoted-printable", "x"])
    )
    def test_hostile(self, body: bytes, encoding: str) -> None:
        """
        Any message is parsed without an exception.
        """
        start = f"Content-Type: multipart/x; boundary=b\n\n--b\n{encoding}\n\n--b\n"
        list(leafParts(start.encode() + body))
        list(leafParts(f"Content-Transfer-Encoding: {encoding}\n\n".encode() + body))
        list(leafParts(body))


class ContentTypeTests(SynchronousTestCase):
    """
    Tests for L{contentType}.
    """

    def test_contentType(self) -> None:
        """
        RFC 2045 5.1; an invalid Content-Type is text/plain (5.2).
        """
        self.assertEqual(
            contentType('Multipart/Report; Report-Type="tls\\"rpt"; x=y'),
            ("multipart/report", {"report-type": 'tls"rpt', "x": "y"}),
        )
        self.assertEqual(contentType("nonsense"), ("text/plain", {}))
        self.assertEqual(contentType(""), ("text/plain", {}))
