# -*- test-case-name: tests.reporting.test_schedule -*-
"""
When reports are made.  No I/O: the time is always an argument.
"""

from __future__ import annotations

from datetime import date

from moxtls.dates import HOUR, MINUTE, Span, utcDay
from moxtls.queue.types import ReportKind

#: Behind each whole hour, until everything that ended in it is recorded.
RECORDING_DELAY = 4 * MINUTE
#: And up to so many more, so that not all hosts of the world begin at once.
MAX_JITTER = 119
#: RFC 8460 4.1: reports are spread, so as not to flood who takes those of
#: many domains.  Those on DMARC are due each hour, so they are done within it.
WINDOWS = {ReportKind.TLS: 4 * HOUR, ReportKind.DMARC: 45 * MINUTE}
MAX_SPACING = 5 * MINUTE
#: At least two of the longest reporting periods, days: what couldn't be
#: reported by then won't be.
MAX_AGE = {ReportKind.TLS: 60 * HOUR, ReportKind.DMARC: 48 * HOUR}


def untilTick(now: float) -> float:
    """
    The seconds to the next run of the hourly schedule; more than none.
    """
    return HOUR - (now - RECORDING_DELAY) % HOUR


def dueBefore(now: float) -> date:
    """
    Days before this one are over, and all that happened in them is recorded.
    """
    return utcDay(now - RECORDING_DELAY)


def staleBefore(now: float) -> date:
    """
    Days before this one are too old to be reported.
    """
    return utcDay(now - MAX_AGE[ReportKind.TLS])


def lastHour(now: float) -> int:
    """
    The end of the last hour that is over, and all that happened in it is
    recorded.
    """
    return int((now - RECORDING_DELAY) // HOUR) * HOUR


def staleHoursBefore(now: float) -> int:
    """
    Hours that begin before this second are too old to be reported.
    """
    return lastHour(now) - MAX_AGE[ReportKind.DMARC]


def intervalSpan(end: int, hours: int, first: int, since: int = 0) -> Span:
    """
    Of intervals of C{hours}, counted from UTC midnight, those up to C{end} as far
    back as C{first}: more than one if a report couldn't be made when it was
    due.  They begin no earlier than C{since}, when the period before was closed,
    and only a period that was closed itself ends within one.
    """
    interval = hours * HOUR
    start = max(min(first, end - 1) // interval * interval, since)
    return Span(min(start, end - 1), end)


def spacing(count: int, window: float) -> float:
    """
    The seconds between two of C{count} reports.
    """
    return min(window / max(count, 1), MAX_SPACING)
