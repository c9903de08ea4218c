"""
Tests for L{moxtls.cli.configuration}.
"""

from __future__ import annotations

import getpass
import io
import socket
import sqlite3
import time
from unittest.mock import patch

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from moxtls.app.configfiles import ConfigFiles
from moxtls.config import describe
from moxtls.ledger.ledger import Ledger
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.smtp.passwords import StoredPassword
from tests.certificates import selfSigned
from tests.cli.commands import CONFIG, CommandCase, columns


class CheckTests(CommandCase):
    """
    Tests for C{moxtls config check}.
    """

    def test_good(self) -> None:
        """
        A valid configuration is reported as such, with a notice that no domain can
        sign reports (RFC 8460 3).
        """
        self.assertEqual(
            self.good("config", "check").out,
            f"{self.file}: good; but no TLS reports are sent: neither "
            "mail.example.org nor a parent of it is configured\n",
        )
        self.file.write_text(CONFIG + "NoOutgoingTLSReports = true\n")
        self.assertEqual(self.good("config", "check").out, f"{self.file}: good\n")

    def test_named(self) -> None:
        """
        Another configuration file can be checked, and no files are created next to
        it.
        """
        file = self.folder / "other" / "my.toml"
        file.parent.mkdir()
        file.write_text("NoOutgoingTLSReports = true\n" + CONFIG)
        ran = self.good("config", "check", str(file), "--json")
        self.assertEqual(ran.value, {"file": str(file), "notes": []})
        self.assertEqual(list(file.parent.iterdir()), [file])

    def test_wrong(self) -> None:
        """
        An error is one line with file, table, key, value and a description of correct
        values.
        """
        for text, said in [
            (
                CONFIG + "[Listeners.a]\nPort = -1",
                "[Listeners.a] Port = -1: expected an integer from 0 up",
            ),
            (
                CONFIG + "[Listeners.a]\nPort = 25\nAddress = []",
                "[Listeners.a] Address = []: expected an IP address",
            ),
            (
                CONFIG + 'CAFile = "none.pem"',
                'CAFile = "none.pem": cannot be used: No such file or directory',
            ),
            (
                CONFIG + '[Domains."a.example".DKIM.Selectors.s]\nKeyFile = "s.pem"',
                '[Domains.a.example.DKIM.Selectors.s] KeyFile = "s.pem": cannot be '
                "used: No such file or directory",
            ),
        ]:
            self.file.write_text(text)
            said = f"moxtls: {self.file}: {said}"
            self.assertEqual(self.complaint("config", "check"), said)

    def snapshot(self) -> dict[str, tuple[int, int, bytes]]:
        """
        All files below the folder, with everything that writing changes.
        """
        return {
            str(each): (
                each.stat().st_mtime_ns,
                each.stat().st_mode,
                each.read_bytes() if each.is_file() else b"",
            )
            for each in self.folder.rglob("*")
            # Readers of an open database note there how far they read.
            if not each.name.endswith("-shm")
        }

    def assertFault(self, text: str, said: str) -> None:
        """
        C{said}, a regular expression, matches the only line, and no files are
        created.
        """
        self.file.write_text(CONFIG + text)
        before = self.snapshot()
        self.assertRegex(
            self.complaint("config", "check"),
            rf"\Amoxtls: {self.file}: {said}\Z",
        )
        self.assertEqual(self.snapshot(), before)

    def test_stores(self) -> None:
        """
        The ledger, the spool and their folder are opened as the server would open
        them.
        """
        (self.folder / "file").write_bytes(b"")
        (self.folder / "old").mkdir()
        (self.folder / "old" / "ledger.sqlite").write_bytes(b"x" * 5000)
        (self.folder / "new" / "queue").mkdir(parents=True)
        with sqlite3.connect(self.folder / "new" / "queue" / "index.sqlite") as spool:
            spool.execute("PRAGMA user_version = 77")
        spool.close()
        with sqlite3.connect(self.folder / "new" / "ledger.sqlite") as ledger:
            ledger.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            ledger.execute("INSERT INTO alembic_version VALUES ('99')")
        ledger.close()
        scheme = "the URL has to be sqlite:///PATH or postgresql://.*"
        for text, said in (
            ('Ledger = "mysql://me:sesame@h/n"', f"Ledger: ledger 'mysql': {scheme}"),
            ('Ledger = "sqlite:///"', "Ledger: ledger sqlite: the URL names no file"),
            ('Ledger = "sqlite:///none/x"', "Ledger: ledger .*/none/x: No such file.*"),
            ('Ledger = "sqlite:///file/x"', "Ledger: ledger .*/file/x: No such file.*"),
            (
                'Ledger = "postgresql://u:sesame@127.0.0.1:1/x"',
                r"Ledger: ledger postgresql://u:\*\*\*@127.0.0.1:1/x: connection .*",
            ),
            ('DataDirectory = "file"', 'DataDirectory = "file": .*: Not a directory'),
            ('DataDirectory = "file/x"', "DataDirectory = .*: Not a directory"),
            (
                'DataDirectory = "old"',
                "DataDirectory: ledger .*: file is not a database",
            ),
            (
                'DataDirectory = "new"\nLedger = "sqlite:///l.sqlite"',
                "DataDirectory: spool .*: version 77 of the spool is not .*",
            ),
            (
                'DataDirectory = "file2"\nLedger = "sqlite:///new/ledger.sqlite"',
                "Ledger: ledger .*: revision 99 was made by a later version of moxtls",
            ),
        ):
            self.assertFault(text, said)

    def test_running(self) -> None:
        """
        While the server runs, its own port is no fault; a port taken by another
        program is one. Neither the ledger nor the spool are touched.
        """
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        listener = f"[Listeners.a]\nPort = {port}\n"
        said = rf"\[Listeners.a\] Port = {port}: expected a free port of 127.0.0.1: .*"
        self.assertFault(listener, said)
        ConfigFiles.read(self.file).makeFolders()
        ledger = Ledger(None, f"sqlite:///{self.folder}/data/ledger.sqlite")
        self.assertFault(listener, said)
        spool = InlineSpoolExecutor(self.folder / "data" / "queue")
        spool.open(delivering=True)
        before = self.snapshot()
        self.good("config", "check")
        self.assertEqual(self.snapshot(), before)
        self.successResultOf(spool.close())
        self.successResultOf(ledger.stop())
        before = self.snapshot()
        self.assertFault(listener, said)

    def test_all(self) -> None:
        """
        All faults of a configuration, its files and ports are reported at once.
        """
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        self.file.write_text(
            f"""{CONFIG}
            Sparkle = 1
            CAFile = "none.pem"
            Ledger = "mysql://h/n"
            [Listeners.a]
            Port = {port}
            [Listeners.b]
            Port = {port}
            TLS = "starttls"
            CertificateFile = "cert.pem"
            KeyFile = "key.pem"
            [Users]
            a = "sesame"
            """
        )
        ran = self.run_("config", "check")
        lines = ran.err.splitlines()
        self.assertEqual((ran.status, ran.out), (1, ""))
        for said in (
            "Sparkle = 1: unknown key",
            "CAFile = ",
            "Ledger: ",
            "[Listeners.b] Port = ",
            "[Listeners.b] CertificateFile = ",
            "[Users] a: ",
        ):
            self.assertTrue(any(said in line for line in lines), (said, lines))
        self.assertTrue(
            all(line.startswith(f"moxtls: {self.file}: ") for line in lines), lines
        )

    def test_certificates(self) -> None:
        """
        A certificate that clients will reject is a warning, not a fault.
        """
        pair = 'CertificateFile = "cert.pem"\nKeyFile = "key.pem"\n'
        listener = f'[Listeners.a]\nPort = 0\nTLS = "starttls"\n{pair}'
        for identity, whys in (
            (selfSigned("mail.example.org"), []),
            (selfSigned("*.example.org"), []),
            (selfSigned("mail.example.org", days=-3), ["the certificate expired on "]),
            (
                selfSigned("a.example", days=-3),
                ["the certificate expired on ", "is for a.example, and not for Host"],
            ),
            (selfSigned(name="x"), ["is for no name at all, and not for Hostname"]),
        ):
            (self.folder / "cert.pem").write_bytes(identity.pem)
            (self.folder / "key.pem").write_bytes(
                identity.key.private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                )
            )
            self.file.write_text(f"NoOutgoingTLSReports = true\n{CONFIG}{listener}")
            # The clock of commands stands at another time than certificates have.
            self.clock.rightNow = time.time()
            lines = self.good("config", "check").out.splitlines()
            at = '[Listeners.a] CertificateFile = "cert.pem": '
            if not whys:
                self.assertEqual(lines, [f"{self.file}: good"])
            for line, why in zip(lines, whys, strict=bool(whys)):
                self.assertTrue(line.startswith(f"{self.file}: good; but {at}"), line)
                self.assertIn(why, line)

    def test_missing(self) -> None:
        """
        A configuration file that is missing or unreadable is reported.
        """
        self.file.unlink()
        for file, why in [
            (str(self.file), "No such file or directory"),
            (str(self.folder), "Is a directory"),
        ]:
            said = self.complaint("config", "check", file)
            self.assertEqual(said, f"moxtls: {file}: cannot be used: {why}")


