"""
Tests for L{moxtls.dmarc.record}.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.record import (
    MAX_LIMIT,
    MAX_PROBLEMS,
    MAX_URIS,
    DMARCRecordError,
    dmarcRecordName,
    findDMARCRecord,
    interpret,
    parseDMARCRecord,
    parseTags,
    parseURIs,
)
from moxtls.dmarc.types import (
    PSD,
    Alignment,
    DiscoveryMethod,
    DMARCPolicy,
    DMARCRecord,
    ReportURI,
)
from moxtls.domain import Domain
from tests.corpus import corpus

GOOD = b"v=DMARC1; p=reject"


def parsed(text: str) -> DMARCRecord | DMARCRecordError:
    """
    The parsed record.
    """
    return parseDMARCRecord(text.encode("utf-8"))


def usable(text: str) -> DMARCRecord:
    """
    A record that is one.
    """
    record = parsed(text)
    assert isinstance(record, DMARCRecord), record
    return record


class FindDMARCRecordTests(SynchronousTestCase):
    """
    Tests for L{findDMARCRecord}.
    """

    def test_one(self) -> None:
        """
        Texts that aren't DMARC records are passed over (RFC 9989 4.10 step 2).
        """
        found = findDMARCRecord(
            [b"v=spf1 -all", GOOD, b"v=DMARC12; p=none", b"\xff\x00"]
        )
        self.assertEqual(found, DMARCRecord(DMARCPolicy.REJECT))

    def test_problems(self) -> None:
        """
        No record, several, and one without usable tags are distinguished; the latter
        counts beside a valid one.
        """
        broken = b"v=DMARC1; p=nonsense"
        for texts, problem in [
            ([], DMARCRecordError.NONE),
            ([b"v=dmarc1; p=reject"], DMARCRecordError.NONE),
            ([b" v=DMARC1; p=reject"], DMARCRecordError.NONE),
            ([b"p=reject; v=DMARC1"], DMARCRecordError.NONE),
            ([GOOD, GOOD], DMARCRecordError.SEVERAL),
            ([GOOD, broken], DMARCRecordError.SEVERAL),
            ([broken], DMARCRecordError.UNUSABLE),
        ]:
            self.assertIs(findDMARCRecord(texts), problem, texts)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.binary(max_size=80), max_size=3),
        st.text("pspnruafot=;:,!mailto@.19 \t\udcff\u202e", max_size=80),
    )
    def test_hostile(self, others: list[bytes], rest: str) -> None:
        """
        Any record is parsed without an exception, and printable.
        """
        record = b"v=DMARC1;" + rest.encode("utf-8", "surrogatepass")
        found = findDMARCRecord([*others, record])
        if isinstance(found, DMARCRecord):
            self.assertTrue(all(each.uri.isprintable() for each in found.rua))


class ParseDMARCRecordTests(SynchronousTestCase):
    """
    Tests for L{parseDMARCRecord}.
    """

    def test_defaults(self) -> None:
        """
        Invalid or unknown tags after the version take their defaults (RFC 9989 4.7,
        4.8).
        """
        for rest in [
            "adkim=x; aspf=strict; psd=yes; t=yes; pct=101; ri=-1; fo=2",
            "pct=1.0; ri=4294967296; x=y; =z; sp; \x00\x7f; ;;",
            "pct=; ri=; fo=; rua=; ruf=; adkim=; aspf=; psd=; t=",
        ]:
            self.assertEqual(
                parsed(f"v=DMARC1; p=reject; {rest}"),
                DMARCRecord(DMARCPolicy.REJECT),
                rest,
            )

    def test_allTags(self) -> None:
        """
        Every tag of RFC 9989 4.7, and those of RFC 7489 6.3, in any case.
        """
        record = parsed(
            "V = DMARC1 ;\tP=Reject; SP=quarantine; np=NONE; adkim=S; aspf=s; psd=N;"
            "t=Y; rua=mailto:a@b.example!10m , https://c.example/?x;"
            "ruf=mailto:d@e.example; fo=1:D:s; pct=0; ri=3600; rf=afrf"
        )
        expected = DMARCRecord(
            DMARCPolicy.REJECT,
            DMARCPolicy.QUARANTINE,
            DMARCPolicy.NONE,
            Alignment.STRICT,
            Alignment.STRICT,
            PSD.NO,
            True,
            (
                ReportURI("mailto:a@b.example", 10 << 20),
                ReportURI("https://c.example/?x"),
            ),
            (ReportURI("mailto:d@e.example"),),
            ("1", "d", "s"),
            0,
            3600,
        )
        self.assertEqual(record, expected)

    def test_noPolicy(self) -> None:
        """
        A record without C{p} is one with C{p=none}, also for subdomains, if it
        requests reports, and invalid otherwise (RFC 9989 4.7, 4.10.1).
        """
        for text in ("v=DMARC1", "v=DMARC1;", "v=DMARC1; p", "v=DMARC1; sp=reject"):
            self.assertIs(parsed(text), DMARCRecordError.UNUSABLE, text)
            self.assertIs(parsed(text + "; rua=x"), DMARCRecordError.UNUSABLE, text)
            record = usable(text + "; np=reject; rua=mailto:a@b.example")
            self.assertEqual(
                (record.p, record.sp, record.np), (DMARCPolicy.NONE, None, None)
            )

    def test_invalidPolicy(self) -> None:
        """
        An invalid policy is C{none} in all cases if the record requests reports, and
        the record invalid otherwise (RFC 9989 4.10.1).
        """
        for wrong in ("p=rejct", "p=", "p=reject; sp=x", "sp=reject; np=x; p=reject"):
            self.assertIs(parsed(f"v=DMARC1; {wrong}"), DMARCRecordError.UNUSABLE)
            noURI = f"v=DMARC1; {wrong}; rua=nonsense"
            self.assertIs(parsed(noURI), DMARCRecordError.UNUSABLE)
            record = usable(f"v=DMARC1; {wrong}; rua=mailto:a@b.example")
            self.assertEqual(
                (record.p, record.sp, record.np), (DMARCPolicy.NONE, None, None)
            )

    def test_legacy(self) -> None:
        """
        RFC 7489 6.3 has no C{np}, and ignores unknown tags.
        """
        tags = parseTags(b"v=DMARC1; p=reject; np=x")
        assert tags is not None
        self.assertIs(interpret(tags), DMARCRecordError.UNUSABLE)
        self.assertEqual(
            interpret(tags, DiscoveryMethod.PSL), DMARCRecord(DMARCPolicy.REJECT)
        )

    def test_problems(self) -> None:
        """
        Problems of the record are kept for reports to its owner (RFC 9990 3.1.5), in
        limited number.
        """
        rua = "rua=mailto:a@b.example"
        self.assertEqual(usable(f"v=DMARC1; p=none; {rua}").problems, ())
        for text, problem in (
            ("p=bogus", "p=bogus is not a policy"),
            ("p=reject; sp=x", "sp=x is not a policy"),
            ("sp=reject", "p is missing"),
            ("p=none; adkim=strict", "adkim=strict has no meaning"),
            ("p=none; t=yes", "t=yes has no meaning"),
            ("p=none; ruf=b@c.example", "ruf: b@c.example is not a URI"),
            ("p=none; ruf=ftp:b", "ruf: ftp:b is not a mailto: URI"),
        ):
            found = usable(f"v=DMARC1; {text}; {rua}").problems
            self.assertEqual(found[0], problem)
        found = usable(f"v=DMARC1; p=none; {rua},,c@d.example").problems
        self.assertEqual(
            found, ("rua: nothing is not a URI", "rua: c@d.example is not a URI")
        )
        found = usable(f"v=DMARC1; p=none; {rua}{',x' * 1000}").problems
        self.assertEqual(len(found), MAX_PROBLEMS)

    def test_failureOptions(self) -> None:
        """
        C{fo} is ignored without C{ruf} (RFC 9989 4.7).
        """
        self.assertEqual(usable("v=DMARC1; p=none; fo=1:d").fo, ("0",))
        options = usable("v=DMARC1; p=none; fo = 0:1:d:d ; ruf=mailto:a@b.example").fo
        self.assertEqual(options, ("0", "1", "d"))

    def test_repeated(self) -> None:
        """
        The first of several tags with the same name counts.
        """
        self.assertEqual(usable("v=DMARC1; p=none; p=reject").p, DMARCPolicy.NONE)


class ParseTagsTests(SynchronousTestCase):
    """
    Tests for L{parseTags}.
    """

    def test_confirmation(self) -> None:
        """
        The records that confirm destinations may be as short as that
        (RFC 9990 4).
        """
        self.assertEqual(parseTags(b"v=DMARC1"), {})
        self.assertIsNone(parseTags(b"v=DMARC1 p=none"))


class ParseURIsTests(SynchronousTestCase):
    """
    Tests for L{parseURIs}.
    """

    def test_sizes(self) -> None:
        """
        Sizes as RFC 7489 6.2 has them, in powers of 1024, and never more than
        can be kept.
        """
        sizes = parseURIs(
            "a:b!1,a:b!2k,a:b ! 3 M,a:b!4g,a:b!5t,a:b!0," + "a:b!" + "9" * 5000
        )
        self.assertEqual(
            [each.limit for each in sizes],
            [1, 2 << 10, 3 << 20, 4 << 30, 5 << 40, 0, MAX_LIMIT],
        )

    def test_ignored(self) -> None:
        """
        Invalid URIs, and those with an invalid size, are skipped.
        """
        wrong = "a@b.example,a:b!,a:b!5x,a:b!1!2,a:%zz,a:b\u202ec,:x,,a:b c,mailto:x@y"
        self.assertEqual(parseURIs(wrong), (ReportURI("mailto:x@y"),))

    def test_bounded(self) -> None:
        """
        There is an end to them.
        """
        self.assertEqual(len(parseURIs(",".join(["a:b"] * 500))), MAX_URIS)


class RecordNameTests(SynchronousTestCase):
    """
    Tests for L{dmarcRecordName}.
    """

    def test_long(self) -> None:
        """
        A very long record is truncated at a tag, never within one: half an address is
        another address.
        """
        rua = "rua=" + ",".join(["mailto:x@a.example"] * 900)
        record = usable(f"v=DMARC1; p=reject; {rua}; sp=none")
        self.assertEqual(
            (record.p, record.sp, record.rua), (DMARCPolicy.REJECT, None, ())
        )

    def test_name(self) -> None:
        """
        The record's name is in A-labels (RFC 9989 5.3.1).
        """
        name = dmarcRecordName(Domain.parse("bücher.example"))
        self.assertEqual(name, "_dmarc.xn--bcher-kva.example")


#: Rows of tables of others that say other than RFC 9989 does, and what is right.
#: The linter refuses broken URIs, options and repeated tags, and calls p=foo and
#: a bad np, psd, t or sp errors; a receiver is to go on (4.8, 4.10.1).
DECIDED: dict[str, DMARCRecord | DMARCRecordError] = {
    "checkdmarc-dmarc-record-001": DMARCRecord(
        rua=(ReportURI("mailto:dmarcreports@usdoj.gov"),)
    ),
    "checkdmarc-dmarc-record-002": DMARCRecord(
        rua=(ReportURI("mailto:dmarcreports@usdoj.gov"),)
    ),
    # 4.10.1: somebody wants to be told.
    "checkdmarc-dmarc-record-003": DMARCRecord(
        rua=(ReportURI("mailto:dmarc@example.com"),)
    ),
    "checkdmarc-dmarc-record-008": DMARCRecord(DMARCPolicy.REJECT),
    "checkdmarc-dmarc-record-009": DMARCRecord(DMARCPolicy.REJECT),
    "checkdmarc-dmarc-record-020": DMARCRecord(DMARCPolicy.REJECT),
    "checkdmarc-dmarc-record-021": DMARCRecord(DMARCPolicy.REJECT),
    "checkdmarc-dmarc-record-026": DMARCRecord(DMARCPolicy.REJECT),
    "internetnl-dmarc-record-006": DMARCRecord(),
    "internetnl-dmarc-record-009": DMARCRecord(),
    # 4.8: errors cost what they are in.  RFC 7489 wanted p as the first tag.
    **{f"mox-dmarc-record-0{n}": DMARCRecord() for n in (10, 11)},
    "mox-dmarc-record-009": DMARCRecord(DMARCPolicy.REJECT, DMARCPolicy.REJECT),
    # The size is larger than anybody's report: there is none to speak of.
    "mox-dmarc-record-034": DMARCRecord(
        rua=(ReportURI("mailto:dmarc-feedback@example.com", MAX_LIMIT),)
    ),
    # 4.8 has no such word as "n".
    "opendmarc-dmarc-record-005": DMARCRecordError.UNUSABLE,
    **{f"opendmarc-dmarc-record-0{n}": DMARCRecord() for n in (10, 11, 12, 13, 14, 19)},
}


class CorpusTests(SynchronousTestCase):
    """
    The tables of others, but for L{DECIDED}.
    """

    def cases(self, name: str) -> list[dict[str, object]]:
        cases = json.loads(corpus("records", f"{name}-dmarc-record.json").read_text())
        self.assertTrue(cases["cases"])
        found: list[dict[str, object]] = cases["cases"]
        return found

    def test_validity(self) -> None:
        """
        Valid and invalid records.
        """
        names = ("checkdmarc", "internetnl", "opendmarc", "mox", "trailofbits")
        for case in [case for name in names for case in self.cases(name)]:
            found = parsed(str(case["input"]))
            number = str(case["id"])
            if number in DECIDED:
                self.assertEqual(found, DECIDED[number], case)
                continue
            expect = case["expect"]
            assert isinstance(expect, dict)
            self.assertEqual(isinstance(found, DMARCRecord), expect["valid"], case)
            self.compare(found, expect)

    def compare(
        self, found: DMARCRecord | DMARCRecordError, expect: dict[str, object]
    ) -> None:
        """
        Policies, where the table has them.
        """
        values = {
            key.split(".")[1]: value
            for key, value in expect.items()
            if key.endswith(".value")
        } | expect
        tags = expect.get("tags")
        values |= tags if isinstance(tags, dict) else {}
        for name in ("p", "adkim", "aspf"):
            if name in values:
                self.assertEqual(getattr(found, name), values[name])

    def test_mailauth(self) -> None:
        """
        The values of a receiver of today, which reads C{fo} without C{ruf} as
        well (4.7: ignored) and shows C{sp} and C{np} as they come to be.
        """
        for case in self.cases("mailauth-rs"):
            record = usable(str(case["input"]))
            expect = case["expect"]
            assert isinstance(expect, dict)
            sp = record.sp or record.p
            shown = {
                "adkim": record.adkim,
                "aspf": record.aspf,
                "p": record.p,
                "sp": sp,
                "np": record.np or sp,
                "psd": record.psd,
                "t": record.testing,
                "rua": [self.address(uri) for uri in record.rua],
                "ruf": [self.address(uri) for uri in record.ruf],
            }
            for key, value in shown.items():
                self.assertEqual(value, expect[key], case)

    def address(self, uri: ReportURI) -> list[object]:
        text = uri.uri.removeprefix("mailto:").replace("%20", "")
        return [text, uri.limit]

    def test_values(self) -> None:
        """
        One tag at a time: an invalid value of an optional tag is ignored (4.8), an
        invalid policy makes the record unusable (4.10.1). Other decisions: the
        version is case-sensitive (4.7), any URI is valid (4.7).
        """
        cases = json.loads(
            corpus("records", "maildmarc-dmarc-tagvalues.json").read_text()
        )
        for case in cases["cases"]:
            tag, value, valid = case["tag"], case["value"], case["expect"]["valid"]
            text = f"v={value}; p=none" if tag == "v" else f"v=DMARC1; {tag}={value}"
            if tag not in ("v", "p"):
                text += "; p=none"
            found = parsed(text)
            if tag in ("p", "sp", "np"):
                self.assertEqual(isinstance(found, DMARCRecord), valid, case)
            elif tag == "v":
                self.assertEqual(found == DMARCRecord(), value == "DMARC1", case)
            elif tag in ("rua", "ruf"):
                self.assertEqual(len(getattr(found, tag)), 1, case)
            elif not valid:
                self.assertEqual(found, DMARCRecord(), case)

    def test_lookups(self) -> None:
        """
        Whole answers of the DNS.  Decided: a C{pct} that isn't one is 100
        (RFC 7489 6.3).
        """
        table = json.loads(
            corpus("records", "mailauth-js-dmarc-record-lookup.json").read_text()
        )
        for case in table["cases"]:
            name = f"_dmarc.{case['query_domain']}"
            if name not in case["zone"]:
                continue
            texts = ["".join(parts).encode() for parts in case["zone"][name]["TXT"]]
            found, expect = findDMARCRecord(texts), case["expect"]
            if expect.get("_result") is False:
                self.assertIsInstance(found, DMARCRecordError, case)
                continue
            assert isinstance(found, DMARCRecord)
            self.assertEqual(found.p, expect.get("p", found.p), case)
            percent = expect.get("pct", found.percent)
            self.assertEqual(found.percent, percent or 100, case)
            self.assertEqual(found.interval, expect.get("ri", found.interval), case)
