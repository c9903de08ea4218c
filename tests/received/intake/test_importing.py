"""
Tests for L{moxtls.received.intake.importing}, with real worker processes.
"""

from __future__ import annotations

import gzip
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from moxtls.interfaces import StoreUnavailable
from moxtls.ledger.ledger import MemoryLedger
from moxtls.received.intake import importing
from moxtls.received.intake.importing import Importer
from moxtls.received.intake.inputs import Input
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    Channel,
    ReadResult,
    ReportFilter,
    Unreadable,
)
from moxtls.workers.process import Worker
from tests import MAX_WAIT
from tests.received.intake.fakes import RecordingStore, readWords
from tests.received.reading.samples import aggregateReport, tlsReport
from tests.received.reading.test_read import mailed

reactor: Any = installed

#: After the periods of all samples.
NOW = 1_900_000_000


def readWordInputs(items: tuple[tuple[bytes | str, str], ...]) -> list[ReadResult]:
    """
    Takes the place of L{readInputs} in worker processes.
    """
    return [readWords((source, "")) for source, _ in items]


class ImporterTests(TestCase):
    """
    Tests for L{Importer}.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.patch(importing, "readInputs", readWordInputs)
        self.store = RecordingStore()
        self.refused: list[tuple[str, str]] = []
        workers = [Worker(reactor, "tests", 30) for _ in range(2)]
        for worker in workers:
            self.addCleanup(worker.stop)
        self.importer = Importer(
            cast(IReceivedReportStore, self.store),
            workers,
            {"our.example"}.__contains__,
            lambda name, reason: self.refused.append((name, reason)),
            lambda: NOW,
        )

    async def put(self, *texts: str, isMail: bool = False) -> None:
        for number, text in enumerate(texts):
            found = Input(f"i{number}", text.encode(), len(text), isMail)
            await self.importer.put(found)
        await self.importer.finish()

    def stored(self) -> dict[str, str]:
        """
        The sender of each stored report.
        """
        return {
            each.report.reportID: each.origin.sender
            for each in self.store.stored
            if isinstance(each, AcceptedReport)
        }

    async def test_stored(self) -> None:
        """
        Reports are stored with the name of their input, and are not authenticated.
        """
        await self.put("a b", "c")
        self.assertEqual(self.stored(), {"a": "i0", "b": "i0", "c": "i1"})
        origin = self.store.stored[0].origin
        self.assertEqual(
            (origin.channel, origin.authentication, origin.received),
            (Channel.IMPORT, "", NOW),
        )
        self.assertEqual(self.importer.octets, 4)

    async def test_counts(self) -> None:
        """
        Everything is counted; what is refused is told with its name.
        """
        await self.put("a bad", "a")
        await self.importer.put(Unreadable("x/y", "Permission denied"))
        counts = self.importer.counts
        self.assertEqual(counts.results, {AddResult.STORED: 1, AddResult.DUPLICATE: 1})
        self.assertEqual((counts.reports, counts.refused), (2, 2))
        self.assertEqual(
            self.refused, [("i0", "it is bad"), ("x/y", "Permission denied")]
        )

    async def test_many(self) -> None:
        """
        Many inputs share calls to the processes, and each is stored once.
        """
        await self.put(*(f"w{number}" for number in range(2000)))
        self.assertEqual(len(self.stored()), 2000)
        self.assertEqual(self.importer.counts.reports, 2000)

    async def test_killed(self) -> None:
        """
        An input that ends the process is refused after two attempts; those that were
        read with it are stored.
        """
        self.patch(importing, "MIN_SIZE", 1)
        words = [f"w{number}" for number in range(50)]
        await self.put(*words[:20], "die", *words[20:])
        self.assertEqual(set(self.stored()), set(words))
        [(name, reason)] = self.refused
        self.assertEqual(name, "i20")
        self.assertRegex(reason, "process .* ended")

    async def test_unavailable(self) -> None:
        """
        If the store fails, so does the import.
        """
        self.store.failure = StoreUnavailable("away")
        await self.assertFailure(
            Deferred.fromCoroutine(self.put("a")), StoreUnavailable
        )

    async def test_room(self) -> None:
        """
        No more inputs are read than fit into the calls to the processes.
        """
        self.patch(importing, "BATCH_SIZE", importing.MIN_SIZE)
        words = [f"w{number}" for number in range(6)]
        for number, word in enumerate(words):
            putting = Deferred.fromCoroutine(
                self.importer.put(Input(word, word.encode(), 1))
            )
            # Two processes have two calls each, and one more input is waiting.
            self.assertEqual(putting.called, number < 5)
            await putting
        await self.importer.finish()
        self.assertEqual(set(self.stored()), set(words))

    async def test_storing(self) -> None:
        """
        Reading waits for the store.
        """
        self.patch(importing, "BATCH_SIZE", importing.MIN_SIZE)
        self.patch(importing, "MAX_REPORTS", 1)
        adding: list[Deferred[AddResult]] = []

        def add(report: AcceptedReport) -> Deferred[AddResult]:
            adding.append(Deferred())
            return adding[-1]

        self.patch(self.store, "add", add)
        await self.importer.put(Input("a", b"a b", 1))
        await self.importer.put(Input("c", b"c", 1))
        while len(adding) < 2:
            await self.wait()
        waiting = Deferred.fromCoroutine(self.importer.put(Input("d", b"d", 1)))
        self.assertFalse(waiting.called)
        adding[0].callback(AddResult.STORED)
        await waiting
        adding[1].callback(AddResult.VARIANT)
        finishing = Deferred.fromCoroutine(self.importer.finish())
        for number in (2, 3):
            while len(adding) <= number:
                await self.wait()
            adding[number].callback(AddResult.STORED)
        await finishing
        self.assertEqual(
            self.importer.counts.results, {AddResult.STORED: 3, AddResult.VARIANT: 1}
        )

    async def test_interrupted(self) -> None:
        """
        After waiting for room was cancelled, what was put in is stored.
        """
        self.patch(importing, "BATCH_SIZE", importing.MIN_SIZE)
        words = [f"w{number}" for number in range(5)]
        for word in words:
            await self.importer.put(Input(word, word.encode(), 1))
        waiting = Deferred.fromCoroutine(self.importer.put(Input("x", b"x", 1)))
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        await self.importer.finish()
        self.assertEqual(set(self.stored()), set(words))

    async def test_undecodable(self) -> None:
        """
        The name of a file may be no text.
        """
        await self.importer.put(Input("\udcff.xml", b"a", 1))
        await self.importer.finish()
        self.assertEqual(self.stored(), {"a": "\\udcff.xml"})

    def wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.01, waiting.callback, None)
        return waiting


class ReportTests(TestCase):
    """
    Tests for L{Importer} with reports.
    """

    timeout = MAX_WAIT

    async def test_reports(self) -> None:
        """
        All domains are imported, and those that aren't configured are told.  Mail that
        is no report isn't refused; a damaged report in mail is, and one whose period is
        in the future.
        """
        worker, ledger = Worker(reactor, "tests", 60), MemoryLedger()
        self.addCleanup(worker.stop)
        self.addCleanup(ledger.stop)
        refused: dict[str, str] = {}
        importer = Importer(
            ledger.received,
            [worker],
            {"example.org"}.__contains__,
            refused.__setitem__,
            lambda: NOW,
        )
        late = tlsReport("t-9").replace(b"2026-11-23", b"2036-11-23")
        for name, content, isMail in (
            ("ours", tlsReport("t-1"), False),
            ("a.example!b.example!1!2.json", tlsReport("t-2", None), False),
            ("other", tlsReport("t-3", "c.example"), False),
            ("dmarc", aggregateReport(), False),
            ("nameless", tlsReport("t-4", None), False),
            ("late", late, False),
            ("mail", b"Subject: hi\n\nhello\n", True),
            ("text", b"Subject: hi\n\nhello\n", False),
            ("damaged", mailed(gzip.compress(tlsReport())[:-20]), True),
        ):
            await importer.put(Input(name, content, 1, isMail))
        await importer.finish()
        counts = importer.counts
        self.assertEqual(counts.results, {AddResult.STORED: 5})
        self.assertEqual(counts.unconfigured, 2)
        self.assertEqual(list(counts.domains), ["b.example", "c.example"])
        self.assertEqual((counts.otherMail, counts.refused), (1, 3))
        self.assertRegex(refused.pop("late"), "in the future")
        self.assertRegex(refused.pop("text"), "there is no report in it")
        [(name, reason)] = refused.items()
        self.assertRegex(f"{name}: {reason}", r"\Adamaged.*: gzip: the data is cut off")
        stored = await ledger.received.reports(ReportFilter(domain="b.example"), 10)
        self.assertEqual([each.reportID for each in stored], ["t-2"])
        # It is listed, but counts for no domain.
        listed = await ledger.received.reports(ReportFilter(), 10)
        self.assertEqual(
            [(each.reportID, each.domains) for each in listed if not each.domains],
            [("t-4", ())],
        )
