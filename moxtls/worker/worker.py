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

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.worker.frames import Frames, framed

A = TypeVar("A")
R = TypeVar("R")

#: Seconds from one start to the next, at least: what dies at once shall not be
#: all that the machine is busy with.
PAUSE = 1
#: Seconds for a process to end that was told to and has nothing to do.
FAREWELL = 10

#: Without -P, what lies in the current folder could stand in for a module.
_COMMAND = (sys.executable, "-P", "-m", "moxtls.worker")
#: What it prints goes where this process prints.
_DESCRIPTORS: dict[int, int | str] = {0: "w", 1: "r", 2: 2}


class IReactor(IReactorProcess, IReactorTime):
    """
    What workers need.
    """


class WorkerLost(Exception):
    """
    The process ended before it had an answer, or can't be had.
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

    def __init__(self, reactor: IReactor, name: str) -> None:
        """
        @param name: What it is for, for people.
        """
        self._reactor = reactor
        self._name = name
        self._process: _Process | None = None
        self._notBefore = 0.0
        self._start: IDelayedCall | None = None
        # Until it is started.
        self._calls: list[_Call] = []
        self._stopped: Deferred[None] | None = None

    def call(self, function: Callable[[A], R], argument: A) -> Deferred[R]:
        """
        @param function: One that can be found by its module and name.
        @param argument: Pickled, as is what is returned.

        @return: Fires with what C{function} returns, or fails with what it
            raises, or with L{WorkerLost}.
        """
        if self._stopped is not None:
            return fail(WorkerLost(f"the process for {self._name} was stopped"))
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
            self._giveUp("was stopped")
        if self._process is None:
            return succeed(None)
        self._process.finish()
        return self._stopped

    def lost(self) -> None:
        """
        The process does nothing any more.
        """
        self._process = None

    def ended(self, reason: str) -> None:
        """
        The system says that the process has ended.
        """
        if self._stopped is None:
            self.log.error(
                "the process for {name} has ended: {reason}",
                name=self._name,
                reason=reason,
            )
        elif not self._stopped.called:
            self._stopped.callback(None)

    def _startSoon(self) -> None:
        wait = self._notBefore - self._reactor.seconds()
        if wait <= 0:
            self._begin()
        elif self._start is None:
            self._start = self._reactor.callLater(wait, self._begin)

    def _begin(self) -> None:
        self._start = None
        self._notBefore = self._reactor.seconds() + PAUSE
        process = _Process(self._reactor, self)
        try:
            self._reactor.spawnProcess(
                process,
                _COMMAND[0],
                _COMMAND,
                env=_environment(),
                childFDs=_DESCRIPTORS,
            )
        except Exception:
            self.log.failure("starting the process for {name}", name=self._name)
            self._giveUp("can't be started")
            return
        self._process = process
        calls, self._calls = self._calls, []
        for call in calls:
            process.take(call)

    def _giveUp(self, why: str) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call.answer.errback(WorkerLost(f"the process for {self._name} {why}"))


class _Process(ProcessProtocol):
    """
    One life of it.
    """

    transport: IProcessTransport

    def __init__(self, reactor: IReactorTime, worker: Worker) -> None:
        self._reactor = reactor
        self._worker = worker
        self._frames = Frames()
        self._waiting: deque[_Call] = deque()
        self._isFinishing = False
        self._timer: IDelayedCall | None = None

    def take(self, call: _Call) -> None:
        """
        Have something done.
        """
        self._waiting.append(call)
        self.transport.write(call.frame)

    def finish(self) -> None:
        """
        Have it end once nothing is left to do.
        """
        self._isFinishing = True
        self.transport.closeStdin()
        self._watch()

    def outReceived(self, data: bytes) -> None:
        for isWell, answer in self._frames.receive(data):
            waiting = self._waiting.popleft().answer
            if isWell:
                waiting.callback(answer)
            else:
                waiting.errback(answer)
        self._watch()

    def outConnectionLost(self) -> None:
        self._worker.lost()
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.answer.errback(WorkerLost("the process ended before it was done"))

    def processEnded(self, reason: Failure) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._worker.ended(reason.getErrorMessage())

    def _watch(self) -> None:
        if self._isFinishing and not self._waiting and self._timer is None:
            self._timer = self._reactor.callLater(FAREWELL, self._kill)

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")


def _environment() -> dict[str, str]:
    """
    What this process can import, it can import.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
