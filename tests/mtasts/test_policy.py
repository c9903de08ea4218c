"""
Tests for L{moxtls.mtasts.policy}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.types import TXT, Answer, ExtendedError, LookupStatus, RRType
from moxtls.domain import Domain
from moxtls.mtasts.policy import (
    MAX_AGE,
    MAX_UNUSED,
    REFRESH_SPREAD,
    Mode,
    NoRecord,
    STSPolicy,
    STSPolicyError,
    STSRecord,
    STSRecordError,
    cacheEntry,
    isObsolete,
    isStale,
    isUnused,
    matchesPolicy,
    parsePolicy,
    parseSTSRecords,
    recordFromAnswer,
    refreshTimes,
    stsPolicyHost,
    stsRecordName,
)
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.corpus import corpus
from tests.mtasts.fakes import DAY, DOMAIN, entry, policy

BOUNDED = settings(max_examples=100, deadline=None)

# If an upstream and RFC 8461 disagree, the RFC decides.
RECORD_DECISIONS = {
    # 3.2: "all entries except for the first SHALL be ignored"; the upstream
    # is a linter.
    "checkdmarc-mtasts-record-004": True,
}
POLICY_DECISIONS = {
    # 3.2: a max_age beyond the maximum is capped, not refused; the text names
    # the maximum and no consequence, and the linter has its own.
    "checkdmarc-mtasts-policy-006": True,
    # 3.2: of duplicates the first counts.
    "checkdmarc-mtasts-policy-008": True,
    # 3.2: "unknown fields SHALL be ignored".
    "checkdmarc-mtasts-policy-013": True,
    # 3.2: a policy begins with a field, and so does each line: the upstreams
    # skip blanks because their tests are indented.
    "multi-mtasts-policy-001": False,
    "multi-mtasts-policy-002": False,
    "multi-mtasts-policy-008": False,
}

NOW = 1_800_000_000.0


def cases(name: str) -> Iterator[dict[str, object]]:
    """
    The cases of a table in the corpus.
    """
    yield from json.loads(corpus("records", name).read_text())["cases"]


def servedPolicy(*mx: str, mode: str = "enforce", age: str = "86400") -> bytes:
    """
    A policy as it is served.
    """
    lines = ["version: STSv1", f"mode: {mode}", f"max_age: {age}"]
    lines += [f"mx: {each}" for each in mx]
    return "".join(f"{line}\r\n" for line in lines).encode()


class RecordTests(SynchronousTestCase):
    """
    Tests for L{parseSTSRecords}.
    """

    def test_one(self) -> None:
        """
        RFC 8461 3.1: the record yields its id.
        """
        found = parseSTSRecords([b"v=STSv1; id=20160831085700Z;"])
        self.assertEqual(found, STSRecord("20160831085700Z"))

    def test_none(self) -> None:
        """
        RFC 8461 3.1: other TXT records at the name are discarded, also those
        of other versions.
        """
        others = [b"v=spf1 -all", b"v=STSv10; id=1", b"v=STSv1", b" v=STSv1;id=1", b""]
        self.assertIs(parseSTSRecords(others), STSRecordError.NONE)
        self.assertIs(parseSTSRecords([]), STSRecordError.NONE)

    def test_multiple(self) -> None:
        """
        RFC 8461 3.1: two records are no policy, even if they agree.
        """
        record = b"v=STSv1; id=1"
        self.assertIs(parseSTSRecords([record, record]), STSRecordError.MULTIPLE)

    def test_amongOthers(self) -> None:
        """
        RFC 8461 3.1: discarded records don't count.
        """
        found = parseSTSRecords([b"v=spf1 -all", b"v=STSv1 \t;id=2"])
        self.assertEqual(found, STSRecord("2"))

    def test_syntax(self) -> None:
        """
        RFC 8461 3.1: a syntactically invalid record is different from none.
        """
        for text in (
            b"v=STSv1;",
            b"v=STSv1; id=",
            b"v=STSv1; id=a-b",
            b"v=STSv1; ID=1",
            b"v=STSv1; id=" + b"x" * 33,
            b"v=STSv1; id=1;;",
            b"v=STSv1; id=1; more",
            b"v=STSv1; id=\xc3\xa4",
        ):
            self.assertIs(parseSTSRecords([text]), STSRecordError.SYNTAX, text)

    def test_duplicateID(self) -> None:
        """
        RFC 8461 3.2: of a field that occurs twice the first counts, and the
        second need not make sense.
        """
        found = parseSTSRecords([b"v=STSv1; id=1; id=not-an-id"])
        self.assertEqual(found, STSRecord("1"))

    def test_corpus(self) -> None:
        """
        Tables of other projects, decided by RFC 8461 where they differ.
        """
        for name in ("mox", "checkdmarc", "multi"):
            for case in cases(f"{name}-mtasts-record.json"):
                expect = case["expect"]
                assert isinstance(expect, dict)
                number = str(case["id"])
                found = parseSTSRecords([str(case["input"]).encode()])
                valid = RECORD_DECISIONS.get(number, expect["valid"])
                self.assertEqual(isinstance(found, STSRecord), valid, number)
                if isinstance(found, STSRecord) and "id" in expect:
                    self.assertEqual(found.id, expect["id"], number)

    @BOUNDED
    @given(st.lists(st.binary(max_size=60).map(lambda end: b"v=STSv1;" + end)))
    def test_anything(self, texts: list[bytes]) -> None:
        """
        Any record yields one of four values, never an exception.
        """
        found = parseSTSRecords(texts)
        if isinstance(found, STSRecord):
            self.assertRegex(found.id, r"\A[A-Za-z0-9]{1,32}\Z")
        else:
            self.assertIn(found, STSRecordError)

    @BOUNDED
    @given(
        st.from_regex(r"[A-Za-z0-9]{1,32}", fullmatch=True),
        st.lists(
            st.from_regex(
                r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}=[!-:<>-~]{1,20}", fullmatch=True
            )
        ),
        st.sampled_from(["", ";", " ; "]),
    )
    def test_grammar(self, number: str, extensions: list[str], end: str) -> None:
        """
        RFC 8461 3.1: every record of the grammar is accepted.
        """
        text = "; ".join(["v=STSv1", f"id={number}", *extensions]) + end
        self.assertEqual(parseSTSRecords([text.encode()]), STSRecord(number))


class PolicyTests(SynchronousTestCase):
    """
    Tests for L{parsePolicy}.
    """

    def error(self, body: bytes) -> str:
        """
        The fault of a policy.
        """
        found = parsePolicy(body)
        assert isinstance(found, STSPolicyError), body
        return str(found)

    def test_whole(self) -> None:
        """
        RFC 8461 3.2: all fields of a policy are parsed, and its lines are kept for
        reports.
        """
        body = servedPolicy("Mail.example.com", "*.example.net", "mail.example.com")
        found = parsePolicy(body)
        self.assertEqual(
            found,
            STSPolicy(
                Mode.ENFORCE,
                86400,
                ("mail.example.com", "*.example.net"),
                tuple(body.decode().split("\r\n")[:-1]),
            ),
        )

    def test_lineEnds(self) -> None:
        """
        RFC 8461 3.2: LF and CRLF both end lines, the last needs neither, and
        blank lines at the end are overlooked.
        """
        body = servedPolicy("mail.example.com")
        expected = parsePolicy(body)
        self.assertIsInstance(expected, STSPolicy)
        lf = body.replace(b"\r\n", b"\n")
        for variant in (lf, body.rstrip(), body + b"\r\n\n", lf + b"  \n"):
            self.assertEqual(parsePolicy(variant), expected, variant)

    def test_onlyBlankLines(self) -> None:
        """
        A policy with the largest number of blank lines is parsed in little time.
        """
        begin = process_time()
        self.assertIsInstance(
            parsePolicy(servedPolicy("a.example") + b"\n" * 65536), STSPolicy
        )
        self.assertLess(process_time() - begin, 1)

    def test_blankLines(self) -> None:
        """
        RFC 8461 3.2: there are none between fields.
        """
        body = servedPolicy("mail.example.com").replace(b"mode", b"\r\nmode")
        self.assertEqual(self.error(body), "line 2: not a key and a value")

    def test_cap(self) -> None:
        """
        RFC 8461 3.2: C{max_age} is at most a year.
        """
        found = parsePolicy(servedPolicy("mail.example.com", age="9999999999"))
        assert isinstance(found, STSPolicy)
        self.assertEqual(found.maxAge, MAX_AGE)

    def test_first(self) -> None:
        """
        RFC 8461 3.2: of fields that aren't repeated the first counts, also if
        a later one makes no sense.
        """
        found = parsePolicy(
            servedPolicy("a.example") + b"mode: nonsense\r\nmax_age: x\r\n"
        )
        assert isinstance(found, STSPolicy)
        self.assertEqual((found.mode, found.maxAge), (Mode.ENFORCE, 86400))

    def test_patterns(self) -> None:
        """
        RFC 8461 3.2: C{mx} is a host in A-labels or C{*.} and one.
        """
        for good in ("xn--mx-xka.example", "mx_1.example"):
            found = parsePolicy(servedPolicy(good, f"*.{good}"))
            assert isinstance(found, STSPolicy)
            self.assertEqual(found.mx, (good, f"*.{good}"))
        for bad in (
            "m\xf8x.example",
            "*",
            "*.",
            "*.*.example",
            "mx.*.example",
            "a*.example",
            "*example",
            "mx..example",
            "mx.example.",
            "mx-.example",
            "192.0.2.1/24",
            "x" * 64 + ".example",
        ):
            self.assertIn("line 4", self.error(servedPolicy(bad)), bad)

    def test_noMX(self) -> None:
        """
        RFC 8461 3.2: C{mx} may only be missing if the mode is C{none}.
        """
        self.assertEqual(self.error(servedPolicy()), "no mx")
        found = parsePolicy(servedPolicy(mode="none"))
        assert isinstance(found, STSPolicy)
        self.assertEqual((found.mode, found.mx), (Mode.NONE, ()))

    def test_wrong(self) -> None:
        """
        RFC 8461 3.2: version, mode and max_age are required and spelled one
        way.
        """
        good = servedPolicy("mail.example.com")
        for old, new in (
            (b"STSv1", b"STSv2"),
            (b"STSv1", b"stsv1"),
            (b"version: STSv1\r\n", b""),
            (b"enforce", b"Enforce"),
            (b"mode", b"MODE"),
            (b"max_age: 86400\r\n", b""),
            (b"86400", b"-1"),
            (b"86400", b"1.5"),
            (b"86400", b"\xd9\xa1"),
            (b"86400", b"00000000001"),
            (b"mode:", b"mode :"),
            (b"mode:", b" mode:"),
            (b"version", b"\xef\xbb\xbfversion"),
            (b"enforce", b"enforce\x00"),
            (b"enforce", b"enforce\xff"),
        ):
            self.assertIsInstance(
                parsePolicy(good.replace(old, new)), STSPolicyError, (old, new)
            )

    def test_extensions(self) -> None:
        """
        RFC 8461 3.2: unknown fields are ignored; their values may be UTF-8.
        """
        more = "x-note: gr\xfc\xdfe und so\t \r\n".encode()
        self.assertIsInstance(parsePolicy(servedPolicy("mx.example") + more), STSPolicy)

    def test_corpus(self) -> None:
        """
        Tables of other projects, decided by RFC 8461 where they differ.
        """
        for name in ("mox", "checkdmarc", "multi"):
            for case in cases(f"{name}-mtasts-policy.json"):
                expect = case["expect"]
                assert isinstance(expect, dict)
                number = str(case["id"])
                found = parsePolicy(str(case["input"]).encode())
                valid = POLICY_DECISIONS.get(number, expect["valid"])
                self.assertEqual(isinstance(found, STSPolicy), valid, number)
                if isinstance(found, STSPolicy):
                    self.agrees(found, expect, number)

    def agrees(self, found: STSPolicy, expect: dict[str, object], case: str) -> None:
        """
        The values of a policy are those that the table has.
        """
        values = {"mode": found.mode, "mx": list(found.mx), "max_age": found.maxAge}
        for key, value in values.items():
            expected = expect.get(key, expect.get(f"policy.{key}", value))
            self.assertEqual(value, expected, case)

    def test_corpusDecoded(self) -> None:
        """
        A table of decoded policies, serialized. It has durations for C{max_age} that
        it never checks, and one second too much in a policy that is refused here for
        having no mode.
        """
        for case in cases("chasquid-mtasts-policy-check.json"):
            fields, expect = case["policy"], case["expect"]
            assert isinstance(fields, dict) and isinstance(expect, dict)
            lines = [f"{key}: {value}" for key, value in fields.items() if key != "mx"]
            lines += [f"mx: {host}" for host in fields.get("mx", ())]
            found = parsePolicy("\n".join(lines).encode())
            self.assertEqual(
                isinstance(found, STSPolicy), expect["valid"], str(case["id"])
            )

    @BOUNDED
    @given(st.binary(max_size=200), st.integers(0, 80))
    def test_anything(self, noise: bytes, at: int) -> None:
        """
        Any policy yields a value, never an exception; an accepted one is within
        bounds.
        """
        good = servedPolicy("mail.example.com")
        for body in (noise, good[:at], good[:at] + noise + good[at:]):
            found = parsePolicy(body)
            if isinstance(found, STSPolicy):
                self.assertTrue(0 <= found.maxAge <= MAX_AGE)
                self.assertTrue(found.mx or found.mode is Mode.NONE)
                self.assertEqual(parsePolicy("\n".join(found.lines).encode()), found)

    def test_longLine(self) -> None:
        """
        The time to read a policy grows with its length, not faster.
        """
        for filler in (b" ", b"\t", b"a ", b"-", b"a:"):
            body = servedPolicy("mx.example") + b"x: y" + filler * 30000 + b"\x01"
            self.assertIsInstance(parsePolicy(body), STSPolicyError)
        text = b"v=STSv1; id=1" + b" " * 60000 + b"x"
        self.assertIs(parseSTSRecords([text]), STSRecordError.SYNTAX)


class MatchTests(SynchronousTestCase):
    """
    Tests for L{matchesPolicy}.
    """

    def test_table(self) -> None:
        """
        RFC 8461 4.1: a wildcard stands for the whole of one label.
        """
        found = parsePolicy(servedPolicy("mail.example.com", "*.example.net"))
        assert isinstance(found, STSPolicy)
        for host, expected in (
            ("mail.example.com", True),
            ("MAIL.Example.com.", True),
            ("mx.example.net", True),
            ("example.net", False),
            ("a.b.example.net", False),
            ("mail2.example.com", False),
            ("a.mail.example.com", False),
            ("net", False),
        ):
            self.assertEqual(matchesPolicy(found, Domain.parse(host)), expected, host)

    def test_none(self) -> None:
        """
        Without patterns nothing matches.
        """
        found = parsePolicy(servedPolicy(mode="none"))
        assert isinstance(found, STSPolicy)
        self.assertFalse(matchesPolicy(found, Domain("example.com")))


class NameTests(SynchronousTestCase):
    """
    Tests for the names that belong to a policy domain.
    """

    def test_names(self) -> None:
        """
        RFC 8461 3.1, 3.2: both are made of A-labels.
        """
        domain = Domain.parse("m\xf8x.example")
        self.assertEqual(stsRecordName(domain), "_mta-sts.xn--mx-lka.example")
        self.assertEqual(stsPolicyHost(domain), "mta-sts.xn--mx-lka.example")


def answer(
    found: LookupStatus, *texts: bytes, error: ExtendedError | None = None
) -> Answer:
    """
    An answer with these TXT records, or of this status.
    """
    records = tuple(TXT(text) for text in texts)
    errors = (error,) if error else ()
    return Answer("_mta-sts.example.com", RRType.TXT, found, records, errors=errors)


class RecordAnswerTests(SynchronousTestCase):
    """
    Tests for L{recordFromAnswer}.
    """

    def test_found(self) -> None:
        """
        RFC 8461 3.1: one record, among others.
        """
        found = recordFromAnswer(
            answer(LookupStatus.RECORDS, b"v=STSv1;id=a", b"other")
        )
        self.assertEqual(found, STSRecord("a"))

    def test_problems(self) -> None:
        """
        No record, several, a malformed one and a failed lookup have a reason each;
        only the first is the domain's intention, only the last is temporary.
        """
        one = b"v=STSv1;id=a"
        for given_, code, gone, temporary in (
            (answer(LookupStatus.NO_NAME), "no-mta-sts-dns-txt-record", True, False),
            (answer(LookupStatus.NO_RECORDS), "no-mta-sts-dns-txt-record", True, False),
            (
                answer(LookupStatus.RECORDS, b"x"),
                "no-mta-sts-dns-txt-record",
                True,
                False,
            ),
            (
                answer(LookupStatus.RECORDS, one, one),
                "multiple-mta-sts-records",
                False,
                False,
            ),
            (
                answer(LookupStatus.RECORDS, b"v=STSv1;"),
                "record-syntax-error",
                False,
                False,
            ),
            (answer(LookupStatus.FAILED), "dns-lookup", False, True),
            (
                answer(LookupStatus.FAILED, error=ExtendedError(22)),
                "dns-lookup",
                False,
                True,
            ),
            (
                answer(LookupStatus.FAILED, error=ExtendedError(6)),
                "dns-extended-error-6-dnssec-bogus",
                False,
                True,
            ),
        ):
            found = recordFromAnswer(given_)
            assert isinstance(found, NoRecord)
            self.assertEqual((found.gone, found.temporary), (gone, temporary), code)
            expected = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, code)
            self.assertEqual(found.failure, expected)


class CacheEntryTests(SynchronousTestCase):
    """
    Tests for L{cacheEntry} and the age of entries.
    """

    def test_policy(self) -> None:
        """
        RFC 8461 3.2: C{max_age} counts from the fetch; when it was first seen
        and last used stays.
        """
        earlier = entry(NOW, policy(), age=3, unused=2)
        found = cacheEntry(DOMAIN, policy(days=1), "2", earlier, NOW)
        self.assertEqual((found.fetched, found.validEnd), (NOW, NOW + DAY))
        self.assertEqual(found.recordID, "2")
        self.assertEqual(found.inserted, earlier.inserted)
        self.assertEqual(found.lastUse, earlier.lastUse)

    def test_backOff(self) -> None:
        """
        RFC 8461 3.3: five minutes; it is no fetch.
        """
        found = cacheEntry(DOMAIN, None, "1", None, NOW)
        self.assertEqual((found.validEnd, found.fetched), (NOW + 300, 0.0))
        self.assertEqual((found.inserted, found.lastUse), (NOW, NOW))

    def test_stale(self) -> None:
        """
        Entries fetched long ago, or never, are refreshed.
        """
        self.assertFalse(isStale(entry(NOW, policy(), age=0.4), NOW))
        self.assertTrue(isStale(entry(NOW, policy(), age=0.6), NOW))
        self.assertTrue(isStale(entry(NOW, None), NOW))

    def test_unused(self) -> None:
        """
        Half a year without mail is enough to forget.
        """
        known = entry(NOW, policy())
        self.assertFalse(isUnused(replace(known, lastUse=NOW - MAX_UNUSED), NOW))
        self.assertTrue(isUnused(replace(known, lastUse=NOW - MAX_UNUSED - 1), NOW))

    def test_obsolete(self) -> None:
        """
        RFC 8461 8.3: without a record, entries with mode C{none}, expired ones and
        those without a policy are obsolete; a valid policy never is.
        """
        gone = NoRecord("no-mta-sts-dns-txt-record")
        for known, expected in (
            (entry(NOW, policy(Mode.NONE)), True),
            (entry(NOW, None), True),
            (entry(NOW, policy(days=1), age=2), True),
            (entry(NOW, policy()), False),
            (entry(NOW, policy(Mode.TESTING)), False),
        ):
            self.assertEqual(isObsolete(known, gone, NOW), expected, known)
            for other in (NoRecord("dns-lookup", True), STSRecord("1")):
                self.assertFalse(isObsolete(known, other, NOW))


class TimeTests(SynchronousTestCase):
    """
    Tests for L{refreshTimes}.
    """

    def test_few(self) -> None:
        """
        The first at once, the last after three hours, the others in between.
        """
        self.assertEqual(refreshTimes(0, lambda: 0.5), ())
        self.assertEqual(refreshTimes(1, lambda: 0.5), (0.0,))
        self.assertEqual(
            refreshTimes(3, lambda: 0.5), (0.0, REFRESH_SPREAD / 2, REFRESH_SPREAD)
        )
        early = refreshTimes(3, lambda: 0.0)
        self.assertEqual(early, (0.0, REFRESH_SPREAD / 4, REFRESH_SPREAD * 3 / 4))

    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 50), st.randoms(use_true_random=False))
    def test_any(self, count: int, chance: object) -> None:
        """
        There is a time for each, in order, from now to half a step beyond.
        """
        jitter = getattr(chance, "random")  # noqa: B009
        times = refreshTimes(count, jitter)
        self.assertEqual(len(times), count)
        self.assertEqual(list(times), sorted(times))
        self.assertEqual(times[0], 0.0)
        self.assertLessEqual(times[-1], REFRESH_SPREAD * 1.5)
