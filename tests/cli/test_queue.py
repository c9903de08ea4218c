"""
Tests for L{moxtls.cli.queue}.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from tests.cli.commands import CommandCase, columns


class QueueTests(CommandCase):
    """
    Tests for C{moxtls queue}.
    """

    def send(self, *recipients: str) -> str:
        """
        Put a message into the queue.
        """
        return self.good("send", "-f", "us@a.example", *recipients).out.strip()

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.good("queue", "list", "--json").value
        return rows

    def test_list(self) -> None:
        """
        Each recipient has a row, with its last result below.
        """
        first = self.send("x@b.example", "y@b.example")
        second = self.send("z@c.example")
        lines = self.good("queue", "list").out.splitlines()
        self.assertEqual(
            [line.split()[0] for line in lines[1:4]], [first] * 2 + [second]
        )
        self.assertIn("us@a.example  x@b.example  waiting", lines[1])
        self.assertRegex(lines[-1], r"\A2 messages to 3 recipients, \d+ bytes\Z")

    def test_empty(self) -> None:
        """
        An empty queue is a sentence, or an empty array.
        """
        self.assertEqual(self.good("queue", "list").out, "The queue is empty.\n")
        self.assertEqual(self.rows(), [])

    def test_terminal(self) -> None:
        """
        Messages are distinguishable with 80 columns too.
        """
        columns(self, 80)
        name = self.send("x@b.example")
        lines = self.good("queue", "list", tty=True).out.splitlines()
        self.assertIn(f"ID            {name}", lines)
        self.assertLessEqual(max(map(len, lines)), 80)

    def test_hold(self) -> None:
        """
        A held message is shown as held, until it is released.
        """
        name = self.send("x@b.example")
        self.good("queue", "hold", name)
        self.assertEqual(self.rows()[0]["state"], "held")
        self.good("queue", "release", name)
        self.assertEqual(self.rows()[0]["state"], "waiting")

    def test_holdDelivered(self) -> None:
        """
        A recipient to whom a held message was delivered is shown as delivered.
        """
        name = self.send("x@b.example", "y@b.example")
        path = self.folder / "data" / "queue" / "index.sqlite"
        with closing(sqlite3.connect(path)) as index, index:
            index.execute("UPDATE recipient SET state = 'delivered' WHERE position = 0")
        self.good("queue", "hold", name)
        states = [row["state"] for row in self.rows()]
        self.assertEqual(states, ["delivered", "held"])

    def test_retry(self) -> None:
        """
        An attempt that is to be made at once is due now.
        """
        name = self.send("x@b.example")
        self.clock.advance(60)
        self.good("queue", "retry", name)
        self.assertEqual(self.rows()[0]["next_attempt"], "2026-11-24 12:01:00")

    def test_drop(self) -> None:
        """
        A dropped message is removed; the others stay.
        """
        first, second = self.send("x@b.example"), self.send("y@b.example")
        self.assertEqual(self.good("queue", "drop", first).out, "1 message\n")
        self.assertEqual([row["id"] for row in self.rows()], [second])

    def test_all(self) -> None:
        """
        All of them at once, also if there is none.
        """
        for count in (2, 0):
            for _ in range(count):
                self.send("x@b.example")
            ran = self.good("queue", "drop", "--all", "--json")
            self.assertEqual(len(ran.value["done"]), count)
        self.assertEqual(self.rows(), [])

    def test_missing(self) -> None:
        """
        Unknown ids are named; the command applies to the others.
        """
        name = self.send("x@b.example")
        said = self.complaint("queue", "drop", "nope", name)
        self.assertEqual(said, "moxtls: not in the queue: nope")
        self.assertEqual(self.rows(), [])

    def test_wrong(self) -> None:
        """
        Commands without a selection are refused.
        """
        for words in (["drop"], ["drop", "x", "--all"], []):
            self.complaint("queue", *words, status=2)

    def test_unusable(self) -> None:
        """
        A spool that can't be opened is reported with its configuration key.
        """
        (self.folder / "data" / "queue").mkdir(parents=True)
        (self.folder / "data" / "queue" / "index.sqlite").write_bytes(b"x" * 5000)
        said = self.complaint("queue", "list")
        self.assertIn(f"{self.file}: DataDirectory: spool {self.folder}", said)
