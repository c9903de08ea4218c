# -*- test-case-name: tests.worker.test_frames -*-
"""
What goes through the pipes to a worker and back: pickles, each behind its
length.  Both ends are this program, and nobody else has the pipe.  No I/O.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator, Sequence
from typing import Any

#: Bytes of what stands before each.
HEAD_SIZE = 4
#: Bytes of a message that go through: more than is kept in memory of one that
#: comes in.
MAX_FRAME = 512 * 1024
_HEAD = struct.Struct("!I")


def fitsWorker(message: Sequence[bytes]) -> bool:
    """
    Whether a message, in chunks, goes to a worker: not if it is large, or in a
    file, which is read when it is wanted.
    """
    return isinstance(message, list | tuple) and sizeOf(message) <= MAX_FRAME


def sizeOf(message: Sequence[bytes]) -> int:
    """
    Bytes.
    """
    return sum(map(len, message))


class Unpicklable(Exception):
    """
    What a worker raised, if it can't be carried over as it is.
    """


def framed(value: object) -> bytes:
    """
    @raise Exception: It can't be pickled.
    """
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _HEAD.pack(len(data)) + data


def lengthOf(head: bytes | bytearray) -> int:
    """
    @param head: L{HEAD_SIZE} bytes.

    @return: How many follow.
    """
    length: int = _HEAD.unpack(head)[0]
    return length


def called(data: bytes) -> bytes:
    """
    Do what a call asks for.

    @param data: A pickle: a function that can be found by its name, and what it
        is to be given.

    @return: Framed: whether it went well; what it returned, or raised.
    """
    try:
        function, argument = pickle.loads(data)
        return framed((True, function(argument)))
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> bytes:
    try:
        frame = framed((False, error))
        # Not every exception that can be written can be read.
        pickle.loads(frame[HEAD_SIZE:])
    except Exception:
        return framed((False, Unpicklable(f"{type(error).__name__}: {error}")))
    return frame


class Frames:
    """
    Takes what comes as it comes.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[Any]:
        """
        @return: What is complete now; to be gone through at once.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEAD_SIZE:
            end = HEAD_SIZE + lengthOf(buffer[:HEAD_SIZE])
            if len(buffer) < end:
                return
            value = pickle.loads(buffer[HEAD_SIZE:end])
            del buffer[:end]
            yield value
