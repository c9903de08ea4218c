"""
Tests for L{moxtls.smtp.server.data}.
"""

from __future__ import annotations

import re
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.server.data import HeaderLimits

TEXT = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"A:", b"bcdef", b"\r\n\r\n"]), max_size=30
)


def shaped(*pieces: bytes, longest: int = 10) -> HeaderLimits:
    """
    What becomes of a message.
    """
    shape = HeaderLimits(longest)
    for piece in pieces:
        shape.feed(piece)
    return shape


class ShapeTests(SynchronousTestCase):
    """
    Tests for L{HeaderLimits}.
    """

    @settings(max_examples=100, deadline=None)
    @given(TEXT)
    def test_anything(self, pieces: list[bytes]) -> None:
        """
        Header, fields (RFC 5322 2.2.3) and lines are the same as line by line,
        however the message is cut.
        """
        text = b"".join(pieces) + b"\r\n"
        lines = text.split(b"\r\n")[:-1]
        header = lines[: lines.index(b"")] if b"" in lines else lines
        for shape in (shaped(text), shaped(*pieces, b"\r\n")):
            fields = [line for line in header if line[:1] not in (b" ", b"\t")]
            self.assertEqual(shape.hasLongLine, max(map(len, lines)) > 8)
            if b"" in lines:
                self.assertEqual(shape.fields, len(fields))
                self.assertEqual(shape.header, sum(len(line) + 2 for line in header))

    def test_costs(self) -> None:
        """
        Many lines, or one that has no end, take little time.
        """
        start = process_time()
        shape = shaped(*[b"a\r\n" * 20_000] * 50, longest=1 << 20)
        self.assertFalse(shape.hasLongLine)
        shape = shaped(*[b"a" * 1000] * 5000, longest=1 << 20)
        self.assertTrue(shape.hasLongLine)
        self.assertLess(process_time() - start, 0.5)
        self.assertIsNone(re.search("_header", repr(shape)))
