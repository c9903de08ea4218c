# -*- test-case-name: tests.workers.test_process -*-
"""
A worker process, and the calls to it.

Calls and results are pickles, each preceded by its length.  Both ends of the pipes are
this program, and no other process has access to them.
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

#: Minimum of seconds between starts: a process that dies at once must not keep the
#: machine busy.
MIN_START_INTERVAL = 1
#: Seconds until the next attempt if a process couldn't be started, as memory or
#: descriptors may have been short.  The time is doubled for each further attempt, up to
#: the maximum: the reason may be permanent, and each attempt is logged.
FIRST_RETRY = 60
MAX_RETRY = 3600
#: Seconds for a stopped process without calls to end.
STOP_TIMEOUT = 10

#: Without -P, a file in the current directory could replace a module.
_COMMAND = (sys.executable, "-P", "-m", "moxtls.workers", __version__)
#: Its standard error is that of this process.
_STDERR = 2


class IWorkerReactor(IReactorProcess, IReactorTime, IReactorFDSet):
    """
    The parts of a reactor that workers need.
    """


class WorkerLost(Exception):
    """
    The process ended before it returned a result.  The call may have been executed, or
    may have killed the process.
    """


class NoWorker(WorkerLost):
    """
    There is no process: the call wasn't executed.
    """


@dataclass(frozen=True, slots=True)
class _Call:
    """
    A call to the process.

    @ivar frame: Its encoded form.
    """

    frame: bytes
    result: Deferred[Any] = field(default_factory=Deferred)


class Worker:
    """
    A process that is started by the first call, and replaced when it has died.  It
    executes one call after the other, in order.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IWorkerReactor,
        name: str,
        timeout: float | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param name: The purpose of the process, for log messages.
        @param timeout: Seconds from one result to the next after which the process is
            killed; unlimited if not given.
        @param clock: Measures durations; the reactor if not given.
        """
        self._reactor = reactor
        self._clock = clock or reactor
        self._name = name
        self._timeout = timeout
        self._process: _Process | None = None
        # The current one, and others that are ending.
        self._processes: set[_Process] = set()
        self._notBefore = 0.0
        self._start: IDelayedCall | None = None
        # Calls until the process is started.
        self._calls: list[_Call] = []
        self._stopped: Deferred[None] | None = None
        self._isUnavailable = False
        self._retryInterval = FIRST_RETRY

    def call(self, function: Callable[[A], R], argument: A) -> Deferred[R]:
        """
        Call a function in the process.

        @param function: A function that can be imported by its name.
        @param argument: Pickled, as is the result.

        @return: Fires with the result of C{function}; fails with its exception, with
            L{WorkerLost} or with L{NoWorker}.
        """
        if self._stopped is not None or self._isUnavailable:
            return fail(NoWorker(f"there is no process for {self._name}"))
        call = _Call(encodeFrame((function, argument)))
        if self._process is not None:
            self._process.send(call)
        else:
            self._calls.append(call)
            self._startSoon()
        return call.result

    def stop(self) -> Deferred[None]:
        """
        Accept no more calls.

        @return: Fires once all calls are done, and the process has ended.
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

    def lost(self, wasReady: bool) -> None:
        """
        The process has closed its output.

        @param wasReady: False if it never started to execute calls.
        """
        self._process = None
        if wasReady:
            self._retryInterval = FIRST_RETRY
        else:
            self._startFailed()

    def ended(self, process: _Process, reason: str) -> None:
        """
        The process has ended, or can't be ended.
        """
        if process not in self._processes:
            return
        self._processes.remove(process)
        if self._stopped is None:
            self.log.error(
                "Worker process for {name} has ended: {reason}",
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
        self._notBefore = self._clock.seconds() + MIN_START_INTERVAL
        try:
            process = self._spawned()
        except Exception:
            self.log.failure(
                "Starting the worker process for {name} failed", name=self._name
            )
            self._startFailed()
            self._giveUp()
            return
        self._process = process
        self._processes.add(process)
        calls, self._calls = self._calls, []
        for call in calls:
            process.send(call)

    def _spawned(self) -> _Process:
        readable, writable = os.pipe()
        pipe = Pipe(self._reactor, writable)
        process = _Process(self._clock, self, pipe, self._timeout)
        try:
            self._reactor.spawnProcess(
                process,
                _COMMAND[0],
                _COMMAND,
                env=_environment(),
                childFDs={0: readable, 1: "r", 2: _STDERR},
            )
        except Exception:
            pipe.close()
            raise
        finally:
            os.close(readable)
        return process

    def _startFailed(self) -> None:
        if self._stopped is None:
            self.log.error(
                "Worker process for {name} is unavailable: its work is done without "
                "one; next attempt to start it in {interval} seconds",
                name=self._name,
                interval=self._retryInterval,
            )
            self._isUnavailable = True
            self._start = self._clock.callLater(self._retryInterval, self._retry)
            self._retryInterval = min(2 * self._retryInterval, MAX_RETRY)

    def _retry(self) -> None:
        self._start = None
        self._isUnavailable = False

    def _giveUp(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call.result.errback(NoWorker(f"there is no process for {self._name}"))


class _Process(ProcessProtocol):
    """
    One run of the process.
    """

    transport: IProcessTransport

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        pipe: Pipe,
        timeout: float | None,
    ) -> None:
        """
        @param pipe: The standard input of the process.
        """
        self._clock = clock
        self._worker = worker
        self._pipe = pipe
        self._timeout = timeout
        self._frames = FrameReader()
        # Set by the first message of the process.
        self._isReady = False
        self._waiting: deque[_Call] = deque()
        self._isFinishing = False
        self._isKilled = False
        self._lastOutput = clock.seconds()
        self._timer: IDelayedCall | None = None

    def send(self, call: _Call) -> None:
        """
        Execute a call.
        """
        if not self._waiting:
            self._lastOutput = self._clock.seconds()
        self._waiting.append(call)
        self._pipe.write(call.frame)
        self._startTimer()

    def finish(self) -> None:
        """
        End the process once all calls are done.
        """
        self._isFinishing = True
        self._pipe.close()
        self._stopTimer()
        self._startTimer()

    def outReceived(self, data: bytes) -> None:
        self._lastOutput = self._clock.seconds()
        for isSuccess, value in self._frames.receive(data):
            if not self._isReady:
                self._isReady = True
                continue
            result = self._waiting.popleft().result
            if isSuccess:
                result.callback(value)
            else:
                result.errback(value)
        self._startTimer()

    def outConnectionLost(self) -> None:
        self._pipe.abort()
        self._worker.lost(self._isReady)
        kind = WorkerLost if self._isReady else NoWorker
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.result.errback(
                kind("the worker process ended before the call was done")
            )

    def processEnded(self, reason: Failure) -> None:
        self._stopTimer()
        self._worker.ended(self, reason.getErrorMessage())

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _startTimer(self, elapsed: float = 0) -> None:
        """
        @param elapsed: Seconds since the last output.
        """
        limit = self._limit
        if self._timer is None and limit is not None:
            self._timer = self._clock.callLater(limit - elapsed, self._check)

    @property
    def _limit(self) -> float | None:
        """
        Seconds without output after which the process is killed.
        """
        if self._waiting:
            return self._timeout
        return STOP_TIMEOUT if self._isFinishing else None

    def _check(self) -> None:
        self._timer = None
        limit, elapsed = self._limit, self._clock.seconds() - self._lastOutput
        if self._isKilled:
            # Not every reactor reports the end of the process.
            self._worker.ended(self, "it was killed")
        elif limit is not None and elapsed >= limit:
            self._isKilled = True
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
            self._timer = self._clock.callLater(STOP_TIMEOUT, self._check)
        else:
            self._startTimer(elapsed)


def _environment() -> dict[str, str]:
    """
    The environment, with this process's module path.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@implementer(IWriteDescriptor)
class Pipe:
    """
    The writing end of a pipe.  It writes at once, and waits for the reactor only when
    the pipe is full: Twisted's pipes always wait for the reactor, and copy the data.
    """

    def __init__(self, reactor: IReactorFDSet, descriptor: int) -> None:
        """
        @param descriptor: Closed by the pipe.
        """
        os.set_blocking(descriptor, False)
        self._reactor = reactor
        self._descriptor = descriptor
        self._waiting: deque[memoryview] = deque()
        self._isClosing = False

    def write(self, data: bytes) -> None:
        """
        Data after the end of the reader is dropped silently.
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
        Close the pipe once all data is written.  May be called twice.
        """
        self._isClosing = True
        if not self._waiting:
            self._close()

    def abort(self) -> None:
        """
        Close the pipe and drop the data: the reader has ended.
        """
        self._isClosing = True
        if self._waiting:
            self._reactor.removeWriter(self)
        self._close()

    # --- IWriteDescriptor -------------------------------------------------------

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
        Write to the pipe.

        @return: The rest of C{data}.
        """
        try:
            return data[os.write(self._descriptor, data) :]
        except BlockingIOError:
            return data
        except OSError:
            # The reader has ended, which is handled elsewhere.
            return data[:0]

    def _close(self) -> None:
        self._waiting.clear()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


#: Bytes of the length that precedes a pickle.
HEAD_SIZE = 4
#: Largest message in bytes that is sent to a worker: more than the size from which on
#: received messages are in files.
MAX_MESSAGE_SIZE = 512 * 1024
_HEAD = struct.Struct("!I")


def fitsWorker(message: Sequence[bytes]) -> bool:
    """
    True if a message, in chunks, can be sent to a worker: it is not large, and not in a
    file.
    """
    return isinstance(message, list | tuple) and sizeOf(message) <= MAX_MESSAGE_SIZE


def sizeOf(message: Sequence[bytes]) -> int:
    """
    The size of a message in bytes.
    """
    return sum(map(len, message))


class Unpicklable(Exception):
    """
    Replaces an exception of a worker that can't be pickled.
    """


def encodeFrame(value: object) -> bytes:
    """
    Encode a value.

    @raise Exception: It can't be pickled.
    """
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _HEAD.pack(len(data)) + data


def frameLength(head: bytes | bytearray) -> int:
    """
    Decode the length before a pickle.

    @param head: L{HEAD_SIZE} bytes.

    @return: The number of bytes that follow.
    """
    length: int = _HEAD.unpack(head)[0]
    return length


def execute(data: bytes) -> bytes:
    """
    Execute a call.

    @param data: A pickle of a function and its argument.

    @return: An encoded pair: true and the result, or false and the exception.
    """
    try:
        function, argument = pickle.loads(data)
        return encodeFrame((True, function(argument)))
    except Exception as error:
        return _frameException(error)


def _frameException(error: Exception) -> bytes:
    try:
        encoded = encodeFrame((False, error))
        # Not every exception that can be pickled can be unpickled.
        pickle.loads(encoded[HEAD_SIZE:])
    except Exception:
        return encodeFrame((False, Unpicklable(f"{type(error).__name__}: {error}")))
    return encoded


class FrameReader:
    """
    Decodes a stream of encoded values.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[Any]:
        """
        @return: The values that are complete; to be consumed at once.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEAD_SIZE:
            end = HEAD_SIZE + frameLength(buffer[:HEAD_SIZE])
            if len(buffer) < end:
                return
            value = pickle.loads(buffer[HEAD_SIZE:end])
            del buffer[:end]
            yield value