class DescribeTests(CommandCase):
    """
    Tests for C{moxtls config describe}.
    """

    def test_text(self) -> None:
        """
        All tables and keys are described in the order of the file, with type, default
        and meaning, in lines that fit.
        """
        columns(self, 60)
        lines = self.good("config", "describe", tty=True).out.splitlines()
        self.assertLessEqual(
            max(len(line) for line in lines if line.startswith(" ")), 60
        )
        heads = [line for line in lines if line and not line.startswith(" ")]
        described = [
            f"{each.key}: {each.type}, " if each.key else f"[{each.table}]"
            for each in describe()
        ]
        self.assertEqual(len(heads), len(described))
        for head, start in zip(heads, described, strict=True):
            self.assertTrue(head.startswith(start), head)
        at = lines.index('KeyFile: string, default ""')
        self.assertEqual(lines[at + 1], "    The private key of CertificateFile, PEM.")

    def test_needsNothing(self) -> None:
        """
        The command works without a configuration.
        """
        self.file.unlink()
        self.good("config", "describe")

    def test_json(self) -> None:
        """
        Programs get one object for each.
        """
        rows = self.good("config", "describe", "--json").value
        self.assertEqual(len(rows), len(describe()))
        self.assertEqual(
            rows[0],
            {
                "table": "",
                "key": "Hostname",
                "type": "domain",
                "default": "required",
                "meaning": "The name of this host, for EHLO and reports.",
            },
        )


