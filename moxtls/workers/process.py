# -*- test-case-name: tests.workers.test_process -*-
"""
Another process that does something for this one.

The end of a pipe that is written to.

What goes through the pipes to a worker and back: pickles, each behind its
length.  Both ends are this program, and nobody else has the pipe.  No I/O.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
    IWriteDescriptor,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls import __version__

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
_COMMAND = (sys.executable, "-P", "-m", "moxtls.workers", __version__)
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


@implementer(IWriteDescriptor)
class Pipe:
    """
    Writes at once, and only what doesn't fit when the reactor finds that it
    would: Twisted's pipes always wait for the reactor, and copy each time.
    """

    def __init__(self, reactor: IReactorFDSet, descriptor: int) -> None:
        """
        @param descriptor: Closed by this.
        """
        os.set_blocking(descriptor, False)
        self._reactor = reactor
        self._descriptor = descriptor
        self._waiting: deque[memoryview] = deque()
        self._isClosing = False

    def write(self, data: bytes) -> None:
        """
        Nothing is said if nobody reads any more.
        """
        rest = memoryview(data)
        if self._isClosing:
            return
        if not self._waiting:
            rest = self._written(rest)
        if rest:
            self._waiting.append(rest)
            self._reactor.addWriter(self)

    def close(self) -> None:
        """
        Close it once all is written.  Doing so twice is harmless.
        """
        self._isClosing = True
        if not self._waiting:
            self._close()

    def abandon(self) -> None:
        """
        Nobody reads any more.
        """
        self._isClosing = True
        if self._waiting:
            self._reactor.removeWriter(self)
        self._close()

    # --- for the reactor -------------------------------------------------------

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "pipe"

    def doWrite(self) -> None:
        while self._waiting:
            rest = self._written(self._waiting[0])
            if rest:
                self._waiting[0] = rest
                return
            self._waiting.popleft()
        self._reactor.removeWriter(self)
        if self._isClosing:
            self._close()

    def connectionLost(self, reason: Failure) -> None:
        self._close()

    def _written(self, data: memoryview) -> memoryview:
        """
        What is left of C{data}.
        """
        try:
            return data[os.write(self._descriptor, data) :]
        except BlockingIOError:
            return data
        except OSError:
            # Whoever reads is gone, which is noticed elsewhere.
            return data[:0]

    def _close(self) -> None:
        self._waiting.clear()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


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
