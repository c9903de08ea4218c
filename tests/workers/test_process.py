"""
Tests for L{moxtls.workers.process}.

Tests for L{moxtls.workers.process}, with real pipes.

Tests for L{moxtls.workers.process}, with real processes.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import Mock, patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as installed
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorFDSet, IWriteDescriptor
from twisted.internet.task import Clock, deferLater
from twisted.internet.utils import getProcessOutput
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from moxtls.workers import process as module
from moxtls.workers.process import (
    FIRST_RETRY,
    HEAD_SIZE,
    MAX_RETRY,
    MIN_START_INTERVAL,
    FrameReader,
    IWorkerReactor,
    NoWorker,
    Pipe,
    Unpicklable,
    Worker,
    WorkerLost,
    encodeFrame,
    execute,
    frameLength,
)
from tests import MAX_WAIT
from tests.workers.calls import (
    Unreadable,
    chatter,
    die,
    double,
    pid,
    raiseKeyError,
    raiseOdd,
    sleep,
    told,
    unreadable,
)

VALUES = st.lists(st.binary(max_size=300) | st.text(max_size=20), max_size=6)


class FrameTests(SynchronousTestCase):
    """
    Tests for L{FrameReader}, L{encodeFrame} and L{execute}.
    """

    def answer(self, function: Any, argument: object) -> Any:
        """
        The result of a call.
        """
        [value] = FrameReader().receive(execute(pickle.dumps((function, argument))))
        return value

    @given(VALUES, st.integers(1, 50))
    def test_pieces(self, values: list[object], size: int) -> None:
        """
        However a stream is divided, the decoded values are the same.
        """
        wire = b"".join(map(encodeFrame, values))
        frames = FrameReader()
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        found = [value for piece in pieces for value in frames.receive(piece)]
        self.assertEqual(found, values)

    def test_length(self) -> None:
        """
        The length before a value is its number of bytes.
        """
        frame = encodeFrame(b"x" * 1000)
        self.assertEqual(frameLength(frame[:HEAD_SIZE]), len(frame) - HEAD_SIZE)

    def test_answers(self) -> None:
        """
        Results and exceptions of a function are returned.
        """
        self.assertEqual(self.answer(double, 4), (True, 8))
        isWell, error = self.answer(raiseKeyError, "name")
        self.assertFalse(isWell)
        self.assertIsInstance(error, KeyError)
        self.assertEqual(error.args, ("name",))

    def test_unpicklable(self) -> None:
        """
        An exception that can't be pickled is replaced by its text.
        """
        for function, words in (
            (raiseOdd, "Odd: ab"),
            (unreadable, "TypeError: not to be pickled"),
        ):
            isWell, error = self.answer(function, None)
            self.assertFalse(isWell)
            self.assertIsInstance(error, (Unpicklable, TypeError))
            self.assertIn(words.partition(": ")[2], str(error))


#: More than any pipe holds.
MUCH = b"0123456789abcdef" * 65536 * 2


class Reactor:
    """
    Records writers.
    """

    def __init__(self) -> None:
        self.writers: set[IWriteDescriptor] = set()

    def addWriter(self, writer: IWriteDescriptor) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        self.writers.discard(writer)


class PipeTests(SynchronousTestCase):
    """
    Tests for L{Pipe}.
    """

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.readable, writable = os.pipe()
        os.set_blocking(self.readable, False)
        self.pipe = Pipe(cast(IReactorFDSet, self.reactor), writable)
        self.addCleanup(self.pipe.abort)
        self.addCleanup(self.closeReadable)

    def closeReadable(self) -> None:
        readable, self.readable = self.readable, -1
        if readable >= 0:
            os.close(readable)

    def read(self) -> bytes:
        """
        The data in the pipe; C{b"|"} stands for its end.
        """
        found = b""
        while True:
            try:
                data = os.read(self.readable, 1 << 20)
            except BlockingIOError:
                return found
            if not data:
                return found + b"|"
            found += data

    def readAll(self) -> bytes:
        """
        The data that arrives while the reactor writes.
        """
        found = self.read()
        while self.reactor.writers:
            self.pipe.doWrite()
            found += self.read()
        return found

    def test_atOnce(self) -> None:
        """
        Data that fits is written at once, without the reactor.
        """
        verifyObject(IWriteDescriptor, self.pipe)
        self.pipe.write(b"a")
        self.pipe.write(b"b")
        self.assertEqual(self.reactor.writers, set())
        self.assertEqual(self.read(), b"ab")
        self.pipe.close()
        self.pipe.close()
        self.assertEqual(self.read(), b"|")

    def test_later(self) -> None:
        """
        Data beyond the pipe's buffer is written later, in order, and before the pipe
        is closed.
        """
        self.pipe.write(MUCH)
        self.pipe.write(b"b")
        self.pipe.close()
        self.pipe.write(b"too late")
        self.assertEqual(self.readAll(), MUCH + b"b|")
        self.assertEqual(self.pipe.fileno(), -1)

    @given(st.lists(st.tuples(st.binary(max_size=200_000), st.booleans()), max_size=8))
    def test_order(self, pieces: list[tuple[bytes, bool]]) -> None:
        """
        However much there is at a time, and whenever it is read.
        """
        found = b""
        for data, isRead in pieces:
            self.pipe.write(data)
            if isRead:
                found += self.readAll()
        self.assertEqual(found + self.readAll(), b"".join(each for each, _ in pieces))

    def test_gone(self) -> None:
        """
        Writing to a closed pipe is no error; the reading side notices.
        """
        ends: tuple[Callable[[], None], ...] = (
            self.pipe.doWrite,
            lambda: self.pipe.write(b"more"),
            self.pipe.abort,
            self.pipe.abort,
            lambda: self.pipe.connectionLost(Failure(OSError())),
        )
        self.pipe.write(MUCH)
        self.closeReadable()
        for each in ends:
            each()
        self.assertEqual(self.reactor.writers, set())
        self.assertEqual(self.pipe.fileno(), -1)


reactor = cast(IWorkerReactor, installed)


def isThere(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


class WorkerTests(TestCase):
    """
    Tests for L{Worker}.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.worker = Worker(reactor, "tests")

    async def test_calls(self) -> None:
        """
        Functions run in another process, the same for all, in order; their exceptions
        are raised here.
        """
        numbers = [self.worker.call(double, each) for each in range(200)]
        self.assertEqual(await gatherResults(numbers), [2 * x for x in range(200)])
        first, second = (
            await self.worker.call(pid, None),
            await self.worker.call(pid, None),
        )
        self.assertEqual(first, second)
        self.assertNotEqual(first, os.getpid())
        with self.assertRaises(KeyError):
            await self.worker.call(raiseKeyError, "x")
        with self.assertRaises(TypeError):
            self.worker.call(double, cast(int, Unreadable()))
        await self.worker.stop()
        self.assertFalse(isThere(first))

    async def test_large(self) -> None:
        """
        Data larger than the pipe is transferred completely, in both directions.
        """
        text = "x" * 5_000_000
        self.assertEqual(await self.worker.call(str.upper, text), text.upper())
        await self.worker.stop()

    async def test_output(self) -> None:
        """
        Output of a function doesn't get among the results.
        """
        null = os.open(os.devnull, os.O_WRONLY)
        with patch.object(module, "_STDERR", null):
            self.assertEqual(await self.worker.call(chatter, "hello"), "hello")
        os.close(null)
        self.assertEqual(await self.worker.call(double, 1), 2)
        await self.worker.stop()

    async def test_signals(self) -> None:
        """
        Signals sent to all processes of a server don't end a worker out of order.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.assertEqual(await self.worker.call(told, number), "still here")
        await self.worker.stop()

    async def test_lost(self) -> None:
        """
        If the process is killed, its calls fail, which is logged; later ones are
        performed by a new one, after a delay.
        """
        with capturedLogs() as logs:
            dying = self.worker.call(die, None)
            behind = self.worker.call(double, 1)
            for each in (dying.addCallback(lambda _: 0), behind):
                with self.assertRaises(WorkerLost):
                    await each
            start = reactor.seconds()
            again = [self.worker.call(double, each) for each in (2, 3)]
            self.assertEqual(await gatherResults(again), [4, 6])
        self.assertLessEqual(reactor.seconds() - start, MIN_START_INTERVAL + 10)
        said = [each for each in logs if isinstance(each.get("log_source"), Worker)]
        self.assertEqual([each["name"] for each in said], ["tests"])
        self.assertIn("signal 9", said[0]["reason"])
        await self.worker.stop()

    async def test_stop(self) -> None:
        """
        Earlier calls are done; later ones fail.
        """
        process = await self.worker.call(pid, None)
        slow = self.worker.call(sleep, 0.1)
        await self.worker.stop()
        self.assertEqual(self.successResultOf(slow), 0.1)
        self.assertFalse(isThere(process))
        with self.assertRaises(WorkerLost):
            await self.worker.call(double, 1)

    async def test_neverStarted(self) -> None:
        """
        No process is started without a call, nor while stopping.
        """
        await Worker(reactor, "nobody").stop()
        with capturedLogs():
            with self.assertRaises(WorkerLost):
                await self.worker.call(die, None)
            waiting = self.worker.call(double, 1)
            await self.worker.stop()
            self.failureResultOf(waiting, WorkerLost)
            await deferLater(reactor, 0.05)

    async def test_hangs(self) -> None:
        """
        A worker that doesn't end by itself is killed.
        """
        with patch.object(module, "_COMMAND", (sys.executable, "-c", _DEAF)):
            call = self.worker.call(double, 1)
        self.assertEqual(await call, 2)
        with patch.object(module, "STOP_TIMEOUT", 0.2):
            await self.worker.stop()

    async def test_orphan(self) -> None:
        """
        When this process is killed, the other one ends by itself.
        """
        output = await getProcessOutput(
            sys.executable,
            ["-c", _PARENT],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        process = int(output)
        while isThere(process):
            await deferLater(reactor, 0.05)

    async def test_slow(self) -> None:
        """
        A worker that has been silent for too long is killed; each job has its own
        time limit.
        """
        worker = Worker(reactor, "tests", 3)
        await worker.call(pid, None)
        slow = [worker.call(sleep, 1) for _ in range(4)]
        self.assertEqual(await gatherResults(slow), [1] * 4)
        with capturedLogs(), self.assertRaises(WorkerLost) as lost:
            await worker.call(sleep, 20)
        self.assertNotIsInstance(lost.exception, NoWorker)
        await worker.stop()

    async def test_missing(self) -> None:
        """
        If the process can't be started, calls fail with L{NoWorker}, which is logged;
        the next call fails at once.
        """
        command = (sys.executable, "-c", "raise SystemExit(3)")
        with capturedLogs() as logs, patch.object(module, "_COMMAND", command):
            for _ in range(2):
                with self.assertRaises(NoWorker):
                    await self.worker.call(double, 1)
        said = [each for each in logs if isinstance(each.get("log_source"), Worker)]
        self.assertIn("without one", said[0]["log_format"])
        await self.worker.stop()

    async def test_replaced(self) -> None:
        """
        A process of another version performs nothing, as the functions may differ.
        """
        command = (*module._COMMAND[:-1], "0.0.0")
        null = os.open(os.devnull, os.O_WRONLY)
        self.addCleanup(os.close, null)
        with capturedLogs(), patch.object(module, "_COMMAND", command):
            with patch.object(module, "_STDERR", null):
                call = self.worker.call(double, 1)
            with self.assertRaises(NoWorker):
                await call
        await self.worker.stop()


class TimeoutTests(SynchronousTestCase):
    """
    The time limit of calls.
    """

    def test_sinceTheLast(self) -> None:
        """
        The time limit counts from the worker's last output, or from the first call
        when it was idle.
        """
        clock, process = Clock(), Mock()
        life = module._Process(cast(IWorkerReactor, clock), Mock(), Mock(), 60)
        life.transport = process
        life.send(module._Call(b""))
        clock.advance(30)
        life.outReceived(encodeFrame((True, "there")) + encodeFrame((True, "done")))
        clock.advance(10)
        call = module._Call(b"")
        life.send(call)
        clock.pump([20, 39.9])
        process.signalProcess.assert_not_called()
        clock.advance(0.2)
        process.signalProcess.assert_called_once_with("KILL")
        life.outConnectionLost()
        self.failureResultOf(call.result, WorkerLost)


class BrokenTests(SynchronousTestCase):
    """
    Workers whose process can't be started.
    """

    def test_broken(self) -> None:
        """
        Calls fail for a long while, after which it is tried again, and the next
        time for a longer one; the reason is logged.
        """

        class NoProcesses(Clock):
            tried = 0

            def spawnProcess(self, *args: Any, **kwargs: Any) -> None:
                self.tried += 1
                raise OSError("no more processes")

        clock = NoProcesses()
        worker = Worker(cast(IWorkerReactor, clock), "tests")
        for tried in range(1, 9):
            pause = min(FIRST_RETRY * 2 ** (tried - 1), MAX_RETRY)
            self.failureResultOf(worker.call(double, 1), NoWorker)
            clock.advance(pause - 1)
            self.failureResultOf(worker.call(double, 1), NoWorker)
            self.assertEqual(clock.tried, tried)
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
            clock.advance(1)
        self.successResultOf(worker.stop())
        self.assertEqual(clock.getDelayedCalls(), [])


#: Does what it is called for, but doesn't mind when there is nothing more.
_DEAF = """
import sys, time
from moxtls.workers.__main__ import serve
serve(sys.stdin.buffer, sys.stdout.buffer)
time.sleep(60)
"""

#: Says which process works for it, and is killed.
_PARENT = """
import os, signal
from twisted.internet import reactor
from moxtls.workers.process import Worker
from tests.workers.calls import pid

def found(process):
    print(process, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

Worker(reactor, "orphans").call(pid, None).addCallback(found)
reactor.run()
"""
