# -*- test-case-name: tests.test_dates -*-
"""
UTC days, report periods and durations.  No I/O: the time is always an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """
    The half-open period C{[start, end)}, in whole Unix seconds.
    """

    start: int
    end: int

    @property
    def last(self) -> int:
        """
        The last second: reports give an inclusive end (RFC 8460 4.4).
        """
        return self.end - 1


class MonotonicTime:
    """
    Monotonic seconds derived from a wall clock.

    When the clock is set back, the time stands still instead; otherwise a timeout of
    a minute would grow by as much as the clock was set back.
    """

    __slots__ = ("_latest", "_offset")

    def __init__(self) -> None:
        self._latest = float("-inf")
        self._offset = 0.0

    def at(self, now: float) -> float:
        """
        @param now: The time on the wall clock, in seconds.

        @return: Seconds, never less than returned before.
        """
        now += self._offset
        if now < self._latest:
            self._offset += self._latest - now
            now = self._latest
        self._latest = now
        return now


def utcDay(now: float) -> date:
    """
    The UTC day of a moment.

    @param now: Unix seconds.
    """
    return datetime.fromtimestamp(now, UTC).date()


def midnight(day: date) -> int:
    """
    The Unix second in which the UTC day C{day} begins.
    """
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def spanOfDay(day: date) -> Span:
    """
    The whole of a UTC day (RFC 8460 4.1).
    """
    return Span(midnight(day), midnight(day + timedelta(days=1)))


def rfc3339(second: float) -> str:
    """
    The date-time of a moment as reports give it (RFC 3339): C{2026-11-24T00:00:00Z}.
    """
    moment = datetime.fromtimestamp(int(second), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
