"""
Reports of other hosts by mail, from the socket of a server to the ledger.
"""

from __future__ import annotations

import os
import signal
import time
from base64 import b64encode
from email import message_from_bytes
from functools import partial
from pathlib import Path
from smtplib import SMTP, SMTPServerDisconnected

import dkim
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from moxtls.app import build
from moxtls.app.configfiles import ConfigFiles
from moxtls.app.service import Server
from moxtls.authentication.dkim.sign import sign
from moxtls.dns.types import RRType
from moxtls.received.intake.intake import LOST
from moxtls.received.types import (
    AcceptedReport,
    Channel,
    Origin,
    ReceivedKind,
    ReportFilter,
    StoredReport,
    dayOf,
)
from tests import MAX_WAIT
from tests.postgres import StoppableServer
from tests.received.intake.test_authenticity import tlsReport
from tests.reporting.support import ED25519_PEM
from tests.scenarios.support_mailed import (
    SPAN,
    dmarcMessage,
    signer,
    tlsMessage,
)
from tests.servers import (
    RECEPTION,
    SUBMISSION,
    ServerCase,
    children,
    closedPort,
    reactor,
    startPython,
)

CONFIG = f"""
[HostTLSRPT]
[Domains."example.org"]
LocalpartCatchallSeparator = "-"
TLSRPT = {{Localpart = "tls-reports"}}
DMARC = {{Account = "anna", Mailbox = "Reports/DMARC"}}
[Domains."second.example"]
[Domains."collected.example"]
ReportsOnly = true
TLSRPT = {{Domain = "second.example"}}
DMARC = {{Domain = "example.org", Account = "anna", Mailbox = "Reports/DMARC"}}
[Accounts.anna.Destinations]
"anna@example.org" = {{}}
"@example.org" = {{Mailbox = "Rest"}}
{RECEPTION}"""

ANNA = "anna@example.org"
#: The mailbox for DMARC reports, and its account.
BOX = ("Reports/DMARC", "anna")
TLS = "tls-reports@example.org"
DMARC = "dmarcreports@example.org"
SENDER = "bounce@reporter.example"
EVERYTHING = ReportFilter(refused=None)
DAY = dayOf(SPAN.start)


class ReceivedMailCase(ServerCase):
    """
    A server to which reports are mailed.
    """

    def setUp(self) -> None:
        super().setUp()
        self.publish(signer().recordName, signer().record)
        self.publish("_dmarc.reporter.example", "v=DMARC1; p=none")

    def publish(self, name: str, text: str) -> None:
        """
        Publish a TXT record.
        """
        self.dns.zone.put(name, RRType.TXT, f'"{text}"')

    async def send(
        self, server: Server, message: bytes, *to: str, sender: str = SENDER
    ) -> int:
        """
        The code of the reply to a message.
        """

        def talk(client: SMTP) -> int:
            client.ehlo()
            client.mail(sender)
            for each in to:
                code = client.rcpt(each)[0]
                if code != 250:
                    return code
            return client.data(message)[0]

        return await self.talk(server.ports["reception"], talk)

    async def stored(self, server: Server) -> tuple[StoredReport, ...]:
        """
        All reports in the ledger, the earliest received first.
        """
        found = await server.ledger.received.reports(EVERYTHING, 100)
        return found[::-1]

    async def sessions(self, server: Server, domain: str) -> int:
        """
        The sessions that were counted for a domain.
        """
        days = await server.ledger.received.tlsDays(domain, DAY - 1, DAY + 1)
        return sum(each.succeeded + each.failed for each in days)

    async def messages(self, server: Server, domain: str) -> int:
        """
        The messages that were counted for a domain.
        """
        days = await server.ledger.received.dmarcDays(domain, DAY - 1, DAY + 1)
        return sum(each.messages for each in days)

    def verdicts(self, mailbox: str, account: str = "") -> list[tuple[str, bool]]:
        """
        What the messages in a mailbox say about their reports, and whether they are
        marked as seen.
        """
        name = "." + mailbox.replace("/", ".")
        data = self.folder / "data"
        folder = (data / "accounts" / account if account else data / "mail") / name
        return [
            (verdict(file), "S" in file.name.rpartition(",")[2])
            for part in ("new", "cur")
            for file in sorted((folder / part).glob("*"))
        ]


