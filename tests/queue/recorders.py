"""
Contract tests for L{IResultRecorder}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.interfaces import IResultRecorder
from moxtls.queue.types import DeliveryStatus, Result

FIRST = Result("m1", "a@there.example", DeliveryStatus.DELIVERED, "2.0.0")
SECOND = replace(FIRST, messageID="m2")


class ResultRecorderMixin(SynchronousTestCase):
    """
    Tests for L{IResultRecorder}, on the recorder of an attempt for the recipients of
    C{FIRST} and C{SECOND}.
    """

    def makeRecorder(self) -> IResultRecorder:
        raise NotImplementedError

    def recorded(self) -> list[Result]:
        """
        The recorded results, in order.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        self.recorder = self.makeRecorder()

    def test_interface(self) -> None:
        """
        The recorder provides L{IResultRecorder}.
        """
        verifyObject(IResultRecorder, self.recorder)

    def test_recorded(self) -> None:
        """
        Results are recorded when the Deferred of C{record} fires.
        """
        self.successResultOf(self.recorder.record([FIRST]))
        self.assertEqual(self.recorded(), [FIRST])
        self.successResultOf(self.recorder.record([SECOND]))
        self.assertEqual(self.recorded(), [FIRST, SECOND])

    def test_noResults(self) -> None:
        """
        C{record} without results fires at once.
        """
        self.successResultOf(self.recorder.record([]))
        self.assertEqual(self.recorded(), [])

    def test_recordedTwice(self) -> None:
        """
        A second result for a recipient is ignored.
        """
        self.successResultOf(self.recorder.record([FIRST]))
        other = replace(FIRST, ending=DeliveryStatus.PERMANENT)
        self.successResultOf(self.recorder.record([other, SECOND]))
        self.assertEqual(self.recorded(), [FIRST, SECOND])
