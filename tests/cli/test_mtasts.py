"""
Tests for L{moxtls.cli.mtasts}.
"""

from __future__ import annotations

from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.mtasts.policy import CachedPolicy, Mode, STSPolicy
from tests.cli.commands import NOON, CommandCase
from tests.cli.network import NetworkCommandCase

POLICY = STSPolicy(Mode.ENFORCE, 86400, ("mx.a.example", "*.a.example"), ())


class RememberedTests(CommandCase):
    """
    Tests for C{moxtls mtasts show} and C{drop}.
    """

    def setUp(self) -> None:
        super().setUp()
        with self.ledger() as ledger:
            for name, policy in (("a.example", POLICY), ("b.example", None)):
                entry = CachedPolicy(
                    Domain(name), policy, "7", NOON, NOON, NOON + 86400, NOON
                )
                self.successResultOf(ledger.policies.save(entry))

    def test_show(self) -> None:
        """
        All that is remembered, policies as well as that there is none to be
        had for the time being.
        """
        lines = self.good("mtasts", "show").out.splitlines()
        self.assertEqual(len(lines), 3)
        text = " ".join(" ".join(lines).split())
        self.assertIn("a.example enforce mx.a.example, *.a.example 86400 7", text)
        self.assertIn("b.example back-off", text)

    def test_one(self) -> None:
        """
        A single policy is shown with all of its fields.
        """
        [row] = self.good("mtasts", "show", "A.Example", "--json").value
        self.assertEqual(row["mode"], "enforce")
        self.assertEqual(row["mx"], ["mx.a.example", "*.a.example"])
        self.assertEqual(row["valid_until"], "2026-11-25 12:00:00")

    def test_drop(self) -> None:
        """
        A dropped policy is removed, and only that one.
        """
        self.good("mtasts", "drop", "a.example")
        [row] = self.good("mtasts", "show", "--json").value
        self.assertEqual(row["domain"], "b.example")
        self.good("mtasts", "drop", "b.example", "--json")
        said = self.good("mtasts", "show").out
        self.assertEqual(said, "No policy is cached.\n")

    def test_unknown(self) -> None:
        """
        A policy that isn't cached can't be shown or dropped.
        """
        for verb in ("show", "drop"):
            said = self.complaint("mtasts", verb, "c.example")
            self.assertEqual(said, "moxtls: no policy of c.example is cached")


class RefreshTests(NetworkCommandCase):
    """
    Tests for C{moxtls mtasts refresh}.
    """

    async def test_absent(self) -> None:
        """
        Without a record there is nothing to fetch, and the command fails.
        """
        ran = await self.run_("mtasts", "refresh", "a.example")
        self.assertEqual((ran.status, ran.out), (1, "a.example: absent\n"))

    async def test_broken(self) -> None:
        """
        Errors are named by the terms of RFC 8460.
        """

        self.dns.zone.put("_mta-sts.a.example", RRType.TXT, '"v=STSv1; id=1"')
        ran = await self.run_("mtasts", "refresh", "a.example", "--json")
        self.assertEqual(ran.status, 1)
        self.assertEqual(ran.value["ending"], "absent")
        self.assertIn("sts-policy-fetch-error", ran.value["failure"])
        self.assertEqual(ran.err, f"moxtls: a.example: {ran.value['failure']}\n")
