"""
Tests for L{moxtls.lab.clock}.
"""

from __future__ import annotations

from twisted.internet.error import AlreadyCancelled
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.lab.clock import LabClock


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
        It stands in for a reactor.
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
        What becomes due is called in its order, and never at once: whoever
        puts the clock forward isn't interrupted.
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
        Calls can be put off and cancelled, whatever was done to the clock.
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
        A LoopingCall on it goes on after a leap.
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
