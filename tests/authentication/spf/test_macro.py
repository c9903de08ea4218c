"""
Tests for L{moxtls.authentication.spf.macro}.
"""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.spf.evaluate import SPFClient
from moxtls.authentication.spf.macro import (
    MAX_EXPLANATION_LENGTH,
    InvalidMacro,
    Macro,
    expandName,
    expandText,
    macroLetters,
    parseMacroString,
    printable,
)

CLIENT = SPFClient(
    ipaddress.ip_address("192.0.2.3"),
    "strong-bad",
    "email.example.com",
    "mail.example.com",
    "mx.example.net",
    1_700_000_000.5,
)
VALUES = CLIENT.values("email.example.com", "mx.example.org")
VALUES6 = SPFClient(
    ipaddress.ip_address("2001:db8::cb01"), "strong-bad", "email.example.com", "", "", 0
).values("email.example.com", "")

#: Text of records and macros.
RECORDLIKE = st.text("%{}slodiphvcrtSLX0123456789rR.-+,/_= abc\x00\xe9", max_size=40)


def name(text: str, values: dict[str, str] = VALUES) -> str:
    return expandName(parseMacroString(text), values)


def explanation(text: str, values: dict[str, str] = VALUES) -> str:
    return expandText(parseMacroString(text, explaining=True), values)


class ParseTests(SynchronousTestCase):
    """
    Tests for L{parseMacroString}.
    """

    def test_parts(self) -> None:
        """
        RFC 7208 7.1: literals, letters with all their options, and the three escapes.
        """
        self.assertEqual(
            parseMacroString("a.%{l12R+-}%%b%{D}"),
            (
                "a.",
                Macro("l", 12, True, "+-"),
                Macro("%"),
                "b",
                Macro("d", escaped=True),
            ),
        )

    def test_letters(self) -> None:
        """
        The letters of macros are known in lower case; the rest of the text
        doesn't count.
        """
        parts = parseMacroString("slo.%{D}.%{p2}%%")
        self.assertLessEqual({"d", "p"}, macroLetters(parts))
        self.assertFalse({"s", "l", "o"} & macroLetters(parts))

    def test_wrong(self) -> None:
        """
        RFC 7208 7.1, 7.3: invalid macros and characters, and zero parts.
        """
        for text in (
            "%",
            "%a",
            "%(d)",
            "%{",
            "%{}",
            "%{d",
            "%{x}",
            "%{dd}",
            "%{d-2}",
            "%{dr2}",
            "%{d:}",
            "%{d0}",
            "%{d000}",
            "a b",
            "a\tb",
            "a\x7f",
            "caf\xe9",
        ):
            self.assertRaises(InvalidMacro, parseMacroString, text)

    def test_explaining(self) -> None:
        """
        RFC 7208 7.2: c, r, t and spaces are for explanations only.
        """
        for text in ("%{c}", "%{R}", "%{t}", "a b"):
            self.assertRaises(InvalidMacro, parseMacroString, text)
            self.assertTrue(parseMacroString(text, explaining=True))

    def test_manyDigits(self) -> None:
        """
        RFC 7208 7.3: the number of parts has any number of digits, also more than
        Python's int accepts.
        """
        self.assertEqual(name("%{d000000002}"), "example.com")
        self.assertEqual(name("%{d127}"), "email.example.com")
        self.assertEqual(name("%{d" + "9" * 10000 + "}"), "email.example.com")

    @settings(max_examples=100, deadline=None)
    @given(st.one_of(st.text(), RECORDLIKE), st.booleans())
    def test_anything(self, text: str, explaining: bool) -> None:
        """
        Any text is a macro-string or invalid; its expansion is short, and an
        explanation is printable.
        """
        try:
            parts = parseMacroString(text, explaining)
        except InvalidMacro:
            return
        self.assertLessEqual(len(expandName(parts, VALUES)), 253)
        words = expandText(parts, VALUES)
        self.assertLessEqual(len(words), MAX_EXPLANATION_LENGTH)
        self.assertTrue(words.isascii())
        self.assertTrue(words.isprintable())


