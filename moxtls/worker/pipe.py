# -*- test-case-name: tests.worker.test_pipe -*-
"""
The end of a pipe that is written to.
"""

from __future__ import annotations

import os
from collections import deque

from twisted.internet.interfaces import IReactorFDSet, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IWriteDescriptor)
class Pipe:
    """
    Writes at once, and only what doesn't fit when the reactor finds that it
    would: Twisted's pipes always wait for the reactor, and copy each time.
    """

    def __init__(self, reactor: IReactorFDSet, descriptor: int) -> None:
        """
        @param descriptor: Closed by this.
        """
        os.set_blocking(descriptor, False)
        self._reactor = reactor
        self._descriptor = descriptor
        self._waiting: deque[memoryview] = deque()
        self._isClosing = False

    def write(self, data: bytes) -> None:
        """
        Nothing is said if nobody reads any more.
        """
        rest = memoryview(data)
        if self._isClosing:
            return
        if not self._waiting:
            rest = self._written(rest)
        if rest:
            self._waiting.append(rest)
            self._reactor.addWriter(self)

    def close(self) -> None:
        """
        Close it once all is written.  Doing so twice is harmless.
        """
        self._isClosing = True
        if not self._waiting:
            self._close()

    def abandon(self) -> None:
        """
        Nobody reads any more.
        """
        self._isClosing = True
        if self._waiting:
            self._reactor.removeWriter(self)
        self._close()

    # --- for the reactor -------------------------------------------------------

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "pipe"

    def doWrite(self) -> None:
        while self._waiting:
            rest = self._written(self._waiting[0])
            if rest:
                self._waiting[0] = rest
                return
            self._waiting.popleft()
        self._reactor.removeWriter(self)
        if self._isClosing:
            self._close()

    def connectionLost(self, reason: Failure) -> None:
        self._close()

    def _written(self, data: memoryview) -> memoryview:
        """
        What is left of C{data}.
        """
        try:
            return data[os.write(self._descriptor, data) :]
        except BlockingIOError:
            return data
        except OSError:
            # Whoever reads is gone, which is noticed elsewhere.
            return data[:0]

    def _close(self) -> None:
        self._waiting.clear()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
