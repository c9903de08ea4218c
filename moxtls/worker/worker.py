# -*- test-case-name: tests.worker.test_worker -*-
"""
Another process that does something for this one.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IReactorFDSet,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls import __version__
from moxtls.worker.frames import Frames, framed
from moxtls.worker.pipe import Pipe

A = TypeVar("A")
R = TypeVar("R")

#: Seconds from one start to the next, at least: what dies at once shall not be
#: all that the machine is busy with.
PAUSE = 1
#: Seconds from one start to the next if the process couldn't be had at all, at first:
#: there may have been too little memory or too few descriptors just then.  Each time
#: it is twice as long, up to this: it may be for good, and each is logged.
LONG_PAUSE = 60
MAX_PAUSE = 3600
#: Seconds for a process to end that was told to and has nothing to do.
STOP_TIMEOUT = 10

#: Without -P, what lies in the current folder could stand in for a module.
_COMMAND = (sys.executable, "-P", "-m", "moxtls.worker", __version__)
#: What it prints goes where this process prints.
_ERRORS = 2


class IWorkerReactor(IReactorProcess, IReactorTime, IReactorFDSet):
    """
    What workers need.
    """


class WorkerLost(Exception):
    """
    The process ended before it had an answer.  It may have done what it was
    asked for, or have died of it.
    """


class NoWorker(WorkerLost):
    """
    There is no process, and nothing was done.
    """


@dataclass(frozen=True, slots=True)
class _Call:
    """
    @ivar frame: As it is sent.
    """

    frame: bytes
    answer: Deferred[Any] = field(default_factory=Deferred)


class Worker:
    """
    A process that is started when something is to be done and it isn't there.
    It does one thing after the other, in the order in which they are asked for.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IWorkerReactor,
        name: str,
        patience: float | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param name: What it is for, for people.
        @param patience: Seconds from one answer to the next after which it is
            killed; for ever if not given.
        @param clock: Measures durations; the reactor's if not given.
        """
        self._reactor = reactor
        self._clock = clock or reactor
        self._name = name
        self._patience = patience
        self._process: _Process | None = None
        # That one, and those that are about to be gone.
        self._processes: set[_Process] = set()
        self._notBefore = 0.0
        self._start: IDelayedCall | None = None
        # Until it is started.
        self._calls: list[_Call] = []
        self._stopped: Deferred[None] | None = None
        self._isMissing = False
        self._longPause = LONG_PAUSE

    def call(self, function: Callable[[A], R], argument: A) -> Deferred[R]:
        """
        @param function: One that can be found by its module and name.
        @param argument: Pickled, as is what is returned.

        @return: Fires with what C{function} returns, or fails with what it
            raises, with L{WorkerLost} or with L{NoWorker}.
        """
        if self._stopped is not None or self._isMissing:
            return fail(NoWorker(f"there is no process for {self._name}"))
        call = _Call(framed((function, argument)))
        if self._process is not None:
            self._process.take(call)
        else:
            self._calls.append(call)
            self._startSoon()
        return call.answer

    def stop(self) -> Deferred[None]:
        """
        Take no more.

        @return: Fires once all is done that was asked for, and the process is
            gone.
        """
        self._stopped = Deferred()
        if self._start is not None:
            self._start.cancel()
            self._giveUp()
        for process in self._processes:
            process.finish()
        if not self._processes:
            self._stopped.callback(None)
        return self._stopped

    def lost(self, wasThere: bool) -> None:
        """
        The process does nothing any more.
        """
        self._process = None
        if wasThere:
            self._longPause = LONG_PAUSE
        else:
            self._comesNot()

    def ended(self, process: _Process, reason: str) -> None:
        """
        Nothing is left of the process, or nothing more can be done about it.
        """
        if process not in self._processes:
            return
        self._processes.remove(process)
        if self._stopped is None:
            self.log.error(
                "the process for {name} has ended: {reason}",
                name=self._name,
                reason=reason,
            )
        elif not self._processes:
            self._stopped.callback(None)

    def _startSoon(self) -> None:
        wait = self._notBefore - self._clock.seconds()
        if wait <= 0:
            self._begin()
        elif self._start is None:
            self._start = self._clock.callLater(wait, self._begin)

    def _begin(self) -> None:
        self._start = None
        self._notBefore = self._clock.seconds() + PAUSE
        try:
            process = self._spawned()
        except Exception:
            self.log.failure("starting the process for {name}", name=self._name)
            self._comesNot()
            self._giveUp()
            return
        self._process = process
        self._processes.add(process)
        calls, self._calls = self._calls, []
        for call in calls:
            process.take(call)

    def _spawned(self) -> _Process:
        readable, writable = os.pipe()
        pipe = Pipe(self._reactor, writable)
        process = _Process(self._clock, self, pipe, self._patience)
        try:
            self._reactor.spawnProcess(
                process,
                _COMMAND[0],
                _COMMAND,
                env=_environment(),
                childFDs={0: readable, 1: "r", 2: _ERRORS},
            )
        except Exception:
            pipe.close()
            raise
        finally:
            os.close(readable)
        return process

    def _comesNot(self) -> None:
        if self._stopped is None:
            self.log.error(
                "there can be no process for {name}: it is done without one, and "
                "tried again in {pause} seconds",
                name=self._name,
                pause=self._longPause,
            )
            self._isMissing = True
            self._start = self._clock.callLater(self._longPause, self._mayCome)
            self._longPause = min(2 * self._longPause, MAX_PAUSE)

    def _mayCome(self) -> None:
        self._start = None
        self._isMissing = False

    def _giveUp(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call.answer.errback(NoWorker(f"there is no process for {self._name}"))


class _Process(ProcessProtocol):
    """
    One life of it.
    """

    transport: IProcessTransport

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        pipe: Pipe,
        patience: float | None,
    ) -> None:
        """
        @param pipe: What it reads from.
        """
        self._clock = clock
        self._worker = worker
        self._pipe = pipe
        self._patience = patience
        self._frames = Frames()
        # The first word is that it is there.
        self._isThere = False
        self._waiting: deque[_Call] = deque()
        self._isFinishing = False
        self._isKilled = False
        self._heard = clock.seconds()
        self._timer: IDelayedCall | None = None

    def take(self, call: _Call) -> None:
        """
        Have something done.
        """
        if not self._waiting:
            self._heard = self._clock.seconds()
        self._waiting.append(call)
        self._pipe.write(call.frame)
        self._watch()

    def finish(self) -> None:
        """
        Have it end once nothing is left to do.
        """
        self._isFinishing = True
        self._pipe.close()
        self._forget()
        self._watch()

    def outReceived(self, data: bytes) -> None:
        self._heard = self._clock.seconds()
        for isWell, answer in self._frames.receive(data):
            if not self._isThere:
                self._isThere = True
                continue
            waiting = self._waiting.popleft().answer
            if isWell:
                waiting.callback(answer)
            else:
                waiting.errback(answer)
        self._watch()

    def outConnectionLost(self) -> None:
        self._pipe.abandon()
        self._worker.lost(self._isThere)
        kind = WorkerLost if self._isThere else NoWorker
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.answer.errback(kind("the process ended before it was done"))

    def processEnded(self, reason: Failure) -> None:
        self._forget()
        self._worker.ended(self, reason.getErrorMessage())

    def _forget(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _watch(self, silent: float = 0) -> None:
        """
        @param silent: For how many seconds it has said nothing.
        """
        limit = self._limit
        if self._timer is None and limit is not None:
            self._timer = self._clock.callLater(limit - silent, self._look)

    @property
    def _limit(self) -> float | None:
        """
        For how many seconds it may say nothing.
        """
        if self._waiting:
            return self._patience
        return STOP_TIMEOUT if self._isFinishing else None

    def _look(self) -> None:
        self._timer = None
        limit, silent = self._limit, self._clock.seconds() - self._heard
        if self._isKilled:
            # Not every reactor is told by the system.
            self._worker.ended(self, "it was killed")
        elif limit is not None and silent >= limit:
            self._isKilled = True
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
            self._timer = self._clock.callLater(STOP_TIMEOUT, self._look)
        else:
            self._watch(silent)


def _environment() -> dict[str, str]:
    """
    What this process can import, it can import.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
