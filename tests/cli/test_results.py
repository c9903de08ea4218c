"""
Tests for L{moxtls.cli.results}.
"""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

from tests.cli.commands import TODAY, CommandCase
from tests.cli.outcomes import ESCAPE, broken


class ResultsTests(CommandCase):
    """
    Tests for C{moxtls results}.
    """

    def setUp(self) -> None:
        super().setUp()
        with self.ledger() as ledger:
            for day, domain, host in [
                (TODAY, "a.example", "mx.host.example"),
                (TODAY - timedelta(1), "b.example", ""),
            ]:
                outcome = broken(domain, host)
                self.successResultOf(ledger.outcomes.record(day, outcome))

    def test_all(self) -> None:
        """
        Everything is shown that was recorded: both kinds of policy domain,
        with how often and why sessions failed.
        """
        lines = self.good("results").out.splitlines()
        self.assertEqual(len(lines), 4)
        self.assertRegex(
            lines[1], r"2026-11-23 +b\.example +b\.example +no +sts +1 +1 +yes +cert"
        )
        self.assertIn("X509_V_ERR_CERT_HAS_EXPIRED: 1", lines[1])

    def test_chosen(self) -> None:
        """
        A domain is found as a recipient domain and as that of a host, and a
        day is a day.
        """
        for words, domains in [
            (["a.example"], {"a.example", "mx.host.example"}),
            (["MX.Host.Example."], {"mx.host.example"}),
            (["--day", "2026-11-23"], {"b.example"}),
            (["b.example", "--day", "2026-11-24"], set()),
        ]:
            rows = self.good("results", *words, "--json").value
            self.assertEqual({each["policy_domain"] for each in rows}, domains, words)

    def test_json(self) -> None:
        """
        Programs get each number by its name.
        """
        [row] = self.good("results", "b.example", "--json").value
        self.assertEqual(row["day"], "2026-11-23")
        self.assertEqual((row["success"], row["failure"]), (1, 1))
        self.assertEqual(row["policy"], "sts")
        self.assertIs(row["host"], False)

    def test_pages(self) -> None:
        """
        The output doesn't depend on the page size.
        """
        whole = [self.good("results").out, self.good("results", "--json").out]
        with (
            patch("moxtls.cli.output.AT_ONCE", 1),
            patch("moxtls.cli.output.IN_MEMORY", 1),
        ):
            self.assertEqual(self.good("results").out, whole[0])
            self.assertEqual(self.good("results", "--json").out, whole[1])

    def test_empty(self) -> None:
        """
        Without results, a sentence says so.
        """
        ran = self.good("results", "c.example")
        self.assertEqual(ran.out, "No sessions have been recorded.\n")

    def test_terminal(self) -> None:
        """
        Names from remote hosts are escaped on the terminal.
        """
        self.assertIn("\x1b", ESCAPE)
        ran = self.good("results", tty=True)
        self.assertNotIn("\x1b", ran.out)
