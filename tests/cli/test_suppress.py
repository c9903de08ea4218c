"""
Tests for L{moxtls.cli.suppress}.
"""

from __future__ import annotations

from tests.cli.commands import CommandCase


class SuppressTests(CommandCase):
    """
    Tests for C{moxtls suppress}.
    """

    def entries(self) -> list[tuple[object, ...]]:
        rows = self.good("suppress", "list", "--json").value
        return [(each["destination"], each["kind"], each["until"]) for each in rows]

    def test_add(self) -> None:
        """
        An address is suppressed for a month unless another time is given, in its
        canonical form.
        """
        self.good("suppress", "add", "Reports@B\u00fccher.Example")
        self.good("suppress", "add", "https://a.example", "--for", "2d")
        self.assertEqual(
            sorted(self.entries()),
            [
                ("https://a.example/", "all", "2026-11-26 12:00:00"),
                (
                    "mailto:Reports@xn--bcher-kva.example",
                    "all",
                    "2026-12-25 12:00:00",
                ),
            ],
        )

    def test_kind(self) -> None:
        """
        Kinds of report are suppressed apart from each other.
        """
        self.good("suppress", "add", "a@b.example", "--kind", "tls")
        self.complaint("suppress", "remove", "a@b.example")
        self.complaint("suppress", "extend", "a@b.example", "--kind", "dmarc")
        self.good("suppress", "remove", "mailto:a@b.example", "--kind", "tls")
        self.assertEqual(self.entries(), [])

    def test_extend(self) -> None:
        """
        Extending counts from now, and leaves the rest as it is.
        """
        self.good("suppress", "add", "a@b.example", "--comment", "asked by phone")
        self.good("suppress", "extend", "a@b.example", "--for", "90d")
        listed = self.good("suppress", "list").out.splitlines()
        self.assertIn("2027-02-22 12:00:00  yes", listed[1])
        self.assertTrue(listed[1].endswith("asked by phone"))

    def test_over(self) -> None:
        """
        Expired entries are shown as expired.
        """
        self.good("suppress", "add", "a@b.example", "--for", "1h")
        self.clock.advance(3601)
        [row] = self.good("suppress", "list", "--json").value
        self.assertIs(row["active"], False)

    def test_json(self) -> None:
        """
        JSON has the changed entries.
        """
        told = {"destination": "mailto:a@b.example", "until": "2026-12-25 12:00:00"}
        ran = self.good("suppress", "add", "a@b.example", "--json")
        self.assertEqual(ran.value, told)
        ran = self.good("suppress", "remove", "a@b.example", "--json")
        self.assertEqual(ran.value, {"destination": "mailto:a@b.example"})

    def test_wrong(self) -> None:
        """
        Malformed addresses and times, and addresses that aren't suppressed, are
        refused.
        """
        for words, status, said in [
            (("add", "nobody"), 1, "moxtls: 'nobody' is not one address"),
            (
                ("add", "ftp://a.example"),
                1,
                "moxtls: reports are not sent to 'ftp' URIs",
            ),
            (("remove", "a@b.example"), 1, "moxtls: not suppressed: a@b.example"),
            (("extend", "a@b.example"), 1, "moxtls: not suppressed: a@b.example"),
            (("add", "a@b.example", "--for", "3"), 2, "'3': expected a time such as"),
            (("add", "a@b.example", "--kind", "x"), 2, "invalid choice: 'x'"),
            ((), 2, "required: list|add|extend|remove"),
        ]:
            self.assertIn(said, self.complaint("suppress", *words, status=status))
