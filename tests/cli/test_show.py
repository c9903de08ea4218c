"""
Tests for L{moxtls.cli.reports}.
"""

from __future__ import annotations

import gzip
import json
from base64 import encodebytes
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from moxtls.tlsrpt import parse
from tests.cli.commands import CommandCase
from tests.corpus import corpus
from tests.dmarc.test_arf import MESSAGE as FEEDBACK
from tests.incoming.test_dispatch import XML, zipped

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

# What is no report, and why.
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
    "text for a number": JSON.replace(b" 5,", b' "5",'),
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
        A report is put in words, and nothing in it reaches the terminal as
        it is.
        """
        out = self.good("report", "show", self.write(JSON), tty=True).out
        self.assertEqual(
            out.splitlines(),
            [
                "Report 20261123@sender.example of Sender \\x1b[31m "
                "(postmaster@sender.example)",
                "Period 2026-11-23T00:00:00Z to 2026-11-23T23:59:59Z",
                "mail.example.org: sts, 5 succeeded, 2 failed",
                "  hosts: mx.example.org",
                "  | version: STSv1",
                "  2 x certificate-expired",
            ],
        )

    def test_forms(self) -> None:
        """
        JSON, gzip (RFC 8460 5.2) and whole messages (RFC 8460 5.3) say the
        same, and standard input is as good as a file.
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
        Programs get it in RFC 8460's words (section 4.4), and each file has
        its name.
        """
        file = self.write(gzip.compress(JSON))
        [shown] = self.good("report", "show", file, "--json").value
        self.assertEqual(shown, {"file": file, **REPORT})

    def test_several(self) -> None:
        """
        Several reports are told apart; if one can't be read, that is all
        there is.
        """
        files = [self.write(JSON, name) for name in ("one", "two")]
        lines = self.good("report", "show", *files).out.splitlines()
        self.assertEqual(lines[0], f"{files[0]}:")
        self.assertEqual(lines[7:9], ["", f"{files[1]}:"])
        bad = self.write(b"", "three")
        said = self.complaint("report", "show", *files, bad)
        self.assertTrue(said.startswith(f"moxtls: {bad}: "))

    def test_malformed(self) -> None:
        """
        Whatever is no report is refused in one line, with its file's name.
        """
        for name, data in MALFORMED.items():
            with self.subTest(name):
                file = self.write(data)
                said = self.complaint("report", "show", file)
                self.assertTrue(said.startswith(f"moxtls: {file}: "), said)
                self.assertLess(len(said), 500)
                self.assertTrue(said.isprintable())
                self.complaint("report", "show", "--json", file)

    def test_noFile(self) -> None:
        """
        So is what can't be read at all.
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
        Any bytes whatever are refused, or shown, and never more than that.
        """
        self.assertTidy(data)

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, len(JSON) - 1), st.sampled_from(list(b'{}[]",:0nt\\\x00\xff'))
    )
    def test_damaged(self, where: int, byte: int) -> None:
        """
        So is a report with one byte changed, also if it is packed.
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
            self.assertEqual((ran.status, ran.out), (1, ""))
            self.assertRegex(ran.err, r"\Amoxtls: [^\n]+\n\Z")
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
        DMARC aggregate reports are put in words, and for programs in those of
        RFC 9990 3.1.
        """
        file = self.write(zipped(report__xml=XML))
        out = self.good("report", "show", file, tty=True).out
        self.assertIn("3 x from 192.0.2.7: pass, aligned DKIM pass, SPF fail", out)
        [shown] = self.good("report", "show", file, "--json").value
        self.assertEqual(shown["policy_published"]["p"], "reject")
        self.assertEqual(shown["records"][0]["row"]["count"], 3)

    def test_feedback(self) -> None:
        """
        So are DMARC failure reports (RFC 9991).
        """
        file = self.write(FEEDBACK)
        self.assertIn("Auth-Failure: dmarc", self.good("report", "show", file).out)
        [shown] = self.good("report", "show", file, "--json").value
        self.assertIn(["Auth-Failure", "dmarc"], shown["feedback_report"])


def _isReport(file: Path) -> bool:
    return file.suffix in (".json", ".gz", ".eml", ".xml", ".zip")
