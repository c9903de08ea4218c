# -*- test-case-name: tests.app.test_clocks -*-
"""
A monotonic clock, and correction of delayed calls when the date is set.

The reactor's clock and delayed calls follow the system's date, which changes when the
operator, or NTP, sets it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
)
from twisted.logger import Logger
from zope.interface import implementer

#: Seconds between two checks of the date.
INTERVAL = 5.0
#: Seconds: smaller steps back are ignored.  Slewing, as by adjtime(3), is far below
#: that.
MIN_STEP = 1.0


@implementer(IReactorTime)
class MonotonicClock:
    """
    Measures durations with the system's monotonic clock; delayed calls are those of the
    reactor.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        return time.monotonic()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: Any
    ) -> IDelayedCall:
        return self._reactor.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return self._reactor.getDelayedCalls()


class DelayedCallCorrection(Service):
    """
    Moves the reactor's delayed calls when the date is set back: otherwise a timeout of
    a minute would last an hour longer if the date was an hour ahead.

    A thread checks the date, because the reactor may sleep until the next call.  When
    the date is set forward, the reactor calls too early, once; callers that measure
    durations wait again.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        callFromThread: Callable[..., object],
        interval: float = INTERVAL,
    ) -> None:
        """
        @param clock: The reactor.
        @param callFromThread: As of C{IReactorFromThreads}.
        """
        self._clock = clock
        self._callFromThread = callFromThread
        self._interval = interval
        self._stopping = Event()
        self._thread: Thread | None = None

    def startService(self) -> None:
        super().startService()
        self._stopping = Event()
        self._thread = Thread(
            target=self._watch,
            args=(self._stopping, self._difference()),
            name="date",
            daemon=True,
        )
        self._thread.start()

    def stopService(self) -> None:
        super().stopService()
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, stopping: Event, difference: float) -> None:
        while not stopping.wait(self._interval):
            before, difference = difference, self._difference()
            if difference <= before - MIN_STEP:
                self._callFromThread(self.correct, before - difference)

    def _difference(self) -> float:
        return self._clock.seconds() - time.monotonic()

    def correct(self, step: float) -> None:
        """
        Move the delayed calls.

        @param step: Seconds by which the date was set back, just now.
        """
        now = self._clock.seconds()
        self.log.warn("the date was set back by {step:.0f} seconds", step=step)
        for call in self._clock.getDelayedCalls():
            wait = call.getTime() - now
            # Calls that were scheduled since then have the right time already, and
            # mostly less to wait than this.
            if wait >= step - self._interval:
                call.reset(max(0.0, wait - step))
