"""
Tests for L{moxtls.cli.auth}.
"""

from __future__ import annotations

from typing import Any

from moxtls.authentication.dkim.sign import sign
from moxtls.dns.types import RRType
from tests.cli.network import NetworkCommandCase
from tests.reporting.support import RSA

MESSAGE = b"""\
From: Anna <anna@news.sender.example>\r
To: us@here.example\r
Subject: \x1b[2J hello\r
\r
Hello.\r
"""


class AuthTests(NetworkCommandCase):
    """
    Tests for C{moxtls auth}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.message = sign(MESSAGE, [RSA])
        put = self.dns.zone.put
        put(RSA.recordName, RRType.TXT, _strings(RSA.record))
        put("_dmarc.sender.example", RRType.TXT, '"v=DMARC1; p=none; sp=reject"')
        put("sender.example", RRType.TXT, '"v=spf1 ip4:192.0.2.0/24 -all"')

    async def auth(self, message: bytes, *words: str, status: int = 0) -> Any:
        """
        Run the command on a message in a file.
        """
        file = self.folder / "message.eml"
        file.write_bytes(message)
        ran = await self.run_("auth", str(file), *words)
        self.assertEqual((ran.status, ran.err if not status else ""), (status, ""))
        return ran.value if "--json" in words else ran.out + ran.err

    async def test_pass(self) -> None:
        """
        Every step is printed, up to the verdict (RFC 9989 5.3) and the
        Authentication-Results field (RFC 8601); LF line ends are accepted.
        """
        words = ("--ip", "192.0.2.7", "--mail-from", "a@sender.example")
        told = await self.auth(self.message.replace(b"\r\n", b"\n"), *words)
        for line in (
            "SPF (mfrom): pass: sender.example by ip4:192.0.2.0/24",
            "DKIM: pass: d=sender.example",
            "From: news.sender.example",
            "DMARC: _dmarc.news.sender.example: ",
            "DMARC: the organizational domain is sender.example (treewalk)",
            "DMARC: the record of sender.example applies",
            "DMARC: SPF passes for sender.example, aligned",
            "DMARC: pass: policy reject, disposition none",
            "Authentication-Results: mail.example.org;",
        ):
            self.assertIn(line, told)
        self.assertNotIn("\x1b", told)

    async def test_fail(self) -> None:
        """
        A failure is printed with its reason; in JSON, in fields.
        """
        value = await self.auth(
            self.message.replace(b"Hello.", b"Hullo."),
            "--ip",
            "198.51.100.1",
            "--mail-from",
            "<a@sender.example>",
            "--helo",
            "x.example",
            "--json",
        )
        self.assertEqual((value["spf"], value["dmarc"]), ("fail", "fail"))
        self.assertEqual(
            value["dkim"], [{"domain": "sender.example", "result": "fail"}]
        )
        self.assertEqual((value["policy"], value["disposition"]), ("reject", "reject"))
        self.assertEqual(value["policy_domain"], "sender.example")
        self.assertIn("dmarc=fail", value["authentication_results"])

    async def test_anything(self) -> None:
        """
        Any message gets a verdict.
        """
        for message in (
            b"",
            b"\n",
            b"From: ",
            b"From: a@b.c, d@e.f\n\nx",
            b"\xff" * 99,
        ):
            value = await self.auth(message, "--ip", "2001:db8::1", "--json")
            self.assertIn(value["dmarc"], ("none", "permerror"))

    async def test_wrong(self) -> None:
        """
        Wrong arguments are reported in one line.
        """
        for words in (("--ip", "me"), ("--ip", "192.0.2.1", "--mail-from", "x"), ()):
            told = await self.auth(b"", *words, status=2)
            self.assertRegex(told, r"\Amoxtls auth: [^\n]+\n\Z")
        ran = await self.run_("auth", str(self.folder / "none"), "--ip", "192.0.2.1")
        self.assertEqual(ran.status, 1)
        self.assertIn("No such file", ran.err)


def _strings(text: str) -> str:
    """
    A record as a zone has it: strings of at most 255 octets (RFC 1035 3.3).
    """
    pieces = [text[at : at + 200] for at in range(0, len(text), 200)]
    return " ".join(f'"{each}"' for each in pieces)
