"""
Tests for L{moxtls.cli.evaluations}.
"""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from moxtls.authentication.results import AuthResult
from moxtls.cli import evaluations, output
from moxtls.dates import HOUR
from moxtls.dmarc.source import UNSENDABLE
from moxtls.dmarc.types import (
    Disposition,
    DMARCPolicy,
    Evaluation,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger
from tests.cli.commands import NOON, CommandCase

HOURS = (NOON - HOUR, NOON)
UNICODE = "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example"
ROW = ReportRow(
    sourceIP="192.0.2.7",
    disposition=Disposition.REJECT,
    dkimAligned=False,
    spfAligned=True,
    reasons=(Override(OverrideKind.MAILING_LIST, "a \x1b list"),),
    headerFrom=f"news.{UNICODE}",
    envelopeFrom="list.example",
    envelopeTo="example.org",
    dkim=(ReportedSignature("list.example", "s1", AuthResult.PASS),),
    spf=ReportedSPF("list.example", "mfrom", AuthResult.PASS),
)
EVALUATION = Evaluation(
    PublishedPolicy(
        Domain.parse(UNICODE),
        DMARCPolicy.REJECT,
    ),
    ROW,
)


class EvaluationsTests(CommandCase):
    """
    Tests for C{moxtls evaluations}.
    """

    def record(self, *evaluations: Evaluation) -> None:
        """
        Fill the ledger: each in both hours, twice in the latter.
        """
        (self.folder / "data").mkdir(exist_ok=True)
        ledger = Ledger(None, f"sqlite:///{self.folder}/data/ledger.sqlite")
        for each in evaluations:
            for hour in (*HOURS, NOON):
                self.successResultOf(ledger.evaluations.record(hour, each))
        self.successResultOf(ledger.stop())

    def test_none(self) -> None:
        """
        Without evaluations a message says so, and the status is 0.
        """
        self.assertIn("No mail has been", self.good("evaluations").out)
        out = self.good("evaluations", "other.example").out
        self.assertIn("No mail of other.example", out)
        self.assertEqual(self.good("evaluations", "--json").value, [])

    def test_summaries(self) -> None:
        """
        Each policy domain, how much there is about it, and whether there will
        be a report or why not.
        """
        row = replace(ROW, disposition=Disposition.NONE)
        published = replace(EVALUATION.published, domain=Domain("a.example"))
        optional = Evaluation(published, row, optional=True)
        self.record(EVALUATION, replace(EVALUATION, row=row), optional)
        self.assertEqual(
            self.good("evaluations", "--json").value,
            [
                {
                    "policy_domain": "a.example",
                    "messages": 3,
                    "dispositions": "none",
                    "report": False,
                    "reason": UNSENDABLE,
                },
                {
                    "policy_domain": UNICODE,
                    "messages": 6,
                    "dispositions": "none, reject",
                    "report": False,
                    "reason": "no domain of ours can sign reports",
                },
            ],
        )

    def test_many(self) -> None:
        """
        Summaries are read a page at a time, so that memory doesn't grow with their
        number.
        """
        names = [f"d{number}.example" for number in range(5)]
        self.record(
            *(
                replace(
                    EVALUATION,
                    published=replace(EVALUATION.published, domain=Domain(name)),
                )
                for name in names
            )
        )
        with patch.object(output, "AT_ONCE", 2):
            found = self.good("evaluations", "--json").value
        self.assertEqual([each["policy_domain"] for each in found], names)

    def test_tooMany(self) -> None:
        """
        The number of evaluations shown of one domain is limited, which is said.
        """
        self.record(EVALUATION)
        with patch.object(evaluations, "MAX_EVALUATIONS", 1):
            out = self.good("evaluations", "xn--bcher-kva.example").out
        self.assertIn("Only the first 1 are shown.", out)

    def test_domain(self) -> None:
        """
        All evaluations of one domain are printed, by hour, with control characters
        escaped.
        """
        self.record(EVALUATION)
        first, second = self.good(
            "evaluations", "xn--bcher-kva.example", "--json"
        ).value
        self.assertEqual((first["hour"], first["messages"]), ("2026-11-24 11:00:00", 1))
        self.assertEqual((second["messages"], second["spf"]), (2, "aligned"))
        self.assertIn("DKIM list.example pass", second["details"])
        out = self.good("evaluations", "xn--bcher-kva.example", tty=True).out
        self.assertTrue(all(line.isprintable() for line in out.splitlines()))
