"""
Tests for L{moxtls.cli.reports}.

Tests for L{moxtls.cli.reports}.
"""

from __future__ import annotations

import gzip
import json
from base64 import encodebytes
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from moxtls.dates import HOUR, midnight, utcDay
from moxtls.dmarc.parse import parseAggregateReport
from moxtls.dmarc.types import DMARCPolicy, Evaluation, PublishedPolicy
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.message.mime import leafParts
from moxtls.tlsrpt import parse
from moxtls.tlsrpt.parse import readTLSReport
from tests.cli.commands import CommandCase
from tests.cli.network import NetworkCommandCase, reactor
from tests.cli.outcomes import broken
from tests.cli.test_evaluations import ROW
from tests.configs import ed25519Key
from tests.corpus import corpus
from tests.dmarc.test_parse import MESSAGE as FEEDBACK
from tests.received.test_read import XML, zipped

SIGNING = """
[Domains."example.org".DKIM.Selectors.s]
KeyFile = "s.pem"
Algorithm = "ed25519-sha256"
"""


class ReportTests(NetworkCommandCase):
    """
    Tests for C{moxtls report}: one domain is owed a report about yesterday,
    one doesn't want any, and one may want one about today.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.configure(SIGNING)
        (self.folder / "s.pem").write_bytes(ed25519Key())
        for domain in ("wants", "today"):
            record = '"v=TLSRPTv1; rua=mailto:tls@reports.example"'
            self.dns.zone.put(f"_smtp._tls.{domain}.example", RRType.TXT, record)
        self.today = utcDay(reactor.seconds())
        self.yesterday = self.today - timedelta(1)
        ledger = self.ledger()
        for day, domain in [
            (self.yesterday, "wants.example"),
            (self.yesterday, "doesnt.example"),
            (self.today, "today.example"),
        ]:
            await ledger.outcomes.record(day, broken(domain))
        await ledger.stop()

    async def good(self, *words: str) -> Any:
        """
        Run a command that has to succeed.
        """
        ran = await self.run_("report", *words)
        self.assertEqual((ran.status, ran.err), (0, ""))
        return ran.value if "--json" in words else ran.out

    async def domains(self, *words: str) -> set[str]:
        return {each["domain"] for each in await self.good(*words, "--json")}

    async def test_pending(self) -> None:
        """
        Reports may be due for days that are over, or, on request, for the present one
        too; with the reason why one won't be sent, as in C{preview}.
        """
        rows = await self.good("pending", "--json")
        reasons = {each["domain"]: each["reason"] for each in rows}
        self.assertEqual(reasons["wants.example"], "")
        shown = await self.good("preview", "--json", "--domain", "doesnt.example")
        self.assertEqual(reasons["doesnt.example"], shown[0]["reason"])
        sendable = {each["domain"]: each["to_be_sent"] for each in rows}
        self.assertEqual(sendable, {"wants.example": True, "doesnt.example": False})
        over = {"wants.example", "doesnt.example"}
        self.assertEqual(await self.domains("pending"), over)
        everything = over | {"today.example"}
        self.assertEqual(await self.domains("pending", "--now"), everything)
        chosen = await self.domains("pending", "--domain", "WANTS.example")
        self.assertEqual(chosen, {"wants.example"})
        text = await self.good("pending", "--kind", "tls")
        about = f"tls   {self.yesterday}  wants.example   recipient domain"
        self.assertIn(about, text)

    async def test_preview(self) -> None:
        """
        A preview has each report, with its destinations, or the reason why there is
        none; it changes nothing.
        """
        text = await self.good("preview")
        self.assertIn(
            f"{self.yesterday} wants.example (recipient domain): to "
            "mailto:tls@reports.example\n  Report ",
            text,
        )
        self.assertRegex(text, r"doesnt\.example \(recipient domain\): no report: ")
        self.assertNotIn("\x1b", text)
        rows = await self.good("preview", "--json")
        [row] = [each for each in rows if each["domain"] == "wants.example"]
        self.assertEqual(row["destinations"], ["mailto:tls@reports.example"])
        [policy] = row["report"]["policies"]
        self.assertEqual(policy["summary"]["total-failure-session-count"], 1)
        self.assertEqual(len(await self.domains("pending")), 2)
        self.assertEqual(await self.good("sent"), "No reports have been sent.\n")

    async def test_send(self) -> None:
        """
        A sent report is queued, signed, once; it is then stored as sent, and no
        longer due.
        """
        self.assertEqual(await self.good("send", "--json"), {"composed": 1})
        self.assertEqual(await self.good("send"), "0 composed and queued.\n")
        self.assertEqual(await self.domains("pending"), set())
        queued = (await self.run_("queue", "list", "--json")).value
        self.assertEqual(
            [each["recipient"] for each in queued], ["tls@reports.example"]
        )
        [sent] = await self.good("sent", "--json")
        self.assertEqual(sent["domain"], "wants.example")
        self.assertEqual((sent["state"], sent["node"]), ("queued", "mail.example.org"))
        self.assertEqual(await self.good("sent", "--domain", "a.example", "--json"), [])
        [file] = self.bodies()
        shown = await self.run_("report", "show", str(file))
        self.assertIn("wants.example: sts, 1 succeeded, 1 failed", shown.out)
        self.assertIn(b"DKIM-Signature: ", file.read_bytes())

    def bodies(self) -> list[Path]:
        """
        The files of queued messages.
        """
        root = self.folder / "data" / "queue" / "messages"
        return [each for each in root.rglob("*") if each.is_file()]

    async def test_sendNow(self) -> None:
        """
        A domain can be sent a report on today up to now; later results go into
        another report, as C{pending} and C{preview} show.
        """
        chosen = ("--now", "--domain", "today.example")
        for _ in range(2):
            ledger = self.ledger()
            await ledger.outcomes.record(self.today, broken("today.example"))
            await ledger.stop()
            [row] = await self.good("pending", *chosen, "--json")
            self.assertTrue(row["to_be_sent"])
            [shown] = await self.good("preview", *chosen, "--json")
            self.assertEqual(shown["destinations"], ["mailto:tls@reports.example"])
            text = await self.good("send", *chosen)
            self.assertEqual(text, "1 composed and queued.\n")
            self.assertEqual(
                await self.good("pending", *chosen), "No reports are due.\n"
            )
            self.assertEqual(
                await self.good("send", *chosen, "--json"), {"composed": 0}
            )
        reports = [readTLSReport(file.read_bytes()) for file in self.bodies()]
        self.assertEqual(len({each.reportID for each in reports}), 2)
        first, second = sorted(reports, key=lambda each: each.end)
        self.assertEqual(first.start, midnight(self.today))
        self.assertEqual(second.start, first.end + 1)
        self.assertLessEqual(second.end, reactor.seconds())
        counts = [each.policies[0].failed for each in (first, second)]
        self.assertEqual(counts, [2, 1])
        self.assertEqual(len(await self.domains("pending")), 2)

    async def test_empty(self) -> None:
        """
        Without periods, a sentence says so.
        """
        for verb in ("pending", "preview"):
            text = await self.good(verb, "--domain", "nobody.example")
            self.assertEqual(text, "No reports are due.\n")
            rows = await self.good(verb, "--domain", "nobody.example", "--json")
            self.assertEqual(rows, [])

    async def test_busy(self) -> None:
        """
        Only one node at a time sends reports.
        """
        ledger = self.ledger()
        now = reactor.seconds()
        await ledger.leases.acquire("tls reports", "other", now + 1000, now)
        await ledger.stop()
        ran = await self.run_("report", "send")
        self.assertEqual((ran.status, ran.out), (1, ""))
        self.assertEqual(
            ran.err, "moxtls: another node is sending reports at the moment\n"
        )


class DMARCTests(NetworkCommandCase):
    """
    Tests for C{moxtls report --kind dmarc}: one domain requests a report about
    yesterday, and another has no history with any account.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.configure(SIGNING)
        (self.folder / "s.pem").write_bytes(ed25519Key())
        self.dns.zone.put("example.org", RRType.MX, "10 mail.example.org.")
        record = '"v=DMARC1; p=none; rua=mailto:dmarc@wants.example"'
        self.dns.zone.put("_dmarc.wants.example", RRType.TXT, record)
        hour = midnight(utcDay(reactor.seconds())) - HOUR
        ledger = self.ledger()
        for domain in ("wants.example", "stranger.example"):
            wanted = domain == "wants.example"
            row = replace(ROW, headerFrom=domain)
            published = PublishedPolicy(Domain(domain), DMARCPolicy.NONE)
            evaluation = Evaluation(published, row, wanted=wanted)
            await ledger.evaluations.record(hour, evaluation)
        await ledger.stop()

    async def good(self, *words: str) -> Any:
        """
        Run a command that has to succeed.
        """
        ran = await self.run_("report", *words, "--kind", "dmarc")
        self.assertEqual((ran.status, ran.err), (0, ""))
        return ran.value if "--json" in words else ran.out

    async def test_preview(self) -> None:
        """
        Reports that are due, and reasons why there are none, in the terms of RFC
        9990.
        """
        pending = await self.good("pending", "--json")
        reasons = {each["domain"]: each["reason"] for each in pending}
        self.assertEqual(reasons["wants.example"], "")
        self.assertIn("no DMARC record", reasons["stranger.example"])
        text = await self.good("preview")
        self.assertIn("wants.example (policy domain): to mailto:dmarc@wants.", text)
        self.assertIn("1 x from 192.0.2.7: reject, aligned DKIM fail, SPF pass", text)
        self.assertIn("stranger.example (policy domain): no report: ", text)
        rows = await self.good("preview", "--json", "--domain", "wants.example")
        [record] = rows[0]["report"]["records"]
        self.assertEqual(record["identifiers"]["header_from"], "wants.example")

    async def test_evaluations(self) -> None:
        """
        C{moxtls evaluations}, C{report pending} and C{report preview} agree about
        each domain, with the same reason.
        """
        ledger = self.ledger()
        published = PublishedPolicy(Domain("reporter.example"), DMARCPolicy.NONE)
        optional = Evaluation(published, ROW, optional=True)
        await ledger.evaluations.record(int(reactor.seconds()), optional)
        await ledger.stop()
        evaluated = (await self.run_("evaluations", "--json")).value
        pending = await self.good("pending", "--now", "--json")
        preview = await self.good("preview", "--now", "--json")
        found = {each["policy_domain"]: each["reason"] for each in evaluated}
        self.assertEqual({each["domain"]: each["reason"] for each in pending}, found)
        shown = {each["domain"]: each.get("reason", "") for each in preview}
        self.assertEqual(shown, found)
        wanted = {each["policy_domain"]: each["report"] for each in evaluated}
        self.assertEqual(
            wanted,
            {
                "wants.example": True,
                "stranger.example": False,
                "reporter.example": False,
            },
        )

    async def test_now(self) -> None:
        """
        A report on an interval that isn't over ends now, not when that will
        be over.
        """
        self.assertEqual(await self.good("send", "--now", "--json"), {"composed": 1})
        root = self.folder / "data" / "queue" / "messages"
        [file] = [each for each in root.rglob("*") if each.is_file()]
        document = list(leafParts(file.read_bytes()))[1].content
        report = parseAggregateReport(gzip.decompress(document))
        self.assertLessEqual(report.end, reactor.seconds())
        self.assertGreater(report.end, reactor.seconds() - 600)

    async def test_send(self) -> None:
        """
        A report is sent once, and listed as sent.
        """
        self.assertEqual(await self.good("send", "--json"), {"composed": 1})
        self.assertEqual(await self.good("send", "--json"), {"composed": 0})
        [sent] = await self.good("sent", "--json")
        self.assertEqual((sent["kind"], sent["state"]), ("dmarc", "queued"))
        self.assertEqual(await self.good("pending", "--json"), [])
        root = self.folder / "data" / "queue" / "messages"
        [file] = [each for each in root.rglob("*") if each.is_file()]
        shown = await self.run_("report", "show", str(file))
        self.assertIn(" p=none ", shown.out)


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
        Several reports are separated; an unreadable one fails the command without
        output.
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
        A file without a report is refused in one line, with its name.
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
        DMARC aggregate reports are described in words, and in JSON by those of RFC
        9990 3.1.
        """
        file = self.write(zipped(report__xml=XML))
        out = self.good("report", "show", file, tty=True).out
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
