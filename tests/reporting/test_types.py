"""
Tests for L{moxtls.reporting.types}.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import ReportPeriod
from tests.reporting.support import DAY, report


class ReportKeyTests(SynchronousTestCase):
    """
    Tests for L{ReportKey<moxtls.reporting.types.ReportKey>}.
    """

    def test_distinct(self) -> None:
        """
        Reports that differ in anything that makes them two have other keys
        for the queue.
        """
        key = report().key
        keys = {
            str(key),
            str(replace(key, kind=ReportKind.DMARC)),
            str(replace(key, domain=Domain("b.example"))),
            str(replace(key, start=key.start - 86400)),
            str(replace(key, end=key.end + 1)),
            str(replace(key, destination="https://a.example/")),
            str(replace(key, phase=1)),
        }
        self.assertEqual(len(keys), 7)
        self.assertEqual(str(key), str(report(sender="other@sender.example").key))


class ReportPeriodTests(SynchronousTestCase):
    """
    Tests for L{ReportPeriod}.
    """

    def test_order(self) -> None:
        """
        Subjects are in order of phase, day and domain.
        """
        ordered = [
            ReportPeriod(0, DAY, Domain("b.example")),
            ReportPeriod(0, DAY + timedelta(days=1), Domain("a.example")),
            ReportPeriod(0, DAY + timedelta(days=1), Domain("c.example")),
            ReportPeriod(1, DAY, Domain("a.example")),
        ]
        self.assertEqual(sorted(reversed(ordered)), ordered)
