# -*- test-case-name: tests.received.intake.test_intake -*-
"""
The intake of received reports, which all ways by which they arrive share: reads inputs
in worker processes, has each report judged, and stores the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    maybeDeferred,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.dates import MINUTE
from moxtls.outages import logUnlessOutage
from moxtls.received.interfaces import IReceivedReportStore, IReportIntakeObserver
from moxtls.received.reading.documents import NOTHING
from moxtls.received.reading.read import readReports
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    Origin,
    ParsedReport,
    ReadResult,
    RefusedReport,
    Unreadable,
)
from moxtls.tasks import FairSemaphore, TaskGroup, TooManyWaiting, gather
from moxtls.workers.process import NoWorker, Worker, WorkerLost

#: Seconds after which a process that reads one input is killed.
READ_TIMEOUT = MINUTE
#: Inputs of one client that wait for a process, and the seconds that one waits.
MAX_WAITING = 20
MAX_WAIT = 4 * MINUTE
#: Refused things of one input that are stored.
MAX_REFUSED = 20
#: Observers' notifications in progress before further reports wait for them.
MAX_PENDING = 100

#: The octets of an input, in any pieces, or the path of a file.
Input = bytes | str | Sequence[bytes | bytearray]
Judged = AcceptedReport | RefusedReport
#: Decides about one report.
Judge = Callable[[ParsedReport], Judged]

LOST = "reading it failed: it took too long, or too much memory"


class ReadingUnavailable(Exception):
    """
    Reports can't be read now; a later attempt may succeed.
    """


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """
    The result of one report, or of something else in an input.

    @ivar added: C{None} if it was refused.
    """

    judged: Judged
    added: AddResult | None


def readInput(argument: tuple[bytes | str, str]) -> ReadResult:
    """
    Read an input, given with its name.
    """
    return readReports(*argument)


class ReportReader:
    """
    Reads inputs in worker processes, one at a time in each, so that an input that ends
    its process takes no others with it.  The clients take turns.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        workers: Sequence[Worker],
        function: Callable[[tuple[bytes | str, str]], ReadResult] = readInput,
    ) -> None:
        """
        @param workers: With a timeout, such as L{READ_TIMEOUT}.
        @param function: Reads an input, given with its name, in a worker.
        """
        self._clock = clock
        self._function = function
        self._workers = tuple(workers)
        self._idle = list(workers)
        self._turns = FairSemaphore(len(self._idle), MAX_WAITING)

    def read(
        self, source: Input, name: str = "", client: str = ""
    ) -> Deferred[ReadResult]:
        """
        Read an input.

        @param source: Chunks are joined once it is the input's turn, and have to stay
            readable until then.
        @param name: The name of the file, if it had one.
        @param client: The network that it came from.

        @return: Fires with the reports; an input that ended the process is unreadable.
            Fails with L{ReadingUnavailable}.
        """
        return Deferred.fromCoroutine(self._read(source, name, client))

    def stop(self) -> Deferred[None]:
        """
        Fires once the processes have ended.  No more inputs are to be read.
        """
        stopping = [each.stop() for each in self._workers]
        return Deferred.fromCoroutine(gather(stopping)).addCallback(lambda _: None)

    async def _read(self, source: Input, name: str, client: str) -> ReadResult:
        try:
            turn = self._turns.acquire(client)
            await turn.addTimeout(MAX_WAIT, self._clock)
        except (TooManyWaiting, TimeoutError):
            raise ReadingUnavailable("too many reports are waiting") from None
        try:
            found: ReadResult = await self._started(source, name)
        except NoWorker:
            raise ReadingUnavailable("there is no process that reads reports") from None
        except WorkerLost:
            return ReadResult((), (Unreadable(name, LOST),))
        except (CancelledError, ReadingUnavailable):
            raise
        except Exception as error:
            # Another attempt would end in the same way.
            self.log.failure("reading a report failed")
            why = f"reading it failed: {type(error).__name__}"
            return ReadResult((), (Unreadable(name, why),))
        return found

    def _started(self, source: Input, name: str) -> Deferred[ReadResult]:
        """
        Read an input now.  The worker is in use until it has ended, also if the result
        is cancelled.
        """
        result: Deferred[ReadResult] = Deferred()
        worker = self._idle.pop()

        def ended(found: ReadResult | Failure) -> None:
            self._idle.append(worker)
            self._turns.release()
            result.callback(found)

        def call() -> Deferred[ReadResult]:
            return worker.call(self._function, (_joined(source), name))

        maybeDeferred(call).addBoth(ended)
        return result


