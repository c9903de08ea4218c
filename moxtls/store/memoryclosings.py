# -*- test-case-name: tests.store.test_memory -*-
"""
When reporting periods were closed before their time, in memory.
"""

from __future__ import annotations

from moxtls.domain import Domain


class MemoryClosings:
    """
    Those of one kind of report.
    """

    def __init__(self) -> None:
        self._closings: list[tuple[Domain | None, int]] = []

    def close(self, domain: Domain | None, end: int) -> int:
        """
        As L{moxtls.store.closings.close}.
        """
        until = max([end, *(each + 1 for _, each in self._closings)])
        self._closings.append((domain, until))
        return until

    def latest(self, domain: Domain, before: int) -> int:
        """
        As L{moxtls.store.closings.latestClosing}.
        """
        found = (
            until
            for name, until in self._closings
            if name in (None, domain) and until < before
        )
        return max(found, default=0)

    def prune(self, before: int) -> None:
        """
        Forget those before the second C{before}.
        """
        self._closings = [each for each in self._closings if each[1] >= before]
