"""
Functions that tests call in workers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import NoReturn


class Odd(Exception):
    """
    Can be written, but not read again.
    """

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Unreadable:
    """
    Can't be pickled.
    """

    def __reduce__(self) -> NoReturn:
        raise TypeError("not to be pickled")


def double(number: int) -> int:
    return 2 * number


def pid(_: None) -> int:
    return os.getpid()


def raiseKeyError(name: str) -> NoReturn:
    raise KeyError(name)


def raiseOdd(_: None) -> NoReturn:
    raise Odd("a", "b")


def unreadable(_: None) -> Unreadable:
    return Unreadable()


def die(_: None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def told(number: int) -> str:
    """
    Send this process a signal, which it survives.
    """
    os.kill(os.getpid(), number)
    return "still here"


def chatter(text: str) -> str:
    print(text)
    sys.stdout.flush()
    return text


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
