"""
Tests for L{moxtls.reporting.schedule}.
"""

from __future__ import annotations

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from moxtls.calendar import HOUR, midnight
from moxtls.reporting.schedule import dueBefore, gap, staleBefore, untilTick

MIDNIGHT = midnight(date(2026, 11, 25))


class ScheduleTests(SynchronousTestCase):
    """
    Tests for when reports are made.
    """

    def test_ticks(self) -> None:
        """
        Four minutes behind each whole hour of UTC.
        """
        for now, wait in [(0, 240), (239, 1), (240, 3600), (241, 3599), (3599, 241)]:
            self.assertEqual(untilTick(MIDNIGHT + now), wait)

    def test_due(self) -> None:
        """
        A day is due once it is over and settled.
        """
        self.assertEqual(dueBefore(MIDNIGHT + 239), date(2026, 11, 24))
        self.assertEqual(dueBefore(MIDNIGHT + 240), date(2026, 11, 25))

    def test_stale(self) -> None:
        """
        And stale after two more days and a half.
        """
        self.assertEqual(staleBefore(MIDNIGHT + 60 * HOUR), date(2026, 11, 25))
        self.assertEqual(staleBefore(MIDNIGHT + 60 * HOUR - 1), date(2026, 11, 24))

    def test_gap(self) -> None:
        """
        Over at most four hours, at most five minutes apart (RFC 8460 4.1).
        """
        self.assertEqual([gap(0), gap(1), gap(48)], [300, 300, 300])
        self.assertEqual(gap(1440), 10)
        self.assertEqual(gap(10, 100), 10)
