"""
Tests for L{moxtls.workers.process}, with real pipes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorFDSet, IWriteDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.workers.process import Pipe

#: More than any pipe holds.
MUCH = b"0123456789abcdef" * 65536 * 2


class Reactor:
    """
    Takes down what wants to be written.
    """

    def __init__(self) -> None:
        self.writers: set[IWriteDescriptor] = set()

    def addWriter(self, writer: IWriteDescriptor) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        self.writers.discard(writer)


class PipeTests(SynchronousTestCase):
    """
    Tests for L{Pipe}.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.readable, writable = os.pipe()
        os.set_blocking(self.readable, False)
        self.pipe = Pipe(cast(IReactorFDSet, self.reactor), writable)
        self.addCleanup(self.pipe.abandon)
        self.addCleanup(self.closeReadable)

    def closeReadable(self) -> None:
        readable, self.readable = self.readable, -1
        if readable >= 0:
            os.close(readable)

    def read(self) -> bytes:
        """
        What is in the pipe; C{b"|"} stands for its end.
        """
        found = b""
        while True:
            try:
                data = os.read(self.readable, 1 << 20)
            except BlockingIOError:
                return found
            if not data:
                return found + b"|"
            found += data

    def readAll(self) -> bytes:
        """
        What comes while the reactor does its part.
        """
        found = self.read()
        while self.reactor.writers:
            self.pipe.doWrite()
            found += self.read()
        return found

    def test_atOnce(self) -> None:
        """
        What fits is written at once, and the reactor has nothing to do.
        """
        verifyObject(IWriteDescriptor, self.pipe)
        self.pipe.write(b"a")
        self.pipe.write(b"b")
        self.assertEqual(self.reactor.writers, set())
        self.assertEqual(self.read(), b"ab")
        self.pipe.close()
        self.pipe.close()
        self.assertEqual(self.read(), b"|")

    def test_later(self) -> None:
        """
        What doesn't fit is written later, in its order, and before the pipe is
        closed.
        """
        self.pipe.write(MUCH)
        self.pipe.write(b"b")
        self.pipe.close()
        self.pipe.write(b"too late")
        self.assertEqual(self.readAll(), MUCH + b"b|")
        self.assertEqual(self.pipe.fileno(), -1)

    @given(st.lists(st.tuples(st.binary(max_size=200_000), st.booleans()), max_size=8))
    def test_order(self, pieces: list[tuple[bytes, bool]]) -> None:
        """
        However much there is at a time, and whenever it is read.
        """
        found = b""
        for data, isRead in pieces:
            self.pipe.write(data)
            if isRead:
                found += self.readAll()
        self.assertEqual(found + self.readAll(), b"".join(each for each, _ in pieces))

    def test_gone(self) -> None:
        """
        If nobody reads any more, that is noticed elsewhere.
        """
        ends: tuple[Callable[[], None], ...] = (
            self.pipe.doWrite,
            lambda: self.pipe.write(b"more"),
            self.pipe.abandon,
            self.pipe.abandon,
            lambda: self.pipe.connectionLost(Failure(OSError())),
        )
        self.pipe.write(MUCH)
        self.closeReadable()
        for each in ends:
            each()
        self.assertEqual(self.reactor.writers, set())
        self.assertEqual(self.pipe.fileno(), -1)
