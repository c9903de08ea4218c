# -*- test-case-name: tests.reporting.test_suppression -*-
"""
How long a destination that fails gets no reports.  No I/O.
"""

from __future__ import annotations

from moxtls.calendar import DAY
from moxtls.queue.values import ReportKind
from moxtls.reporting.values import Suppression

#: Entered by hand, unless another period is given.
MANUAL_PERIOD = 31 * DAY
#: After the first failure: a report or two are left out, in case it was a
#: passing trouble that called itself permanent.
FIRST_PERIOD = 2 * DAY
#: Once a year is little enough to ask of anybody.
MAX_PERIOD = 365 * DAY
#: Acceptance isn't arrival: a DSN may follow, for as long as hosts try
#: (RFC 5321 4.5.4.1: 4 to 5 days).
BOUNCE_WINDOW = 5 * DAY


def afterFailure(
    destination: str,
    kind: ReportKind,
    now: float,
    comment: str,
    previous: Suppression | None,
) -> Suppression:
    """
    The entry after one more failure.

    @param previous: The entry for the same destination and kind, active or
        not.
    """
    failures = previous.failures + 1 if previous else 1
    until = now + period(failures)
    if previous is not None:
        until = max(until, previous.until)  # A person may have said longer.
    return Suppression(destination, kind, until, now, comment, failures)


def period(failures: int) -> int:
    """
    For how long a destination that failed so often in a row is left alone.
    """
    # Past some twenty doublings any period is the longest one.
    doubled = FIRST_PERIOD * (1 << min(failures - 1, 20))
    return min(doubled, MAX_PERIOD)


def canReset(entry: Suppression, now: float, final: bool) -> bool:
    """
    Whether a delivery that succeeded makes the count start anew.

    @param final: Whether no DSN can follow.
    """
    over = entry.until if final else entry.until + BOUNCE_WINDOW
    return entry.failures > 0 and now >= over
