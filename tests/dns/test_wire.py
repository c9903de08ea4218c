"""
Tests for L{moxtls.dns.wire}.
"""

from __future__ import annotations

from itertools import pairwise

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.types import (
    IP,
    MX,
    TLSA,
    TXT,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    RRType,
)
from moxtls.dns.wire import (
    MAX_CHAIN,
    MAX_RECORDS,
    MAX_UDP_PAYLOAD,
    Question,
    UnusableResponse,
    encodeQuery,
    makeQuestion,
    normalName,
    parseResponse,
)

ID = 4711
ASKED = Question("example.com", RRType.MX)
SOA = "example.com. 900 IN SOA ns.example.com. root.example.com. 1 2 3 4 60"


def response(
    asked: Question,
    *answer: str,
    authority: tuple[str, ...] = (),
    ad: bool = False,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    errors: tuple[tuple[int, str | None], ...] = (),
) -> dns.message.Message:
    """
    A server's response.

    @param answer: Records as in a zone file, with TTL and class.
    """
    message = dns.message.make_response(
        dns.message.from_wire(encodeQuery(asked, ID)), recursion_available=True
    )
    if ad:
        message.flags |= dns.flags.AD
    for section, lines in ((message.answer, answer), (message.authority, authority)):
        for name, ttl, klass, kind, text in (each.split(None, 4) for each in lines):
            data = dns.rrset.from_text(name, int(ttl), klass, kind, text)
            rrset = message.find_rrset(
                section, data.name, data.rdclass, data.rdtype, create=True
            )
            rrset.update(data)
    options: list[dns.edns.Option] = [
        dns.edns.EDEOption(dns.edns.EDECode.make(code), text) for code, text in errors
    ]
    message.use_edns(0, options=options)
    message.set_rcode(rcode)
    return message


def wire(message: dns.message.Message) -> bytes:
    return message.to_wire(max_size=65535)


def parsed(
    message: dns.message.Message, asked: Question = ASKED, trusted: bool = True
) -> Answer:
    answer = parseResponse(wire(message), ID, asked, trusted)
    assert isinstance(answer, Answer), answer
    return answer


class NameTests(SynchronousTestCase):
    """
    Tests for L{normalName} and L{makeQuestion}.
    """

    def test_normal(self) -> None:
        """
        There is one spelling of a name: lower case, no final dot (RFC 4343 3).
        """
        for text, normal in (
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("_25._TCP.mx.example.com", "_25._tcp.mx.example.com"),
            (".", ""),
            ("", ""),
            (r"a\.b.example", r"a\.b.example"),
            (r"\065.example", "a.example"),
        ):
            self.assertEqual(normalName(text), normal)

    def test_impossible(self) -> None:
        """
        Names that can't be in the DNS (RFC 1035 2.3.4) are never queried, nor are
        U-labels.
        """
        for text in (
            "a..example",
            ".example",
            "x" * 64 + ".example",
            ".".join(["x" * 60] * 5),
            "müller.example",
            "@",
            "a\\",
            "\\999.example",
            "\ud800",
            "x" * 100_000,
        ):
            self.assertIsNone(makeQuestion(text, RRType.A), text)

    def test_longest(self) -> None:
        """
        A name takes 255 octets on the wire at most, hence 253 characters.
        """
        longest = ".".join(["x" * 63] * 3 + ["y" * 61])
        self.assertEqual(normalName(longest), longest)
        self.assertIsNone(normalName(longest + "y"))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=80) | st.text("aZ.\\0259@-_* ", max_size=80))
    def test_any(self, text: str) -> None:
        """
        Any text is a name or not; a normalized one is stable, and can be queried.
        """
        normal = normalName(text)
        if normal is not None:
            self.assertEqual(normalName(normal), normal)
            query = dns.message.from_wire(encodeQuery(Question(normal, RRType.A), 1))
            self.assertEqual(query.question[0].name, dns.name.from_text(normal or "."))


