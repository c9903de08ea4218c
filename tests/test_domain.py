"""
Tests for L{moxtls.domain}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import (
    MAX_ADDRESS,
    Address,
    AddressLiteral,
    Domain,
    InvalidAddress,
    InvalidDomain,
    parseHost,
)

#: Untrusted input in place of names and addresses.
hostile = st.text(max_size=80) | st.text(
    'aZ09-_.@"\\[]: %\x00\x1f\x7f\xfc\u3002\u200d\ud800', max_size=80
)
#: Pieces that make addresses of some of it.
ENDS = ("@example.com", "", '"@a.example', "@[192.0.2.1]", "@[IPv6:fe80::1%x\r\n]")


class DomainTests(SynchronousTestCase):
    """
    Tests for L{Domain}.
    """

    def test_oneSpelling(self) -> None:
        """
        All spellings of a domain are one value (RFC 5890 2.3.2.1).
        """
        for text, name in (
            ("Example.COM.", "example.com"),
            ("müller.example", "xn--mller-kva.example"),
            ("MÜLLER.example", "xn--mller-kva.example"),
            ("XN--MLLER-KVA.example", "xn--mller-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("a", "a"),
            ("1.example", "1.example"),
            ("a--b.example", "a--b.example"),
            ("MX_1.example", "mx_1.example"),
            ("_a_.b_c", "_a_.b_c"),
            ("a_b.müller.example", "a_b.xn--mller-kva.example"),
        ):
            self.assertEqual(Domain.parse(text), Domain(name))
            self.assertEqual(str(Domain.parse(text)), name)

    def test_invalid(self) -> None:
        """
        Text that is not a host name is rejected (RFC 1123 2.1).
        """
        for text in (
            "",
            ".",
            "a..example",
            ".example",
            "example..",
            "-a.example",
            "a-.example",
            "_-.example",
            "a b.example",
            "a.example\n",
            "x" * 64 + ".example",
            ".".join(["x" * 63] * 4),
            "a\0.example",
            "\u200d.example",
            "\ud800.example",
            "ü" * 64 + ".example",
        ):
            self.assertRaises(InvalidDomain, Domain.parse, text)

    def test_hostName(self) -> None:
        """
        RFC 1123 2.1: a name with an underscore is not a valid host name for this
        host.
        """
        for text, good in (
            ("a-1.example", True),
            ("müller.example", True),
            ("a_1.example", False),
            ("a._example", False),
        ):
            self.assertEqual(Domain.parse(text).isHostName, good, text)

    def test_longest(self) -> None:
        """
        253 characters are the most, without the final dot (RFC 1035 2.3.4).
        """
        longest = ".".join(["x" * 63] * 3 + ["y" * 61])
        self.assertEqual(Domain.parse(longest + ".").ascii, longest)
        self.assertRaises(InvalidDomain, Domain.parse, longest + "y")

    def test_error(self) -> None:
        """
        Error messages escape and truncate the text.
        """
        error = self.assertRaises(InvalidDomain, Domain.parse, "a\r\n" * 1000)
        self.assertNotIn("\n", str(error))
        self.assertLess(len(str(error)), 1000)

    def test_unicode(self) -> None:
        """
        The readable form has U-labels.
        """
        for text, shown in (
            ("xn--mller-kva.example", "müller.example"),
            ("example.com", "example.com"),
            ("xn--a.example", "xn--a.example"),
        ):
            self.assertEqual(Domain.parse(text).unicode, shown)

    def test_family(self) -> None:
        """
        A domain is under itself and all its parents, not under a name that is only a
        suffix of its text.
        """
        domain = Domain.parse("a.b.example")
        self.assertEqual(domain.parent, Domain("b.example"))
        self.assertIsNone(Domain("example").parent)
        for other, under in (
            ("a.b.example", True),
            ("b.example", True),
            ("example", True),
            ("xample", False),
            ("c.example", False),
            ("x.a.b.example", False),
        ):
            self.assertEqual(domain.isUnder(Domain(other)), under, other)

    @settings(max_examples=100, deadline=None)
    @given(hostile)
    def test_any(self, text: str) -> None:
        """
        Any text is a domain or not; the name of it is its one spelling.
        """
        try:
            domain = Domain.parse(text)
        except InvalidDomain:
            return
        self.assertTrue(
            (domain.ascii.isascii() and domain.ascii.islower())
            or not any(c.isalpha() for c in domain.ascii)
        )
        self.assertEqual(Domain.parse(domain.ascii), domain)
        self.assertEqual(Domain.parse(domain.unicode), domain)


class AddressLiteralTests(SynchronousTestCase):
    """
    Tests for L{AddressLiteral} and L{parseHost}.
    """

    def test_literals(self) -> None:
        """
        RFC 5321 4.1.3.
        """
        for text, ip, written in (
            ("[192.0.2.1]", "192.0.2.1", "[192.0.2.1]"),
            ("[IPv6:2001:DB8:0::1]", "2001:db8::1", "[IPv6:2001:db8::1]"),
            ("[ipv6:::1]", "::1", "[IPv6:::1]"),
        ):
            literal = parseHost(text)
            self.assertEqual(literal, AddressLiteral(ip))
            self.assertEqual(str(literal), written)

    def test_invalid(self) -> None:
        """
        The prefix is for IPv6 addresses only, and brackets are required.
        """
        for text in (
            "[2001:db8::1]",
            "[IPv6:192.0.2.1]",
            "[192.0.2.300]",
            "[192.0.2.1",
            "[]",
            "[[192.0.2.1]]",
            "[IPv6:fe80::1%eth0]",
            "[IPv6:::1%]",
            "[IPv6:fe80::1%\r\nx]",
        ):
            self.assertRaises(InvalidDomain, parseHost, text)
        self.assertRaises(InvalidDomain, AddressLiteral.parse, "192.0.2.1")

    def test_domain(self) -> None:
        """
        Without a bracket, it is a domain.
        """
        self.assertEqual(parseHost("Example.com"), Domain("example.com"))


class AddressTests(SynchronousTestCase):
    """
    Tests for L{Address}.
    """

    def test_addresses(self) -> None:
        """
        The case of the local part is kept (RFC 5321 2.4); it is quoted if necessary
        (RFC 5321 4.1.2).
        """
        for text, local, written in (
            ("Some.One@Example.com", "Some.One", "Some.One@example.com"),
            ('"some.one"@example.com', "some.one", "some.one@example.com"),
            ('"a b"@example.com', "a b", '"a b"@example.com'),
            ('"a@b"@example.com', "a@b", '"a@b"@example.com'),
            (r'"a\"\\b"@example.com', 'a"\\b', r'"a\"\\b"@example.com'),
            (r'"\a"@example.com', "a", "a@example.com"),
            ('""@example.com', "", '""@example.com'),
            ("a+b=c/d@example.com", "a+b=c/d", "a+b=c/d@example.com"),
            ("jürgen@example.com", "jürgen", "jürgen@example.com"),
        ):
            address = Address.parse(text)
            self.assertEqual(address, Address(local, Domain("example.com")))
            self.assertEqual(str(address), written)

    def test_dots(self) -> None:
        """
        Dots at either end and in a row require quoting (RFC 5321 4.1.2), but existing
        addresses lack it: they are kept unchanged.
        """
        for text, local in (
            ("a..b@example.com", "a..b"),
            ("a.@example.com", "a."),
            (".a@example.com", ".a"),
            ("..ü...@example.com", "..ü..."),
            ('"a..b"@example.com', "a..b"),
        ):
            address = Address.parse(text)
            self.assertEqual(address, Address(local, Domain("example.com")))
            self.assertEqual(str(address), text)
        self.assertEqual(str(Address("a.", Domain("example.com"))), '"a."@example.com')

    def test_longLocalPart(self) -> None:
        """
        RFC 5321 4.5.3.1.1: 64 octets are the minimum of the maximum for a local part.
        """
        for local in ("x" * 65, "ü" * 33, "b+" + "long=" * 30, '"' + "a " * 40 + '"'):
            text = f"{local}@example.com"
            self.assertEqual(str(Address.parse(text)), text)

    def test_literal(self) -> None:
        """
        The domain may be an address literal.
        """
        address = Address.parse("a@[192.0.2.1]")
        self.assertEqual(address.domain, AddressLiteral("192.0.2.1"))
        self.assertEqual(str(address), "a@[192.0.2.1]")

    def test_smtputf8(self) -> None:
        """
        A local part with other characters needs SMTPUTF8 (RFC 6531 3.1); a
        domain doesn't, since it has A-labels.
        """
        self.assertTrue(Address.parse("jürgen@example.com").needsSMTPUTF8)
        self.assertFalse(Address.parse("a@müller.example").needsSMTPUTF8)

    def test_unprintable(self) -> None:
        """
        Characters of UTF-8 that end lines, move a terminal's cursor or reverse text
        are refused.
        """
        for each in "\x80\x85\x9b\x9f\u2028\u2029\u202a\u202e\u2066\u2069":
            for text in (f"a{each}b@example.com", f'"a {each}"@example.com'):
                self.assertRaises(InvalidAddress, Address.parse, text)
        for each in "\xa0\u2027\u202f\u2065\u206a\u200d\U0001f600":
            self.assertEqual(Address.parse(f"a{each}@b.example").localPart, f"a{each}")

    def test_invalid(self) -> None:
        """
        Text that is not a Mailbox (RFC 5321 4.1.2) is rejected.
        """
        for text in (
            "",
            "a",
            "@example.com",
            "a@",
            "a@b@example.com",
            "a b@example.com",
            ".@example.com",
            "..@example.com",
            '"a"b"@example.com',
            '"a@example.com',
            "a\r\nRCPT TO:<b>@example.com",
            '"a\r\nb"@example.com',
            '"a\0b"@example.com',
            '"\\"@example.com',
            "<a@example.com>",
            "a@example.com\n",
            "a@-example.com",
            "\ud800@example.com",
            '"\ud800"@example.com',
            "a@" + ".".join(["x" * 63] * 4),
        ):
            self.assertRaises(InvalidAddress, Address.parse, text)

    @settings(max_examples=100, deadline=None)
    @given(
        hostile | st.text("a.", max_size=8),
        st.sampled_from(["@example.com", "", '"@a.example', "@[192.0.2.1]"]),
    )
    def test_any(self, start: str, end: str) -> None:
        """
        Any text is an address or not; a written address fits on a line, and is read
        as the same again.
        """
        for text in (start + end, '"' + start + end):
            try:
                address = Address.parse(text)
            except InvalidAddress:
                continue
            written = str(address)
            self.assertEqual(Address.parse(written), address)
            self.assertTrue(written.isprintable() or not written.isascii(), written)
            self.assertFalse(set(written) & set("\r\n\0"))

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=64))
    def test_quoted(self, local: str) -> None:
        """
        Any printable local part can be written, and read again.
        """
        address = Address(local, Domain("a.example"))
        self.assertEqual(Address.parse(str(address)), address)

    def test_longest(self) -> None:
        """
        An address has 254 octets at most (RFC 5321 4.5.3.1.3), counted as
        they are sent.
        """
        domain = ".".join(["x" * 63] * 3)
        room = MAX_ADDRESS - len(domain) - 1
        self.assertEqual(len(str(Address.parse("a" * room + "@" + domain))), 254)
        self.assertRaises(
            InvalidAddress, Address.parse, "a" * (room + 1) + "@" + domain
        )
