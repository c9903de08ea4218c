# -*- test-case-name: tests.lab.test_clock -*-
"""
A clock that can be put forward, to end a report day early.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from moxtls.dates import HOUR, MINUTE, midnight, utcDay


@implementer(IDelayedCall)
class _DatedCall:
    """
    A delayed call of a L{LabClock}.
    """

    def __init__(self, clock: LabClock, due: float, run: Callable[[], None]) -> None:
        self._clock = clock
        self._due = due
        self._underlying = clock.reactor.callLater(clock.remaining(due), run)

    def getTime(self) -> float:
        return self._due

    def reset(self, secondsFromNow: float) -> None:
        self._due = self._clock.seconds() + secondsFromNow
        self.rearm()

    def delay(self, secondsLater: float) -> None:
        self._due += secondsLater
        self.rearm()

    def rearm(self) -> None:
        """
        Recompute the real delay, after the clock was put forward or the call was
        postponed.
        """
        self._underlying.reset(self._clock.remaining(self._due))

    def cancel(self) -> None:
        self._underlying.cancel()
        self._clock.forget(self)

    def active(self) -> bool:
        return bool(self._underlying.active())


@implementer(IReactorTime)
class LabClock:
    """
    A clock that runs with the reactor, ahead of it by an adjustable offset.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.reactor = reactor
        self._ahead = 0.0
        self._calls: set[_DatedCall] = set()

    def seconds(self) -> float:
        return self.reactor.seconds() + self._ahead

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        def run() -> None:
            self.forget(call)
            callable(*args, **kwargs)

        call = _DatedCall(self, self.seconds() + delay, run)
        self._calls.add(call)
        return call

    def getDelayedCalls(self) -> tuple[IDelayedCall, ...]:
        return tuple(self._calls)

    def putForward(self, seconds: float) -> None:
        """
        Advance the time at once. Calls that become due are made soon, in the order of
        their times.
        """
        self._ahead += seconds
        for call in sorted(self._calls, key=_DatedCall.getTime):
            call.rearm()

    def remaining(self, due: float) -> float:
        """
        Seconds until the call is due.
        """
        return max(0.0, due - self.seconds())

    def forget(self, call: _DatedCall) -> None:
        """
        Remove a call that was made or cancelled.
        """
        self._calls.discard(call)


#: The lab's time that passes in a step, and the real duration of a step. Operations
#: with timeouts of minutes, such as lookups of report destinations, still get some
#: tenths of a second.
STEP = 15.0
PAUSE = 0.05
#: The same once the reports are sent of which there are many at a time.
LATER_STEP = 30.0
#: Since midnight: when all reports of a day have been sent, if all went well,
#: and the end of waiting for them. Reports begin 4 to 6 minutes past, are
#: spread over C{REPORT_WINDOW}, those on DMARC over a window of their own, and
#: are tried again each hour.
REPORT_WINDOW = 10 * MINUTE
ROUND_OVER = 18 * MINUTE
DMARC_ROUND_OVER = 53 * MINUTE
GIVE_UP = 2 * HOUR + ROUND_OVER
#: Seconds, not of the lab, without another report, before waiting ends:
#: reports are sent at the pace of the machine, however fast the lab's time passes.
TIMEOUT = 60.0
#: What has to be left of an hour when mail begins to come in: what comes in after
#: the end of it would be in another report, as would be what goes out after midnight.
ROOM = 15 * MINUTE


def untilRoom(now: float) -> float:
    """
    The seconds to put the clock forward so that all mail of a run falls into the same
    hour.
    """
    left = HOUR - now % HOUR
    return left if left < ROOM else 0.0


async def endDay(
    clock: LabClock,
    missing: Callable[[], int],
    passed: Callable[[float], None],
    over: float = ROUND_OVER,
) -> date:
    """
    Advance to the next day, and on until the reports on the day before are sent.

    @param missing: Returns the number of reports that have not arrived.
    @param passed: Called with the time as it advances.
    @param over: The time by which everything has been sent, in seconds since
        midnight.

    @return: The day that was ended.
    """
    day = utcDay(clock.seconds())
    start = midnight(day + timedelta(days=1))
    await _evening(clock, start)
    progress = _Progress(clock.reactor, missing)
    while True:
        await deferLater(clock.reactor, PAUSE)
        since = clock.seconds() - start
        passed(clock.seconds())
        if since >= over and missing() <= 0:
            return day
        if since < GIVE_UP:
            clock.putForward(STEP if since < ROUND_OVER else LATER_STEP)
        elif progress.standsStill():
            return day


class _Progress:
    def __init__(self, reactor: IReactorTime, missing: Callable[[], int]) -> None:
        self._reactor = reactor
        self._missing = missing
        self._last = (missing(), reactor.seconds())

    def standsStill(self) -> bool:
        """
        True if nothing has arrived for the maximum waiting time.
        """
        missing, since = self._missing(), self._reactor.seconds()
        if missing != self._last[0]:
            self._last = (missing, since)
        return since - self._last[1] >= TIMEOUT


async def _evening(clock: LabClock, midnight: float) -> None:
    """
    Advance to midnight in steps, so that what is due each hour happens at its hour.
    """
    while clock.seconds() < midnight:
        due = [each.getTime() for each in clock.getDelayedCalls()]
        leap = min([midnight, *due]) - clock.seconds()
        # Shorter delays may be a little late.
        clock.putForward(max(leap, min(MINUTE, midnight - clock.seconds())))
        await deferLater(clock.reactor, PAUSE)
