"""
Tests for L{moxtls.taglist}.
"""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.taglist import (
    MAX_TAGS,
    colonList,
    decodeBase64,
    parseTagList,
    parseTagSpec,
    splitTagSpecs,
)

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,4}", fullmatch=True)
VALUES = st.from_regex(r"([!-:<-~]([!-:<-~ ]{0,8}[!-:<-~])?)?", fullmatch=True)


class ParseTagListTests(SynchronousTestCase):
    """
    Tests for L{parseTagList}.
    """

    def test_values(self) -> None:
        """
        White space around names and values, folded or not, is no part of
        them; inside a value it is (RFC 6376 3.2).
        """
        tags = parseTagList(b" v=1;\r\n\ta = b  c\t;d= ;\r\n Ef_1=x=y==; ")
        self.assertEqual(tags.problem, "")
        self.assertEqual(tags.values, {"v": "1", "a": "b  c", "d": "", "Ef_1": "x=y=="})

    def test_problems(self) -> None:
        """
        Syntax errors are reported, and the rest is read (RFC 6376 3.2).
        """
        for text, problem in [
            (b"d=1; d=2", "a tag is repeated"),
            (b"d=1;; v=1", "not a list of tags"),
            (b"d=1; v", "not a list of tags"),
            (b"d=1; =v", "not a list of tags"),
            (b"d=1; 1v=2", "not a list of tags"),
            (b"d=1; v-w=2", "not a list of tags"),
            (b"d=1; v=a\0b", "control characters among the tags"),
            (b"d=1; v=a\nb", "control characters among the tags"),
            (b"d=1; v=a\r\nb", "control characters among the tags"),
            (b"d=1" + b";a=1" * MAX_TAGS, "too many tags"),
        ]:
            tags = parseTagList(text)
            self.assertEqual(tags.problem, problem, text)
            self.assertEqual(tags.get("d"), "1", text)

    def test_utf8(self) -> None:
        """
        Values may be in UTF-8 (RFC 8616 5); invalid UTF-8 can't be mistaken for other
        values.
        """
        self.assertEqual(parseTagList("d=bücher.example".encode()).get("d")[1], "ü")
        self.assertEqual(
            parseTagList(b"d=b\xfccher").get("d"), "b\N{REPLACEMENT CHARACTER}cher"
        )

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(NAMES, VALUES, max_size=8), st.sampled_from(["", ";", " ; "])
    )
    def test_written(self, values: dict[str, str], end: str) -> None:
        """
        Any list that follows the grammar is read (RFC 6376 3.2).
        """
        text = ";\r\n ".join(f"{name} = {value}" for name, value in values.items())
        tags = parseTagList((text + end if values else text).encode())
        self.assertEqual((tags.problem, tags.values), ("", values))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60))
    def test_anything(self, text: bytes) -> None:
        """
        Any text is parsed without an exception.
        """
        tags = parseTagList(text)
        self.assertFalse(any(";" in each for each in tags.values.values()))


class ColonListTests(SynchronousTestCase):
    """
    Tests for L{colonList}.
    """

    def test_list(self) -> None:
        """
        There may be white space around colons (RFC 6376 3.5, "h=").
        """
        self.assertEqual(colonList("From : to:\tCC"), ("from", "to", "cc"))
        self.assertEqual(colonList(""), ("",))
        self.assertEqual(colonList("a:b:c:d", 2), ("a", "b", "c:d"))


class DecodeBase64Tests(SynchronousTestCase):
    """
    Tests for L{decodeBase64}.
    """

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=20), st.booleans())
    def test_base64(self, data: bytes, padded: bool) -> None:
        """
        White space is ignored anywhere, and the padding may be missing
        (RFC 6376 2.10).
        """
        text = base64.b64encode(data).decode()
        text = text if padded else text.rstrip("=")
        self.assertEqual(decodeBase64("\t".join(text)), data)

    def test_refused(self) -> None:
        """
        Characters outside base64 are refused, not skipped.
        """
        for text in ("a", "YQ=a", "YQ=====", "Y-Q=", "YQ\n", "é", "Y\N{DIGIT ONE}é"):
            self.assertRaises(ValueError, decodeBase64, text)


class SplitTagSpecsTests(SynchronousTestCase):
    """
    Tests for L{splitTagSpecs} and L{parseTagSpec}.
    """

    def test_parts(self) -> None:
        """
        White space around parts and one final semicolon are dropped.
        """
        self.assertEqual(splitTagSpecs("v=1; a = b\t;;c"), ["v=1", "a = b", "", "c"])
        self.assertEqual(splitTagSpecs("v=1; "), ["v=1"])
        self.assertEqual(splitTagSpecs(""), [])
        self.assertEqual(splitTagSpecs("a;b;c", 1), ["a", "b;c"])

    def test_values(self) -> None:
        """
        The first equals sign separates name and value.
        """
        self.assertEqual(parseTagSpec("a \t= b=c"), ("a", "b=c"))
        self.assertEqual(parseTagSpec("a="), ("a", ""))
        self.assertIsNone(parseTagSpec("a"))
