# -*- test-case-name: tests.smtp.test_listener -*-
"""
The time limits of one connection to a listener.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from moxtls.smtp.acceptor import ListenerSettings
from moxtls.smtp.values import Reply

#: Seconds for a connection to go away by itself once it was closed.
FAREWELL = 10

_IDLE = Reply(421, "4.4.2", "Nothing heard for too long")
_TOO_LONG = Reply(421, "4.4.2", "This has taken too long")
_TOO_SLOW = Reply(421, "4.4.2", "The message comes too slowly")


class TimedSession(Protocol):
    """
    What is watched.
    """

    @property
    def isBusy(self) -> bool:
        """
        Whether it is we who take long.
        """

    @property
    def inMessage(self) -> bool:
        """
        Whether part of a message has come, and not all.
        """

    def leave(self, goodbye: Reply) -> None:
        """
        It is over: say C{goodbye} once nothing is half done.
        """

    def abort(self) -> None:
        """
        It is over, whatever is half done.
        """


class SessionTimeouts:
    """
    Has one timer, which looks what is due and then waits for the next that
    may be: what happens with each command only takes down the time.
    """

    def __init__(
        self, clock: IReactorTime, settings: ListenerSettings, watched: TimedSession
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._watched = watched
        self._since = self._heard = self._began = clock.seconds()
        self._size = 0
        self._end: float | None = None
        self._timer: IDelayedCall | None = None
        self._sleep(min(settings.idle, settings.longest))

    @property
    def lastHeard(self) -> float:
        """
        When the client last said something, or was told something.
        """
        return self._heard

    def heard(self) -> None:
        """
        The client said something, or was told something.
        """
        self._heard = self._clock.seconds()

    def messageBegins(self) -> None:
        self._began = self._clock.seconds()
        self._size = 0

    def received(self, size: int) -> None:
        """
        Part of a message came.
        """
        self._size += size
        self._heard = self._clock.seconds()

    def wasOurs(self, seconds: float) -> None:
        """
        So much of the time of a message was our own doing.
        """
        self._began += seconds

    def farewell(self) -> None:
        """
        It is over soon, if need be by force.
        """
        if self._end is None:
            self._end = self._clock.seconds() + FAREWELL
            self.stop()
            self._sleep(FAREWELL)

    def stop(self) -> None:
        """
        It is over.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _sleep(self, seconds: float) -> None:
        self._timer = self._clock.callLater(max(0, seconds), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._end is not None:
            self._watched.abort()
            return
        limits = list(self._limits(now))
        over = [goodbye for at, goodbye in limits if at <= now]
        if over:
            self._watched.leave(over[0])
        else:
            self._sleep(min(at for at, _ in limits) - now)

    def _limits(self, now: float) -> list[tuple[float, Reply]]:
        settings, limits = self._settings, []
        limits.append((self._since + settings.longest, _TOO_LONG))
        if self._watched.isBusy:
            # Look again later: the client is to be blamed only for the time
            # that it takes itself.
            limits.append((now + settings.idle, _IDLE))
            return limits
        limits.append((self._heard + settings.idle, _IDLE))
        if self._watched.inMessage and settings.bodyRate:
            patience = settings.bodyGrace + self._size / settings.bodyRate
            limits.append((self._began + patience, _TOO_SLOW))
        return limits
