"""
Tests for L{moxtls.received.intake.intake}, with real processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from moxtls.interfaces import StoreUnavailable
from moxtls.received.intake.authenticity import judge
from moxtls.received.intake.intake import (
    LOST,
    MAX_REFUSED,
    MAX_WAIT,
    MAX_WAITING,
    IntakeResult,
    ReadingUnavailable,
    ReportIntake,
    ReportReader,
    judgedAll,
)
from moxtls.received.interfaces import IReceivedReportStore, IReportIntakeObserver
from moxtls.received.reading.documents import NOTHING
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    Channel,
    Origin,
    ReadResult,
    RefusedReport,
    Unreadable,
)
from moxtls.workers.process import IWorkerReactor, NoWorker, Worker
from tests import MAX_WAIT as TIMEOUT
from tests.received.intake.fakes import InlineWorker, RecordingStore, readWords
from tests.received.intake.test_authenticity import NOW, OURS, tlsReport

reactor = cast(IWorkerReactor, installed)
ORIGIN = Origin(Channel.HTTPS, "192.0.2.1", "", NOW)
JUDGE = partial(judge, origin=ORIGIN, ours=OURS)


@implementer(IReportIntakeObserver)
class Observer:
    """
    Records what it is told, and fails.
    """

    def __init__(self) -> None:
        self.told: list[AcceptedReport] = []

    def reportAccepted(self, report: AcceptedReport) -> Deferred[None]:
        self.told.append(report)
        return fail(ValueError("observer"))


class IntakeTests(TestCase):
    """
    Tests for L{ReportIntake} and L{ReportReader}.
    """

    timeout = TIMEOUT

    def setUp(self) -> None:
        self.store = RecordingStore()
        self.observer = Observer()
        worker = Worker(reactor, "reports", 6)
        self.reader = ReportReader(reactor, [worker], readWords)
        store = cast(IReceivedReportStore, self.store)
        self.intake = ReportIntake(store, self.reader, [self.observer])
        self.addCleanup(self.intake.stop)

    def take(self, text: str, client: str = "") -> Deferred[tuple[IntakeResult, ...]]:
        """
        Take in an input of words, in two pieces.
        """
        data = text.encode()
        return self.intake.take(
            [data[:2], data[2:]], ORIGIN, JUDGE, "a.eml", client=client
        )

    async def test_order(self) -> None:
        """
        All reports of an input are stored in order, and then what can't be read; the
        observers are told of each accepted one, and their failures change nothing.
        """
        results = await self.take("a bad b")
        added = [each.added for each in results]
        self.assertEqual(added, [AddResult.STORED, AddResult.STORED, None])
        self.assertEqual(self.store.ids, ["a", "b", "a.eml: it is bad"])
        self.assertEqual(self.observer.told, self.store.stored[:2])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    async def test_duplicate(self) -> None:
        """
        A report that is known is stored and told of once.
        """
        for expected in (AddResult.STORED, AddResult.DUPLICATE):
            [result] = await self.take("a")
            self.assertIs(result.added, expected)
        self.assertEqual(len(self.observer.told), 1)
        self.flushLoggedErrors(ValueError)

    async def test_nothing(self) -> None:
        """
        An input without a report is recorded as refused.
        """
        [result] = await self.take("")
        self.assertEqual(result, IntakeResult(RefusedReport(ORIGIN, NOTHING), None))
        self.assertEqual(self.store.ids, [NOTHING])

    async def test_killed(self) -> None:
        """
        An input that ends the process, or takes too long, is refused and not read
        again; those that wait behind it are read by the next process.
        """
        texts = ("die", "a", "sleep", "b")
        results = await gatherResults([self.take(each) for each in texts])
        reasons = [
            each.judged.reason
            for [each] in results
            if isinstance(each.judged, RefusedReport)
        ]
        self.assertEqual(reasons, [f"a.eml: {LOST}"] * 2)
        self.assertEqual(self.store.ids, [f"a.eml: {LOST}", "a", f"a.eml: {LOST}", "b"])
        self.flushLoggedErrors(ValueError)

    async def test_exception(self) -> None:
        """
        A fault of the reader refuses the input.
        """
        [result] = await self.take("raise")
        assert isinstance(result.judged, RefusedReport)
        self.assertEqual(result.judged.reason, "a.eml: reading it failed: ValueError")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_storeFails(self) -> None:
        """
        While the ledger is unavailable, an input fails, whatever is in it; nobody is
        told.
        """
        self.store.failure = StoreUnavailable("away")
        for text in ("a b", "bad", ""):
            with self.assertRaises(StoreUnavailable):
                await self.take(text)
        self.assertEqual(self.observer.told, [])

    async def test_cancelled(self) -> None:
        """
        A cancelled input leaves the process to the next one only once it is done.
        """
        first = self.take("die")
        second = self.take("a")
        first.cancel()
        await self.assertFailure(first, Exception)
        [result] = await second
        self.assertIs(result.added, AddResult.STORED)
        self.flushLoggedErrors(ValueError)


class HangingWorker:
    """
    A worker that never answers, or that doesn't exist.
    """

    def __init__(self, answer: Deferred[Any] | None = None) -> None:
        self.answer = answer or Deferred()

    def call(self, function: object, argument: object) -> Deferred[Any]:
        return self.answer


class ReaderTests(SynchronousTestCase):
    """
    Tests for L{ReportReader} without processes.
    """

    def reader(self, worker: Any) -> ReportReader:
        """
        A reader with one worker.
        """
        self.clock = Clock()
        return ReportReader(self.clock, [worker], readWords)

    def test_noWorker(self) -> None:
        """
        Without a process an input is to be sent again later.
        """
        reader = self.reader(HangingWorker(fail(NoWorker("gone"))))
        self.failureResultOf(reader.read(b"a"), ReadingUnavailable)

    def test_brokenFile(self) -> None:
        """
        An input that can't be read now is to be sent again later, and takes no worker
        away.
        """

        class Broken(list[bytes]):
            def __iter__(self) -> Iterator[bytes]:
                raise OSError("input/output error")

        reader = self.reader(InlineWorker())
        for _ in range(2):
            self.failureResultOf(reader.read(Broken()), ReadingUnavailable)
        found = self.successResultOf(reader.read([b"a"]))
        self.assertEqual(len(found.reports), 1)

    def test_busy(self) -> None:
        """
        Inputs wait for a limited time, and a limited number of each client's; others
        aren't affected by one that sends many.
        """
        reader = self.reader(HangingWorker())
        running = reader.read(b"a", client="one")
        waiting = [reader.read(b"a", client="one") for _ in range(MAX_WAITING)]
        self.failureResultOf(reader.read(b"a", client="one"), ReadingUnavailable)
        other = reader.read(b"a", client="two")
        self.assertNoResult(other)
        self.clock.advance(MAX_WAIT)
        for each in (*waiting, other):
            self.failureResultOf(each, ReadingUnavailable)
        self.assertNoResult(running)


class JudgedAllTests(SynchronousTestCase):
    """
    Tests for L{judgedAll}.
    """

    def test_limit(self) -> None:
        """
        An input with many unreadable things doesn't fill the store with them.
        """
        many = tuple(Unreadable(str(n), "broken") for n in range(10 * MAX_REFUSED))
        found = ReadResult((tlsReport("our.example"),), many)
        judged = judgedAll(found, ORIGIN, JUDGE)
        self.assertEqual(len(judged), 1 + MAX_REFUSED)
        self.assertEqual(judged[1], RefusedReport(ORIGIN, "0: broken"))
