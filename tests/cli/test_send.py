"""
Tests for L{moxtls.cli.send}.
"""

from __future__ import annotations

from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger
from moxtls.queue.spool import Spool
from moxtls.queue.types import QueuedMessage
from tests.cli.commands import CommandCase, Ran


class SendTests(CommandCase):
    """
    Tests for C{moxtls send}.
    """

    def queued(self) -> QueuedMessage:
        """
        The one message in the queue.
        """
        spool = Spool(self.folder / "data" / "queue")
        [message] = spool.index.messages()
        spool.close()
        return message

    def body(self, ran: Ran) -> bytes:
        message = self.queued()
        self.assertEqual(ran.out, f"{message.messageID}\n")
        return message.path.read_bytes()

    def test_stdin(self) -> None:
        """
        A message is read from standard input, and missing fields are added.
        """
        ran = self.good("send", "x@b.example", stdin=b"Subject: hi\n\nhello\n")
        body = self.body(ran)
        self.assertTrue(body.endswith(b"Subject: hi\r\n\r\nhello\r\n"))
        self.assertIn(b"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n", body)
        self.assertIn(b"@mail.example.org>\r\n", body)

    def test_file(self) -> None:
        """
        A message is read from a file.
        """
        file = self.folder / "message"
        file.write_bytes(b"Subject: hi\n\nfrom a file\n")
        ran = self.good("send", "--file", str(file), "x@b.example")
        self.assertTrue(self.body(ran).endswith(b"from a file\r\n"))

    def test_sendmail(self) -> None:
        """
        Programs that think it is sendmail are right.
        """
        text = b"To: X <x@b.example>\nBcc: y@c.example\n\n.\n"
        self.good("send", "-oi", "-t", "-f", "us@a.example", "--", stdin=text)
        envelope = self.queued().envelope
        self.assertEqual(envelope.sender, "us@a.example")
        self.assertEqual(envelope.recipients, ("x@b.example", "y@c.example"))

    def test_unfit(self) -> None:
        """
        A message that listeners refuse is refused here too; any line end becomes CRLF
        (RFC 5321 2.3.8).
        """
        for text, said in (
            (b"Subject: hi\n\na\0b\n", "has a NUL"),
            (b"Subject: a\0b\n\n", "has a NUL"),
            (b"\n" + b"a" * (1 << 20) + b"\n", "of the message has more than 1048576"),
        ):
            self.assertIn(said, self.complaint("send", "x@b.example", stdin=text))
        self.assertEqual(list((self.folder / "data/queue/messages").iterdir()), [])
        ran = self.good("send", "x@b.example", stdin=b"Subject: hi\r\n\na\rb\r\n")
        self.assertTrue(self.body(ran).endswith(b"Subject: hi\r\n\r\na\r\nb\r\n"))

    def test_json(self) -> None:
        """
        Programs get the id by its name.
        """
        ran = self.good("send", "--json", "x@b.example")
        self.assertEqual(ran.value, {"id": self.queued().messageID})

    def test_history(self) -> None:
        """
        Recipients are recorded in the account's history, on which DMARC reports
        depend.
        """
        self.good("send", "x@mail.b.example", "y@mail.example.org")
        ledger = Ledger(None, f"sqlite:///{self.folder}/data/ledger.sqlite")
        for domain, isKnown in [("b.example", True), ("c.example", False)]:
            known = ledger.history.isKnown(None, Domain(domain))
            self.assertEqual(self.successResultOf(known), isKnown)
        self.successResultOf(ledger.stop())

    def test_noHistory(self) -> None:
        """
        If the history can't be recorded, the message is sent all the same.
        """
        (self.folder / "data" / "ledger.sqlite").write_bytes(b"no database" * 100)
        self.good("send", "x@b.example")
        self.assertEqual(self.queued().envelope.recipients, ("x@b.example",))
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_administrative(self) -> None:
        """
        Programs of the host write to root.
        """
        for name in ("root", "postmaster", "MAILER-DAEMON"):
            self.good("send", name, stdin=b"\n")

    def test_noUser(self) -> None:
        """
        Without a possible recipient the command fails with the status of sendmail.
        """
        said = self.complaint("send", "nobody", "x", stdin=b"\n", status=67)
        self.assertEqual(
            said,
            "moxtls: no such user: nobody@mail.example.org, x@mail.example.org",
        )
        self.good("send", "nobody", "x@b.example", stdin=b"\n")
        self.assertEqual(len(self.queued().envelope.recipients), 2)

    def test_help(self) -> None:
        """
        C{--help} prints help.
        """
        for word in ("-h", "--help"):
            self.assertIn("usage: moxtls send", self.good("send", word).out)

    def test_wrong(self) -> None:
        """
        A message that can't be sent is refused in one line, and nothing is queued.
        """
        for words, said in [
            ((), "no recipients"),
            (("--file",), "--file needs a value"),
            (("--file", "/nowhere", "x@b.example"), "/nowhere: No such file"),
            (("--file", "/", "x@b.example"), "/: Is a directory"),
            (("-t",), "no recipients"),
            (("-Q", "x@b.example"), "unknown option"),
            (("a b@c d",), "is not a mail address"),
            (("-bs",), "not supported"),
        ]:
            self.assertIn(said, self.complaint("send", *words), words)
        self.assertEqual(self.good("queue", "list", "--json").value, [])
