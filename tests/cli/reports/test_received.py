"""
Tests for L{moxtls.cli.reports.received} and L{moxtls.cli.reports.export}.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from base64 import encodebytes
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from moxtls.app.build import IReactor
from moxtls.cli.main import parser
from moxtls.cli.output import Output
from moxtls.cli.reports.export import DMARC_COLUMNS, TLS_COLUMNS, csvCell
from moxtls.cli.reports.received import LIST_JSON
from moxtls.cli.shell import perform
from moxtls.dates import DAY
from moxtls.received.analysis.describe import MAX_ROWS
from moxtls.received.types import AcceptedReport, Channel, Origin, RefusedReport
from moxtls.tlsrpt import parse
from tests.cli.commands import NOON, CommandCase
from tests.corpus import corpus
from tests.dmarc.test_parse import MESSAGE as FEEDBACK
from tests.received.analysis.filling import (
    Row,
    accept,
    aggregateReport,
    fill,
    parsed,
    tlsReport,
)
from tests.received.reading.test_read import XML, zipped

#: The number of the day of C{NOON}.
TODAY = NOON // DAY
REPORT = {
    "organization-name": "Sender \x1b[31m",
    "date-range": {
        "start-datetime": "2026-11-23T00:00:00Z",
        "end-datetime": "2026-11-23T23:59:59Z",
    },
    "contact-info": "postmaster@sender.example",
    "report-id": "20261123@sender.example",
    "policies": [
        {
            "policy": {
                "policy-type": "sts",
                "policy-string": ["version: STSv1"],
                "policy-domain": "mail.example.org",
                "mx-host": ["mx.example.org"],
            },
            "summary": {
                "total-successful-session-count": 5,
                "total-failure-session-count": 2,
            },
            "failure-details": [
                {"result-type": "certificate-expired", "failed-session-count": 2}
            ],
        }
    ],
}
JSON = json.dumps(REPORT).encode()
MESSAGE = b"""\
Content-Type: multipart/report; report-type="tlsrpt"; boundary="b"

--b
Content-Type: application/tlsrpt+gzip
Content-Transfer-Encoding: base64

