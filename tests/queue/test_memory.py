"""
Tests for L{moxtls.queue.memory}.
"""

from __future__ import annotations

from itertools import count

from moxtls.interfaces import IQueue
from moxtls.queue.memory import MemoryQueue
from tests.queue import queues
from tests.queue.queues import BODY, ENVELOPE


class MemoryQueueTests(queues.QueueMixin):
    """
    Tests for L{MemoryQueue}.
    """

    def makeQueue(self) -> IQueue:
        numbers = count(1)
        self.memory = MemoryQueue(self.clock, lambda: f"m{next(numbers)}")
        return self.memory

    def test_recorded(self) -> None:
        """
        Others' tests can look at what was submitted.
        """
        messageID = self.submit()
        self.assertEqual(self.memory.envelopes, [ENVELOPE])
        self.assertEqual(self.memory.bodies, {messageID: b"".join(BODY)})
