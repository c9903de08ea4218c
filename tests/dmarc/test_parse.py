"""
Tests for L{moxtls.dmarc.parse}.

Tests for L{moxtls.dmarc.parse}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc import parse
from moxtls.dmarc.parse import (
    parseAggregateReport,
    readFeedbackReport,
)
from moxtls.received.analysis.describe import (
    describeAggregateReport,
    describeFeedbackReport,
)
from moxtls.tlsrpt.parse import MalformedReport

MESSAGE = b"""\
From: reports@receiver.example
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

A message failed.
--b
Content-Type: message/feedback-report

Feedback-Type: auth-failure
User-Agent: Some/1.0 \x1b[2J
Version: 1
Auth-Failure: dmarc
Identity-Alignment: none
Authentication-Results: receiver.example;
 dmarc=fail header.from=example.org

--b
Content-Type: text/rfc822-headers

From: x@example.org
Received: from somewhere
Subject: hello

--b--
"""


class FeedbackTests(SynchronousTestCase):
    """
    Tests for L{readFeedbackReport}.
    """

    def test_fields(self) -> None:
        """
        The machine-readable part is read, unfolded, and the identifying fields of the
        original message (RFC 5965 3, RFC 9991 4).
        """
        report = readFeedbackReport(MESSAGE)
        assert report is not None
        self.assertEqual(report.get("feedback-type"), "auth-failure")
        self.assertIn("header.from=example.org", report.get("Authentication-Results"))
        self.assertEqual(
            report.original, (("From", "x@example.org"), ("Subject", "hello"))
        )

    def test_described(self) -> None:
        """
        The text form has no control characters.
        """
        report = readFeedbackReport(MESSAGE)
        assert report is not None
        lines = describeFeedbackReport(report)
        self.assertEqual(lines[0], "Feedback of type auth-failure by Some/1.0 \\x1b[2J")
        self.assertIn("Auth-Failure: dmarc", lines)
        self.assertTrue(all(line.isprintable() for line in lines))

    def test_none(self) -> None:
        """
        Other messages aren't failure reports, whatever their content.
        """
        for message in (b"", b"From: x\n\nhello", MESSAGE.replace(b"feedback-r", b"r")):
            self.assertIsNone(readFeedbackReport(message))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(MESSAGE)), st.binary(max_size=20))
    def test_anything(self, place: int, new: bytes) -> None:
        """
        Any content is read or refused, and printable.
        """
        report = readFeedbackReport(MESSAGE[:place] + new + MESSAGE[place:])
        if report is not None:
            self.assertTrue(
                all(each.isprintable() for each in describeFeedbackReport(report))
            )


RECORD = """\
<record>
  <row>
    <source_ip>192.0.2.7</source_ip>
    <count>3</count>
    <policy_evaluated>
      <disposition>Pass</disposition><dkim>PASS</dkim><spf>fail</spf>
      <reason><type>mailing_list</type><comment>a &amp; b</comment></reason>
      <reason><type/><comment/></reason>
    </policy_evaluated>
  </row>
  <identifiers>
    <envelope_to>us.example</envelope_to>
    <envelope_from>list.example</envelope_from>
    <header_from>example.org</header_from>
  </identifiers>
  <auth_results>
    <dkim><domain>example.org</domain><selector>s1</selector>
      <result>pass</result><human_result lang="en">fine</human_result></dkim>
    <spf><domain>list.example</domain><scope>mfrom</scope><result>pass</result></spf>
  </auth_results>
</record>
"""
REPORT = """\
<?xml version="1.0" encoding="UTF-8"?>
<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">
  <version>1.0</version>
  <report_metadata>
    <org_name>Receiver</org_name><email>dmarc@receiver.example</email>
    <report_id>r-1</report_id>
    <date_range><begin>1790000000</begin><end>1790086399</end></date_range>
    <error lang="en">no way to b.example</error>
  </report_metadata>
  <policy_published>
    <domain>example.org</domain><p>reject</p><np>none</np><testing>n</testing>
  </policy_published>
  {records}
</feedback>
"""
WHOLE = REPORT.format(records=RECORD)

MALFORMED = {
    "nothing": "",
    "no XML": "hello",
    "another root": "<html></html>",
    "cut": WHOLE[:-30],
    "no domain": WHOLE.replace("<domain>example.org</domain><p>", "<p>"),
    "no date": WHOLE.replace("<begin>1790000000</begin>", ""),
    "a date in words": WHOLE.replace("1790000000", "yesterday"),
    "a date far away": WHOLE.replace("1790000000", "999999999999"),
    "no count": WHOLE.replace("<count>3</count>", ""),
    "a negative count": WHOLE.replace("<count>3", "<count>-3"),
    "entities": '<!DOCTYPE feedback [<!ENTITY a "b">]>' + WHOLE.partition("?>")[2],
    "too deep": "<feedback>" + "<a>" * 100,
    "too wide": "<feedback>" + "<a/>" * parse.MAX_RECORD,
    "too long": WHOLE.replace("Receiver", "x" * (parse.MAX_TEXT + 1)),
    "no such encoding": '<?xml version="1.0" encoding="klingon"?><feedback/>',
}


class ParseTests(SynchronousTestCase):
    """
    Tests for L{parseAggregateReport}.
    """

    def test_everything(self) -> None:
        """
        Every element of RFC 9990 3.1 is read, keywords in lower case.
        """
        report = parseAggregateReport(WHOLE.encode())
        [record] = report.records
        self.assertEqual(report.organization, "Receiver")
        self.assertEqual((report.start, report.end), (1790000000, 1790086399))
        self.assertEqual(report.errors, ("no way to b.example",))
        self.assertEqual(
            (report.domain, report.published),
            ("example.org", (("p", "reject"), ("np", "none"), ("testing", "n"))),
        )
        self.assertEqual((record.count, record.disposition), (3, "pass"))
        self.assertEqual((record.dkimAligned, record.spfAligned), ("pass", "fail"))
        [reason] = record.reasons
        self.assertEqual((reason.type, reason.comment), ("mailing_list", "a & b"))
        [signature] = record.dkim
        self.assertEqual((signature.selector, signature.humanResult), ("s1", "fine"))
        self.assertEqual(record.spf[0].scope, "mfrom")

    def test_tolerance(self) -> None:
        """
        Common deviations are tolerated: a BOM and blanks at the beginning, invalid
        UTF-8, prefixes, a schema around the report, text after it (RFC 9990 3.1.1:
        any order).
        """
        plain = parseAggregateReport(WHOLE.encode())
        head, _, rest = WHOLE.partition("?>")
        prefixed = WHOLE.replace("<", "<d:").replace("<d:/", "</d:")
        prefixed = prefixed.replace("<d:?", "<?").replace("xmlns=", "xmlns:d=")
        for text in (
            b"\xef\xbb\xbf\r\n " + WHOLE.encode(),
            WHOLE.encode() + b"\n<trailer>",
            rest.encode(),
            f'{head}?><xs:schema xmlns:xs="x">{rest}'.encode(),
            prefixed.encode(),
            WHOLE.replace("UTF-8", "iso-8859-1").encode(),
            WHOLE.replace("UTF-8", "utf-16").encode("utf-16"),
        ):
            self.assertEqual(parseAggregateReport(text), plain)
        wrong = parseAggregateReport(
            WHOLE.replace("Receiver", "R\xe9").encode("latin-1")
        )
        self.assertEqual(wrong.organization, "R\N{REPLACEMENT CHARACTER}")

    def test_malformed(self) -> None:
        """
        Invalid reports are refused with the element and the reason, in one line.
        """
        for name, text in MALFORMED.items():
            with self.subTest(name):
                error = self.assertRaises(
                    MalformedReport, parseAggregateReport, text.encode()
                )
                self.assertTrue(str(error).isprintable())
                self.assertRegex(str(error), r"\A[\w., ]+: ")

    def test_headBetweenRecords(self) -> None:
        """
        The elements of the head may be between records, and only the first of each
        name counts.
        """
        first, start, rest = WHOLE.partition("<policy_published>")
        published, end, rest = rest.partition("</policy_published>")
        about = start + published + end
        again = about.replace("example.org", "b.example")
        text = f"{first}{RECORD}{about}{again}{rest}".encode()
        report = parseAggregateReport(text)
        self.assertEqual((report.domain, report.messages), ("example.org", 6))

    def test_large(self) -> None:
        """
        Records, their number and what is between them are limited.
        """
        many = parseAggregateReport(REPORT.format(records=RECORD * 2000).encode())
        self.assertEqual((len(many.records), many.messages), (2000, 6000))
        blank = " " * (parse.MAX_RECORD + parse.CHUNK)
        for text in (blank + WHOLE, WHOLE.replace("<row>", f"{blank}<row>")):
            with self.assertRaises(MalformedReport):
                parseAggregateReport(text.encode())
        crowded = RECORD.replace("<reason>", "<a/>" * 600 + "<reason>", 1)
        with self.assertRaisesRegex(MalformedReport, "more than [0-9]+ elements"):
            parseAggregateReport(REPORT.format(records=crowded * 500).encode())
        self.patch(parse, "MAX_RECORDS", 2)
        with self.assertRaisesRegex(MalformedReport, "more than 2 records"):
            parseAggregateReport(REPORT.format(records=RECORD * 3).encode())

    def test_described(self) -> None:
        """
        The text form has no control characters.
        """
        text = WHOLE.replace("list.example</env", "&#x9b;31m</env")
        lines = describeAggregateReport(parseAggregateReport(text.encode()), True)
        self.assertTrue(all(line.isprintable() for line in lines))
        self.assertIn("example.org: p=reject np=none testing=n", lines)
        self.assertIn("  because mailing_list a & b", lines)

    @settings(max_examples=100, deadline=None)
    @given(
        st.integers(0, len(WHOLE) - 1),
        st.integers(0, 40),
        st.binary(max_size=8),
    )
    def test_damaged(self, start: int, length: int, new: bytes) -> None:
        """
        Reports with any change are read or refused.
        """
        text = WHOLE.encode()
        try:
            describeAggregateReport(
                parseAggregateReport(text[:start] + new + text[start + length :])
            )
        except MalformedReport as error:
            self.assertTrue(str(error).isprintable())
