# -*- test-case-name: tests.reporting.test_schedule -*-
"""
When reports are made.  No I/O: the time is always an argument.
"""

from __future__ import annotations

from datetime import date

from moxtls.calendar import HOUR, MINUTE, utcDay

#: Behind each whole hour, until everything that ended in it is recorded.
SETTLING = 4 * MINUTE
#: And up to so many more, so that not all hosts of the world begin at once.
LONGEST_JITTER = 119
#: RFC 8460 4.1: reports are spread, so as not to flood who takes those of
#: many domains.
WINDOW = 4 * HOUR
LONGEST_GAP = 5 * MINUTE
#: Two reporting periods and a half: what couldn't be reported by then won't
#: be.
STALE = 60 * HOUR


def untilTick(now: float) -> float:
    """
    The seconds to the next run of the hourly schedule; more than none.
    """
    return HOUR - (now - SETTLING) % HOUR


def dueBefore(now: float) -> date:
    """
    Days before this one are over, and all that happened in them is recorded.
    """
    return utcDay(now - SETTLING)


def staleBefore(now: float) -> date:
    """
    Days before this one are too old to be reported.
    """
    return utcDay(now - STALE)


def gap(count: int, window: float = WINDOW) -> float:
    """
    The seconds between two of C{count} reports.
    """
    return min(window / max(count, 1), LONGEST_GAP)
