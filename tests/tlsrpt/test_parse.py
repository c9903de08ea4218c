"""
Tests for L{moxtls.tlsrpt.parse}.
"""

from __future__ import annotations

import copy
import gzip
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.analysis.describe import describeTLSReport
from moxtls.tlsrpt import parse as module
from moxtls.tlsrpt.generate import compress
from moxtls.tlsrpt.parse import (
    MAX_DEPTH,
    MalformedReport,
    ReceivedFailure,
    ReceivedPolicy,
    ReceivedTLSReport,
    parseReport,
)
from tests.corpus import corpus
from tests.reports import readTLSReport
from tests.tlsrpt.test_generate import EXPECTED, LINES, example

OURS = ReceivedTLSReport(
    organization="sender.example",
    contact="postmaster@sender.example",
    reportID="20261124.x@sender.example",
    start=1795478400,
    end=1795564799,
    policies=(
        ReceivedPolicy(
            type="sts",
            domain="xn--bcher-kva.example",
            strings=LINES,
            mxHosts=("*.xn--bcher-kva.example",),
            succeeded=5,
            failed=2,
            failures=(
                ReceivedFailure(
                    "certificate-expired",
                    2,
                    sendingIP="192.0.2.1",
                    mxHostname="mx.example.net",
                    mxHELO="mx.example.net",
                    receivingIP="2001:db8::1",
                ),
                ReceivedFailure("sts-policy-fetch-error", 1, "dns-lookup"),
            ),
        ),
    ),
)
MESSAGE = b"""\
From: postmaster@sender.example\r
Content-Type: multipart/report; report-type="tlsrpt"; boundary="b"\r
\r
--b\r
\r
Words.\r
--b\r
Content-Type: application/tlsrpt+json\r
\r
%s\r
--b--\r
"""


def changed(path: tuple[str | int, ...], value: object) -> bytes:
    report = copy.deepcopy(EXPECTED)
    place: Any = report
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(report).encode()


