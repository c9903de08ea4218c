"""
Tests for L{moxtls.smtp.dotstuffing}.
"""

from __future__ import annotations

import json
import re
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.dotstuffing import BodyDecoder, isFlawed
from tests.corpus import corpus

#: Pieces that decide where lines and messages end, with a few others.
WIRE = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"\r\n.", b"\r\n.\r\n", b"\0"])
).map(b"".join)
LINES = st.lists(st.binary(max_size=6).map(lambda line: _plain(line) + b"\r\n"))


def _plain(line: bytes) -> bytes:
    return line.replace(b"\r", b".").replace(b"\n", b".").replace(b"\0", b".")


def decoded(*pieces: bytes) -> tuple[BodyDecoder, bytes]:
    """
    Feed pieces until the message ends.
    """
    decoder = BodyDecoder()
    text = b""
    for index, piece in enumerate(pieces):
        text += decoder.feed(piece)
        if decoder.ended:
            decoder.rest += b"".join(pieces[index + 1 :])
            break
    return decoder, text


class BodyDecoderTests(SynchronousTestCase):
    """
    Tests for L{BodyDecoder}.
    """

    def test_table(self) -> None:
        """
        Dots are unstuffed (RFC 5321 4.5.2), and only CRLF.CRLF is the end
        (4.1.1.4).
        """
        for wire, message, rest in (
            (b".\r\n", b"", b""),
            (b"a\r\n.\r\n", b"a\r\n", b""),
            (b"..\r\n.\r\n", b".\r\n", b""),
            (b"...a\r\n..\r\n.\r\nQUIT\r\n", b"..a\r\n.\r\n", b"QUIT\r\n"),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n", b""),
            (b"a.\r\n.\r\n", b"a.\r\n", b""),
            (b".a\r\n.\r\n.\r\n", b"a\r\n", b".\r\n"),
        ):
            decoder, text = decoded(wire)
            self.assertTrue(decoder.ended, wire)
            self.assertFalse(decoder.flawed, wire)
            self.assertEqual((text, decoder.rest), (message, rest))
            self.assertEqual(decoder.size, len(message))

    def test_flawed(self) -> None:
        """
        Bare CR, bare LF and NUL (RFC 5321 2.3.8, 4.1.1.4) make a message
        flawed, and end nothing.
        """
        for flaw in (b"\n", b"\r", b"\0", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n"):
            decoder, _ = decoded(b"a" + flaw + b"b\r\n")
            self.assertTrue(decoder.flawed, flaw)
            self.assertFalse(decoder.ended, flaw)
            decoder.feed(b".\r\nREST")
            self.assertTrue(decoder.ended, flaw)
            self.assertEqual(decoder.rest, b"REST")

    def test_corpus(self) -> None:
        """
        The results of the published table, except for bare line feeds, which it
        tolerates: RFC 5321 2.3.8 forbids them, and the next hop may read them
        otherwise.
        """
        path = corpus("smtp", "mox-smtp-data-read.json")
        for case in json.loads(path.read_text())["cases"]:
            wire, expect = case["wire"].encode("latin-1"), case["expect"]
            decoder, text = decoded(wire)
            complete = wire.startswith(b".\r\n") or b"\r\n.\r\n" in wire
            self.assertEqual(decoder.ended, complete, case["id"])
            bare = b"\n" in wire.replace(b"\r\n", b"")
            if expect["error"] is None and not bare:
                self.assertFalse(decoder.flawed, case["id"])
                self.assertEqual(text, expect["decoded"].encode("latin-1"), case["id"])
            else:
                self.assertTrue(decoder.flawed or not complete, case["id"])

    @settings(max_examples=100, deadline=None)
    @given(WIRE, st.lists(st.integers(1, 4)))
    def test_splits(self, wire: bytes, lengths: list[int]) -> None:
        """
        The result doesn't depend on how the input is cut.
        """
        pieces, position = [], 0
        for length in lengths:
            pieces.append(wire[position : position + length])
            position += length
        pieces.append(wire[position:])
        whole, text = decoded(wire)
        parts, sameText = decoded(*pieces)
        self.assertEqual(parts.ended, whole.ended)
        self.assertEqual(parts.flawed, whole.flawed)
        self.assertEqual(parts.rest, whole.rest)
        self.assertEqual(sameText, text)

    @settings(max_examples=100, deadline=None)
    @given(LINES, st.binary(max_size=4))
    def test_roundTrip(self, lines: list[bytes], rest: bytes) -> None:
        """
        Decoding restores a message that was dot-stuffed (RFC 5321 4.5.2).
        """
        stuffed = b"".join(b"." + line if line[:1] == b"." else line for line in lines)
        decoder, text = decoded(stuffed + b".\r\n" + rest)
        self.assertEqual(text, b"".join(lines))
        self.assertFalse(decoder.flawed)
        self.assertEqual(decoder.rest, rest)


class FlawTests(SynchronousTestCase):
    """
    Tests for L{isFlawed}.
    """

    def test_all(self) -> None:
        """
        Each short text is flawed that has a CR or an LF without the other
        directly beside it (RFC 5321 2.3.8), or a NUL, and no other is.
        """
        bare = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
        for length in range(7):
            for each in product(b"\r\n.\0", repeat=length):
                text = bytes(each)
                self.assertEqual(isFlawed(text), bool(bare.search(text)), text)