class EncodeQueryTests(SynchronousTestCase):
    """
    Tests for L{encodeQuery}.
    """

    def test_query(self) -> None:
        """
        Recursion is desired, DNSSEC is understood, and the answer is to fit
        into a datagram that isn't fragmented (RFC 6891 6.2.3, RFC 3225 3,
        RFC 6840 5.7).
        """
        query = dns.message.from_wire(encodeQuery(ASKED, ID))
        self.assertEqual(query.id, ID)
        self.assertEqual(query.question[0].to_text(), "example.com. IN MX")
        self.assertEqual(query.flags, dns.flags.RD | dns.flags.AD)
        self.assertEqual((query.edns, query.payload), (0, MAX_UDP_PAYLOAD))
        self.assertEqual(query.ednsflags, dns.flags.DO)

    def test_kinds(self) -> None:
        """
        Each type can be queried.
        """
        for kind in RRType:
            query = dns.message.from_wire(encodeQuery(Question("a.example", kind), 1))
            self.assertEqual(dns.rdatatype.to_text(query.question[0].rdtype), kind)


class ParseResponseTests(SynchronousTestCase):
    """
    Tests for L{parseResponse}.
    """

    def test_records(self) -> None:
        """
        Each kind of record is read; names in them are normal.
        """
        for kind, text, record in (
            (RRType.A, "192.0.2.1", IP("192.0.2.1")),
            (RRType.AAAA, "2001:DB8::0:1", IP("2001:db8::1")),
            (RRType.CNAME, "Www.Example.COM.", NameRecord("www.example.com")),
            (RRType.MX, "10 MX.example.com.", MX(10, "mx.example.com")),
            (RRType.MX, "0 .", MX(0, "")),
            (RRType.NS, "ns.example.com.", NameRecord("ns.example.com")),
            (RRType.PTR, "host.example.com.", NameRecord("host.example.com")),
            (
                RRType.SOA,
                "ns.example.com. root. 1 2 3 4 5",
                NameRecord("ns.example.com"),
            ),
            (RRType.TLSA, "3 1 0 AB01", TLSA(3, 1, 0, b"\xab\x01")),
            (RRType.TXT, '"v=STSv1; " "id=1\\255"', TXT(b"v=STSv1; id=1\xff")),
        ):
            asked = Question("example.com", kind)
            answer = parsed(response(asked, f"example.com. 60 IN {kind} {text}"), asked)
            self.assertEqual(
                (answer.status, answer.records), (LookupStatus.RECORDS, (record,))
            )

    def test_case(self) -> None:
        """
        The server may answer in any case (RFC 4343 3).
        """
        message = response(ASKED, "EXAMPLE.com. 60 IN MX 1 mx.example.com.")
        message.question[0].name = dns.name.from_text("eXample.com")
        self.assertEqual(len(parsed(message).mx), 1)

    def test_ttl(self) -> None:
        """
        The lowest TTL of the used records applies.
        """
        answer = parsed(
            response(
                ASKED,
                "example.com. 300 IN CNAME a.example.com.",
                "a.example.com. 900 IN MX 1 mx.example.com.",
            )
        )
        self.assertEqual(answer.ttl, 300)

    def test_negative(self) -> None:
        """
        The SOA gives the TTL of negative answers; without one, they aren't cached
        (RFC 2308 5).
        """
        for rcode, found in (
            (dns.rcode.NOERROR, LookupStatus.NO_RECORDS),
            (dns.rcode.NXDOMAIN, LookupStatus.NO_NAME),
        ):
            answer = parsed(response(ASKED, authority=(SOA,), rcode=rcode, ad=True))
            self.assertEqual((answer.status, answer.ttl), (found, 60))
            self.assertTrue(answer.authentic)
            self.assertEqual(parsed(response(ASKED, rcode=rcode)).ttl, 0)

    def test_referral(self) -> None:
        """
        A referral isn't an answer (RFC 2308 2.2).
        """
        referral = "com. 900 IN NS ns.example.net."
        self.assertTrue(parsed(response(ASKED, authority=(referral,))).failed)

    def test_chain(self) -> None:
        """
        CNAMEs are followed; other records don't matter.
        """
        answer = parsed(
            response(
                ASKED,
                "a.example.com. 60 IN CNAME B.example.com.",
                "example.com. 60 IN CNAME a.example.com.",
                "other.example.com. 1 IN MX 1 forged.example.com.",
                "b.example.com. 60 IN MX 1 mx.example.com.",
                ad=True,
            )
        )
        self.assertEqual(
            answer.chain,
            (
                CNAMELink("example.com", "a.example.com", True),
                CNAMELink("a.example.com", "b.example.com", True),
            ),
        )
        self.assertEqual(answer.canonicalName, "b.example.com")
        self.assertEqual((answer.mx, answer.ttl), ((MX(1, "mx.example.com"),), 60))

    def test_chainToNothing(self) -> None:
        """
        NXDOMAIN is about the end of the chain (RFC 6604 3).
        """
        answer = parsed(
            response(
                ASKED,
                "example.com. 60 IN CNAME a.example.com.",
                authority=(SOA,),
                rcode=dns.rcode.NXDOMAIN,
            )
        )
        self.assertEqual((answer.status, len(answer.chain)), (LookupStatus.NO_NAME, 1))

    def test_badChains(self) -> None:
        """
        Circles and endless chains are failures.
        """
        circle = (
            "example.com. 60 IN CNAME a.example.com.",
            "a.example.com. 60 IN CNAME example.com.",
        )
        steps = ["example.com", *(f"x{n}.example" for n in range(MAX_CHAIN + 1))]
        chain = tuple(
            f"{name}. 60 IN CNAME {target}." for name, target in pairwise(steps)
        )
        selfish = ("example.com. 60 IN CNAME example.com.",)
        for answer in (circle, chain, selfish):
            self.assertTrue(parsed(response(ASKED, *answer)).failed)
        allowed = parsed(response(ASKED, *chain[:-1]))
        self.assertEqual(len(allowed.chain), MAX_CHAIN)

    def test_fork(self) -> None:
        """
        A name with two CNAMEs leads nowhere (RFC 2181 10.1).
        """
        octets = wire(response(Question("a.b", RRType.A), "a.b. 60 IN CNAME c.b."))
        header, question, record = octets[:12], octets[12:21], octets[21:37]
        self.assertEqual(record[-4:], b"\x01c\xc0\x0e")
        fork = record[:-4] + b"\x01d\xc0\x0e"
        counts = b"\0\1\0\2\0\0\0\0"
        for records, failed in ((record + fork, True), (record + record, False)):
            reply = header[:4] + counts + question + records
            answer = parseResponse(reply, ID, Question("a.b", RRType.A), True)
            assert isinstance(answer, Answer)
            self.assertEqual(answer.failed, failed)

    def test_wrongDigest(self) -> None:
        """
        A TLSA record whose data has the wrong length is parsed; DANE decides on its
        usability (RFC 7671 4).
        """
        asked = Question("_25._tcp.a.example", RRType.TLSA)
        octets = wire(response(asked, "_25._tcp.a.example. 60 IN TLSA 3 1 0 AB01"))
        octets = octets.replace(b"\3\1\0\xab\1", b"\3\1\1\xab\1")
        answer = parseResponse(octets, ID, asked, True)
        assert isinstance(answer, Answer)
        self.assertEqual(answer.tlsa, (TLSA(3, 1, 1, b"\xab\1"),))

    def test_otherRecords(self) -> None:
        """
        Records of other types aren't parsed.
        """
        octets = wire(
            response(
                ASKED,
                "example.com. 60 IN MX 1 mx.example.com.",
                "example.com. 60 IN A 192.0.2.1",
            )
        )
        octets = octets.replace(b"\0\4\xc0\0\2\1", b"\0\0")
        answer = parseResponse(octets, ID, ASKED, True)
        assert isinstance(answer, Answer)
        self.assertEqual(answer.mx, (MX(1, "mx.example.com"),))

    def test_errorText(self) -> None:
        """
        An error is kept also if its text isn't UTF-8, or ends in a NUL (RFC
        8914 2).
        """
        octets = wire(response(ASKED, rcode=dns.rcode.SERVFAIL, errors=((6, "abc"),)))
        for text, kept in ((b"a\xffc", "a\ufffdc"), (b"ab\0", "ab")):
            answer = parseResponse(octets.replace(b"abc", text), ID, ASKED, True)
            assert isinstance(answer, Answer)
            self.assertEqual(answer.dnssecError, ExtendedError(6, kept))

    def test_authentic(self) -> None:
        """
        AD counts if the server is trusted (RFC 6840 5.8).
        """
        record = "example.com. 60 IN MX 1 mx.example.com."
        for ad, trusted, authentic in (
            (True, True, True),
            (True, False, False),
            (False, True, False),
        ):
            answer = parsed(response(ASKED, record, ad=ad), trusted=trusted)
            self.assertEqual(answer.authentic, authentic)
            self.assertEqual(answer.endAuthentic, authentic)

    def test_failures(self) -> None:
        """
        Any other code is a failure; extended errors give the reason (RFC 8914), and
        nothing of it is authentic.
        """
        for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.BADVERS):
            answer = parsed(
                response(
                    ASKED, rcode=rcode, errors=((7, "expired"), (22, None)), ad=True
                )
            )
            self.assertEqual(answer.reason, dns.rcode.to_text(rcode))
            self.assertEqual(
                answer.errors, (ExtendedError(7, "expired"), ExtendedError(22))
            )
            self.assertEqual((answer.failed, answer.authentic), (True, False))

    def test_errorsAreBounded(self) -> None:
        """
        The number and length of extended errors are limited.
        """
        answer = parsed(response(ASKED, errors=((0, "x" * 1000),) * 50))
        self.assertLess(sum(len(each.text) for each in answer.errors), 2000)

    def test_recordsAreBounded(self) -> None:
        """
        An answer that would take long to read isn't read.
        """
        # EDNS0 adds one (RFC 6891 6.1.1).
        for count, failed in ((MAX_RECORDS - 1, False), (MAX_RECORDS, True)):
            lines = (
                f"example.com. 9 IN MX {each} mx.example." for each in range(count)
            )
            answer = parsed(response(ASKED, *lines))
            self.assertEqual(answer.failed, failed, answer.reason)

    def test_manyRecords(self) -> None:
        """
        RFC 1035 4.2.2: an answer may have as many records as fit in, and 600 MX
        records are one.
        """
        lines = (f"example.com. 9 IN MX {n} mx{n}.example.com." for n in range(600))
        answer = parsed(response(ASKED, *lines))
        found = {each.preference: each.exchange for each in answer.mx}
        self.assertEqual(found, {n: f"mx{n}.example.com" for n in range(600)})

    def test_namesAreBounded(self) -> None:
        """
        Names that are short in a message and long to read (RFC 1035 4.1.4) are
        not read without end, whether they are owners or data.
        """
        long = "a." * 100 + "example.com."
        for line in (
            f"example.com. 9 IN MX {{}} {long}",
            f"{{}}.{long} 9 IN MX 1 example.com.",
        ):
            message = response(ASKED, *(line.format(n) for n in range(3000)))
            reason = parsed(message).reason
            self.assertEqual(reason, "names that are too long", line)

    def test_noQuestion(self) -> None:
        """
        A server that couldn't read the query need not repeat it; but an
        answer has to.
        """
        message = response(ASKED, rcode=dns.rcode.FORMERR)
        message.question = []
        self.assertEqual(parsed(message).reason, "FORMERR")
        message.set_rcode(dns.rcode.NXDOMAIN)
        self.assertIs(
            parseResponse(wire(message), ID, ASKED, True), UnusableResponse.FOREIGN
        )

    def test_foreign(self) -> None:
        """
        A message that doesn't match the query is not its response (RFC 5452 9.1).
        """
        good = response(ASKED, "example.com. 60 IN MX 1 mx.example.com.")
        query = encodeQuery(ASKED, ID)
        for messageID, asked, octets in (
            (ID + 1, ASKED, wire(good)),
            (ID, Question("example.org", RRType.MX), wire(good)),
            (ID, Question("example.com", RRType.A), wire(good)),
            (ID, ASKED, query),
            (
                ID,
                ASKED,
                wire(good).replace(b"\x00\x0f\x00\x01", b"\x00\x0f\x00\x03", 1),
            ),
            (ID, ASKED, wire(good)[:2] + b"\xa0" + wire(good)[3:]),
            (ID, ASKED, wire(good)[:11]),
        ):
            self.assertIs(
                parseResponse(octets, messageID, asked, True), UnusableResponse.FOREIGN
            )

    def test_truncated(self) -> None:
        """
        Records in a truncated response are ignored (RFC 2181 9).
        """
        message = response(ASKED, "example.com. 60 IN MX 1 mx.example.com.")
        message.flags |= dns.flags.TC
        self.assertIs(
            parseResponse(wire(message)[:-20], ID, ASKED, True),
            UnusableResponse.TRUNCATED,
        )

    def test_contradiction(self) -> None:
        """
        Records at a nonexistent name are not accepted.
        """
        answer = parsed(
            response(
                ASKED,
                "example.com. 60 IN MX 1 mx.example.com.",
                rcode=dns.rcode.NXDOMAIN,
            )
        )
        self.assertTrue(answer.failed)


