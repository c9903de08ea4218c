"""
Tests for L{moxtls.cli.reports.commands}.

Tests for L{moxtls.cli.reports.commands}.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from moxtls.dates import HOUR, midnight, utcDay
from moxtls.dmarc.parse import parseAggregateReport
from moxtls.dmarc.types import DMARCPolicy, Evaluation, PublishedPolicy
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.message.mime import leafParts
from tests.cli.network import NetworkCommandCase, reactor
from tests.cli.outcomes import broken
from tests.cli.test_evaluations import ROW
from tests.configs import ed25519Key
from tests.reports import readTLSReport

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
