"""
Tests for L{moxtls.workers.process}.
"""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.workers.process import (
    HEAD_SIZE,
    Frames,
    Unpicklable,
    called,
    framed,
    lengthOf,
)
from tests.worker.calls import double, raiseKeyError, raiseOdd, unreadable

VALUES = st.lists(st.binary(max_size=300) | st.text(max_size=20), max_size=6)


class FramesTests(SynchronousTestCase):
    """
    Tests for L{Frames}, L{framed} and L{called}.
    """

    def answer(self, function: Any, argument: object) -> Any:
        """
        What comes back of a call.
        """
        [value] = Frames().receive(called(pickle.dumps((function, argument))))
        return value

    @given(VALUES, st.integers(1, 50))
    def test_pieces(self, values: list[object], size: int) -> None:
        """
        However it is cut, the same comes out.
        """
        wire = b"".join(map(framed, values))
        frames = Frames()
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        found = [value for piece in pieces for value in frames.receive(piece)]
        self.assertEqual(found, values)

    def test_length(self) -> None:
        """
        What stands before a value says how many bytes it has.
        """
        frame = framed(b"x" * 1000)
        self.assertEqual(lengthOf(frame[:HEAD_SIZE]), len(frame) - HEAD_SIZE)

    def test_answers(self) -> None:
        """
        What a function returns comes back, and so does what it raises.
        """
        self.assertEqual(self.answer(double, 4), (True, 8))
        isWell, error = self.answer(raiseKeyError, "name")
        self.assertFalse(isWell)
        self.assertIsInstance(error, KeyError)
        self.assertEqual(error.args, ("name",))

    def test_unpicklable(self) -> None:
        """
        What can't be carried over is said in words.
        """
        for function, words in (
            (raiseOdd, "Odd: ab"),
            (unreadable, "TypeError: not to be pickled"),
        ):
            isWell, error = self.answer(function, None)
            self.assertFalse(isWell)
            self.assertIsInstance(error, (Unpicklable, TypeError))
            self.assertIn(words.partition(": ")[2], str(error))
