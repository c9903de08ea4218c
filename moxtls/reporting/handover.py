# -*- test-case-name: tests.reporting.test_handover -*-
"""
Hands composed reports over, each exactly once.

Gives reports to the queue, and listens to what becomes of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import DAY, MINUTE, MonotonicTime
from moxtls.interfaces import (
    IQueue,
    IReportArchive,
    IReportObserver,
    IReportSubmitter,
    ISuppressions,
)
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.rua import parseDestination
from moxtls.reporting.schedule import MAX_AGE
from moxtls.reporting.suppression import afterFailure, canReset, readDSN
from moxtls.reporting.types import OutgoingReport, ReportKey, ReportState
from moxtls.tasks import TaskGroup, ignoreCancelled

#: Reports handed over side by side: each waits for a disk, more than once,
#: and they can share that.  As many messages are in memory.
MAX_AT_ONCE = 16
#: Where so many attempts in a row had no success at all it is the submitter
#: that fails rather than a report of them; there is no use in taking more, and
#: other nodes may do better with them.
MAX_FAILURES = 3
FAILURE_PAUSE = 15 * MINUTE


class Outbox:
    """
    Gives the reports of one kind that nobody has taken yet to a submitter.

    A report that is taken has this node's name on it before the submitter
    sees it, and the submitter knows it again by its key: so dying anywhere in
    between neither loses nor doubles it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        archive: IReportArchive,
        submitter: IReportSubmitter,
        kind: ReportKind,
        node: str,
    ) -> None:
        self._clock = clock
        self._archive = archive
        self._submitter = submitter
        self._kind = kind
        self._node = node
        # Two at once would be given the same reports.
        self._turn = DeferredLock()
        self._asked = 0
        self._done = 0
        self._inVain = 0
        self._elapsed = MonotonicTime()
        self._restUntil = 0.0

    def empty(self) -> Deferred[None]:
        """
        Hand over all there is.  Never fails: what can't be handed over now is
        there the next time.
        """
        return Deferred.fromCoroutine(self._empty())

    async def _empty(self) -> None:
        self._asked += 1
        mine = self._asked
        await self._turn.acquire()
        try:
            # Somebody who had his turn since then may have found all there is.
            if self._done < mine:
                await self._handOverAll()
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "Handing over {kind} reports", kind=self._kind)
        finally:
            self._turn.release()

    async def _handOverAll(self) -> None:
        tried: set[ReportKey] = set()
        while self._elapsed.at(self._clock.seconds()) >= self._restUntil:
            asked = self._asked
            most = 1 if self._inVain else MAX_AT_ONCE
            taken = await self._archive.take(self._kind, self._node, most)
            reports = [each for each in taken if each.key not in tried]
            if not reports:
                self._done = asked
                return
            tried.update(each.key for each in reports)
            self._note(await self._handOver(reports))

    def _note(self, success: bool) -> None:
        self._inVain = 0 if success else self._inVain + 1
        if self._inVain >= MAX_FAILURES:
            self._restUntil = self._elapsed.at(self._clock.seconds()) + FAILURE_PAUSE

    async def _handOver(self, reports: Sequence[OutgoingReport]) -> bool:
        """
        @return: Whether any of them is in safe hands.
        """
        tasks = TaskGroup(len(reports))
        safe: list[OutgoingReport] = []
        for report in reports:
            tasks.begin(ignoreCancelled(self._handOverOne(report, safe)))
        try:
            await tasks.finished()
        finally:
            await tasks.cancel()
        return bool(safe)

    async def _handOverOne(
        self, report: OutgoingReport, safe: list[OutgoingReport]
    ) -> None:
        try:
            await self._submitter.submit(report)
            now = self._clock.seconds()
            await self._archive.mark(report.key, ReportState.QUEUED, now)
            safe.append(report)
        except CancelledError:
            raise
        except Exception as error:
            logUnlessOutage(self.log, "Handing over {key!r}", key=str(report.key))
            await self._failed(report, str(error) or type(error).__name__)

    async def _failed(self, report: OutgoingReport, detail: str) -> None:
        """
        Have others go first the next time; and give it up where it would be
        of no use to anybody any more.
        """
        now = self._clock.seconds()
        isStale = now - report.composed >= MAX_AGE[self._kind]
        state = ReportState.FAILED if isStale else ReportState.HANDING
        try:
            await self._archive.mark(report.key, state, now, detail)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "Marking {key!r}", key=str(report.key))