%s
--b--
"""
DEEP = b'{"policies":' + b"[" * 100_000

# Files that aren't reports, with reasons.
MALFORMED = {
    "empty": b"",
    "blank": b"\n \n",
    "text": b"Hello,\n\nthere is nothing here.\n",
    "binary": bytes(range(256)) * 100,
    "nulls": b"\0" * 100_000,
    "cut gzip": gzip.compress(JSON)[:-20],
    "head of gzip": gzip.compress(JSON)[:5],
    "gzip of nothing": gzip.compress(b""),
    "gzip of binary": gzip.compress(bytes(range(256))),
    "bomb": gzip.compress(b"{" + b" " * (parse.MAX_JSON + 1)),
    "cut JSON": JSON[:-20],
    "no object": b"[1, 2]",
    "no members": b"{}",
    "null": b'{"policies": null, "date-range": null}',
    "nested arrays": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "deep inside": DEEP,
    "not UTF-8": b'{"organization-name": "\xff"}',
    "NaN": JSON.replace(b" 5,", b" NaN,"),
    "huge number": JSON.replace(b" 5,", b" " + b"9" * 5000 + b","),
    "negative": JSON.replace(b" 5,", b" -5,"),
    "text for a number": JSON.replace(b" 5,", b' "five",'),
    "no date": JSON.replace(b"2026-11-23T00:00:00Z", b"yesterday"),
    "escapes": b'{"date-range": {"start-datetime": "\\u001b[2J\\n"}, "policies": [1]}',
    "message without a report": b"Subject: hi\r\n\r\nhello\r\n",
    "message with a damaged one": MESSAGE % b"H4sIAAAAAAAA",
    "message with nonsense": MESSAGE % b"=====",
}


class ShowTests(CommandCase):
    """
    Tests for C{moxtls report show}.
    """

    def write(self, data: bytes, name: str = "report") -> str:
        """
        A file with C{data} in it.
        """
        file = self.folder / name
        file.write_bytes(data)
        return str(file)

    def test_text(self) -> None:
        """
        A report is described in words, and its texts are escaped.
        """
        out = self.good("report", "show", self.write(JSON), tty=True).out
        self.assertEqual(
            out.splitlines(),
            [
                "2 of 7 sessions failed TLS",
                "Report 20261123@sender.example of Sender \\x1b[31m "
                "(postmaster@sender.example)",
                "Period 2026-11-23T00:00:00Z to 2026-11-23T23:59:59Z",
                "mail.example.org: sts, 5 succeeded, 2 failed",
                "  hosts: mx.example.org",
                "  | version: STSv1",
                "  2 x certificate-expired",
                "    certificate expired: Renew the certificate and replace its files; "
                "moxtls",
                "      loads them by itself. Check with: moxtls config check",
            ],
        )

    def test_forms(self) -> None:
        """
        JSON, gzip (RFC 8460 5.2) and whole messages (RFC 8460 5.3) give the same
        output, from files and standard input.
        """
        plain = self.good("report", "show", self.write(JSON)).out
        packed = gzip.compress(JSON)
        message = MESSAGE % encodebytes(packed)
        for data in (packed, b"\xef\xbb\xbf" + JSON, message):
            shown = self.good("report", "show", self.write(data)).out
            self.assertEqual(shown, plain)
            shown = self.good("report", "show", "-", stdin=data).out
            self.assertEqual(shown, plain)

    def test_json(self) -> None:
        """
        With C{--json}, a report is in RFC 8460's words (section 4.4), and each file
        has its name.
        """
        file = self.write(gzip.compress(JSON))
        [shown] = self.good("report", "show", file, "--json").value
        self.assertEqual(shown, {"file": file, **REPORT})

    def test_several(self) -> None:
        """
        Several reports are separated; an unreadable one is an error in one line, and
        the others are shown all the same.
        """
        files = [self.write(JSON, name) for name in ("one", "two")]
        bad = self.write(b"", "bad")
        ran = self.run_("report", "show", files[0], bad, files[1])
        self.assertEqual(ran.status, 1)
        self.assertRegex(ran.err, r"\Amoxtls: [^\n]*/bad: [^\n]+\n\Z")
        lines = ran.out.splitlines()
        self.assertEqual(lines[:2], [f"{files[0]}:", "2 of 7 sessions failed TLS"])
        self.assertEqual(lines[9:11], ["", f"{files[1]}:"])
        ran = self.run_("report", "show", "--json", files[0], bad, files[1])
        self.assertEqual((ran.status, [each["file"] for each in ran.value]), (1, files))

    def test_all(self) -> None:
        """
        Rows that failed come first, and are shown; those that passed are one line,
        unless all are wanted.
        """
        rows = [
            Row("192.0.2.1", 4200, "example.org", "example.org"),
            Row("192.0.2.2", 98, "example.org"),
            Row("198.51.100.7", 4),
            Row("198.51.100.8", 8),
        ]
        file = self.write(aggregateReport(20_000, rows))
        out = self.good("report", "show", file).out
        lines = out.splitlines()
        self.assertEqual(lines[0], "12 of 4,310 messages failed DMARC")
        self.assertEqual(lines[-1], "4,298 messages from 2 sources pass")
        sources = [line.split(":")[0] for line in lines if " x from " in line]
        self.assertEqual(sources, ["8 x from 198.51.100.8", "4 x from 198.51.100.7"])
        out = self.good("report", "show", "--all", file).out
        self.assertEqual(out.count(" x from "), 4)
        self.assertNotIn("pass\n4", out)

    def test_many(self) -> None:
        """
        Of many failing rows, the largest are shown.
        """
        rows = [Row(f"198.51.{n}.7", n) for n in range(1, 201)]
        file = self.write(aggregateReport(20_000, rows))
        out = self.good("report", "show", file).out
        self.assertEqual(out.count(" x from "), MAX_ROWS)
        self.assertIn("200 x from 198.51.200.7", out)
        self.assertIn("and 150 more failing records (--all shows them)", out)

    def test_malformed(self) -> None:
        """
        A file without a report is refused in one line, with its name.
        """
        for name, data in MALFORMED.items():
            with self.subTest(name):
                file = self.write(data)
                said = self.complaint("report", "show", file)
                self.assertTrue(said.startswith(f"moxtls: {file}: "), said)
                self.assertLess(len(said), 500)
                self.assertTrue(said.isprintable())
                ran = self.run_("report", "show", "--json", file)
                self.assertEqual((ran.status, ran.value, ran.err), (1, [], said + "\n"))

    def test_noFile(self) -> None:
        """
        An unreadable file is refused in one line, with its name.
        """
        (self.folder / "link").symlink_to("link")
        for file, why in [
            (str(self.folder), "Is a directory"),
            (str(self.folder / "none"), "No such file or directory"),
            (str(self.folder / "link"), "Too many levels of symbolic links"),
            (str(self.file / "x"), "Not a directory"),
            ("x" * 5000, "File name too long"),
            ("a\0b", "embedded null byte"),
        ]:
            said = self.complaint("report", "show", file)
            self.assertIn(f": {why}", said)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
    def test_anything(self, data: bytes) -> None:
        """
        Any bytes are refused or shown, without other errors.
        """
        self.assertTidy(data)

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, len(JSON) - 1), st.sampled_from(list(b'{}[]",:0nt\\\x00\xff'))
    )
    def test_damaged(self, where: int, byte: int) -> None:
        """
        A report with one byte changed, compressed or not, is shown or refused.
        """
        changed = JSON[:where] + bytes([byte]) + JSON[where + 1 :]
        self.assertTidy(changed)
        packed = bytearray(gzip.compress(JSON))
        packed[where % len(packed)] = byte
        self.assertTidy(bytes(packed))

    def assertTidy(self, data: bytes) -> None:
        """
        C{data} is shown with status 0, or refused with 1 and one line.
        """
        file = self.write(data)
        ran = self.run_("report", "show", file)
        if ran.status == 0:
            self.assertEqual(ran.err, "")
            self.assertRegex(ran.out, "Report |Feedback ")
        else:
            self.assertEqual(ran.status, 1)
            self.assertRegex(ran.err, r"\A(moxtls: [^\n]+\n)+\Z")
        for line in (ran.out + ran.err).splitlines():
            self.assertTrue(line.isprintable(), line)

    def test_corpus(self) -> None:
        """
        Reports that are really sent can be read.
        """
        for folder in ("tls-reports", "dmarc-reports"):
            files = [each for each in corpus(folder).rglob("*") if _isReport(each)]
            self.assertGreater(len(files), 0)
            for file in files:
                self.assertTidy(file.read_bytes())

    def test_aggregate(self) -> None:
        """
        DMARC aggregate reports are described in words, and in JSON by those of RFC
        9990 3.1.
        """
        file = self.write(zipped(report__xml=XML))
        out = self.good("report", "show", "--all", file, tty=True).out
        self.assertIn("3 x from 192.0.2.7: pass, aligned DKIM pass, SPF fail", out)
        [shown] = self.good("report", "show", file, "--json").value
        self.assertEqual(shown["policy_published"]["p"], "reject")
        self.assertEqual(shown["records"][0]["row"]["count"], 3)

    def test_feedback(self) -> None:
        """
        DMARC failure reports (RFC 9991) are shown in words, and as JSON.
        """
        file = self.write(FEEDBACK)
        self.assertIn("Auth-Failure: dmarc", self.good("report", "show", file).out)
        [shown] = self.good("report", "show", file, "--json").value
        self.assertIn(["Auth-Failure", "dmarc"], shown["feedback_report"])


def _isReport(file: Path) -> bool:
    return file.suffix in (".json", ".gz", ".eml", ".xml", ".zip")


class StoredTests(CommandCase):
    """
    Tests for commands on stored reports.
    """

    def setUp(self) -> None:
        super().setUp()
        with self.ledger() as ledger:
            running = Deferred.fromCoroutine(fill(ledger, TODAY))
            self.successResultOf(running)

    def listed(self, *words: str) -> list[dict[str, Any]]:
        """
        The reports that C{report list} lists.
        """
        found: list[dict[str, Any]] = self.good(
            "report", "list", "--json", *words
        ).value
        return found

    def test_list(self) -> None:
        """
        All accepted reports are listed, the latest first; filters apply.
        """
        every = self.listed()
        numbers = [each["id"] for each in every]
        self.assertEqual(numbers, sorted(numbers, reverse=True))
        self.assertEqual(len(every), 120)
        table = [
            (("--kind", "tls"), 60),
            (("--kind", "failure"), 0),
            (("--domain", "EXAMPLE.org"), 120),
            (("--domain", "other.example"), 0),
            (("--reporter", "MICRO"), 30),
            (("--since", "2026-11-23"), 4),
            (("--until", "2026-10-25"), 4),
            (("--since", "2026-11-22", "--until", "2026-11-22", "--kind", "tls"), 2),
            (("--failures", "--kind", "tls"), 4),
            (("--failures", "--kind", "dmarc"), 30),
            (("--limit", "7"), 7),
            (("--refused",), 1),
        ]
        for words, count in table:
            self.assertEqual(len(self.listed(*words)), count, words)

    def test_json(self) -> None:
        """
        Each has the documented fields, with the times of RFC 3339.
        """
        first = self.listed("--reporter", "yahoo", "--limit", "1")[0]
        keys = [each.lower().replace(" ", "_") for each in LIST_JSON]
        self.assertEqual(list(first), keys)
        self.assertEqual(first["start"], "2026-11-23T00:00:00Z")
        self.assertEqual(first["received"], "2026-11-24T06:00:00Z")
        self.assertEqual(
            (first["channel"], first["domains"]), ("mail", ["example.org"])
        )
        [refused] = self.listed("--refused")
        self.assertEqual(refused["refused"], "no valid DKIM signature")
        self.assertFalse(refused["variant"])

    def test_text(self) -> None:
        """
        A report is a line; refused ones have the reason.
        """
        out = self.good("report", "list", "--limit", "1").out
        self.assertRegex(out, r"dmarc  2026-11-23  example.org  Yahoo +\d+ +\d+\n")
        out = self.good("report", "list", "--refused").out
        self.assertIn("refused: no valid DKIM signature", out)
        out = self.good("report", "list", "--reporter", "nobody").out
        self.assertEqual(out, "No such reports.\n")
        self.complaint("report", "list", "--reporter", "\udcff", status=2)

    def test_show(self) -> None:
        """
        A stored report is shown with its arrival; one that is refused, with the reason.
        """
        [failed, *_] = self.listed("--failures", "--kind", "tls")
        word = str(failed["id"])
        lines = self.good("report", "show", word).out.splitlines()
        self.assertEqual(lines[0], "10 of 150 sessions failed TLS")
        self.assertEqual(
            lines[1],
            "Received 2026-11-24T06:00:00Z by mail from google.com (DKIM google.com)",
        )
        [shown] = self.good("report", "show", "--json", word).value
        self.assertEqual(shown["id"], failed["id"])
        [policy] = shown["policies"]
        self.assertEqual(policy["summary"]["total-failure-session-count"], 10)
        [refused] = self.listed("--refused")
        out = self.good("report", "show", str(refused["id"])).out
        self.assertIn("Refused, and not counted: no valid DKIM signature\n", out)
        self.assertIn("(not authenticated)", out)

    def test_variant(self) -> None:
        """
        A second, different report with the same id is marked.
        """
        again = tlsReport(TODAY - 1, "google.com", 7)
        with self.ledger() as ledger:
            running = Deferred.fromCoroutine(accept(ledger, again, NOON))
            self.successResultOf(running)
        [first] = self.listed("--limit", "1")
        self.assertTrue(first["variant"])
        out = self.good("report", "show", str(first["id"])).out
        self.assertIn("Differs from a report with the same id", out)

    def test_unknown(self) -> None:
        """
        A number without a report is an error, for each command.
        """
        for word in ("0", "9999", "1" + "0" * 18, "1" + "0" * 30):
            said = self.complaint("report", "show", word)
            self.assertIn("there is no report", said)
        said = self.complaint("report", "raw", "9999")
        self.assertIn("there is no report 9999", said)
        for word in ("0", "x", "-1", "1" + "0" * 30):
            self.complaint("report", "raw", "--", word, status=2)

    def test_raw(self) -> None:
        """
        The raw report is printed as it was received.
        """
        [first] = self.listed("--reporter", "Microsoft", "--limit", "1")
        out = self.good("report", "raw", str(first["id"])).out
        self.assertEqual(out.encode(), tlsReport(TODAY - 1, "Microsoft", 30))

    def test_rawOctets(self) -> None:
        """
        A program that reads it gets the same octets, whatever their encoding.
        """
        text = tlsReport(TODAY, "B\xfccher").replace(rb"\u00fc", "\xfc".encode())
        with self.ledger() as ledger:
            running = Deferred.fromCoroutine(accept(ledger, text, NOON))
            self.successResultOf(running)
        [first] = self.listed("--limit", "1")
        words = ["--config", str(self.file), "report", "raw", str(first["id"])]
        stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
        output = Output(stdout, io.StringIO())
        reactor: IReactor = self.clock  # type: ignore[assignment]
        arguments = parser(words).parse_args(words)
        running_ = perform(reactor, arguments, io.BytesIO(), output)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(running_)), 0)
        self.assertEqual(stdout.buffer.getvalue(), text)

    def test_rawTerminal(self) -> None:
        """
        On a terminal, its control characters are escaped; line ends stay.
        """
        rows = [Row("192.0.2.1", 1, disposition="\x9b31m")]
        data = aggregateReport(TODAY, rows).replace(b"<record>", b"\r\n<record>")
        with self.ledger() as ledger:
            running = Deferred.fromCoroutine(accept(ledger, data, NOON))
            self.successResultOf(running)
        [first] = self.listed("--limit", "1")
        out = self.good("report", "raw", str(first["id"]), tty=True).out
        self.assertIn(r"\x9b31m", out)
        self.assertEqual(len(out.splitlines()), 2)
        self.assertTrue(all(map(str.isprintable, out.splitlines())))

    def test_exportDMARC(self) -> None:
        """
        Rows are exported as CSV (RFC 4180), or as one JSON object a line.
        """
        text = self.good("report", "export", "dmarc").out
        rows = list(csv.DictReader(io.StringIO(text)))
        self.assertEqual(tuple(rows[0]), DMARC_COLUMNS)
        self.assertEqual(len(rows), 30 * 3 + 30)
        self.assertEqual(sum(int(each["messages"]) for each in rows), 30 * 205)
        lines = self.good(
            "report", "export", "dmarc", "--json", "--failures"
        ).out.splitlines()
        values = [json.loads(line) for line in lines]
        self.assertEqual(len(values), 60)
        [first] = [
            each
            for each in values
            if each["source_ip"] == "203.0.113.9" and each["day"] == "2026-11-23"
        ]
        self.assertEqual(
            (first["disposition"], first["passed"], first["header_from"]),
            ("reject", False, "example.org"),
        )
        self.assertEqual(first["spf"], [["evil.example", "", "pass"]])

    def test_exportTLS(self) -> None:
        """
        Policies and failure details are rows of their own, so that each column can be
        summed.
        """
        text = self.good("report", "export", "tls").out
        rows = list(csv.DictReader(io.StringIO(text)))
        self.assertEqual(tuple(rows[0]), TLS_COLUMNS)
        for column, total in (
            ("succeeded", 30 * 170),
            ("failed", 40),
            ("sessions", 40),
        ):
            found = sum(int(each[column] or 0) for each in rows)
            self.assertEqual(found, total, column)
        failures = self.good("report", "export", "tls", "--failures").out
        self.assertEqual(len(failures.splitlines()), 1 + 4 * 2)
        none = self.good("report", "export", "tls", "--domain", "b.example").out
        self.assertEqual(len(none.splitlines()), 1)

    def test_injection(self) -> None:
        """
        Spreadsheets take no text of a report for a formula, and terminals none for a
        command.
        """
        name = '=HYPERLINK("http://evil.example")'
        with self.ledger() as ledger:
            running = Deferred.fromCoroutine(
                accept(ledger, tlsReport(TODAY, name, 1), NOON)
            )
            self.successResultOf(running)
        text = self.good("report", "export", "tls", "--reporter", "hyperlink").out
        [row] = csv.DictReader(io.StringIO(text))
        self.assertEqual(row["organization"], f"'{name}")
        for value, cell in [
            ("+1", "'+1"),
            ("  @x", "'  @x"),
            ("\uff1d1", "'\uff1d1"),
            ("\t=1", r"'\t=1"),
            ("a\x1b[2J", r"a\x1b[2J"),
            (-5, "-5"),
            (True, "yes"),
            (None, ""),
            ([["a", "", "b"], ["c"]], "a b; c"),
        ]:
            self.assertEqual(csvCell(value), cell)

    def test_notKept(self) -> None:
        """
        Something that was no report has nothing to show.
        """
        origin = Origin(Channel.HTTPS, "192.0.2.9", "", NOON)
        with self.ledger() as ledger:
            refused = RefusedReport(origin, "input: there is no report in it")
            self.successResultOf(ledger.received.refuse(refused))
        [first, *_] = self.listed("--refused")
        self.assertEqual((first["kind"], first["start"]), (None, None))
        word = str(first["id"])
        self.assertIn("isn't kept", self.good("report", "show", word).out)
        self.assertIn("isn't kept", self.complaint("report", "raw", word))

    def test_unauthenticated(self) -> None:
        """
        A report without authentication is marked as such.
        """
        origin = Origin(Channel.HTTPS, "192.0.2.9", "", NOON)
        report = AcceptedReport(parsed(tlsReport(TODAY, "Else")), origin)
        with self.ledger() as ledger:
            self.successResultOf(ledger.received.add(report))
        [first] = self.listed("--limit", "1")
        out = self.good("report", "show", str(first["id"])).out
        self.assertIn("by https from 192.0.2.9 (not authenticated)", out)


class EmptyTests(CommandCase):
    """
    Tests for commands without a ledger.
    """

    def test_empty(self) -> None:
        """
        Lists say that they are empty, and no ledger is made.
        """
        out = self.good("report", "list").out
        self.assertIn('No reports have been received; "moxtls summary DOMAIN"', out)
        self.assertEqual(self.good("report", "list", "--json").value, [])
        self.assertEqual(self.good("report", "export", "tls", "--json").out, "")
        self.complaint("report", "show", "1")
        self.assertEqual(list((self.folder / "data").iterdir()), [])
