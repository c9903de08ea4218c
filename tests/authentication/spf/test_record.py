"""
Tests for L{moxtls.authentication.spf.record}.
"""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import AuthResult
from moxtls.authentication.spf.evaluate import SPFClient
from moxtls.authentication.spf.record import (
    MAX_CACHED_LENGTH,
    MAX_EXPLANATION_LENGTH,
    MAX_RECORD_LENGTH,
    AllMechanism,
    AMechanism,
    Directive,
    DomainSpec,
    ExistsMechanism,
    IncludeMechanism,
    InvalidMacro,
    InvalidSPFRecord,
    IPMechanism,
    Macro,
    Mechanism,
    MXMechanism,
    PTRMechanism,
    SPFRecord,
    clearRecordCache,
    expandName,
    expandText,
    isSPF,
    macroLetters,
    parseMacroString,
    parseSPFRecord,
    printable,
)

EXAMPLE = DomainSpec(("a.example",), frozenset())

#: Pieces of terms, from which records can be made that nearly are some.
PIECES = st.sampled_from(
    [
        *("all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists", "redirect"),
        *("exp", "unknown", "+", "-", "~", "?", ":", "/", "//", "=", " ", " ", "."),
        *("example.com", "192.0.2.1", "2001:db8::1", "24", "64", "0", "%{d}", "%"),
        *("%{ir}.x.org", "\xff", "\x00", "v=spf1"),
    ]
)


def mechanism(term: str) -> Mechanism:
    (directive,) = parseSPFRecord(f"v=spf1 {term}".encode()).directives
    return directive.mechanism


class IsSPFTests(SynchronousTestCase):
    """
    Tests for L{isSPF}.
    """

    def test_version(self) -> None:
        """
        RFC 7208 4.5: the version in any case, followed by a space or the end.
        """
        for text in (b"v=spf1", b"v=spf1 ", b"V=SpF1 -all", b"v=spf1 \xff"):
            self.assertTrue(isSPF(text), text)
        for text in (b"", b"v=spf", b"v=spf10", b"v=spf1\t-all", b" v=spf1", b"v=spf2"):
            self.assertFalse(isSPF(text), text)


