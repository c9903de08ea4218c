"""
Tests for L{moxtls.cli.summary}, L{moxtls.cli.readiness} and
L{moxtls.received.analysis.questions}.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from unittest import SkipTest

import moxtls
from moxtls.dates import DAY
from moxtls.dns.types import RRType
from moxtls.received.analysis import questions
from moxtls.received.analysis.answers import dayOfNumber
from tests.cli.commands import columns
from tests.cli.network import NetworkCommandCase, reactor
from tests.received.analysis.filling import Row, accept, aggregateReport, fill

DOMAIN = """
[Domains."example.org"]
[Domains."empty.example"]
[Listeners.mx]
Port = 25
"""
DOCUMENT = Path(moxtls.__file__).parents[1] / "docs" / "received.rst"
RECORD = '"v=DMARC1; p=none; rua=mailto:dmarc@example.org"'


def documented() -> dict[str, set[str]]:
    """
    The fields in docs/received.rst, by the name of their object.
    """
    found = {}
    for section in DOCUMENT.read_text().split(".. fields: ")[1:]:
        name, _, text = section.partition("\n\n")
        paragraph = re.sub(r"\([^)]*\)", "", text.partition("\n\n")[0])
        found[name] = set(re.findall(r"``(\w+)``", paragraph))
    return found


class SummaryTests(NetworkCommandCase):
    """
    Tests for C{moxtls summary} and C{moxtls readiness}, with a month of reports and a
    DNS server.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.configure(DOMAIN)
        self.today = int(reactor.seconds()) // DAY
        ledger = self.ledger()
        await fill(ledger, self.today)
        await ledger.stop()
        put = self.dns.zone.put
        put("mail.example.org", RRType.A, "192.0.2.1")
        put("_dmarc.example.org", RRType.TXT, RECORD)
        put(
            "_smtp._tls.example.org", RRType.TXT, '"v=TLSRPTv1; rua=mailto:t@x.example"'
        )

    async def good(self, *words: str, tty: bool = False) -> Any:
        """
        Run a command that has to succeed.
        """
        ran = await self.run_(*words, tty=tty)
        self.assertEqual(ran.status, 0, ran.err)
        return ran.value if "--json" in words else ran.out

    async def test_domain(self) -> None:
        """
        The verdict comes first, then what failed, why, what to do, and the events of
        this host beside it; what is fine is one line.
        """
        out = await self.good("summary", "example.org")
        for text in (
            "Mail to example.org, TLS: look at it\n"
            "  40 of 4,970 sessions failed: certificate expired at mail.example.org",
            "40 sessions: certificate expired (certificate-expired)",
            "Here: 31 handshakes failed on listener mx:",
            "Here: the certificate of listener mx that expired on",
            "    > Renew the certificate",
            "Mail from example.org, DMARC: look at it\n"
            "  145 of 5,945 messages failed DMARC: service SendGrid and 1 other",
            "> SendGrid: If you use SendGrid, set up DKIM for example.org there",
            "5,800 messages from 1 source pass (--all)",
        ):
            self.assertIn(text, out)
        self.assertLessEqual(max(map(len, out.splitlines())), 88)

    async def test_terminal(self) -> None:
        """
        On a terminal of 80 columns no line is longer.
        """
        columns(self, 80)
        for words in (
            ("summary",),
            ("summary", "example.org"),
            ("summary", "example.org", "--all"),
            ("readiness", "example.org"),
            ("report", "list"),
            ("report", "list", "--refused"),
        ):
            out = await self.good(*words, tty=True)
            lines = [line for line in out.splitlines() if len(line) > 80]
            self.assertEqual(lines, [], words)

    async def test_json(self) -> None:
        """
        In JSON, everything is there, with dates.
        """
        found = await self.good("summary", "example.org", "--json", "--days", "10")
        self.assertEqual(list(found), ["domain", "first", "last", "tls", "dmarc"])
        tls, dmarc = found["tls"], found["dmarc"]
        self.assertEqual((tls["verdict"], tls["total"]), ("look at it", 1570))
        [reason] = tls["reasons"]
        self.assertEqual(reason["sessions"], 40)
        self.assertEqual(reason["explanation"]["title"], "certificate expired")
        self.assertEqual(len(reason["events"]), 2)
        self.assertEqual(len(tls["days"]), 9)
        sources = {each["name"]: each for each in dmarc["sources"]}
        self.assertEqual(sources["SendGrid"]["kind"], "service")
        self.assertEqual(sources["192.0.2.0/24"]["kind"], "ours")
        self.assertEqual(sources["evil.example"]["kept_out"], 9)
        self.assertRegex(dmarc["since"], r"\A20\d\d-\d\d-\d\d\Z")

    async def test_overview(self) -> None:
        """
        Without a domain, each has a line for each kind, also those without reports.
        """
        rows = await self.good("summary", "--json")
        found = {(each["domain"], each["reports"]): each["verdict"] for each in rows}
        self.assertEqual(found["example.org", "TLS"], "look at it")
        self.assertEqual(found["empty.example", "DMARC"], "no data")
        self.assertIn(("mail.example.org", "TLS"), found)
        whole = await self.good("summary", "example.org", "--json")
        for row in rows[2:4]:
            self.assertEqual(row["domain"], whole["domain"])
            answer = whole[row["reports"].lower()]
            for field in ("verdict", "sentence", "since", "total", "failed"):
                self.assertEqual(row[field], answer[field])

    async def test_empty(self) -> None:
        """
        Without reports, the answer is what to expect, or which record is missing.
        """
        out = await self.good("summary", "empty.example")
        self.assertIn("_smtp._tls.empty.example: no TLSRPT record", out)
        self.assertIn("_dmarc.empty.example: no DMARC record", out)
        self.dns.zone.put(
            "_smtp._tls.empty.example",
            RRType.TXT,
            '"v=TLSRPTv1; rua=mailto:t@x.example"',
        )
        found = await self.good("summary", "empty.example", "--json")
        self.assertIn("asks for them at mailto:t@x.example", found["tls"]["expected"])
        out = await self.good("summary", "empty.example", "--no-dns")
        self.assertIn("not looked up", out)

    async def test_older(self) -> None:
        """
        If all reports are about earlier days, the answer says so.
        """
        out = await self.good("summary", "example.org", "--days", "1")
        self.assertIn("no TLS report about these days; the latest", out)
        self.assertRegex(out.replace("\n ", ""), r"DMARC report about.*--days +2")
        self.configure("")
        out = await self.good("summary", "--days", "1")
        self.assertIn("1 domain with older reports (--days)", out)
        out = await self.good("summary", "--days", "2")
        self.assertNotIn("older", out)

    async def test_names(self) -> None:
        """
        Sources are named by reverse names that resolve back (RFC 8601 3); others could
        claim any name.
        """
        put = self.dns.zone.put
        ledger = self.ledger()
        rows = [Row("203.0.113.20", 5), Row("203.0.114.20", 5)]
        await accept(ledger, aggregateReport(self.today - 1, rows, "Else"), 1.0)
        await ledger.stop()
        for network in (113, 114):
            name = f"20.{network}.0.203.in-addr.arpa"
            put(name, RRType.PTR, f"host{network}.shop.example.")
        put("host113.shop.example", RRType.A, "203.0.113.20")
        found = await self.good("summary", "example.org", "--json")
        sources = {each["name"]: each for each in found["dmarc"]["sources"]}
        self.assertEqual(sources["shop.example"]["names"], ["host113.shop.example"])
        self.assertIn("203.0.114.0/24", sources)

    async def test_enforced(self) -> None:
        """
        With p=reject, mail that strangers forge is no reason to look.
        """
        ledger = self.ledger()
        rows = [Row("192.0.2.1", 50, "strict.example", "strict.example")]
        rows.append(Row("203.0.113.9", 50, "", "evil.example", "reject"))
        data = aggregateReport(self.today - 1, rows, domain="strict.example")
        await accept(ledger, data, 1.0)
        await ledger.stop()
        for policy, verdict in (("reject", "fine"), ("none", "look at it")):
            record = f'"v=DMARC1; p={policy}; rua=mailto:d@x.example"'
            self.dns.zone.put("_dmarc.strict.example", RRType.TXT, record)
            found = await self.good("summary", "strict.example", "--json")
            self.assertEqual(found["dmarc"]["verdict"], verdict)

    async def test_span(self) -> None:
        """
        Nothing before the days that are asked for has a part in the answer.
        """
        ledger = self.ledger()
        for ago, source in ((3, "203.0.113.9"), (1, "198.51.100.9")):
            rows = [Row("192.0.2.1", 50, "span.example"), Row(source, 50, "")]
            data = aggregateReport(self.today - ago, rows, domain="span.example")
            await accept(ledger, data, 1.0)
        await ledger.stop()
        words = ("summary", "span.example", "--json", "--no-dns", "--days")
        for days, first, others in (("2", 1, ""), ("4", 3, " and 1 other")):
            found = (await self.good(*words, days))["dmarc"]
            self.assertEqual(found["since"], str(dayOfNumber(self.today - first)))
            self.assertTrue(found["sentence"].endswith(f"0.0/24{others}"), found)

    async def test_readiness(self) -> None:
        """
        Each step has its answer, what is published now, the evidence and what would
        break.
        """
        found = await self.good("readiness", "example.org", "--json")
        enforce, quarantine, reject = found["steps"]
        self.assertEqual(enforce["ready"], "not yet")
        self.assertIn("no-mta-sts-dns-txt-record", enforce["now"])
        [blocker] = enforce["blockers"]
        self.assertEqual(blocker["name"], "mail.example.org")
        self.assertEqual(blocker["per_day"], 2.9)
        self.assertEqual(
            (quarantine["ready"], quarantine["now"]), ("not yet", "p=none")
        )
        [blocker] = quarantine["blockers"]
        self.assertEqual((blocker["name"], blocker["per_day"]), ("SendGrid", 4.0))
        self.assertEqual(reject["ready"], "not yet")
        out = await self.good("readiness", "example.org")
        self.assertIn("  - SendGrid: 100.0 % of its mail fails, about 4.0 a day", out)

    async def test_silent(self) -> None:
        """
        Name servers that don't answer delay a command by a few seconds only, and what
        they would have said is unknown.
        """
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        text = self.file.read_text()
        self.file.write_text(text.replace(str(self.dns.address), address))
        self.patch(questions, "LOOKUP_TIME", 0.2)
        found = await self.good("readiness", "example.org", "--json")
        self.assertIn("lookups took too long", found["steps"][1]["now"])

    async def test_documented(self) -> None:
        """
        docs/received.rst has exactly the fields of the JSON.
        """
        if not DOCUMENT.exists():
            raise SkipTest(f"no {DOCUMENT}")
        found = await self.good("summary", "example.org", "--json")
        tls, dmarc = found["tls"], found["dmarc"]
        steps = await self.good("readiness", "example.org", "--json")
        [listed] = await self.good("report", "list", "--json", "--limit", "1")
        values: dict[str, Any] = {
            "list": listed,
            "overview": (await self.good("summary", "--json"))[0],
            "summary": found,
            "answer": tls | dmarc,
            "reason": tls["reasons"][0],
            "source": dmarc["sources"][0],
            "step": steps["steps"][0],
        }
        self.assertEqual(
            documented(), {name: set(value) for name, value in values.items()}
        )
        text = DOCUMENT.read_text()
        for value in (
            tls["days"][0],
            dmarc["days"][0],
            tls["reporters"][0],
            tls["reasons"][0]["explanation"],
            steps["steps"][0]["blockers"][0],
            steps,
        ):
            for field in value:
                self.assertIn(f"``{field}``", text)

    async def test_arguments(self) -> None:
        """
        Wrong numbers of days are refused.
        """
        for days in ("0", "-1", "x", "99999"):
            ran = await self.run_("summary", f"--days={days}")
            self.assertEqual(ran.status, 2)
