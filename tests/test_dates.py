"""
Tests for L{moxtls.dates}.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, MonotonicTime, Span, midnight, rfc3339, spanOfDay, utcDay

#: 2026-11-24T00:00:00Z.
MIDNIGHT = 1_795_478_400
TUESDAY = date(2026, 11, 24)

days = st.dates(date(1970, 1, 1), date(2999, 12, 30))


class DatesTests(SynchronousTestCase):
    """
    Tests for the functions of L{moxtls.dates}.
    """

    def test_utcDay(self) -> None:
        """
        Days begin and end at midnight, UTC (RFC 8460 4.1).
        """
        self.assertEqual(utcDay(MIDNIGHT), TUESDAY)
        self.assertEqual(utcDay(MIDNIGHT - 0.001), date(2026, 11, 23))
        self.assertEqual(utcDay(MIDNIGHT + DAY - 0.001), TUESDAY)
        self.assertEqual(utcDay(MIDNIGHT + DAY), date(2026, 11, 25))

    def test_midnight(self) -> None:
        """
        Midnight is a whole number of seconds.
        """
        self.assertEqual(midnight(TUESDAY), MIDNIGHT)

    def test_spanOfDay(self) -> None:
        """
        A day lasts until the next one begins; reports call its last second
        the end (RFC 8460 4.4).
        """
        span = spanOfDay(TUESDAY)
        self.assertEqual(span, Span(MIDNIGHT, MIDNIGHT + DAY))
        self.assertEqual(rfc3339(span.last), "2026-11-24T23:59:59Z")

    def test_texts(self) -> None:
        """
        Times as in reports (RFC 3339 5.6), to the second.
        """
        self.assertEqual(rfc3339(MIDNIGHT + 0.9), "2026-11-24T00:00:00Z")

    @settings(max_examples=100, deadline=None)
    @given(days)
    def test_daysAbut(self, day: date) -> None:
        """
        Each second belongs to exactly one day.
        """
        span = spanOfDay(day)
        self.assertEqual(span.end - span.start, DAY)
        self.assertEqual((utcDay(span.start), utcDay(span.last)), (day, day))
        self.assertEqual(utcDay(span.end), day + timedelta(days=1))
        self.assertEqual(spanOfDay(utcDay(span.end)).start, span.end)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 32_503_000_000))
    def test_rfc3339(self, second: int) -> None:
        """
        A date-time can be parsed again.
        """
        read = datetime.fromisoformat(rfc3339(second))
        self.assertEqual((read.tzinfo, int(read.timestamp())), (UTC, second))


class MonotonicTimeTests(SynchronousTestCase):
    """
    Tests for L{MonotonicTime}.
    """

    def test_setBack(self) -> None:
        """
        After the clock was set back, the time stands still for a moment, and
        continues.
        """
        elapsed = MonotonicTime()
        said = [1000.0, 1010.0, 10.0, 15.0, 15.0, 5.0, 6.0]
        found = [elapsed.at(now) for now in said]
        self.assertEqual(found, [1000.0, 1010, 1010, 1015, 1015, 1015, 1016])