def verdict(file: Path) -> str:
    """
    The field about reports in a stored message, on one line.
    """
    message = message_from_bytes(file.read_bytes())
    return " ".join(str(message["X-Moxtls-Report"]).split())


class AcceptedTests(ReceivedMailCase):
    """
    Reports that are accepted.
    """

    async def test_tls(self) -> None:
        """
        A TLS report is in the ledger when it is acknowledged, counted once however
        often it is sent, and filed as seen. Addresses have separators, and those of
        this host haven't.
        """
        server = self.started(CONFIG)
        message = tlsMessage("example.org", "other.example", "Second.example")
        for to in (TLS, "TLS-Reports-x@example.org", "tlsreports@mail.example.org"):
            self.assertEqual(await self.send(server, message, to), 250)
        [report] = await self.stored(server)
        self.assertEqual(report.organization, "reporter.example")
        self.assertEqual(set(report.domains), {"example.org", "second.example"})
        self.assertEqual(report.origin.authentication, "DKIM reporter.example")
        self.assertEqual(report.origin.sender, "reporter.example")
        for domain, count in (
            ("example.org", 7),
            ("second.example", 7),
            ("other.example", 0),
        ):
            self.assertEqual(await self.sessions(server, domain), count)
        known = ("accepted, 1 TLS report, 1 known before", True)
        first = ("accepted, 1 TLS report", True)
        self.assertEqual(sorted(self.verdicts("TLSRPT")), [first, known, known])

    async def test_dmarc(self) -> None:
        """
        A DMARC report that passes DMARC is accepted; so is one about a domain that is
        hosted elsewhere, which is no local domain. The kind of a report is that of its
        content.
        """
        server = self.started(CONFIG)
        about = [("example.org", DMARC), ("collected.example", DMARC)]
        about.append(("second.example", TLS))
        for number, (domain, to) in enumerate(about):
            message = dmarcMessage(domain, f"id{number}")
            self.assertEqual(await self.send(server, message, to), 250)
        for domain, _ in about:
            self.assertEqual(await self.messages(server, domain), 12, domain)
        verdicts = self.verdicts(*BOX)
        self.assertEqual(verdicts, [("accepted, 1 DMARC report", True)] * 2)
        self.assertEqual(self.verdicts("TLSRPT"), verdicts[:1])
        for to in ("anna@collected.example", "dmarcreports@collected.example"):
            self.assertEqual(await self.send(server, message, to), 550)

    async def test_reportsOnly(self) -> None:
        """
        A TLS report to the address for another domain is accepted.
        """
        server = self.started(CONFIG)
        message = tlsMessage("collected.example")
        to = "tlsreports@second.example"
        self.assertEqual(await self.send(server, message, to), 250)
        self.assertEqual(await self.sessions(server, "collected.example"), 7)

    async def test_variant(self) -> None:
        """
        A different report with the same ID and period is stored, and marked; the same
        report in another message is known.
        """
        server = self.started(CONFIG)
        for message in (
            tlsMessage("example.org"),
            tlsMessage("example.org", succeeded=8),
            tlsMessage("example.org", token="other"),
        ):
            self.assertEqual(await self.send(server, message, TLS), 250)
        found = await self.stored(server)
        self.assertEqual([each.refused for each in found], ["", ""])
        self.assertEqual([each.isVariant for each in found], [False, True])

    async def test_two(self) -> None:
        """
        A message with two reports, in parts or forwarded, gives both.
        """
        server = self.started(CONFIG)
        inner = tlsMessage("second.example", reportID="inner", signers=())
        head, _, rest = tlsMessage("example.org", signers=()).partition(b"--=")
        boundary = b"--=" + rest.partition(b"\r\n")[0] + b"\r\n"
        attached = b"Content-Type: message/rfc822\r\n\r\n" + inner + b"\r\n"
        message = sign(head + boundary + attached + b"--=" + rest, [signer()])
        self.assertEqual(await self.send(server, message, TLS), 250)
        found = {each.reportID for each in await self.stored(server)}
        self.assertEqual(found, {"tls1", "inner"})
        self.assertEqual(self.verdicts("TLSRPT"), [("accepted, 2 TLS reports", True)])

    async def test_services(self) -> None:
        """
        A key with s=tlsrpt, s=email or s=* is good for TLS reports, another isn't (RFC
        8460 3); with s=tlsrpt the message doesn't pass DMARC (RFC 6376 3.6.1).
        """
        server = self.started(CONFIG)
        services = ("tlsrpt", "email", "*", "tlsrpt:other", "other")
        for number, service in enumerate(services):
            each = signer(selector=f"s{number}", service=service)
            self.publish(each.recordName, each.record)
            message = tlsMessage("example.org", reportID=service, signers=(each,))
            self.assertEqual(await self.send(server, message, TLS), 250)
            message = dmarcMessage("example.org", service, signers=(each,))
            self.assertEqual(await self.send(server, message, DMARC), 250)
        found = await self.stored(server)
        accepted = {(each.kind, each.reportID) for each in found if not each.refused}
        tls = {(ReceivedKind.TLS, each) for each in services[:-1]}
        dmarc = {(ReceivedKind.DMARC, each) for each in ("email", "*")}
        self.assertEqual(accepted, tls | dmarc)
        refused = [each for each in found if each.refused]
        self.assertEqual(len(refused), 4)
        self.assertIn("s4: the key is not for mail", str(refused))


