"""
Tests for L{moxtls.cli.configuration}.
"""

from __future__ import annotations

import getpass
import io
from unittest.mock import patch

from moxtls.config import describe
from moxtls.smtp.passwords import StoredPassword
from tests.cli.commands import CONFIG, CommandCase, columns


class CheckTests(CommandCase):
    """
    Tests for C{moxtls config check}.
    """

    def test_good(self) -> None:
        """
        A good one is said to be; so is what a postmaster may not have meant:
        that nobody can sign reports (RFC 8460 3).
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
        Another file than the usual one can be checked, and nothing is made
        next to it.
        """
        file = self.folder / "other" / "my.toml"
        file.parent.mkdir()
        file.write_text("NoOutgoingTLSReports = true\n" + CONFIG)
        ran = self.good("config", "check", str(file), "--json")
        self.assertEqual(ran.value, {"file": str(file), "notes": []})
        self.assertEqual(list(file.parent.iterdir()), [file])

    def test_wrong(self) -> None:
        """
        What is wrong is one line with file, table, key, value and what was
        expected.
        """
        for text, said in [
            (
                CONFIG + "[Listeners.a]\nPort = -1",
                "[Listeners.a] Port = -1: expected an integer from 0 up",
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

    def test_missing(self) -> None:
        """
        So is that there is none, or that it can't be read.
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
        All of it is there in the order of the file: tables and keys with type
        and default, and below each what it means, in lines that fit.
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
        self.assertEqual(lines[at + 1], "    PEM.")

    def test_needsNothing(self) -> None:
        """
        It needs no configuration.
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
                "meaning": "The name of this host: EHLO, reports.",
            },
        )


class PasswordTests(CommandCase):
    """
    Tests for C{moxtls config password}.
    """

    def test_stdin(self) -> None:
        """
        The first line of standard input is turned into what can be checked.
        """
        out = self.good("config", "password", stdin="s\u00e9cret\nx".encode()).out
        self.assertTrue(StoredPassword.parse(out.strip()).verify("s\u00e9cret"))

    def test_salted(self) -> None:
        """
        The same password doesn't look the same twice.
        """
        one, two = (
            self.good("config", "password", "--json", stdin=b"x").value["password"]
            for _ in range(2)
        )
        self.assertNotEqual(one, two)

    def test_wrong(self) -> None:
        """
        Nothing, and what can't be typed, is no password.
        """
        for stdin in (b"", b"\n", b"\xff\n", b"a\x07b\n"):
            self.complaint("config", "password", stdin=stdin)

    def test_asked(self) -> None:
        """
        At a terminal it is asked for twice, unseen.
        """
        for answers, status in [(["a", "a"], 0), (["a", "b"], 1), ([], 1)]:
            asked = patch.object(getpass, "getpass", side_effect=[*answers, EOFError])
            with asked, patch("tests.cli.commands.io.BytesIO", _Typed):
                ran = self.run_("config", "password")
            self.assertEqual(ran.status, status, ran.err)


class _Typed(io.BytesIO):
    def isatty(self) -> bool:
        return True
