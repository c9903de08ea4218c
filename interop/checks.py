"""
Counts checks, and prints a line for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two looks at something that is waited for.
LOOK = 0.1


class InteropError(Exception):
    """
    Prevents further checks; its text is one line.
    """


class Checks:
    """
    Counter of passed and failed checks.

    @ivar failed: The number of failed checks.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def holds(self, what: str, condition: object, detail: object = "") -> None:
        """
        Check that C{condition} is true.

        @param detail: Printed if it isn't.
        """
        if condition:
            self.passed += 1
            print(f"ok     {what}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED {what}{f': {detail}' if detail else ''}", flush=True)

    def same(self, what: str, is_: object, should: object) -> None:
        """
        Check that both are equal.
        """
        self.holds(what, is_ == should, f"{is_!r}, not {should!r}")

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        """
        Run a group of checks. An L{InteropError} in it counts as a failed check.
        """
        print(f"{title}:", flush=True)
        try:
            yield
        except InteropError as error:
            self.holds(title, False, error)


def waitFor(what: str, look: Callable[[], T | None], limit: float) -> T:
    """
    Poll C{look} until it returns a true value.

    @raise InteropError: It doesn't within C{limit} seconds.
    """
    until = time.monotonic() + limit
    while not (found := look()):
        if time.monotonic() > until:
            raise InteropError(f"{what}: not within {limit:g} s")
        time.sleep(LOOK)
    return found
