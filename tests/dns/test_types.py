"""
Tests for L{moxtls.dns.types}.
"""

from __future__ import annotations

import re
from dataclasses import replace

import dns.edns
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.types import (
    DEFAULT_SERVERS,
    IP,
    MAX_SERVERS,
    MX,
    TLSA,
    TXT,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupGenerator,
    LookupQuestion,
    LookupStatus,
    NameRecord,
    NameServer,
    RRType,
    parallel,
    runWithAnswers,
    systemNameServers,
)

ANSWER = Answer("a.example", RRType.A, LookupStatus.RECORDS)

TYPICAL = """\
# made by hand
; really
search example.com
nameserver 127.0.0.1
nameserver\t2001:DB8::1   # the other one
options edns0 timeout:1
"""


class ExtendedErrorTests(SynchronousTestCase):
    """
    Tests for L{ExtendedError}.
    """

    def test_reasonCode(self) -> None:
        """
        The number is always there, the name of the error if it has one (RFC
        8914 4).
        """
        for code, reason in (
            (6, "dns-extended-error-6-dnssec-bogus"),
            (7, "dns-extended-error-7-signature-expired"),
            (10, "dns-extended-error-10-rrsigs-missing"),
            (25, "dns-extended-error-25-signature-expired-before-valid"),
            (27, "dns-extended-error-27-unsupported-nsec3-iterations-value"),
            (0, "dns-extended-error-0-other"),
            (49152, "dns-extended-error-49152"),
        ):
            self.assertEqual(ExtendedError(code).reasonCode, reason)

    def test_dnssec(self) -> None:
        """
        The extended errors about DNSSEC: failed, impossible and missing validation
        (RFC 8914 4).
        """
        dnssec = [code for code in range(100) if ExtendedError(code).isDNSSEC]
        self.assertEqual(dnssec, [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 25, 27])

    def test_names(self) -> None:
        """
        Names of extended errors are those of dnspython, which has the registry of RFC
        8914 5.2.
        """
        for code in dns.edns.EDECode:
            reason = ExtendedError(int(code)).reasonCode
            name = code.name.lower().replace("_", "-")
            self.assertEqual(reason, f"dns-extended-error-{int(code)}-{name}")

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 0xFFFF), st.text())
    def test_untrustedText(self, code: int, text: str) -> None:
        """
        The extra text isn't in reports.
        """
        reason = ExtendedError(code, text).reasonCode
        self.assertEqual(reason, ExtendedError(code).reasonCode)
        self.assertTrue(re.fullmatch(r"dns-extended-error-\d+[a-z0-9-]*", reason))


class AnswerTests(SynchronousTestCase):
    """
    Tests for L{Answer}.
    """

    def test_failed(self) -> None:
        """
        A negative answer isn't a failure.
        """
        failed = [each for each in LookupStatus if replace(ANSWER, status=each).failed]
        self.assertEqual(failed, [LookupStatus.FAILED])

    def test_canonicalName(self) -> None:
        """
        The canonical name is the last CNAME target, if there are CNAMEs.
        """
        self.assertEqual(ANSWER.canonicalName, "a.example")
        chain = (
            CNAMELink("a.example", "b.example", True),
            CNAMELink("b.example", "c.example", False),
        )
        self.assertEqual(replace(ANSWER, chain=chain).canonicalName, "c.example")

    def test_dnssecError(self) -> None:
        """
        An extended error is the DNSSEC reason only if it is of that kind, and the
        lookup failed: resolvers may add remarks to successful answers (RFC 8914 1).
        """
        errors = (ExtendedError(22), ExtendedError(7), ExtendedError(6))
        failed = replace(ANSWER, status=LookupStatus.FAILED, errors=errors)
        self.assertEqual(failed.dnssecError, ExtendedError(7))
        self.assertIsNone(replace(failed, errors=errors[:1]).dnssecError)
        self.assertIsNone(replace(failed, status=LookupStatus.RECORDS).dnssecError)

    def test_views(self) -> None:
        """
        Each kind of record has its own view, in the order of the answer.
        """
        first, second = MX(20, "b.example"), MX(10, "a.example")
        tlsa = TLSA(3, 1, 1, b"\xab")
        records = (
            first,
            tlsa,
            TXT(b"x"),
            second,
            IP("192.0.2.1"),
            NameRecord("n.example"),
        )
        answer = replace(ANSWER, records=records)
        self.assertEqual(answer.mx, (first, second))
        self.assertEqual(answer.tlsa, (tlsa,))
        self.assertEqual(answer.texts, (b"x",))
        self.assertEqual(answer.addresses, ("192.0.2.1",))
        self.assertEqual(answer.names, ("n.example",))

    def test_tlsaText(self) -> None:
        """
        A TLSA record is written as in a zone file (RFC 6698 2.2).
        """
        self.assertEqual(str(TLSA(3, 1, 1, b"\xab\x01")), "3 1 1 ab01")


