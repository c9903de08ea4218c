# -*- test-case-name: tests.reporting.test_schedule -*-
"""
The times of the report schedule, and the window over which the reports of a run are
spread.  No I/O: the time is always an argument.
"""

from __future__ import annotations

from datetime import date

from moxtls.dates import HOUR, MINUTE, Span, utcDay
from moxtls.queue.types import ReportKind

#: Seconds after each full hour until all its data is recorded.
RECORDING_DELAY = 4 * MINUTE
#: Maximum number of random seconds after that, so that hosts don't all begin at once.
MAX_JITTER = 119
#: Seconds over which reports are spread, so as not to flood receivers of reports for
#: many domains (RFC 8460 4.1).  DMARC reports are due each hour.
WINDOWS = {ReportKind.TLS: 4 * HOUR, ReportKind.DMARC: 45 * MINUTE}
#: Maximum number of seconds between two reports.
MAX_SPACING = 5 * MINUTE
#: Seconds after which data is no longer reported: at least two of the longest
#: reporting periods (days).
MAX_AGE = {ReportKind.TLS: 60 * HOUR, ReportKind.DMARC: 48 * HOUR}


def untilTick(now: float) -> float:
    """
    The seconds until the next run of the hourly schedule; more than 0.
    """
    return HOUR - (now - RECORDING_DELAY) % HOUR


def dueBefore(now: float) -> date:
    """
    The day before which all days are over and completely recorded.
    """
    return utcDay(now - RECORDING_DELAY)


def staleBefore(now: float) -> date:
    """
    The day before which days are too old to be reported.
    """
    return utcDay(now - MAX_AGE[ReportKind.TLS])


def lastHour(now: float) -> int:
    """
    The end of the last hour that is over and completely recorded, in Unix seconds.
    """
    return int((now - RECORDING_DELAY) // HOUR) * HOUR


def staleHoursBefore(now: float) -> int:
    """
    The Unix second before which hours begin that are too old to be reported.
    """
    return lastHour(now) - MAX_AGE[ReportKind.DMARC]


def intervalSpan(end: int, hours: int, first: int, since: int = 0) -> Span:
    """
    The span of a report: intervals of C{hours}, counted from UTC midnight, from that
    of C{first} up to C{end}.  It has more than one interval if a report couldn't be
    made when it was due.  C{end} is within an interval only if the period was closed
    early.

    @param first: The Unix second of the first data.
    @param since: The Unix second in which the previous period was closed early; the
        span begins no earlier.
    """
    interval = hours * HOUR
    start = max(min(first, end - 1) // interval * interval, since)
    return Span(min(start, end - 1), end)


def spacing(count: int, window: float) -> float:
    """
    The seconds between two of C{count} reports that are spread over C{window}.
    """
    return min(window / max(count, 1), MAX_SPACING)
