"""
Tests for L{moxtls.cli.output}.
"""

from __future__ import annotations

import io
import json
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from moxtls.cli.output import Output
from tests.cli.commands import Terminal, columns

COLUMNS = ("Domain", "Last result", "Sessions", "Sent")
ROWS = [
    ("a.example", "certificate has expired at the far end of it", 3, True),
    ("b.example", "", 12, False),
]


class OutputTests(SynchronousTestCase):
    """
    Tests for L{Output}.
    """

    def output(self, tty: bool = False, asJSON: bool = False) -> Output:
        return Output(Terminal() if tty else io.StringIO(), Terminal(), asJSON)

    def printed(self, output: Output) -> str:
        assert isinstance(output.stdout, io.StringIO)
        return output.stdout.getvalue()

    def test_plain(self) -> None:
        """
        For a file each row is one line without blanks at its end.
        """
        output = self.output()
        output.table(COLUMNS, [(*ROWS[0][:1], "x " * 300, *ROWS[0][2:]), ROWS[1]])
        header, long, last = self.printed(output).splitlines()
        self.assertTrue(header.startswith("Domain     Last result"))
        self.assertEqual(long.count("x"), 300 + len("example") - 6)
        self.assertRegex(last, r"\Ab\.example {600,}12  no\Z")

    def test_terminal(self) -> None:
        """
        On a terminal no line is longer than it is wide, and no word is cut.
        """
        columns(self, 50)
        output = self.output(tty=True)
        output.table(COLUMNS, ROWS)
        lines = self.printed(output).splitlines()
        self.assertLessEqual(max(map(len, lines)), 50)
        words = self.printed(output).split()
        self.assertEqual([each for each in words if "ex" in each][1], "expired")
        self.assertIn("certificate", words)

    def test_fullWidth(self) -> None:
        """
        A table may be as wide as the terminal.
        """
        for width, first in ((15, "A      B      C"), (14, "A  aaaaa")):
            columns(self, width)
            output = self.output(tty=True)
            output.table("ABC", [("aaaaa", "bbbbb", "c")])
            self.assertEqual(self.printed(output).splitlines()[0], first)

    def test_longWords(self) -> None:
        """
        Words that are very long, as names of hosts are, may be broken; nothing
        is left out, however wide the terminal is.
        """
        head = ("Host", "Last result", "Sessions")
        rows = [
            ("mx1.mail.protection.example", "certificate not trusted", 12),
            ("b.example", "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: 3", 1),
        ]
        expected = Counter(
            "".join(map(str, (*head, *rows[0], *rows[1]))).replace(" ", "")
        )
        for width in range(30, 110):
            columns(self, width)
            output = self.output(tty=True)
            output.table(head, rows)
            lines = self.printed(output).splitlines()
            if lines[1].startswith("Last result  "):
                # In blocks, the names of columns are in front of each value.
                lines = ["".join(head), *(line[13:] for line in lines)]
            else:
                self.assertLessEqual(max(map(len, lines)), width)
            self.assertEqual(Counter("".join("".join(lines).split())), expected)

    def test_manyColumns(self) -> None:
        """
        If several columns have to become narrower, nothing is cut off.
        """
        head = ("From", "What it is", "Reply, mailbox", "SPF", "DKIM", "DMARC, done")
        row = (
            "nowhere.parent.example",
            "from a subdomain that isn't there, np=reject",
            "550 Rejects",
            "pass",
            "pass other.example, fail",
            "fail, quarantine",
        )
        expected = Counter("".join((*head, *row)).replace(" ", ""))
        for width in range(90, 150):
            columns(self, width)
            output = self.output(tty=True)
            output.table(head, [row])
            lines = self.printed(output).splitlines()
            self.assertLessEqual(max(map(len, lines)), width)
            self.assertEqual(Counter("".join("".join(lines).split())), expected)

    def test_narrow(self) -> None:
        """
        If words don't fit, there is a line for each non-empty cell.
        """
        columns(self, 30)
        output = self.output(tty=True)
        output.table(COLUMNS, ROWS, title="Results")
        self.assertEqual(
            self.printed(output).splitlines(),
            [
                "Results",
                "Domain       a.example",
                "Last result  certificate has expired at the far end of it",
                "Sessions     3",
                "Sent         yes",
                "",
                "Domain       b.example",
                "Sessions     12",
                "Sent         no",
            ],
        )

    def test_escaped(self) -> None:
        """
        Untrusted text can't move the cursor, or look like another line, a title or
        markup.
        """
        output = self.output(tty=True)
        output.table(("A",), [("\x1b[2J[red]\r\n\u202e",), (["\x9b1m", 1],)])
        output.line("\x1b]0;title\x07")
        printed = self.printed(output)
        self.assertFalse(set(printed) & set("\x1b\x9b\r\x07\u202e"))
        self.assertIn("[red]", printed)

    def test_json(self) -> None:
        """
        In JSON, columns are keys, and remarks are left out.
        """
        output = self.output(asJSON=True)
        output.line("for people")
        output.table(COLUMNS, ROWS[:1], title="Results")
        self.assertEqual(
            json.loads(self.printed(output)),
            [
                {
                    "domain": "a.example",
                    "last_result": ROWS[0][1],
                    "sessions": 3,
                    "sent": True,
                }
            ],
        )

    def test_empty(self) -> None:
        """
        An empty table is a sentence in text, and an empty array in JSON.
        """
        for asJSON, said in ((False, "No reports.\n"), (True, "[]\n")):
            output = self.output(asJSON=asJSON)
            output.table(COLUMNS, [], empty="No reports.")
            self.assertEqual(self.printed(output), said)

    def test_done(self) -> None:
        """
        A result is a line, or an object.
        """
        for asJSON, said in ((False, "done\n"), (True, '{\n  "id": "x"\n}\n')):
            output = self.output(asJSON=asJSON)
            output.done("done", id="x")
            self.assertEqual(self.printed(output), said)

    def test_progress(self) -> None:
        """
        Progress is on standard error, in one line, and wiped away; where that
        is no terminal there is none.
        """
        output = self.output()
        output.progress("1 of 2: \x1b")
        output.progressEnded()
        assert isinstance(output.stderr, io.StringIO)
        self.assertEqual(output.stderr.getvalue(), "\r\x1b[K1 of 2: \\x1b\r\x1b[K")
        self.assertEqual(self.printed(output), "")
        silent = Output(io.StringIO(), io.StringIO())
        silent.progress("1 of 2")
        silent.progressEnded()
        assert isinstance(silent.stderr, io.StringIO)
        self.assertEqual(silent.stderr.getvalue(), "")
