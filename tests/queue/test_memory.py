"""
Tests for L{moxtls.queue.memory}.
"""

from __future__ import annotations

from itertools import count

from moxtls.interfaces import IQueue, IResultRecorder
from moxtls.queue.memory import MemoryQueue, MemoryResultRecorder
from moxtls.queue.types import Result
from tests.queue import queues, recorders
from tests.queue.queues import BODY, ENVELOPE


class MemoryQueueTests(queues.QueueMixin):
    """
    Tests for L{MemoryQueue}.
    """

    def makeQueue(self) -> IQueue:
        numbers = count(1)
        self.memory = MemoryQueue(self.clock, lambda: f"m{next(numbers)}")
        return self.memory

    def test_attributes(self) -> None:
        """
        Submitted envelopes and bodies are attributes, for tests.
        """
        messageID = self.submit()
        self.assertEqual(self.memory.envelopes, [ENVELOPE])
        self.assertEqual(self.memory.bodies, {messageID: b"".join(BODY)})


class MemoryResultRecorderTests(recorders.ResultRecorderMixin):
    """
    Tests for L{MemoryResultRecorder}.
    """

    def makeRecorder(self) -> IResultRecorder:
        self.memory = MemoryResultRecorder()
        return self.memory

    def recorded(self) -> list[Result]:
        return self.memory.results