class PasswordTests(CommandCase):
    """
    Tests for C{moxtls config password}.
    """

    def test_stdin(self) -> None:
        """
        The first line of standard input is hashed, such that it can be verified.
        """
        out = self.good("config", "password", stdin="s\u00e9cret\nx".encode()).out
        self.assertTrue(StoredPassword.parse(out.strip()).verify("s\u00e9cret"))

    def test_salted(self) -> None:
        """
        Hashes of the same password differ by their salt.
        """
        one, two = (
            self.good("config", "password", "--json", stdin=b"x").value["password"]
            for _ in range(2)
        )
        self.assertNotEqual(one, two)

    def test_wrong(self) -> None:
        """
        Empty and untypable passwords are refused.
        """
        for stdin in (b"", b"\n", b"\xff\n", b"a\x07b\n"):
            self.complaint("config", "password", stdin=stdin)

    def test_asked(self) -> None:
        """
        At a terminal the password is entered twice, without echo.
        """
        for answers, status in [(["a", "a"], 0), (["a", "b"], 1), ([], 1)]:
            asked = patch.object(getpass, "getpass", side_effect=[*answers, EOFError])
            with asked, patch("tests.cli.commands.io.BytesIO", _Typed):
                ran = self.run_("config", "password")
            self.assertEqual(ran.status, status, ran.err)


class _Typed(io.BytesIO):
    def isatty(self) -> bool:
        return True
