# -*- test-case-name: tests.lab.test_day -*-
"""
Ends a day before its time, so that reports are sent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

from twisted.internet.task import deferLater

from moxtls.calendar import HOUR, MINUTE, midnight, utcDay
from moxtls.lab.clock import LabClock

#: How much time of the lab passes in a step, and how long that takes.  What
#: is given minutes, such as looking up where a report goes, still gets some
#: tenths of a second.
STEP = 15.0
PAUSE = 0.05
#: The same once the reports are sent of which there are many at a time.
LATER_STEP = 30.0
#: Since midnight: when all reports of a day have been sent, if all went well,
#: and when nobody waits any longer.  Reports begin 4 to 6 minutes past, are
#: spread over C{REPORT_WINDOW}, those on DMARC over a window of their own, and
#: are tried again each hour.
REPORT_WINDOW = 10 * MINUTE
ROUND_OVER = 18 * MINUTE
DMARC_ROUND_OVER = 53 * MINUTE
GIVE_UP = 2 * HOUR + ROUND_OVER


async def endDay(
    clock: LabClock,
    complete: Callable[[], bool],
    passed: Callable[[float], None],
    over: float = ROUND_OVER,
) -> date:
    """
    Go on to the next day, and let time pass until the reports on the one
    before are sent.

    @param complete: Whether all reports are there.
    @param passed: Told now and then what time it is.
    @param over: When everything that is going to be sent was sent, in seconds
        since midnight.

    @return: The day that was ended.
    """
    day = utcDay(clock.seconds())
    start = midnight(day + timedelta(days=1))
    await _evening(clock, start)
    while True:
        await deferLater(clock.reactor, PAUSE)
        since = clock.seconds() - start
        passed(clock.seconds())
        if since >= GIVE_UP or (since >= over and complete()):
            return day
        clock.putForward(STEP if since < ROUND_OVER else LATER_STEP)


async def _evening(clock: LabClock, midnight: float) -> None:
    """
    Go on to midnight, but not past anything that is due before: what happens
    each hour is to happen at its hour.
    """
    while clock.seconds() < midnight:
        due = [each.getTime() for each in clock.getDelayedCalls()]
        leap = min([midnight, *due]) - clock.seconds()
        # Whatever waits for less than that can as well be a little late.
        clock.putForward(max(leap, min(MINUTE, midnight - clock.seconds())))
        await deferLater(clock.reactor, PAUSE)