class RecordTests(SynchronousTestCase):
    """
    Tests for L{parseSPFRecord}.
    """

    def refused(self, term: str) -> str:
        record = b"v=spf1 " + term.encode("latin-1")
        return str(self.assertRaises(InvalidSPFRecord, parseSPFRecord, record))

    def test_record(self) -> None:
        """
        RFC 7208 3: qualifiers, terms as published, and modifiers.
        """
        record = parseSPFRecord(b"v=spf1  -MX ~a:a.example  exp=a.example x=y ")
        self.assertEqual(
            record,
            SPFRecord(
                (
                    Directive(AuthResult.FAIL, MXMechanism(), "-MX"),
                    Directive(AuthResult.SOFTFAIL, AMechanism(EXAMPLE), "~a:a.example"),
                ),
                None,
                EXAMPLE,
            ),
        )
        results = [
            each.result for each in parseSPFRecord(b"v=spf1 a +a ?a ~a -a").directives
        ]
        self.assertEqual(results, ["pass", "pass", "neutral", "softfail", "fail"])
        self.assertEqual(parseSPFRecord(b"v=spf1"), SPFRecord())

    def test_mechanisms(self) -> None:
        """
        RFC 7208 5: each with all that may be there.
        """
        for term, expected in [
            ("all", AllMechanism()),
            ("INCLUDE:a.example", IncludeMechanism(EXAMPLE)),
            ("exists:a.example", ExistsMechanism(EXAMPLE)),
            ("ptr", PTRMechanism()),
            ("ptr:a.example", PTRMechanism(EXAMPLE)),
            ("a", AMechanism()),
            ("a/24", AMechanism(None, 24)),
            ("a//64", AMechanism(None, 32, 64)),
            ("a/0//0", AMechanism(None, 0, 0)),
            ("a:a.example/24//64", AMechanism(EXAMPLE, 24, 64)),
            ("mx:a.example//128", MXMechanism(EXAMPLE, 32, 128)),
            ("mx/32", MXMechanism()),
            ("ip4:192.0.2.1", IPMechanism(4, 0xC0000201, 32)),
            ("ip4:192.0.2.0/24", IPMechanism(4, 0xC0000200, 24)),
            ("ip6:::1", IPMechanism(6, 1, 128)),
            ("ip6:::192.0.2.1/0", IPMechanism(6, 0xC0000201, 0)),
        ]:
            self.assertEqual(mechanism(term), expected, term)

    def test_domains(self) -> None:
        """
        RFC 7208 7.1 domain-spec: any visible character, and at the end a
        top-level domain or a macro.
        """
        for domain in (
            "a.example.",
            "_spf.a-b.example",
            "foo:bar/baz.example",
            "a.b/24.example",
            "x.xn--zckzah",
            "x.1a",
            "%{d}",
            "foo%{d}",
            "%{d}.example",
            "x.1%%",
            "a..example",
            ".example",
        ):
            it = mechanism(f"a:{domain}/8")
            self.assertIsInstance(it, AMechanism)
            assert isinstance(it, AMechanism)
            self.assertEqual(it.prefix4, 8, domain)
        spec = parseSPFRecord(b"v=spf1 redirect=%{d2}._spf.example").redirect
        parts = (Macro("d", 2), "._spf.example")
        self.assertEqual(spec, DomainSpec(parts, frozenset("d")))

    def test_notDomains(self) -> None:
        """
        RFC 7208 7.1: no domain-spec.
        """
        for domain in (
            "",
            "museum",
            "museum.",
            "a.123",
            "a.-com",
            "a.com-",
            "a.com:8080",
            "a.com/24/",
            "a.com\x00",
            "a.c_m",
            "%{c}.example",
            "%{d}example",
            "%%com",
            "%{d}%%_com",
            "x.}",
            "caf\xe9.example",
        ):
            for name in ("include", "a", "mx", "ptr", "exists"):
                self.refused(f"{name}:{domain}")
            for name in ("redirect", "exp"):
                self.refused(f"{name}={domain}")

    def test_wrong(self) -> None:
        """
        RFC 7208 4.6.1, 5, 12: no term.
        """
        for term in (
            *("moo", "-", "1up=x", "=all", "a=%", "--all", "-redirect=a.example"),
            *("all.", "all:x.example", "all/8", "include", "exists", "exists/8"),
            *("include:a.example/24", "ptr/0", "ptr:", "redirect:a.example"),
            *("a:", "a/33", "a//129", "a/032", "a/24/64", "a/", "a//", "a///64"),
            *("a/-1", "a/24//", "mx/1234", "a.example", "a/\xb2"),
            *("ip4", "ip4:", "ip4:192.0.2", "ip4:192.0.2.1/33", "ip4:192.0.2.01"),
            *("ip4:192.0.2.1//24", "ip4:192.0.2.1:80", "ip4:::1", "ip4:192.0.2.1/"),
            *("ip6:192.0.2.1", "ip6::1::", "ip6:::1/129", "ip6:::1%eth0", "ip6:1::2::"),
            *("moo.cow/far=x", "a:a.example\nall", "\x80a"),
        ):
            self.assertIn(term[:1].replace("\x80", "?"), self.refused(term), term)

    def test_words(self) -> None:
        """
        Errors name the term, short and printable.
        """
        self.assertIn("'a:192.0.2.1': ", self.refused("mx a:192.0.2.1"))
        self.assertIn("ip4", self.refused("a:192.0.2.1"))
        self.assertIn("top-level", self.refused("a:museum"))
        self.assertIn("no such mechanism", self.refused("-al"))
        said = self.refused("a:\xff\x00" + "x" * 1000)
        self.assertLess(len(said), 200)
        self.assertTrue(said.isascii() and said.isprintable())

    def test_twice(self) -> None:
        """
        RFC 7208 6: redirect and exp occur once, other terms any number of times.
        """
        for name in ("redirect", "exp"):
            self.assertIn(
                "repeated", self.refused(f"{name}=a.example {name}=a.example")
            )
        self.assertEqual(parseSPFRecord(b"v=spf1 x=1 x=2"), SPFRecord())

    def test_all(self) -> None:
        """
        RFC 7208 5.1: terms after C{all}, and a redirect anywhere, are ignored; but
        they must be valid.
        """
        record = parseSPFRecord(b"v=spf1 redirect=a.example ?all mx -all exp=a.example")
        everything = (Directive(AuthResult.NEUTRAL, AllMechanism(), "?all"),)
        self.assertEqual(record, SPFRecord(everything, None, EXAMPLE))
        self.refused("-all moo")

    def test_tooLong(self) -> None:
        """
        A record has an end.
        """
        record = b"v=spf1" + b" " * MAX_RECORD_LENGTH
        self.assertRaises(InvalidSPFRecord, parseSPFRecord, record)
        parseSPFRecord(record[:MAX_RECORD_LENGTH])

    def test_remembered(self) -> None:
        """
        Usual records are cached, long ones and errors aren't.
        """
        usual, long = b"v=spf1 -all", b"v=spf1 " + b"a " * MAX_CACHED_LENGTH
        self.assertIs(parseSPFRecord(usual), parseSPFRecord(usual))
        self.assertIsNot(parseSPFRecord(long), parseSPFRecord(long))
        before = parseSPFRecord(usual)
        clearRecordCache()
        self.assertEqual(parseSPFRecord(usual), before)
        self.assertIsNot(parseSPFRecord(usual), before)
        for _ in range(2):
            self.refused("moo")

    def test_time(self) -> None:
        """
        The longest records of adverse content are parsed in linear time.
        """
        for filling in ("/", "/1", "//1", "a.", "%{d", "%{d" + "1", "a=", "-", "1:"):
            term = "a:" + filling * (MAX_RECORD_LENGTH // len(filling) - 9) + "_"
            self.refused(term)

    @settings(max_examples=100, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=60),
            st.lists(PIECES).map(lambda pieces: "".join(pieces).encode("latin-1")),
        )
    )
    def test_anything(self, text: bytes) -> None:
        """
        Any text is a record or invalid.
        """
        try:
            record = parseSPFRecord(b"v=spf1 " + text)
        except InvalidSPFRecord as error:
            self.assertTrue(str(error).isprintable())
        else:
            for each in record.directives:
                self.assertIn(each.text.encode(), text)


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
