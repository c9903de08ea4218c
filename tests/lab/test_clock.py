"""
Tests for L{moxtls.lab.clock}.

Tests for L{moxtls.lab.clock}.
"""

from __future__ import annotations

from datetime import date

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import AlreadyCancelled
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import HOUR, MINUTE
from moxtls.lab.clock import (
    GIVE_UP,
    PAUSE,
    ROOM,
    ROUND_OVER,
    LabClock,
    endDay,
    untilRoom,
)
from tests.lab.grove import NOON


class LabClockTests(SynchronousTestCase):
    """
    Time that passes at once.
    """

    def setUp(self) -> None:
        self.reactor = Clock()
        self.clock = LabClock(self.reactor)
        self.calls: list[str] = []

    def later(self, delay: float, name: str) -> None:
        self.clock.callLater(delay, self.calls.append, name)

    def test_provides(self) -> None:
        """
        The clock provides the reactor's interface.
        """
        verifyObject(IReactorTime, self.clock)

    def test_follows(self) -> None:
        """
        Time passes as it does for the reactor.
        """
        self.later(5, "a")
        self.reactor.advance(4)
        self.assertEqual([], self.calls)
        self.reactor.advance(1)
        self.assertEqual(["a"], self.calls)
        self.assertEqual(5, self.clock.seconds())
        self.assertEqual((), self.clock.getDelayedCalls())

    def test_putForward(self) -> None:
        """
        Due calls are made in order, and not from within C{putForward}.
        """
        self.later(20, "b")
        self.later(10, "a")
        self.later(100, "c")
        self.clock.putForward(30)
        self.assertEqual([], self.calls)
        self.assertEqual(30, self.clock.seconds())
        self.reactor.advance(0)
        self.assertEqual(["a", "b"], self.calls)
        self.reactor.advance(70)
        self.assertEqual(["a", "b", "c"], self.calls)

    def test_putOff(self) -> None:
        """
        Calls can be delayed and cancelled, whatever happened to the clock.
        """
        call = self.clock.callLater(10, self.calls.append, "a")
        call.delay(5)
        self.assertEqual(15, call.getTime())
        self.clock.putForward(12)
        call.reset(8)
        self.reactor.advance(7)
        self.assertEqual([], self.calls)
        self.assertTrue(call.active())
        call.cancel()
        self.assertFalse(call.active())
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.reactor.advance(10)
        self.assertEqual([], self.calls)

    def test_loopingCall(self) -> None:
        """
        A LoopingCall continues after a leap.
        """
        loop = LoopingCall(self.calls.append, "tick")
        loop.clock = self.clock
        loop.start(60, now=False)
        self.clock.putForward(86400)
        self.reactor.advance(0)
        self.assertEqual(["tick"], self.calls)
        self.reactor.advance(60)
        self.assertEqual(["tick", "tick"], self.calls)
        loop.stop()


MIDNIGHT = NOON + 12 * HOUR


class UntilRoomTests(SynchronousTestCase):
    """
    When a run of the lab begins.
    """

    def test_inOneHour(self) -> None:
        """
        Mail that comes in around the end of an hour, or of a day, would be in
        two reports: so time is put forward to the next hour.
        """
        self.assertEqual(0, untilRoom(NOON))
        self.assertEqual(0, untilRoom(NOON + HOUR - ROOM))
        for left in (0.5, ROOM - 1):
            self.assertEqual(left, untilRoom(NOON + HOUR - left))
        self.assertEqual(20, untilRoom(MIDNIGHT - 20))


class EndDayTests(SynchronousTestCase):
    """
    The night passes in seconds.
    """

    def setUp(self) -> None:
        self.reactor = Clock()
        self.reactor.advance(NOON)
        self.clock = LabClock(self.reactor)
        self.missing = 0
        self.times: list[float] = []

    def begin(self) -> Deferred[date]:
        return Deferred.fromCoroutine(
            endDay(self.clock, lambda: self.missing, self.times.append)
        )

    def pump(self, ending: Deferred[date]) -> float:
        """
        @return: How many seconds it took.
        """
        start = self.reactor.seconds()
        while not ending.called and self.reactor.seconds() < start + 600:
            self.reactor.advance(PAUSE)
        return self.reactor.seconds() - start

    def test_complete(self) -> None:
        """
        The day goes on until all reports can have been sent, to detect superfluous
        ones.
        """
        ending = self.begin()
        seconds = self.pump(ending)
        self.assertEqual(date(2026, 11, 24), self.successResultOf(ending))
        self.assertLess(seconds, 15)
        self.assertGreaterEqual(self.clock.seconds(), MIDNIGHT + ROUND_OVER)
        self.assertLess(self.clock.seconds(), MIDNIGHT + HOUR)
        self.assertEqual(sorted(self.times), self.times)

    def test_incomplete(self) -> None:
        """
        Missing reports aren't waited for for ever, but as long as others keep
        arriving, however slow the machine is.
        """
        self.missing = 3
        ending = self.begin()
        for seconds, missing in ((50, 3), (50, 2), (50, 1)):
            self.missing = missing
            self.reactor.pump([PAUSE] * int(seconds / PAUSE))
            self.assertNoResult(ending)
        self.assertGreaterEqual(self.clock.seconds(), MIDNIGHT + GIVE_UP)
        # A machine without a pause is no reason for the lab's time to fly.
        self.assertLess(self.clock.seconds(), MIDNIGHT + GIVE_UP + HOUR)
        self.pump(ending)
        self.successResultOf(ending)

    def test_hourly(self) -> None:
        """
        Hourly work happens at its hour, also when the clock is put forward.
        """
        happened: list[float] = []

        def hourly() -> None:
            happened.append(self.clock.seconds())
            self.clock.callLater(HOUR, hourly)

        self.clock.callLater(4 * MINUTE, hourly)
        ending = self.begin()
        self.pump(ending)
        self.assertEqual(13, len(happened))
        for number, second in enumerate(happened):
            due = NOON + 4 * MINUTE + number * HOUR
            self.assertLess(abs(second - due), MINUTE)

    def test_cancelled(self) -> None:
        """
        Waiting can be cancelled.
        """
        ending = self.begin()
        self.reactor.advance(1)
        ending.cancel()
        self.failureResultOf(ending, CancelledError)
        self.assertEqual([], self.reactor.getDelayedCalls())