class LoopTests(ReceivedMailCase):
    """
    Two servers that report to each other.
    """

    def node(self, name: str, port: int, otherPort: int) -> Server:
        """
        A server for a domain, which delivers to the other one.
        """
        folder = self.folder / name
        folder.mkdir()
        (folder / "key.pem").write_bytes(ED25519_PEM)
        file = folder / "moxtls.toml"
        file.write_text(f"""
Hostname = "mx.{name}.example"
[HostTLSRPT]
[Domains."{name}.example"]
TLSRPT = {{}}
DMARC = {{}}
[Domains."{name}.example".DKIM.Selectors.s]
KeyFile = "key.pem"
Algorithm = "ed25519-sha256"
[Accounts.anna.Destinations]
"anna@{name}.example" = {{}}
[Delivery]
Port = {otherPort}
AllowOwnHosts = true
[Resolver]
Servers = ["{self.dns.address}"]
{SUBMISSION}
{RECEPTION.replace("Port = 0", f"Port = {port}")}""")
        domain, zone = f"{name}.example", self.dns.zone
        zone.put(domain, RRType.MX, f"10 mx.{domain}.")
        zone.put(f"mx.{domain}", RRType.A, "127.0.0.1")
        key = signer(domain)
        self.publish(key.recordName, key.record)
        self.publish(domain, "v=spf1 ip4:127.0.0.1 -all")
        for each in (domain, f"mx.{domain}"):
            record = f"v=TLSRPTv1; rua=mailto:tlsreports@{each}"
            self.publish(f"_smtp._tls.{each}", record)
        record = f"v=DMARC1; p=reject; rua=mailto:dmarcreports@{domain}"
        self.publish(f"_dmarc.{domain}", record)
        server = Server(reactor, ConfigFiles.read(file))
        self.addCleanup(server.stopService)
        server.privilegedStartService()
        server.startService()
        return server

    async def test_both(self) -> None:
        """
        A's TLS report on mail that it sent to B is accepted by B, and B's DMARC report
        on that mail by A; each is counted once. The reports themselves cause none.
        """
        ports = closedPort(), closedPort()
        a, b = self.node("a", *ports), self.node("b", *ports[::-1])

        def submit(client: SMTP) -> None:
            text = b"From: anna@a.example\r\nTo: anna@b.example\r\n\r\nhello\r\n"
            client.sendmail("anna@a.example", ["anna@b.example"], text)

        await self.talk(a.ports["submission"], submit)
        await self.until(lambda: b.ledger.evaluations.evaluations().addCallback(bool))
        await self.until(lambda: a.ledger.outcomes.results().addCallback(bool))
        self.assertEqual(await a.reports.runNow(early=True), 2)
        self.assertEqual(await b.dmarcReports.runNow(early=True), 1)
        await self.until(partial(self.hasStored, a, 1))
        await self.until(partial(self.hasStored, b, 2))
        today = dayOf(time.time())
        [group] = await b.ledger.received.tlsFailures("b.example", today - 1, today, 9)
        self.assertEqual(
            (group.resultType, group.sessions, group.reporters),
            ("starttls-not-supported", 1, ("a.example",)),
        )
        sources = a.ledger.received.dmarcSources("a.example", today - 1, today, 9)
        [source] = await sources
        self.assertEqual((source.source, source.messages), ("127.0.0.1", 1))
        self.assertTrue(source.outcome.passed)
        origins = {each.origin.authentication for each in await self.stored(b)}
        self.assertEqual(origins, {"DKIM a.example"})
        self.assertEqual(await a.reports.runNow(early=True), 0)
        self.assertEqual(await b.dmarcReports.runNow(early=True), 0)
        self.assertEqual(await a.dmarcReports.runNow(early=True), 0)

    def hasStored(self, server: Server, count: int) -> Deferred[bool]:
        """
        Whether a server has that many reports.
        """
        stored = Deferred.fromCoroutine(self.stored(server))
        return stored.addCallback(lambda found: len(found) == count)


