"""
Tests for L{moxtls.message.addresses}.
"""

from __future__ import annotations

import encodings
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from interop.authors import (
    REGULAR,
    authorsByEmail,
    authorsByMoxtls,
    fields,
    headerOf,
    headers,
    unknownAuthors,
)
from moxtls.message.addresses import MAX_FROM_LENGTH, FromField, authorDomains
from moxtls.message.header import splitHeader


class AuthorTests(SynchronousTestCase):
    """
    Tests for L{authorDomains}.
    """

    def domains(self, value: str) -> list[str]:
        """
        @return: The domains in C{From}, or its fault.
        """
        header = splitHeader(f"To: x@to.example\r\nFrom: {value}\r\n".encode())
        authors = authorDomains(header)
        if authors.state is not FromField.READ:
            self.assertEqual(authors.domains, ())
            return [authors.state.name]
        return [each.ascii for each in authors.domains]

    def test_one(self) -> None:
        """
        One author, in every syntax of an address (RFC 5322 3.4, 4.4, RFC 6532, RFC
        6854).
        """
        for value in (
            "x@a.example",
            "<x@A.Example>",
            "X Y <x@a.example>",
            '"Y, X; \\"z\\" <q@b.example>" <x@a.example>',
            "X\r\n Y\r\n\t<x@a.example>",
            "X (b@b.example (c@c.example)) <x@a.example> (d@d.example)",
            'X (a " b) <x@a.example>',
            "=?utf-8?q?b=40b.example?= <x@a.example>",
            '"x y"@a.example',
            "x . y @ a.example",
            "Group: x@a.example;",
            "Two: x@a.example, Y <y@a.example>;",
            "X, Y <x@a.example>",
            "X.Y. <x@a.example>",
            "x@a.example.",
            "X <x@a.example",
            "X <<x@a.example>>",
            "<x@a.example> X",
            "X: Y <x@a.example>",
            "\u00dcb <\u00fc@a.example>",
            "[X] Y (Z) <x@a.example>",
            "D\\x <x@a.example>",
            "'x@a.example' <x@a.example>",
            "x@a.example <y@a.example>",
            "X @ Y Z <x@a.example>",
            '"x@b.example" <x@a.example>',
            "x@a.example (x@b.example)",
            "=?utf-8?q?X Y?= <x@a.example>",
            "=?utf-8?q?X_(Y, Z)?= <x@a.example>",
            "=?iso-8859-1?Q?X=FC,_Y?= <x@a.example>",
            "=?utf-8?q?X,_Y,_Z;?= Z <x@a.example>, =?utf-8?q?Y,?= <y@a.example>",
            "=?utf-8?q?X:_Y?= <x@a.example>",
            "=?utf-8?b?WA <x@a.example>",
        ):
            self.assertEqual(self.domains(value), ["a.example"], value)

    def test_international(self) -> None:
        """
        Domains are compared in A-labels (RFC 8616).
        """
        expected = ["xn--bcher-kva.example"]
        self.assertEqual(self.domains("x@B\u00fccher.example"), expected)
        self.assertEqual(self.domains("x@xn--bcher-kva.EXAMPLE"), expected)

    def test_several(self) -> None:
        """
        Authors of several domains (RFC 5322 3.6.2).
        """
        for value in (
            "x@a.example, y@b.example",
            "X <x@a.example>, <y@b.example>, z@a.example",
            "G: x@a.example; H: y@b.example;",
        ):
            self.assertEqual(self.domains(value), ["a.example", "b.example"], value)

    def test_literal(self) -> None:
        """
        An address without a domain (RFC 5321 4.1.3) is an author to whom DMARC
        doesn't apply.
        """
        self.assertEqual(self.domains("x@[192.0.2.1]"), [])
        self.assertEqual(self.domains("X <x@[IPv6:2001:db8::1]>"), [])

    def test_literalAndDomain(self) -> None:
        """
        A field with both is unreadable (RFC 5322 3.6.2): programs that show the first
        author show another one than DMARC is about.
        """
        for value in ("x@[192.0.2.1], y@a.example", "y@a.example; X <x@[192.0.2.1]>"):
            self.assertEqual(self.domains(value), ["UNREADABLE"])

    def test_unreadable(self) -> None:
        """
        A field is unreadable without an address, or if mail programs find different
        ones (RFC 5322 3.6.2).
        """
        for value in (
            "y@b.example (a <x@a.example>",
            'y@b.example " <x@a.example>',
            "y@b.example <x@a.example>",
            "y@b.example: <x@a.example>",
            "y @ b.example z <x@a.example>",
            "y\uff20 @b\u3002example <x@a.example>",
            '"X <x@a.example>',
            '"X\\" <x@a.example>',
            "X (y <x@a.example>",
            "X (y\\) <x@a.example>",
            "X (y (z) <y@b.example>) <x@a.example>",
            "(y@b.example), <x@a.example>",
            '"y@b.example", <x@a.example>',
            '"y@b.example" [z] <x@a.example>',
            "[y@b.example] <x@a.example>",
            '<x@a.example> "y@b.example"',
            "X <x@a.example> <y@b.example>",
            "X <x@a.example (y@b.example)>",
            "x@a.example: y@b.example;",
            'G: "X <y@b.example>" <x@a.example>;',
            "<@b.example,@c.example:x@a.example>",
            '"y@b.example"@a.example',
            '<"@b.example>"@a.example>',
            '"=?"?q??=<x@a.example>',
            "x@(y)a.example",
            "X y@b.a.\u0440\u0444",
            "=?utf-8?b?eUBiLmV4YW1wbGU?=, <x@a.example>",
            "=?made-up?q?y=40b.example?=, <x@a.example>",
            "=?utf-8?b?eUBiLmV4YW1wbGU<x@a.example>, ?=",
            "=?utf-8?q?y=40b.example,_Y?= <x@a.example>",
            "=?utf-8?q?X,_y=40b.example?= <x@a.example>",
            "=?utf-8?q?X,_=22Y?= <x@a.example>",
            "=?made-up?q?y=40b.example,_Y?= <x@a.example>",
            "=?utf-8?q?X, Y <x@a.example>",
            "=?utf-8?q?y=40b.example, Y?= <x@a.example>",
            "=?utf-8?q?X,_Y?= x@a.example",
            "X\x01 <x@a.example>",
            "",
            "root",
            "<>",
            '"x@a.example" <>',
            "undisclosed:;",
            "=?utf-8?q?x=40a.example?=",
            "=?utf-8?b?eEBhLmV4YW1wbGU=?=@b.example",
            "X <=?utf-8?q?x=40a.example?==?utf-8?Q?=00?=@b.example>",
            '"=?utf-8?q?x=40a.example?="@b.example',
            "=?utf-8?q?x=40a.example?=, y@b.example",
            "=?utf-8?b?eEBhLmV4YW1wbGU=?=; y@b.example",
            "=?utf-7*de?Q?x+AEA-a.example?=: y@b.example;",
            "x@a.example <y@b.example",
            "\\@a.example y@b.example",
            "x@a.example. b.example",
            "x@a.example\r\n .b.example",
            "[x@a.example]@b.example",
            "y@b.example, x@a.example <>",
            'y@b.example:"x@a.example">',
            'y@b.example, <=?utf-8?q?x=40a.example?="',
            '"x@a.example"(y@b.example',
            "y@b.example: [x@a.example];",
            "x@a.example><y@b.example>",
            "x@a.example <,y@b.example>",
            "<x@a.example> y@b.example",
            '=?utf-8?q?x=40a.example?="<y@b.example',
            "<x@a.example;y: z@b.example>",
            "x@a.example y",
            "x@@a.example",
            "<x@a.example <y@b.example>",
            "x@a-.example",
            "x@a..example",
            "@a.example",
            "x@a.example>",
            "x@a.example, y@",
            "x@a.exam\u0000ple",
            "x@" + "a." * 200,
        ):
            self.assertEqual(self.domains(value), ["UNREADABLE"], value)
        header = splitHeader(b"From: <x@\xff.example>\r\n")
        self.assertEqual(authorDomains(header).state, FromField.UNREADABLE)

    def test_count(self) -> None:
        """
        No field, and more than one (RFC 5322 3.6), are states of their own.
        """
        for data, state in (
            (b"", FromField.MISSING),
            (b"X-From: x@a.example\r\n", FromField.MISSING),
            (b"From: x@a.example\r\nfrom : x@a.example\r\n", FromField.REPEATED),
            (b"From: x@a.example\r\nFrom\x0b: y@b.example\r\n", FromField.REPEATED),
            (b":From: y@b.example\r\nFrom: x@a.example\r\n", FromField.REPEATED),
            (b"X\r\n\tFrom: y@b.example\r\nFrom: x@a.example\r\n", FromField.REPEATED),
            (b"From: x@a.example\r\n\x0b<y@b.example>\r\n", FromField.UNREADABLE),
            (b"From: x@a.example\r\n\xc2\xa0X: y\r\n", FromField.UNREADABLE),
            (b"\xc2\xa0From: y@b.example\r\nFrom: x@a.example\r\n", FromField.REPEATED),
        ):
            self.assertEqual(authorDomains(splitHeader(data)).state, state)

    def test_charsets(self) -> None:
        """
        Unknown charset names aren't kept in memory.
        """
        self.domains("=?made-up?q?x=40a.example?=, y@b.example")
        self.assertNotIn("made_up", encodings._cache)

    def test_linear(self) -> None:
        """
        Unclosed quotes and comments take linear time; fields beyond the limit aren't
        parsed.
        """
        for each in ("(", '"', '\\"', "<", "<>", "[", "a@", ",", ":", "(\\"):
            self.domains(each * (MAX_FROM_LENGTH // len(each) - 10))
        long = f'"{"x" * MAX_FROM_LENGTH}" <x@a.example>'
        self.assertEqual(self.domains(long), ["UNREADABLE"])

    @given(st.text(alphabet='ab@.<>()[]",;:\\ \u00fc\r\n\t', max_size=60))
    @example("a@b\\")
    @settings(max_examples=100, deadline=None)
    def test_anything(self, value: str) -> None:
        """
        Any field yields a result.
        """
        authorDomains(splitHeader(b"From:" + value.encode() + b"\r\n"))


class EmailTests(SynchronousTestCase):
    """
    L{authorDomains} compared with Python's C{email} (RFC 5322 3.6.2).  C{make
    interop} compares it with more mail programs.
    """

    def test_regular(self) -> None:
        """
        Fields that senders write are accepted, also some that RFC 5322 3.4 doesn't
        allow, and C{email} finds the same author.
        """
        for field in REGULAR:
            header = headerOf(field)
            self.assertEqual(authorsByMoxtls(header), {"a.example"}, field)
            self.assertEqual(unknownAuthors(header, authorsByEmail(header)), {}, field)

    def test_detected(self) -> None:
        """
        C{email} finds another author in fields that name two.
        """
        for field in ("y@b.example (a <x@a.example>", 'y@b.example " <x@a.example>'):
            self.assertIsNone(authorsByMoxtls(headerOf(field)))
            for found in authorsByEmail(headerOf(field)).values():
                # From Python 3.13 on, strict parsing finds nobody.
                self.assertIn(found[0][1], ("y@b.example", ""))

    @given(st.integers(0, 2**32))
    @settings(max_examples=1000, deadline=None)
    def test_generated(self, seed: int) -> None:
        """
        In no accepted field C{email} finds an author for whom DMARC isn't evaluated.
        """
        chance = random.Random(seed)
        for header in (headerOf(next(fields(chance))), next(headers(chance))):
            self.assertEqual(unknownAuthors(header, authorsByEmail(header)), {}, header)

    @given(st.text(alphabet="xyab@.<>()[]\",;:\\' =?\u00fc", max_size=40))
    @settings(max_examples=500, deadline=None)
    def test_text(self, text: str) -> None:
        """
        The same with an address and any characters around it.
        """
        for field in (
            f"y@b.example{text}<x@a.example>",
            f"x@a.example{text}y@b.example",
        ):
            header = headerOf(field)
            self.assertEqual(unknownAuthors(header, authorsByEmail(header)), {}, field)
