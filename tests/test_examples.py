"""
Tests for the programs in docs/examples, each run as a file.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from smtplib import SMTP, SMTPDataError
from unittest import SkipTest

from twisted.internet.threads import deferToThread

from moxtls.dns.types import RRType
from tests import MAX_WAIT
from tests.configs import ed25519Key
from tests.network import AcceptingDelivery
from tests.received.reading.samples import aggregateReport
from tests.servers import ROOT, ServerCase, closedPort, startPython

EXAMPLES = ROOT / "docs" / "examples"
#: Their output in the guide.
GUIDE = ROOT / "docs" / "embedding.rst"
# Both kinds of policy domain (RFC 8460 3).
DOMAINS = ("example.org", "localhost")
MESSAGE = b"From: x@a.example\r\nSubject: hello\r\n\r\nhello\r\n"
# The addresses of two clients; the SPF record of a.example names the second.
FORGER, AUTHORIZED = "127.0.0.1", "127.0.0.2"


class ExampleCase(ServerCase):
    """
    Programs in processes of their own, which use the DNS server C{self.dns}.
    """

    def setUp(self) -> None:
        if not EXAMPLES.exists():
            raise SkipTest(f"no {EXAMPLES}")
        super().setUp()
        self.postbox = AcceptingDelivery()
        address = self.dns.address
        self.dnsServer = f"{address.host}:{address.port}"
        self.dns.zone.put("a.example", RRType.TXT, f'"v=spf1 ip4:{AUTHORIZED} -all"')
        self.dns.zone.put("_dmarc.a.example", RRType.TXT, '"v=DMARC1; p=reject"')

    def begin(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        """
        Start Python with C{words}.
        """
        return startPython(self, self.folder, *words, **environment)

    async def run_(self, name: str, *words: object) -> str:
        """
        @return: Standard output of an example that ends by itself.
        """
        process = self.begin(EXAMPLES / name, *words)
        out, err = await deferToThread(process.communicate, timeout=MAX_WAIT)
        self.assertEqual((process.returncode, err[-1500:]), (0, ""), err)
        return str(out)

    async def replies(self, port: int) -> list[int]:
        """
        @return: The reply codes to a message that fails DMARC, and to one that
            passes.
        """

        def send(address: str) -> int:
            with self.client(port, address) as client:
                try:
                    client.sendmail("x@a.example", ["anna@us.example"], MESSAGE)
                except SMTPDataError as error:
                    return int(error.smtp_code)
                return 250

        return [await deferToThread(send, each) for each in (FORGER, AUTHORIZED)]

    def assertAuthenticated(self, file: Path) -> None:
        """
        It is the message that passes DMARC, with Authentication-Results.
        """
        header, _, body = file.read_bytes().partition(b"\n\n")
        self.assertRegex(header, rb"(?m)^Authentication-Results: mx;")
        self.assertIn(b"dmarc=pass", header)
        self.assertEqual(body, b"hello\n")

    def client(self, port: int, address: str) -> SMTP:
        """
        A client at an address, as soon as the server listens.
        """
        deadline = time.monotonic() + MAX_WAIT
        while True:
            try:
                return SMTP("127.0.0.1", port, "client.example", MAX_WAIT, (address, 0))
            except ConnectionError:
                self.assertLess(time.monotonic(), deadline, "no server")
                time.sleep(0.05)


class ExampleTests(ExampleCase):
    """
    Tests for the programs in C{docs/examples}.
    """

    def test_short(self) -> None:
        """
        Each has at most 30 lines, and the guide shows it.
        """
        guide = GUIDE.read_text()
        for each in EXAMPLES.glob("*.py"):
            self.assertLessEqual(len(each.read_text().splitlines()), 30, each)
            self.assertIn(f"literalinclude:: examples/{each.name}", guide)

    async def test_sendmail(self) -> None:
        """
        RFC 8460 4.3: sessions are counted for the recipient domain and the host.
        """
        port = self.mailHost(self.postbox, starttls=False)
        out = await self.run_("client_sendmail.py", "localhost", port)
        lines = [f"{each} 0 0 starttls-not-supported=1" for each in DOMAINS]
        self.assertEqual(out.splitlines(), lines)
        self.assertEqual(len(self.postbox.received), 1)

    async def test_sendmailFails(self) -> None:
        """
        The sessions of a message that can't be sent are counted, too.
        """
        out = await self.run_(
            "client_sendmail.py", "localhost", self.mailHost(self.postbox)
        )
        self.assertEqual(out.splitlines()[0], "not sent")
        self.assertRegex(out, r"(?m)^example\.org 0 (.) certificate-host-mismatch=\1$")
        self.assertEqual(self.postbox.received, [])

    async def test_factory(self) -> None:
        """
        RFC 8460 4.3.1: a certificate that the application refuses is a failure.
        """
        out = await self.run_(
            "client_factory.py", "localhost", self.mailHost(self.postbox)
        )
        self.assertEqual(out, "certificate-host-mismatch\nnot sent\n")

    async def test_verdict(self) -> None:
        """
        Authentication-Results (RFC 8601) of a message in a file.
        """
        (self.folder / "message").write_bytes(MESSAGE)
        for ip, result in ((AUTHORIZED, "pass"), (FORGER, "fail")):
            words = ("message", ip, "x@a.example", self.dnsServer)
            out = await self.run_("verdict.py", *words)
            self.assertIn(f"dmarc={result}", out)

    async def test_receivedReports(self) -> None:
        """
        A report of another host is stored once; one about another domain is refused,
        with the reason.
        """
        (self.folder / "a.xml").write_bytes(aggregateReport(2))
        (self.folder / "b.xml").write_bytes(b"x")
        words = ("example.org", "a.xml", "a.xml", "b.xml")
        out = await self.run_("received_reports.py", *words)
        told, stored, again, refused = out.splitlines()
        self.assertRegex(told, r"^receiver\.example \d+ of \d+ failed$")
        self.assertEqual([stored, again], ["a.xml stored", "a.xml duplicate"])
        self.assertIn("there is no report in it", refused)
        out = await self.run_("received_reports.py", "other.example", "a.xml")
        self.assertIn("it is about example.org, none of the domains", out)

    async def test_asyncio(self) -> None:
        """
        The verdict example on asyncio's event loop.
        """
        (self.folder / "message").write_bytes(MESSAGE)
        words = ("message", FORGER, self.dnsServer)
        out = await self.run_("asyncio_reactor.py", *words)
        self.assertEqual(out, "fail reject\n")

    async def test_server(self) -> None:
        """
        RFC 9989 7.2: forged mail is refused with 550; other mail is delivered.
        """
        port = closedPort()
        self.begin(EXAMPLES / "server.py", port, self.dnsServer)
        self.assertEqual(await self.replies(port), [550, 250])
        self.assertAuthenticated(self.folder / "anna@us.example")

    async def test_maildirService(self) -> None:
        """
        The server example with a C{twisted.mail} Maildir service: mail is in the
        Maildir.
        """
        port = closedPort()
        self.begin(EXAMPLES / "maildir_service.py", port, self.dnsServer)
        self.assertEqual(await self.replies(port), [550, 250])
        maildir = self.folder / "maildirs" / "anna"
        [file] = (maildir / "new").iterdir()
        self.assertAuthenticated(file)
        self.assertEqual(list((maildir / "tmp").iterdir()), [])

    async def test_tlsReports(self) -> None:
        """
        An outcome is in the ledger as soon as the program runs.
        """
        (self.folder / "dkim.pem").write_bytes(ed25519Key())
        self.begin("-c", TWISTD, "--pidfile=", "-ny", EXAMPLES / "tls_reports.py")
        await self.until(lambda: deferToThread(self.recorded))

    def recorded(self) -> bool:
        listed = subprocess.run(
            [sys.executable, "-c", COUNT, str(self.folder / "ledger.sqlite")],
            capture_output=True,
            text=True,
        )
        return re.fullmatch(r"1\n", listed.stdout) is not None


TWISTD = "from twisted.scripts.twistd import run; run()"
COUNT = """\
import sqlite3, sys
with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as ledger:
    print(ledger.execute("SELECT count(*) FROM tls_result").fetchone()[0])
"""