class ParseReportTests(SynchronousTestCase):
    """
    Tests for L{parseReport}.
    """

    def refusal(self, data: bytes) -> str:
        error = str(self.assertRaises(MalformedReport, parseReport, data))
        self.assertTrue(error.isprintable() and len(error) <= 300, error)
        return error

    def test_ours(self) -> None:
        """
        Composed reports are parsed with equal values: as gzip, as JSON, and in a
        message.
        """
        text = json.dumps(EXPECTED).encode()
        for data in (
            compress(example()),
            text,
            b"\xef\xbb\xbf \n" + text + b"\0trailing",
            MESSAGE % text,
            MESSAGE.replace(b"\r", b"") % text,
        ):
            self.assertEqual(readTLSReport(data), OURS)

    def test_corpus(self) -> None:
        """
        Reports as large senders send them, and the example of RFC 8460
        appendix B, are read.
        """
        paths = [path for path in corpus("tls-reports").rglob("*") if path.is_file()]
        self.assertGreaterEqual(len(paths), 6)
        for path in paths:
            report = readTLSReport(path.read_bytes())
            self.assertTrue(report.policies and report.reportID, path)
            self.assertIn(report.end - report.start, (86399, 86400), path)

    def test_microsoft(self) -> None:
        """
        A time without zone is in UTC.
        """
        path = corpus("tls-reports", "mjl-_mox", "microsoft.eml")
        report = readTLSReport(path.read_bytes())
        self.assertEqual((report.start, report.end), (1673308800, 1673395199))
        self.assertEqual(report.policies[0].succeeded, 2)

    def test_tolerant(self) -> None:
        """
        Unknown words are kept; absent and null members are empty; a single pattern,
        as in drafts of RFC 8460, is a list of one.
        """
        policy = ("policies", 0, "policy")
        report = readTLSReport(changed((*policy, "policy-type"), "quantum"))
        self.assertEqual(report.policies[0].type, "quantum")
        report = readTLSReport(changed((*policy, "mx-host"), "mx.example"))
        self.assertEqual(report.policies[0].mxHosts, ("mx.example",))
        report = readTLSReport(changed((*policy, "policy-string"), None))
        self.assertEqual(report.policies[0].strings, ())
        report = readTLSReport(changed(("policies", 0, "failure-details"), None))
        self.assertEqual(report.policies[0].failures, ())
        report = readTLSReport(changed(("report-id",), "\udcff"))
        self.assertEqual(report.reportID, "?")

    def test_sloppy(self) -> None:
        """
        Members with other separators or case, and those of drafts, are known, unless
        the right one is there, too; counts may be in quotes; a policy domain may be
        missing.
        """
        summary = ("policies", 0, "summary", "total-failure-session-count")
        for data in (
            json.dumps(EXPECTED).replace('"failure-reason-code', '"failureReasonCode'),
            json.dumps(EXPECTED).replace('"failure-reason-code', '"failure-error-code'),
            json.dumps(EXPECTED).replace('"mx-host"', '"mx-host-pattern"'),
            json.dumps(EXPECTED).replace('"mx-host"', '"MX_Host": 7, "mx-host"'),
            json.dumps(EXPECTED).replace('"report-id"', '"Report ID"'),
        ):
            self.assertEqual(parseReport(data.encode()), OURS)
        self.assertEqual(parseReport(changed(summary, " 2 ")), OURS)
        report = parseReport(changed(("policies", 0, "policy", "policy-domain"), None))
        self.assertEqual(report.policies[0].domain, "")

    def test_encodings(self) -> None:
        """
        UTF-16, with and without BOM, is read, and other octets are replaced.
        """
        text = json.dumps(EXPECTED)
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"):
            self.assertEqual(parseReport(text.encode(encoding)), OURS)
        self.assertEqual(parseReport(b"junk " + text.encode()), OURS)
        text = text.replace('"sender.example"', '"caf\xe9"')
        report = parseReport(text.encode("latin-1"))
        self.assertEqual(report.organization, "caf\N{REPLACEMENT CHARACTER}")

    def test_times(self) -> None:
        """
        RFC 3339 5.6: with an offset, with fractions, in lower case.
        """
        for text in [
            "2026-11-24T01:00:00+01:00",
            "2026-11-24t00:00:00z",
            "2026-11-24T00:00:00.5Z",
        ]:
            report = readTLSReport(changed(("date-range", "start-datetime"), text))
            self.assertEqual(report.start, OURS.start, text)

    def test_malformed(self) -> None:
        """
        The refusal is one line that names the place and the reason.
        """
        detail = ("policies", 0, "failure-details", 1)
        summary = ("policies", 0, "summary", "total-failure-session-count")
        text = json.dumps(EXPECTED).encode()
        for data, words in [
            (b"", "report: not JSON"),
            (b"\x00\xff" * 100, "report: not JSON"),
            (b"[]", "report: not an object"),
            (b"{}", "report.date-range: missing"),
            (text[:-5], "report: not JSON"),
            (b'{"a": NaN}', "report: not JSON"),
            (b'{"a": ' + b"9" * 5000 + b"}", "report: not JSON"),
            (b"{\xff}", "report: not JSON"),
            (b'{"a":' * 5000, "report: nested too deeply"),
            (b'{"a":' * (MAX_DEPTH + 1), "report: nested too deeply"),
            (b'{"a":' * MAX_DEPTH, "report: not JSON"),
            (b'{"[[[[' + b'\\"[' * 5000, "report: not JSON"),
            (changed(("date-range", "end-datetime"), "\x1b[2J"), "end-datetime: "),
            (
                changed(("date-range", "end-datetime"), "9999-12-31T23:59:59-23:00"),
                "end-datetime: ",
            ),
            (changed(("policies",), []), "report.policies: "),
            (changed(("report-id",), "x" * 5000), "report-id: longer than"),
            (
                changed(("policies", 0, "policy", "mx-host"), ["x"] * 1001),
                "mx-host: more than",
            ),
            (changed(("policies",), [7]), "report.policies[0]: not an object"),
            (changed(("policies", 0, "policy"), None), "policy: missing"),
            (changed(summary, -1), "total-failure-session-count: out of range"),
            (changed(summary, 2**53), "total-failure-session-count: out of range"),
            (changed(summary, 1.5), "count: not a whole number"),
            (changed(summary, True), "count: not a whole number"),
            (changed(summary, float("1e300")), "count: out of range"),
            (changed((*detail, "result-type"), 7), "[1].result-type: not a string"),
            (changed(detail, "x"), "failure-details[1]: not an object"),
        ]:
            self.assertIn(words, self.refusal(data), data[:80])

    def test_limits(self) -> None:
        """
        Inputs that are too large, or have too many values, are malformed.
        """
        self.patch(module, "MAX_JSON", 3000)
        self.patch(module, "MAX_VALUES", 1000)
        self.assertIn("larger", self.refusal(b"{" + b" " * 3000 + b"}"))
        self.assertIn("values", self.refusal(b"[" * 1001))
        self.assertEqual(readTLSReport(json.dumps(EXPECTED).encode()), OURS)

    def test_deep(self) -> None:
        """
        Depth counts arrays and objects, not strings; reports of the maximum depth are
        read, whatever the parser does with deeper ones.
        """
        deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
        for more in (json.dumps("[" * 5000 + '\\"{'), deep, "[{}]," * 3000 + "0"):
            more = f"[{more}]" if more.startswith("[{") else more
            text = json.dumps(EXPECTED)[:-1] + f', "more": {more}}}'
            self.assertEqual(readTLSReport(text.encode()), OURS)

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def test_hostile(self, data: st.DataObject) -> None:
        """
        A damaged report raises only L{MalformedReport}; a parsed one can be described.
        """
        text = json.dumps(EXPECTED).encode()
        whole = data.draw(
            st.sampled_from([text, MESSAGE % text, gzip.compress(text, mtime=0)])
        )
        start = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(start, min(len(whole), start + 10)))
        damaged = whole[:start] + data.draw(st.binary(max_size=10)) + whole[end:]
        try:
            report = readTLSReport(damaged)
        except MalformedReport as error:
            self.assertTrue(str(error).isprintable())
        else:
            self.assertTrue(
                all(line.isprintable() for line in describeTLSReport(report))
            )
