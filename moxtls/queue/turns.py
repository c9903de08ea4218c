# -*- test-case-name: tests.queue.test_service -*-
"""
Something that is to be done often, and never twice at the same time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger


class CoalescedTask:
    """
    Does C{work} after each L{poke}; once more, if it was poked meanwhile.
    """

    log = Logger()

    def __init__(self, work: Callable[[], Awaitable[None]], doing: str) -> None:
        """
        @param doing: What C{work} does, for the log if it fails.
        """
        self._work = work
        self._doing = doing
        self._isOpen = False
        self._isBusy = False
        self._isWanted = False
        self._turn: Deferred[None] = succeed(None)

    def open(self) -> None:
        self._isOpen = True

    def poke(self) -> None:
        """
        Never raises.
        """
        self._isWanted = True
        if self._isOpen and not self._isBusy:
            self._isBusy = True
            self._turn = Deferred.fromCoroutine(self._take())

    def close(self) -> Deferred[None]:
        """
        Break off what is being done.

        @return: Fires once nothing is.
        """
        self._isOpen = False
        self._turn.cancel()
        return self._turn

    async def _take(self) -> None:
        try:
            while self._isWanted and self._isOpen:
                self._isWanted = False
                await self._work()
        except CancelledError:
            pass  # close
        except Exception:
            self.log.failure("{doing}", doing=self._doing)
        finally:
            self._isBusy = False