class OwnReportTests(ReceivedMailCase):
    """
    Reports of this host about its own domains, which don't leave it.
    """

    async def test_dmarc(self) -> None:
        """
        A DMARC report of this host about mail in the name of one of its domains is
        taken in; a message of a user that looks like one isn't.
        """
        (self.folder / "key.pem").write_bytes(ED25519_PEM)
        key = 'KeyFile = "key.pem"\nAlgorithm = "ed25519-sha256"\n'
        selector = f'[Domains."example.org".DKIM.Selectors.s]\n{key}'
        self.publish("_dmarc.example.org", f"v=DMARC1; p=none; rua=mailto:{DMARC}")
        self.dns.zone.put("example.org", RRType.A, "127.0.0.1")
        server = self.started(f"{CONFIG}{SUBMISSION}{selector}")
        forged = b"From: boss@example.org\r\nTo: anna@example.org\r\n\r\nhello\r\n"
        self.assertEqual(await self.send(server, forged, ANNA), 250)
        await server.recorded()
        await self.until(lambda: self.isEvaluated(server))
        self.assertEqual(await server.dmarcReports.runNow(early=True), 1)
        await self.until(lambda: self.isStored(server))
        [report] = await self.stored(server)
        self.assertEqual((report.organization, report.total), ("example.org", 1))
        self.assertEqual(report.origin.authentication, "this host")
        await self.until(lambda: succeed(bool(self.verdicts(*BOX))))
        self.assertEqual(self.verdicts(*BOX), [("accepted, 1 DMARC report", True)])

        def submit(client: SMTP) -> None:
            client.sendmail(ANNA, [DMARC], dmarcMessage("example.org"))

        await self.talk(server.ports["submission"], submit)
        await self.until(lambda: succeed(len(self.verdicts(*BOX)) == 2))
        self.assertIn(("None", False), self.verdicts(*BOX))
        self.assertEqual(len(await self.stored(server)), 1)

    def isEvaluated(self, server: Server) -> Deferred[bool]:
        return server.ledger.evaluations.evaluations().addCallback(bool)

    def isStored(self, server: Server) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.stored(server)).addCallback(bool)


