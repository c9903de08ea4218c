"""
Tests for L{moxtls.cli.reports.importing}: from the command line to the ledger.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from moxtls.cli.main import parser
from moxtls.cli.output import Output
from moxtls.cli.reports.importing import progressLine
from moxtls.cli.shell import perform
from moxtls.received.types import Channel, ReportFilter, StoredReport
from tests import MAX_WAIT
from tests.certificates import good, root
from tests.cli.commands import CONFIG, Ran, Terminal
from tests.cli.network import NetworkCommandCase, reactor
from tests.queue.killing import quickDirectory
from tests.received.intake import imapserver
from tests.received.intake.imapserver import PASSWORD, USER, IMAPServer
from tests.received.intake.test_inputs import FROM, MAIL, tarOf, zipOf
from tests.received.reading.samples import aggregateReport, tlsReport
from tests.received.reading.test_read import mailed
from tests.servers import startPython

DOMAIN = '[Domains."example.org"]\n'


class ImportCase(NetworkCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(DOMAIN)
        self.inputs = self.folder / "in"
        self.inputs.mkdir()

    def write(self, name: str, content: bytes) -> Path:
        path = self.inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def imported(self, *words: str, stdin: bytes = b"", tty: bool = False) -> Ran:
        """
        Run the command.

        @param tty: Whether standard error is a terminal.
        """
        out, err = io.StringIO(), Terminal() if tty else io.StringIO()
        whole = ["--config", str(self.file), "report", "import", *words]
        arguments = parser(whole).parse_args(whole)
        output = Output(out, err, arguments.json)
        status = await perform(reactor, arguments, io.BytesIO(stdin), output)
        return Ran(status, out.getvalue(), err.getvalue())

    async def good(self, *words: str, stdin: bytes = b"") -> dict[str, object]:
        """
        The results of an import in which nothing is refused.
        """
        ran = await self.imported("--json", *words, stdin=stdin)
        self.assertEqual((ran.status, ran.err), (0, ""))
        return {name: value for name, value in ran.value.items() if value}

    async def stored(self) -> tuple[StoredReport, ...]:
        ledger = self.ledger()
        try:
            return await ledger.received.reports(ReportFilter(), 100)
        finally:
            await ledger.stop()


class ImportTests(ImportCase):
    """
    Tests for C{moxtls report import}.
    """

    async def test_summary(self) -> None:
        """
        The summary has what became of everything; each refusal is one line, with the
        path and the reason.
        """
        self.write("a.json", tlsReport("a"))
        self.write("b.json.gz", gzip.compress(tlsReport("a")))
        self.write("sub/c.xml", aggregateReport())
        self.write("d.json", tlsReport("d", "other.example"))
        self.write("e.zip", zipOf({"x\x1b[2J.json": b"{}", "y.json": tlsReport("e")}))
        os.mkfifo(self.inputs / "pipe")
        ran = await self.imported(str(self.inputs))
        self.assertEqual(ran.status, 1)
        first, last = ran.out.splitlines()
        self.assertRegex(
            first,
            r"\A4 stored, 0 variants, 1 duplicate, 2 refused, in [0-9.]+ s\.\Z",
        )
        self.assertEqual(
            last,
            "1 report about domains that aren't in the configuration: other.example",
        )
        lines = sorted(ran.err.splitlines())
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[0], rf"\Amoxtls: {self.inputs}/e.zip/x\\x1b\[2J.json: ")
        self.assertEqual(lines[1], f"moxtls: {self.inputs}/pipe: not a regular file")
        origins = {each.reportID: each.origin for each in await self.stored()}
        self.assertEqual(
            (origins["d"].channel, origins["d"].sender, origins["d"].authentication),
            (Channel.IMPORT, f"{self.inputs}/d.json", ""),
        )

    async def test_repeated(self) -> None:
        """
        What was imported before is counted as duplicate, and changes nothing.
        """
        self.write("a.json", tlsReport("a"))
        self.write("b.xml", aggregateReport(10))
        first = await self.good(str(self.inputs))
        del first["seconds"]
        self.assertEqual(first, {"stored": 2})
        before = await self.stored()
        again = await self.good(str(self.inputs))
        self.assertEqual(again["duplicates"], 2)
        self.assertEqual(await self.stored(), before)

    async def test_variant(self) -> None:
        """
        A different report with the same ID is stored, too.
        """
        report = tlsReport("a")
        self.write("a.json", report)
        await self.good(str(self.inputs))
        self.write("a.json", report.replace(b'session-count": 5', b'session-count": 6'))
        self.assertEqual((await self.good(str(self.inputs)))["variants"], 1)
        self.assertEqual(
            [each.isVariant for each in await self.stored()], [True, False]
        )

    async def test_collections(self) -> None:
        """
        Mailboxes, Maildirs, archives and single files can be given together.  Mail that
        has no report is counted, and doesn't matter otherwise.
        """
        box = self.write("box", FROM + mailed(tlsReport("box")) + b"\n\n" + FROM + MAIL)
        self.write("Maildir/cur/1:2,S", mailed(gzip.compress(tlsReport("maildir"))))
        self.write("Maildir/new/2", MAIL)
        archive = self.write("all.tgz", tarOf({"x": tlsReport("tar")}, "w:gz"))
        single = self.write("one.json", tlsReport("one"))
        paths = (box, self.inputs / "Maildir", archive, single)
        found = await self.good(*map(str, paths))
        self.assertEqual((found["stored"], found["other_mail"]), (4, 2))
        ids = {each.reportID for each in await self.stored()}
        self.assertEqual(ids, {"box", "maildir", "tar", "one"})

    async def test_stdin(self) -> None:
        """
        Standard input can be any of them.
        """
        content = tarOf({"a": tlsReport("a"), "b": tlsReport("b")})
        self.assertEqual((await self.good("-", stdin=content))["stored"], 2)
        senders = {each.origin.sender for each in await self.stored()}
        self.assertEqual(senders, {"standard input/a", "standard input/b"})

    async def test_nothing(self) -> None:
        """
        The status is 2 if nothing could be read; an empty folder is no error.
        """
        ran = await self.imported(str(self.folder / "nowhere"))
        self.assertEqual(ran.status, 2)
        self.assertRegex(
            ran.err, r"\Amoxtls: .*/nowhere: No such file or directory\n\Z"
        )
        self.assertNotIn("stored", await self.good(str(self.inputs)))

    async def test_large(self) -> None:
        """
        A file that is too large to be sent to the process that reads it is read there.
        """
        path = self.write("large.xml", aggregateReport(2000))
        self.assertEqual((await self.good(str(path)))["stored"], 1)
        [report] = await self.stored()
        self.assertGreater(report.total, 2000)

    async def test_progress(self) -> None:
        """
        A terminal shows the progress, which is gone in the end; lines about refused
        things aren't mixed with it.
        """
        with patch("moxtls.cli.reports.importing.INTERVAL", 0):
            for number in range(30):
                self.write(f"{number}.json", tlsReport(str(number)))
            self.write("bad.json", b"{}")
            ran = await self.imported(str(self.inputs), tty=True)
        self.assertIn("reports, ", ran.err)
        self.assertIn("%", ran.err)
        shown = [each.rpartition("\r\x1b[K")[2] for each in ran.err.split("\n")]
        self.assertEqual(len(shown), 2)
        self.assertRegex(shown[0], r"\Amoxtls: .*/bad.json: ")
        self.assertEqual(shown[1], "")

    async def test_unavailable(self) -> None:
        """
        If the ledger becomes unavailable, the import ends with the reason.
        """
        self.write("a.json", tlsReport("a"))
        await self.good(str(self.inputs))
        self.write("b.json", tlsReport("b"))
        path = self.folder / "data" / "ledger.sqlite"
        with closing(sqlite3.connect(path)) as database:
            database.execute(
                "CREATE TRIGGER fail BEFORE INSERT ON received_report "
                "BEGIN SELECT RAISE(ABORT, 'x'); END"
            )
            database.commit()
        ran = await self.imported(str(self.inputs))
        self.assertEqual((ran.status, ran.out), (1, ""))
        self.assertRegex(ran.err, r"\Amoxtls: [^\n]+\n\Z")


class IMAPTests(ImportCase):
    """
    Tests for mailboxes on an IMAP server.
    """

    def setUp(self) -> None:
        super().setUp()
        certificate = root().certificate.public_bytes(Encoding.PEM)
        (self.folder / "ca.pem").write_bytes(certificate)
        self.file.write_text(f'CAFile = "ca.pem"\n{self.file.read_text()}')
        messages = {uid: mailed(tlsReport(f"t-{uid}")) for uid in (1, 5, 9)}
        self.server = IMAPServer(imapserver.Mailbox(messages | {7: MAIL}))
        port = self.server.listen(reactor, good("localhost"))
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.url = f"imaps://{USER.decode()}@localhost:{port.getHost().port}"

    def password(self, text: bytes) -> str:
        file = self.folder / "password"
        file.write_bytes(text)
        return str(file)

    async def test_import(self) -> None:
        """
        The reports in a mailbox are stored; the password comes from a file.
        """
        file = self.password(PASSWORD + b"\r\nmore\n")
        found = await self.good(self.url, "--password-file", file)
        self.assertEqual((found["stored"], found["other_mail"]), (3, 1))
        senders = {each.origin.sender for each in await self.stored()}
        self.assertIn(f"{self.url}/INBOX/5", senders)

    async def test_prompt(self) -> None:
        """
        Without a file the password is asked for.
        """
        with patch(
            "moxtls.cli.reports.importing.getpass", return_value=PASSWORD.decode()
        ) as ask:
            self.assertEqual((await self.good(self.url))["stored"], 3)
        ask.assert_called_once_with(f"Password of {USER.decode()} at localhost: ")
        with patch("moxtls.cli.reports.importing.getpass", side_effect=EOFError):
            ran = await self.imported(self.url)
        self.assertEqual(ran.err, f"moxtls: {self.url}/INBOX: no password was typed\n")

    async def test_refused(self) -> None:
        """
        A mailbox that can't be read is one line; the others are read.
        """
        path = self.write("a.json", tlsReport("a"))
        file = self.password(b"wrong")
        ran = await self.imported(self.url, str(path), "--password-file", file)
        self.assertEqual(ran.status, 1)
        self.assertRegex(ran.err, rf"\Amoxtls: {self.url}/INBOX: [^\n]+\n\Z")
        self.assertRegex(ran.out, r"\A1 stored, ")

    async def test_arguments(self) -> None:
        """
        Nothing is imported if the arguments are wrong.
        """
        path = str(self.write("a.json", tlsReport("a")))
        good = self.password(b"x")
        for url, file, reason in (
            ("imap://a@b.example", good, "expected imaps://USER@HOST/MAILBOX"),
            ("imaps://a:b@c.example", good, "expected no password, but .*"),
            (self.url, "/nowhere", "No such file or directory"),
            (self.url, "/dev/zero", "not a regular file"),
            (self.url, self.password(b"\n"), "expected a password in the first line"),
        ):
            ran = await self.imported(path, url, "--password-file", file)
            self.assertEqual((ran.status, ran.out), (1, ""))
            self.assertRegex(ran.err, rf"\Amoxtls: [^\n]*: {reason}\n\Z")
            self.assertFalse((self.folder / "data" / "ledger.sqlite").exists())


class ProgressTests(SynchronousTestCase):
    """
    Tests for L{progressLine}.
    """

    def test_line(self) -> None:
        """
        The line has the share, the count, the rate and the time left, and fits into a
        terminal.
        """
        self.assertEqual(progressLine(0, 0, 0), "0 reports, 0/s")
        self.assertEqual(progressLine(0, 1500, 1), "1,500 reports, 1,500/s")
        self.assertEqual(
            progressLine(0.25, 30_000, 10),
            "[#####               ]  25%  30,000 reports, 3,000/s, 30 s left",
        )
        line = progressLine(0.01, 12_345_678, 4000)
        self.assertTrue(line.endswith("12,345,678 reports, 3,086/s, 6600 min 0 s left"))
        self.assertLess(len(line), 80)


class ProcessTests(SynchronousTestCase):
    """
    The command as a process.
    """

    def setUp(self) -> None:
        self.folder = quickDirectory(self)
        self.file = self.folder / "moxtls.toml"
        self.file.write_text(CONFIG + DOMAIN)
        (self.folder / "data").mkdir(mode=0o700)
        self.database = self.folder / "data" / "ledger.sqlite"

    def count(self) -> int:
        """
        The number of stored reports.
        """
        if not self.database.exists():
            return 0
        with closing(sqlite3.connect(self.database)) as database:
            try:
                query = "SELECT count(*) FROM received_report"
                return int(database.execute(query).fetchone()[0])
            except sqlite3.OperationalError:
                return 0

    def test_interrupted(self) -> None:
        """
        After SIGINT, also while standard input is waited for, what was read is stored,
        and told; the exit status is that of a shell.
        """
        command = ("-m", "moxtls.cli.main", "-c", self.file, "report", "import", "-")
        process = startPython(self, self.folder, *command, "--json")
        assert process.stdin is not None
        count = 0
        while not self.count():
            self.assertIsNone(process.poll())
            for _ in range(100):
                count += 1
                message = FROM + mailed(tlsReport(f"t-{count}")) + b"\n\n"
                process.stdin.write(message.decode())
            process.stdin.flush()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=MAX_WAIT)
        self.assertEqual((process.returncode, err), (130, ""))
        stored = json.loads(out)["stored"]
        self.assertEqual(stored, self.count())
        self.assertGreater(stored, 0)