class SystemNameServersTests(SynchronousTestCase):
    """
    Tests for L{systemNameServers}.
    """

    def test_typical(self) -> None:
        """
        Servers are queried in their order in the file (resolv.conf(5)).
        """
        self.assertEqual(
            systemNameServers(TYPICAL),
            (NameServer("127.0.0.1"), NameServer("2001:db8::1")),
        )

    def test_nothing(self) -> None:
        """
        Without a server, this host is queried.
        """
        for text in ("", "search example.com\n", "nameserver\n", "nameserver x\n"):
            self.assertEqual(systemNameServers(text), DEFAULT_SERVERS)

    def test_trusted(self) -> None:
        """
        C{trust-ad} is about all servers, wherever it stands.
        """
        text = "options edns0 trust-ad\nnameserver 192.0.2.1\n"
        self.assertEqual(
            systemNameServers(text), (NameServer("192.0.2.1", trusted=True),)
        )

    def test_passedOver(self) -> None:
        """
        Invalid and repeated addresses, and those with an interface, are skipped.
        """
        text = (
            "nameserver fe80::1%eth0\nnameserver 192.0.2.300\nNAMESERVER 192.0.2.9\n"
            "nameserver 192.0.2.1\nnameserver 192.0.2.1\n"
        )
        self.assertEqual(systemNameServers(text), (NameServer("192.0.2.1"),))

    def test_bounded(self) -> None:
        """
        At most three servers are used, as in the C library.
        """
        text = "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9))
        self.assertEqual(len(systemNameServers(text)), MAX_SERVERS)

    @settings(max_examples=100, deadline=None)
    @given(
        st.text() | st.lists(st.sampled_from([*TYPICAL.split(), "\n"])).map(" ".join)
    )
    def test_any(self, text: str) -> None:
        """
        Any text yields at least one server.
        """
        self.assertGreaterEqual(len(systemNameServers(text)), 1)


class ServerTests(SynchronousTestCase):
    """
    Tests for L{NameServer}.
    """

    def test_trusted(self) -> None:
        """
        The path to a trusted server has to be secure (RFC 6840 5.8): on the same host
        it is, elsewhere it has to be configured.
        """
        for server, trustsAD in (
            (NameServer("127.0.0.53"), True),
            (NameServer("::1"), True),
            (NameServer("192.0.2.1"), False),
            (NameServer("2001:db8::1"), False),
            (NameServer("192.0.2.1", trusted=True), True),
        ):
            self.assertEqual(server.trustsAD, trustsAD, server)

    def test_str(self) -> None:
        """
        The port is named if it isn't the usual one.
        """
        self.assertEqual(
            [
                str(NameServer("::1")),
                str(NameServer("::1", 54)),
                str(NameServer("127.0.0.1", 54)),
            ],
            ["::1", "[::1]:54", "127.0.0.1:54"],
        )


def naming(*rounds: tuple[str, ...]) -> LookupGenerator[list[str]]:
    """
    Query names round by round, and return the answered ones.
    """
    found: list[str] = []
    for names in rounds:
        answers = yield tuple(LookupQuestion(name, RRType.TXT) for name in names)
        found.extend(answer.name for answer in answers)
    return found


class ParallelTests(SynchronousTestCase):
    """
    Tests for L{parallel}.
    """

    def setUp(self) -> None:
        self.asked: list[str] = []

    def answer(self, question: LookupQuestion) -> Answer:
        self.asked.append(question.name)
        return Answer(question.name, question.kind, LookupStatus.NO_NAME)

    def test_merged(self) -> None:
        """
        Each generator gets its own answers, in its own order, and no question is
        repeated in a round.
        """
        inquiries = [naming(("a", "b"), ("c",)), naming(("b", "a")), naming()]
        found = runWithAnswers(parallel(inquiries), self.answer)
        self.assertEqual(found, (["a", "b", "c"], ["b", "a"], []))
        self.assertEqual(self.asked, ["a", "b", "c"])

    def test_none(self) -> None:
        """
        No generators make no queries.
        """
        nothing: list[LookupGenerator[str]] = []
        self.assertEqual(runWithAnswers(parallel(nothing), self.answer), ())