#: RFC 8460 5.5 has TLS reports tried for a day, as other mail is.  A DMARC
#: report has no such claim, and there are many destinations that take none.
MAX_ATTEMPTS = {ReportKind.TLS: 0, ReportKind.DMARC: 5}


@implementer(IReportSubmitter)
class QueueSubmitter:
    """
    Puts reports into a queue.
    """

    def __init__(self, queue: IQueue) -> None:
        self._queue = queue

    def submit(self, report: OutgoingReport) -> Deferred[None]:
        submitted = self._queue.submit(reportEnvelope(report), (report.message,))
        return submitted.addCallback(lambda messageID: None)


def reportEnvelope(report: OutgoingReport) -> Envelope:
    """
    How a report travels.
    """
    key = report.key
    address = parseDestination(key.destination).address
    # RFC 8460 3, 5.3: a report on TLS goes out whatever becomes of TLS.
    requireTLS = False if key.kind is ReportKind.TLS else None
    return Envelope(
        sender=report.sender,
        recipients=(str(address) if address else key.destination,),
        requireTLS=requireTLS,
        report=key.kind,
        key=str(key),
        maxAttempts=MAX_ATTEMPTS[key.kind],
        contentType=report.contentType,
    )


@implementer(IReportObserver)
class ReportDeliveryTracker:
    """
    Notes how reports ended, and leaves destinations alone that refuse them.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        archive: IReportArchive,
        suppressions: ISuppressions,
    ) -> None:
        self._clock = clock
        self._archive = archive
        self._suppressions = suppressions

    def reportEnded(self, envelope: Envelope, result: Result) -> Deferred[None]:
        return Deferred.fromCoroutine(self._reportEnded(envelope, result))

    def bounced(self, recipient: str, message: bytes) -> Deferred[ReportKind | None]:
        """
        A message came for one of our addresses.

        @param recipient: The address, as in RCPT.

        @return: Fires with the kind of report of ours that it is a DSN about,
            which nobody needs to read; with C{None} if it is anything else.
        """
        return Deferred.fromCoroutine(self._bounced(recipient, message))

    async def _reportEnded(self, envelope: Envelope, result: Result) -> None:
        report = await self._archive.find(envelope.key)
        if report is None:
            return
        if result.ending is DeliveryStatus.DELIVERED:
            await self._delivered(report, result)
        else:
            permanent = result.ending is DeliveryStatus.PERMANENT
            await self._failed(report, _detail(result), permanent)

    async def _bounced(self, recipient: str, message: bytes) -> ReportKind | None:
        report = await self._archive.bySender(recipient)
        notification = None if report is None else readDSN(message)
        if report is None or notification is None:
            return None
        if notification.failed:
            await self._failed(report, notification.detail, True)
        return report.key.kind

    async def _delivered(self, report: OutgoingReport, result: Result) -> None:
        key, now = report.key, self._clock.seconds()
        await self._archive.mark(key, ReportState.DELIVERED, now, _detail(result))
        entry = await self._suppressions.get(key.destination, key.kind)
        # What an https: server has accepted doesn't bounce later.
        if entry is not None and canReset(entry, now, final=not report.sender):
            await self._suppressions.remove(key.destination, key.kind)

    async def _failed(
        self, report: OutgoingReport, detail: str, permanent: bool
    ) -> None:
        key, now = report.key, self._clock.seconds()
        # A DSN may come more than once; one failure is one failure.
        if permanent and report.state is not ReportState.FAILED:
            await self._suppress(report, detail)
        await self._archive.mark(key, ReportState.FAILED, now, detail)

    async def _suppress(self, report: OutgoingReport, detail: str) -> None:
        key, now = report.key, self._clock.seconds()
        previous = await self._suppressions.get(key.destination, key.kind)
        entry = afterFailure(key.destination, key.kind, now, detail, previous)
        await self._suppressions.put(entry)
        self.log.info(
            "No {kind} reports to {destination} for {days} days: {detail!r}",
            kind=str(key.kind),
            destination=key.destination,
            days=round((entry.until - now) / DAY),
            detail=detail,
        )


def _detail(result: Result) -> str:
    status = "" if result.code else result.status
    words = (result.host, status, result.words)
    return " ".join(word for word in words if word)
