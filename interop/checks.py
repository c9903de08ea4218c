"""
Checks, counted and told, a line each.
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
    Something keeps checks from being made; one line says what.
    """


class Checks:
    """
    @ivar failed: How many did.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def holds(self, what: str, condition: object, detail: object = "") -> None:
        """
        Check that C{condition} is true.

        @param detail: Told if it isn't.
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
        Some checks that belong together.  What keeps them from being made
        counts as one that failed.
        """
        print(f"{title}:", flush=True)
        try:
            yield
        except InteropError as error:
            self.holds(title, False, error)


def waitFor(what: str, look: Callable[[], T | None], limit: float) -> T:
    """
    Look again and again until there is something.

    @raise InteropError: There is nothing within C{limit} seconds.
    """
    until = time.monotonic() + limit
    while not (found := look()):
        if time.monotonic() > until:
            raise InteropError(f"{what}: not within {limit:g} s")
        time.sleep(LOOK)
    return found