class ExpandTests(SynchronousTestCase):
    """
    Tests for L{expandName} and L{expandText}.
    """

    def test_examples(self) -> None:
        """
        The examples of RFC 7208 7.4.
        """
        for text, expanded in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            (
                "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
                "bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
            ),
            (
                "%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}",
                "3.2.0.192.in-addr.strong.lp._spf.example.com",
            ),
            (
                "%{d2}.trusted-domains.example.net",
                "example.com.trusted-domains.example.net",
            ),
        ]:
            self.assertEqual(name(text), expanded, text)
        self.assertEqual(
            name("%{ir}.%{v}._spf.%{d2}", VALUES6),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
            ".ip6._spf.example.com",
        )

    def test_letters(self) -> None:
        """
        RFC 7208 7.2: the other letters, and their values for unknown data.
        """
        for text, expanded in [
            ("%{i}", "192.0.2.3"),
            ("%{c}", "192.0.2.3"),
            ("%{p}", "mx.example.org"),
            ("%{h}", "mail.example.com"),
            ("%{r}", "mx.example.net"),
            ("%{t}", "1700000000"),
            ("a%_b%%c%-d.", "a b%c%20d."),
        ]:
            self.assertEqual(explanation(text), expanded, text)
        self.assertEqual(explanation("%{p} %{r} %{v}", VALUES6), "unknown unknown ip6")
        self.assertEqual(explanation("%{c}", VALUES6), "2001:db8::cb01")

    def test_delimiters(self) -> None:
        """
        RFC 7208 7.3: parts are split at any of the delimiters, also to nothing
        between two of them, and joined by dots.
        """
        values = VALUES | {"l": "a+b-c..d"}
        self.assertEqual(name("%{l+-}", values), "a.b.c..d")
        self.assertEqual(name("%{lr.}", values), "d..a+b-c")
        self.assertEqual(name("%{l2+}", values), "a.b-c..d")

    def test_escaped(self) -> None:
        """
        RFC 7208 7.3: upper case is for URLs.
        """
        values = VALUES | {"l": "~jack&jill=up-a_b3.c/\xe9"}
        self.assertEqual(name("%{L}", values), "~jack%26jill%3Dup-a_b3.c%2F%C3%A9")
        self.assertEqual(name("%{L}", VALUES | {"l": "\udc80"}), "%3F")

    def test_finalDot(self) -> None:
        """
        RFC 7208 7.3: a dot at the end of a name is accepted; in an
        explanation it stays.
        """
        self.assertEqual(name("a.%{d}."), "a.email.example.com")
        self.assertEqual(explanation("a.%{d}."), "a.email.example.com.")

    def test_tooLong(self) -> None:
        """
        RFC 7208 7.3: labels are dropped from the left, as few as necessary.
        """
        label = "a" * 49
        right = ".".join([label] * 5)  # 249
        self.assertEqual(name(f"b.{right}.de"), f"b.{right}.de"[2:])
        self.assertEqual(name(f"bc.{right}.d"), f"{right}.d")
        self.assertEqual(name(f"b.{right}.d"), f"b.{right}.d")
        self.assertEqual(name(f"b.{right}.d."), f"b.{right}.d")
        self.assertEqual(name("%{l}." * 200 + right), f".{right}"[1:])
        self.assertEqual(name("x." + "y" * 254), "")

    def test_muchTooLong(self) -> None:
        """
        An expansion of many megabytes isn't made at all.
        """
        values = VALUES | {"l": "x" * 60}
        expanded = name("%{l}." * 100_000 + "example.org", values)
        self.assertEqual(len(expanded), 3 * 61 + 11)
        words = explanation("%{l}" * 100_000, values)
        self.assertEqual(words, "x" * MAX_EXPLANATION_LENGTH)

    def test_printable(self) -> None:
        """
        RFC 7208 6.2: an explanation is ASCII, for any sender.
        """
        values = VALUES | {"l": "J\xf6rg\r\n"}
        self.assertEqual(explanation("not %{l}", values), "not J?rg??")
        self.assertEqual(printable("a\x7f\x00b" * 9, 5), "a??ba")
