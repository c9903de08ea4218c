# -*- test-case-name: tests.test_dates -*-
"""
UTC days and spans of reports; durations.  No I/O: the time is always an argument.
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
    The half-open stretch of time C{[start, end)}, in whole Unix seconds.
    """

    start: int
    end: int

    @property
    def last(self) -> int:
        """
        Its last second: reports name their end inclusively (RFC 8460 4.4).
        """
        return self.end - 1


class MonotonicTime:
    """
    Time for durations, of a clock that is set now and then: instead of going back it
    stands still, as else what is to last a minute would last as long as the clock was
    set back.
    """

    __slots__ = ("_latest", "_offset")

    def __init__(self) -> None:
        self._latest = float("-inf")
        self._offset = 0.0

    def at(self, now: float) -> float:
        """
        @param now: What the clock says.

        @return: Seconds, never less than before.
        """
        now += self._offset
        if now < self._latest:
            self._offset += self._latest - now
            now = self._latest
        self._latest = now
        return now


def utcDay(now: float) -> date:
    """
    @param now: Unix seconds.
    """
    return datetime.fromtimestamp(now, UTC).date()


def midnight(day: date) -> int:
    """
    The Unix second in which C{day} begins, in UTC.
    """
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def spanOfDay(day: date) -> Span:
    """
    The whole of a UTC day (RFC 8460 4.1).
    """
    return Span(midnight(day), midnight(day + timedelta(days=1)))


def rfc3339(second: float) -> str:
    """
    C{2026-11-24T00:00:00Z} (RFC 3339), as reports write it.
    """
    moment = datetime.fromtimestamp(int(second), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
