"""
Tests for L{moxtls.reporting.suppression}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY
from moxtls.queue.types import ReportKind
from moxtls.reporting.suppression import BOUNCE_WINDOW, afterFailure, canReset, period
from moxtls.reporting.types import Suppression

URI = "mailto:tls@a.example"


class SuppressionTests(SynchronousTestCase):
    """
    Tests for how long a destination is left alone.
    """

    def test_growth(self) -> None:
        """
        Each failure in a row doubles the period, up to a year.
        """
        days = [period(failures) // DAY for failures in range(1, 11)]
        self.assertEqual(days, [2, 4, 8, 16, 32, 64, 128, 256, 365, 365])
        self.assertEqual(period(10**6), 365 * DAY)

    def test_suppress(self) -> None:
        """
        An entry takes over the count of the one before.
        """
        first = afterFailure(URI, ReportKind.TLS, 1000, "550", None)
        self.assertEqual(
            first, Suppression(URI, ReportKind.TLS, 1000 + 2 * DAY, 1000, "550", 1)
        )
        second = afterFailure(URI, ReportKind.TLS, 3 * DAY, "551", first)
        self.assertEqual((second.failures, second.until), (2, 7 * DAY))

    def test_byHand(self) -> None:
        """
        A longer period that a person has set isn't cut short.
        """
        manual = Suppression(URI, ReportKind.TLS, 100 * DAY, 0)
        entry = afterFailure(URI, ReportKind.TLS, 50 * DAY, "550", manual)
        self.assertEqual((entry.failures, entry.until), (1, 100 * DAY))

    def test_forgiven(self) -> None:
        """
        A delivery begins the count anew; but as acceptance by a mail host
        isn't the end of it, only when a DSN would have come.  What a person
        has entered stays.
        """
        entry = afterFailure(URI, ReportKind.TLS, 0, "", None)
        self.assertFalse(canReset(entry, entry.until - 1, final=True))
        self.assertTrue(canReset(entry, entry.until, final=True))
        self.assertFalse(canReset(entry, entry.until, final=False))
        self.assertTrue(canReset(entry, entry.until + BOUNCE_WINDOW, final=False))
        manual = Suppression(URI, None, 0, 0)
        self.assertFalse(canReset(manual, 1000 * DAY, final=True))
