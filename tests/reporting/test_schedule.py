"""
Tests for L{moxtls.reporting.schedule}.
"""

from __future__ import annotations

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import HOUR, Span, midnight
from moxtls.queue.types import ReportKind
from moxtls.reporting.schedule import (
    WINDOWS,
    dueBefore,
    intervalSpan,
    lastHour,
    spacing,
    staleBefore,
    staleHoursBefore,
    untilTick,
)

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
        A day is stale two and a half days after it was due.
        """
        self.assertEqual(staleBefore(MIDNIGHT + 60 * HOUR), date(2026, 11, 25))
        self.assertEqual(staleBefore(MIDNIGHT + 60 * HOUR - 1), date(2026, 11, 24))

    def test_gap(self) -> None:
        """
        Over at most four hours, at most five minutes apart (RFC 8460 4.1).
        """
        window = WINDOWS[ReportKind.TLS]
        gaps = [spacing(count, window) for count in (0, 1, 48, 1440)]
        self.assertEqual(gaps, [300, 300, 300, 10])
        self.assertEqual(spacing(10, 100), 10)

    def test_hourly(self) -> None:
        """
        Reports of an hour are done within it: over 45 minutes, at most five
        minutes apart.
        """
        window = WINDOWS[ReportKind.DMARC]
        gaps = [spacing(count, window) for count in (1, 9, 10, 2700)]
        self.assertEqual(gaps, [300, 300, 270, 1])

    def test_lastHour(self) -> None:
        """
        An hour can be reported once it is over and settled.
        """
        for now, hour in [(0, -1), (239, -1), (240, 0), (3839, 0), (3840, 1)]:
            self.assertEqual(lastHour(MIDNIGHT + now), MIDNIGHT + hour * HOUR)

    def test_staleHours(self) -> None:
        """
        Two days before that one, it is too late.
        """
        self.assertEqual(staleHoursBefore(MIDNIGHT + 240), MIDNIGHT - 48 * HOUR)

    def test_span(self) -> None:
        """
        A report is about whole intervals, so many that they include its first
        evaluation (RFC 9990 3.1.1.4).
        """
        for hours, first, start in [
            (24, -24, -24),
            (24, -1, -24),
            (24, -25, -48),
            (1, -1, -1),
            (1, -2, -2),
            (4, -4, -4),
            (4, -5, -8),
            (4, 0, -4),
        ]:
            found = intervalSpan(MIDNIGHT, hours, MIDNIGHT + first * HOUR)
            self.assertEqual(found, Span(MIDNIGHT + start * HOUR, MIDNIGHT))
