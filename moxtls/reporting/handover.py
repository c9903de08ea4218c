# -*- test-case-name: tests.reporting.test_handover -*-
"""
Gives reports to the queue, and listens to what becomes of them.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.calendar import DAY
from moxtls.interfaces import (
    IQueue,
    IReportArchive,
    IReportObserver,
    IReportSubmitter,
    ISuppressions,
)
from moxtls.queue.values import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.bounces import readDSN
from moxtls.reporting.destinations import parseDestination
from moxtls.reporting.suppression import afterFailure, canReset
from moxtls.reporting.values import OutgoingReport, ReportState

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