class RefusedTests(ReceivedMailCase):
    """
    Reports that are kept out.
    """

    async def refusal(self, message: bytes, to: str = TLS) -> str:
        """
        Send a message that is delivered but not counted.

        @return: The reason that is stored.
        """
        server = self.started(CONFIG)
        self.assertEqual(await self.send(server, message, to), 250)
        [report] = await self.stored(server)
        self.assertEqual(await self.sessions(server, "example.org"), 0)
        self.assertEqual(await self.messages(server, "example.org"), 0)
        mailbox = ("TLSRPT",) if to == TLS else BOX
        [(text, isSeen)] = self.verdicts(*mailbox)
        self.assertEqual((text, isSeen), (f"refused, {report.refused}", False))
        return report.refused

    async def test_unsigned(self) -> None:
        """
        A forged TLS report has no signature of its author domain.
        """
        reason = await self.refusal(tlsMessage("example.org", signers=()))
        self.assertEqual(reason, "there is no DKIM signature of reporter.example")

    async def test_otherSigner(self) -> None:
        """
        The signature of another domain isn't enough, though it is valid.
        """
        forger = signer("forger.example")
        self.publish(forger.recordName, forger.record)
        reason = await self.refusal(tlsMessage("example.org", signers=(forger,)))
        self.assertIn("it is signed by forger.example", reason)

    async def test_changed(self) -> None:
        """
        A report that was changed on the way is refused.
        """
        message = tlsMessage("example.org").replace(b"This is a", b"This is no")
        reason = await self.refusal(message)
        self.assertIn("the body was changed", reason)

    async def test_length(self) -> None:
        """
        Signatures with l= aren't accepted (RFC 8460 3).
        """
        message = lengthSigned(tlsMessage("example.org", signers=()))
        reason = await self.refusal(message)
        self.assertEqual(
            reason,
            "no DKIM signature of reporter.example is acceptable: s: it has l=",
        )

    async def test_otherDomain(self) -> None:
        """
        A report about a domain that isn't local isn't accepted, though it is genuine.
        """
        reason = await self.refusal(tlsMessage("other.example"))
        self.assertIn("it is about other.example", reason)

    async def test_dmarc(self) -> None:
        """
        A DMARC report whose message fails DMARC is refused, though a signature is
        valid.
        """
        forger = signer("forger.example")
        self.publish(forger.recordName, forger.record)
        message = dmarcMessage("example.org", signers=(forger,))
        reason = await self.refusal(message, DMARC)
        self.assertEqual(reason, "DMARC fails for reporter.example")

    async def test_noReport(self) -> None:
        """
        Other mail to such an address is delivered, and recorded.
        """
        message = b"From: a@reporter.example\r\nSubject: hello\r\n\r\nhello\r\n"
        self.assertIn("report", await self.refusal(message))

    async def test_large(self) -> None:
        """
        A message above 25 MB is delivered, and its report refused.
        """
        line = b"x" * 76 + b"\r\n"
        message = tlsMessage("example.org") + line * (26 * 2**20 // len(line))
        reason = await self.refusal(message)
        self.assertEqual(reason, "the message is larger than 25 MB")


class FailureTests(ReceivedMailCase):
    """
    Failures of other parts, at any moment.
    """

    async def test_ledgerAway(self) -> None:
        """
        While the ledger is unavailable, a report is deferred; sent again, it is
        counted once.
        """
        postgres = StoppableServer()
        self.addCleanup(postgres.close)
        server = self.started(f'Ledger = "{postgres.url}"\n{CONFIG}')
        postgres.stop()
        message = tlsMessage("example.org")
        self.assertEqual(await self.send(server, message, TLS), 451)
        self.assertEqual(self.verdicts("TLSRPT"), [])
        postgres.start()
        for _ in range(2):
            self.assertEqual(await self.send(server, message, TLS), 250)
        self.assertEqual(await self.sessions(server, "example.org"), 7)
        await server.stopService()

    async def test_lookupFails(self) -> None:
        """
        A report whose signature can't be checked for now is deferred, and accepted
        when it is sent again.
        """
        server = self.started(CONFIG)
        name = signer(selector="later").recordName
        self.dns.zone.broken.add(name)
        message = tlsMessage("example.org", signers=(signer(selector="later"),))
        self.assertEqual(await self.send(server, message, TLS), 451)
        self.assertEqual((await self.stored(server), self.verdicts("TLSRPT")), ((), []))
        self.dns.zone.broken.clear()
        self.publish(name, signer(selector="later").record)
        # Failed lookups are cached for a while (RFC 9520 3.2); a new server has none.
        await server.stopService()
        server = self.started(CONFIG)
        self.assertEqual(await self.send(server, message, TLS), 250)
        self.assertEqual(await self.sessions(server, "example.org"), 7)

    async def test_workerKilled(self) -> None:
        """
        A message whose reading doesn't end is delivered and refused, and not read
        again; the next one is read by a new process.
        """
        self.patch(build, "READ_TIMEOUT", 5)
        server = self.started(CONFIG)
        self.assertEqual(await self.send(server, tlsMessage("example.org"), ANNA), 250)
        others = children()
        self.assertEqual(await self.send(server, tlsMessage("example.org"), TLS), 250)
        [reader] = set(children()) - set(others)
        os.kill(reader, signal.SIGSTOP)
        message = tlsMessage("example.org", reportID="tls2")
        self.assertEqual(await self.send(server, message, TLS), 250)
        self.assertIn((f"refused, {LOST}", False), self.verdicts("TLSRPT"))
        message = tlsMessage("example.org", reportID="tls3")
        self.assertEqual(await self.send(server, message, TLS), 250)
        found = {each.reportID: each.refused for each in await self.stored(server)}
        self.assertEqual(found, {"tls1": "", "": LOST, "tls3": ""})

    async def test_killed(self) -> None:
        """
        A server killed after its ledger has a report, and before its reply, has it once
        after the client has sent it again.
        """
        port = closedPort()
        config = CONFIG.replace("Port = 0", f"Port = {port}")
        self.server(config)
        file = self.folder / "moxtls.toml"
        words = ("--nodaemon", "--pidfile=", "moxtls", "--config", file)
        process = startPython(self, self.folder, "-c", DYING, *words)
        message = tlsMessage("example.org")

        def send() -> None:
            with connect(port) as client:
                client.sendmail(SENDER, [TLS], message)

        try:
            await deferToThread(send)
        except SMTPServerDisconnected:
            pass
        else:
            self.fail("it was acknowledged")
        self.assertEqual(await deferToThread(process.wait), -signal.SIGKILL)
        server = self.started(CONFIG)
        self.assertEqual(await self.sessions(server, "example.org"), 7)
        self.assertEqual(await self.send(server, message, TLS), 250)
        self.assertEqual(await self.sessions(server, "example.org"), 7)
        expected = [("accepted, 1 TLS report, 1 known before", True)]
        self.assertEqual(self.verdicts("TLSRPT"), expected)

    async def test_expired(self) -> None:
        """
        A server removes what has been kept for as long as configured.
        """
        server = self.started(CONFIG)
        report = tlsReport("example.org", end=SPAN.end - 3 * 86400)
        origin = Origin(Channel.IMPORT, "a.json", "", SPAN.end)
        await server.ledger.received.add(AcceptedReport(report, origin))
        self.assertEqual(len(await self.stored(server)), 1)
        await server.stopService()
        server = self.started(f"{CONFIG}[ReceivedReports]\nKeepTLSDays = 1\n")
        await self.until(lambda: self.isEmpty(server))

    def isEmpty(self, server: Server) -> Deferred[bool]:
        stored = Deferred.fromCoroutine(self.stored(server))
        return stored.addCallback(lambda found: not found)

    async def test_notReported(self) -> None:
        """
        No mail to these addresses is a reason for a DMARC report of ours, whether it
        is accepted or not (RFC 9990 8).
        """
        self.publish(
            "_dmarc.reporter.example", "v=DMARC1; p=none; rua=mailto:r@reporter.example"
        )
        server = self.started(CONFIG)
        for message in (
            tlsMessage("example.org"),
            tlsMessage("example.org", signers=()),
            b"From: a@reporter.example\r\n\r\nhello\r\n",
        ):
            for to in (TLS, DMARC, "tlsreports@mail.example.org"):
                self.assertEqual(await self.send(server, message, to), 250)
        self.assertEqual(await self.send(server, message, ANNA), 250)
        await server.recorded()
        stored = await server.ledger.evaluations.evaluations()
        causes = sum(each.count for each in stored if not each.evaluation.optional)
        self.assertEqual(causes, 1)


#: Runs a server that dies when it has to deliver a message.
DYING = """
import os, signal
from moxtls.reception.delivery import MailboxDelivery

async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

MailboxDelivery.deliver = die
from twisted.scripts.twistd import run; run()
"""


def connect(port: int) -> SMTP:
    """
    Connect to a server that is being started: it takes its ports, lets go of them, and
    takes them again.
    """
    deadline = time.monotonic() + MAX_WAIT
    while True:
        try:
            return SMTP("127.0.0.1", port, "client.example", timeout=MAX_WAIT)
        except (ConnectionError, SMTPServerDisconnected):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def lengthSigned(message: bytes) -> bytes:
    """
    A message with a signature of REPORTER with l=.
    """
    each = signer()
    raw = each.key.secret.private_bytes_raw()  # type: ignore[union-attr]
    field: bytes = dkim.DKIM(message, signature_algorithm=b"ed25519-sha256").sign(
        b"s",
        b"reporter.example",
        b64encode(raw),
        canonicalize=(b"relaxed", b"relaxed"),
        length=True,
    )
    return field + message
