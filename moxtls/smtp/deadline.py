# -*- test-case-name: tests.smtp.test_session -*-
"""
One alarm that is put off again and again.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timeout:
    """
    Calls once, unless it is set anew in time.
    """

    def __init__(self, clock: IReactorTime, passed: Callable[[], None]) -> None:
        self._clock = clock
        self._passed = passed
        self._call: IDelayedCall | None = None

    def set(self, seconds: float | None) -> None:
        """
        @param seconds: From now; C{None} for never.
        """
        if seconds is None:
            if self._call is not None:
                self._call.cancel()
                self._call = None
        elif self._call is None:
            self._call = self._clock.callLater(seconds, self._pass)
        else:
            self._call.reset(seconds)

    def _pass(self) -> None:
        self._call = None
        self._passed()
