# -*- test-case-name: tests.received.intake.test_importing -*-
"""
Imports received reports: worker processes read inputs in batches, and the results are
stored as they come.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from moxtls.received.intake.authenticity import judge
from moxtls.received.intake.inputs import Found, Input, readInputs
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.reading.documents import NOTHING
from moxtls.received.types import (
    AddResult,
    Channel,
    Origin,
    ParsedReport,
    ReadResult,
    RefusedReport,
    Unreadable,
)
from moxtls.workers.process import IWorkerReactor, NoWorker, Worker, WorkerLost

#: Octets of the inputs in one call to a worker: enough to make the cost of a call
#: small.
BATCH_SIZE = 128 * 1024
#: An input counts as this many octets at least, which limits the inputs of a call.
MIN_SIZE = BATCH_SIZE // 32
#: Calls that a worker has at a time: it has the next one when it returns the first.
PER_WORKER = 2
#: Octets of reports that are being stored, and how many: enough for a whole transaction
#: to wait while another one is written.
MAX_STORING = 32 * 2**20
MAX_REPORTS = 2500
#: Domains without configuration that are named in the end.
MAX_DOMAINS = 20
#: Calls for an input during which the process ended.
MAX_ATTEMPTS = 2
#: Seconds for a call: an input of the maximum size takes some ten.
TIMEOUT = 120


@dataclass
class ImportCounts:
    """
    The results of an import.

    @ivar results: Reports by what became of them.
    @ivar refused: Inputs and parts of inputs that can't be read.
    @ivar otherMail: Messages in mailboxes that aren't reports.
    @ivar unconfigured: Reports about domains that aren't in the configuration.
    @ivar domains: Such domains, in order of appearance; at most L{MAX_DOMAINS}.
    """

    results: Counter[AddResult] = field(default_factory=Counter)
    refused: int = 0
    otherMail: int = 0
    unconfigured: int = 0
    domains: dict[str, None] = field(default_factory=dict)

    @property
    def reports(self) -> int:
        return self.results.total()


def startWorkers(reactor: IWorkerReactor) -> list[Worker]:
    """
    Workers for an L{Importer}: one for each processor that this process may use.
    """
    count = len(os.sched_getaffinity(0))
    return [Worker(reactor, "reading reports", TIMEOUT) for _ in range(count)]


class Importer:
    """
    Reads inputs in worker processes, and stores their reports.

    @ivar counts: What became of all inputs so far.
    @ivar octets: L{Input.octets <moxtls.received.intake.inputs.Input.octets>} of all
        inputs that were read.
    """

    def __init__(
        self,
        store: IReceivedReportStore,
        workers: Sequence[Worker],
        isConfigured: Callable[[str], bool],
        refused: Callable[[str, str], None],
        now: Callable[[], float],
    ) -> None:
        """
        @param isConfigured: Whether a policy domain is in the configuration.
        @param refused: Called with the name and the reason of everything that can't be
            read.
        @param now: Unix seconds.
        """
        self._store = store
        self._isConfigured = isConfigured
        self._refused = refused
        self._now = now
        # Each worker as often as it takes another call.
        self._idle = [each for each in workers for _ in range(PER_WORKER)]
        self._calls = len(self._idle)
        self._batch: list[Input] = []
        self._batchSize = 0
        self.counts = ImportCounts()
        self.octets = 0
        # Reports that are being stored, and their octets.
        self._reports = 0
        self._storing = 0
        self._failure: Failure | None = None
        self._waiting: Deferred[None] | None = None

    async def put(self, found: Found) -> None:
        """
        Import an input, once there is room for it.  To be called once at a time.

        @raise Exception: An earlier report couldn't be stored.
        """
        if isinstance(found, Unreadable):
            self._refuse(found.name, found.reason)
            return
        size = _sizeOf(found)
        if self._batch and self._batchSize + size > BATCH_SIZE:
            await self._begin()
        self._batch.append(found)
        self._batchSize += size

    async def finish(self) -> None:
        """
        Returns once all inputs are read, and their reports stored.

        @raise Exception: A report couldn't be stored.
        """
        if self._batch:
            await self._begin()
        await self._until(lambda: len(self._idle) == self._calls and not self._reports)

    async def _begin(self) -> None:
        """
        Begin to read the inputs that wait, once a worker can take them.
        """
        await self._until(self._hasRoom)
        batch, self._batch, self._batchSize = self._batch, [], 0
        reading = Deferred.fromCoroutine(self._readBatch(self._idle.pop(), batch))
        reading.addErrback(self._failed)

    def _hasRoom(self) -> bool:
        isFull = self._storing > MAX_STORING or self._reports > MAX_REPORTS
        return bool(self._idle) and not isFull

    async def _until(self, condition: Callable[[], bool]) -> None:
        while self._failure is None and not condition():
            self._waiting = Deferred()
            await self._waiting
        if self._failure is not None:
            self._failure.raiseException()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure
        self._wake()

    # --- reading --------------------------------------------------------------------

    async def _readBatch(self, worker: Worker, batch: list[Input]) -> None:
        try:
            results = await self._read(worker, batch)
            for result, found in zip(results, batch, strict=True):
                self._wasRead(result, found)
                self.octets += found.octets
        finally:
            self._idle.append(worker)
        self._wake()

    async def _read(self, worker: Worker, batch: list[Input]) -> list[ReadResult]:
        try:
            return await worker.call(readInputs, _arguments(batch))
        except NoWorker:
            raise
        except WorkerLost:
            return [await self._readAlone(worker, each) for each in batch]

    async def _readAlone(self, worker: Worker, found: Input) -> ReadResult:
        """
        Read an input of a batch during which the process ended.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                results = await worker.call(readInputs, _arguments([found]))
                return results[0]
            except NoWorker:
                raise
            except WorkerLost:
                # Maybe because of the input before it.
                continue
        reason = "the process that read it ended, or took too long"
        return ReadResult((), (Unreadable("", reason),))

    def _wasRead(self, result: ReadResult, found: Input) -> None:
        if found.isMail and _isOtherMail(result):
            self.counts.otherMail += 1
            return
        for each in result.unreadable:
            name = f"{found.name}/{each.name}" if each.name else found.name
            self._refuse(name, each.reason)
        for report in result.reports:
            self._add(report, found.name)

    def _refuse(self, name: str, reason: str) -> None:
        self.counts.refused += 1
        self._refused(name, reason)

    # --- storing --------------------------------------------------------------------

    def _add(self, report: ParsedReport, name: str) -> None:
        # A path may have octets that are no text.
        sender = name.encode("utf-8", "backslashreplace").decode()
        origin = Origin(Channel.IMPORT, sender, "", self._now())
        judged = judge(report, origin, None)
        if isinstance(judged, RefusedReport):
            self._refuse(name, judged.reason)
            return
        size = len(report.raw) + sum(map(len, report.blocks))
        self._storing += size
        self._reports += 1
        adding = self._store.add(judged)
        adding.addCallbacks(self._added, self._failed, callbackArgs=(report,))
        adding.addBoth(self._stored, size)

    def _added(self, result: AddResult, report: ParsedReport) -> None:
        counts = self.counts
        counts.results[result] += 1
        domains = report.domains
        if domains and not any(map(self._isConfigured, domains)):
            counts.unconfigured += 1
            if len(counts.domains) < MAX_DOMAINS:
                counts.domains.update(dict.fromkeys(domains))

    def _stored(self, result: None, size: int) -> None:
        self._storing -= size
        self._reports -= 1
        self._wake()


def _isOtherMail(result: ReadResult) -> bool:
    return not result.reports and all(
        not each.name and each.reason.endswith(NOTHING) for each in result.unreadable
    )


def _sizeOf(found: Input) -> int:
    # A file that is left to the worker has a call of its own.
    isHere = isinstance(found.source, bytes)
    return max(len(found.source), MIN_SIZE) if isHere else BATCH_SIZE


def _arguments(batch: list[Input]) -> tuple[tuple[bytes | str, str], ...]:
    return tuple((each.source, each.name) for each in batch)
