# -*- test-case-name: tests.queue.test_service -*-
"""
Access to a queue for processes that don't deliver from it: submits, lists and changes
messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.interfaces import IQueue
from moxtls.queue.spool import SpoolExecutor
from moxtls.queue.types import Envelope, QueuedMessage


@implementer(IQueue)
class QueueClient:
    """
    L{IQueue} over an open spool.
    """

    def __init__(
        self, clock: IReactorTime, spool: SpoolExecutor, newID: Callable[[], str]
    ) -> None:
        """
        @param newID: Returns a new message id, which is also a file name.
        """
        self._clock = clock
        self._spool = spool
        self._newID = newID

    def submit(self, envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        messageID, now = self._newID(), self._clock.seconds()
        return self._spool.run(
            lambda spool: spool.submit(messageID, envelope, body, now)
        )

    def messages(self) -> Deferred[tuple[QueuedMessage, ...]]:
        return self._spool.read(lambda spool: spool.index.messages())

    def page(
        self, after: int, limit: int
    ) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        return self._spool.read(lambda spool: spool.index.page(after, limit))

    def retry(self, messageID: str) -> Deferred[bool]:
        now = self._clock.seconds()
        return self._spool.run(lambda spool: spool.index.retry(messageID, now))

    def hold(self, messageID: str, held: bool) -> Deferred[bool]:
        return self._spool.run(lambda spool: spool.index.hold(messageID, held))

    def drop(self, messageID: str) -> Deferred[bool]:
        now = self._clock.seconds()
        return self._spool.run(lambda spool: spool.index.remove(messageID, now))