def _joined(source: Input) -> bytes | str:
    """
    @raise ReadingUnavailable: The file of a message can't be read.
    """
    if isinstance(source, bytes | str):
        return source
    try:
        return b"".join(source)
    except OSError as error:
        raise ReadingUnavailable(f"a message can't be read: {error}") from None


class ReportIntake:
    """
    Takes in received reports.
    """

    log = Logger()

    def __init__(
        self,
        store: IReceivedReportStore,
        reader: ReportReader,
        observers: Iterable[IReportIntakeObserver] = (),
    ) -> None:
        self._store = store
        self._reader = reader
        self._observers = tuple(observers)
        self._pending = TaskGroup(MAX_PENDING)

    def take(
        self,
        source: Input,
        origin: Origin,
        judge: Judge,
        name: str = "",
        client: str = "",
    ) -> Deferred[tuple[IntakeResult, ...]]:
        """
        Read an input, and store what is in it.

        @param origin: Of things that can't be read.
        @param judge: Decides about each report; nothing is stored if it raises.
        @param name: As for L{ReportReader.read}.
        @param client: As for L{ReportReader.read}.

        @return: Fires with at least one result, once everything would survive a power
            cut.  Fails with L{ReadingUnavailable}, or with the failure of the store:
            then a part may be stored, and a repetition finds duplicates.
        """
        return Deferred.fromCoroutine(self._take(source, origin, judge, name, client))

    def add(self, judged: Sequence[Judged]) -> Deferred[tuple[IntakeResult, ...]]:
        """
        Store reports in order, and tell the observers.  Fires as L{take}.
        """
        return Deferred.fromCoroutine(self._add(judged))

    def stop(self) -> Deferred[None]:
        """
        Fires once the observers have been told, and no process runs.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _take(
        self, source: Input, origin: Origin, judge: Judge, name: str, client: str
    ) -> tuple[IntakeResult, ...]:
        found = await self._reader.read(source, name, client)
        return await self._add(judgedAll(found, origin, judge))

    async def _add(self, judged: Sequence[Judged]) -> tuple[IntakeResult, ...]:
        # Together: they share the wait for the disk.
        storing = [Deferred.fromCoroutine(self._stored(each)) for each in judged]
        added = await gather(storing)
        results = tuple(map(IntakeResult, judged, added))
        for each in results:
            isNew = each.added in (AddResult.STORED, AddResult.VARIANT)
            if isinstance(each.judged, AcceptedReport) and isNew:
                await self._tell(each.judged)
        return results

    async def _stored(self, judged: Judged) -> AddResult | None:
        if isinstance(judged, AcceptedReport):
            return await self._store.add(judged)
        await self._store.refuse(judged)
        return None

    async def _tell(self, report: AcceptedReport) -> None:
        for observer in self._observers:
            await self._pending.room()
            self._pending.begin(self._told(observer, report))

    async def _told(
        self, observer: IReportIntakeObserver, report: AcceptedReport
    ) -> None:
        try:
            await observer.reportAccepted(report)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "notification of a report observer failed")

    async def _stop(self) -> None:
        await self._reader.stop()
        await self._pending.finished()


def judgedAll(found: ReadResult, origin: Origin, judge: Judge) -> tuple[Judged, ...]:
    """
    The decisions about all that was read from an input, at least one; of the unreadable
    things, the first L{MAX_REFUSED}.
    """
    unreadable = [
        RefusedReport(
            origin, ": ".join(filter(None, (each.name, each.reason))), each.kind
        )
        for each in found.unreadable[:MAX_REFUSED]
    ]
    judged = (*map(judge, found.reports), *unreadable)
    return judged or (RefusedReport(origin, NOTHING),)
