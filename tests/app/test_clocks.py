"""
Tests for L{moxtls.app.clocks}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from moxtls.app.clocks import DelayedCallCorrection, MonotonicClock

reactor: Any = globalReactor


class MonotonicClockTests(SynchronousTestCase):
    """
    Tests for L{MonotonicClock}.
    """

    def test_date(self) -> None:
        """
        The date doesn't matter, and the reactor calls back.
        """
        date = Clock()
        clock = MonotonicClock(date)
        verifyObject(IReactorTime, clock)
        called: list[int] = []
        clock.callLater(5, called.append, 1)
        before = clock.seconds()
        self.assertEqual(list(clock.getDelayedCalls()), date.getDelayedCalls())
        date.advance(5)
        self.assertEqual(called, [1])
        date.rightNow -= 10**6
        self.assertGreaterEqual(clock.seconds(), before)


class DelayedCallCorrectionTests(TestCase):
    """
    Tests for L{DelayedCallCorrection}.
    """

    timeout = 30

    def test_setBack(self) -> None:
        """
        If the clock is set back, delayed calls still happen after their delay.
        """
        clock, called = Clock(), list[str]()
        clock.advance(10_000)
        correction = DelayedCallCorrection(clock, reactor.callFromThread)
        clock.callLater(60, called.append, "before")
        clock.rightNow -= 3600
        clock.callLater(30, called.append, "since")
        with capturedLogs():
            correction.correct(3600)
        clock.advance(29)
        self.assertEqual(called, [])
        clock.advance(1)
        self.assertEqual(called, ["since"])
        clock.advance(30)
        self.assertEqual(called, ["since", "before"])

    async def test_noticed(self) -> None:
        """
        Setting the clock back is detected; setting it forward isn't.
        """
        clock, woken = Clock(), Deferred[None]()
        correction = DelayedCallCorrection(clock, reactor.callFromThread, 0.01)
        clock.callLater(0.5, woken.callback, None)
        correction.startService()
        self.addCleanup(correction.stopService)
        clock.rightNow += 0.1
        clock.rightNow -= 3600
        with capturedLogs() as events:
            while not events:
                waiting: Deferred[None] = Deferred()
                reactor.callLater(0.01, waiting.callback, None)
                await waiting
        [call] = clock.getDelayedCalls()
        self.assertLess(call.getTime() - clock.seconds(), 1)