GOOD = wire(
    response(
        ASKED,
        "example.com. 300 IN CNAME a.example.com.",
        "a.example.com. 900 IN MX 1 mx.example.com.",
        "a.example.com. 900 IN MX 2 mx2.example.com.",
        authority=(SOA,),
        errors=((6, "bogus"),),
        ad=True,
    )
)


class AnyOctetsTests(SynchronousTestCase):
    """
    L{parseResponse} returns a value for any octets.
    """

    def check(self, octets: bytes) -> None:
        for trusted in (False, True):
            answer = parseResponse(octets, ID, ASKED, trusted)
            if isinstance(answer, Answer):
                self.assertEqual((answer.name, answer.kind), ("example.com", RRType.MX))
                self.assertFalse(answer.authentic and not trusted)
                self.assertEqual(
                    bool(answer.records), answer.status is LookupStatus.RECORDS
                )
                self.assertGreaterEqual(answer.ttl, 0)
            else:
                self.assertIsInstance(answer, UnusableResponse)

    def test_truncations(self) -> None:
        """
        A truncated message is never accepted.
        """
        for length in range(len(GOOD)):
            self.check(GOOD[:length])
            answer = parseResponse(GOOD[:length], ID, ASKED, True)
            self.assertTrue(
                answer is UnusableResponse.FOREIGN or isinstance(answer, Answer)
            )
            if isinstance(answer, Answer):
                self.assertTrue(answer.failed)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=600))
    def test_noise(self, noise: bytes) -> None:
        """
        Noise, and noise behind the right header and question.
        """
        self.check(noise)
        self.check(GOOD[: 12 + 17] + noise)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(2, len(GOOD) - 1), st.integers(0, 255)), max_size=6
        )
    )
    def test_mutations(self, changes: list[tuple[int, int]]) -> None:
        """
        A valid message with some octets changed.
        """
        octets = bytearray(GOOD)
        for index, value in changes:
            octets[index] = value
        self.check(bytes(octets))
