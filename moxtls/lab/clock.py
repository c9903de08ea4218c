# -*- test-case-name: tests.lab.test_clock -*-
"""
A clock that can be put forward, for what has to do with dates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IDelayedCall)
class _DatedCall:
    """
    A call at a time of a L{LabClock}.
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
        The clock was put forward, or the call put off.
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
    Runs as fast as a reactor does, and is as far ahead of it as it was put.
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
        Let time pass at once.  What has become due is called soon, in the
        order in which it was due.
        """
        self._ahead += seconds
        for call in sorted(self._calls, key=_DatedCall.getTime):
            call.rearm()

    def remaining(self, due: float) -> float:
        """
        Seconds until then.
        """
        return max(0.0, due - self.seconds())

    def forget(self, call: _DatedCall) -> None:
        """
        It was made, or won't be.
        """
        self._calls.discard(call)
