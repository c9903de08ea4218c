# -*- test-case-name: tests.reporting -*-
"""
Submits composed reports to the queue, each exactly once, posts those for HTTPS
destinations (RFC 8460 5.4), and tracks their delivery.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import DAY, MINUTE, MonotonicTime
from moxtls.https import HTTPSErrorKind, HTTPSFailure, Response
from moxtls.interfaces import (
    ICourier,
    IQueue,
    IReportArchive,
    IReportObserver,
    IReportSubmitter,
    IResultRecorder,
    ISuppressions,
)
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import (
    Batch,
    BatchMessage,
    DeliveryStatus,
    Envelope,
    ReportKind,
    Result,
)
from moxtls.reporting.destinations import (
    InvalidDestination,
    afterFailure,
    canonicalURI,
    canReset,
    parseDestination,
    readDSN,
)
from moxtls.reporting.schedule import MAX_AGE
from moxtls.reporting.types import OutgoingReport, ReportKey, ReportState
from moxtls.tasks import TaskGroup, ignoreCancelled

#: Reports submitted in parallel: each waits for several disk writes, which can be
#: grouped.  This is also the number of messages in memory.
MAX_AT_ONCE = 16
#: Consecutive attempts without any success after which the fault is the submitter's
#: rather than a report's.  No more reports are taken for a time, since other nodes may
#: be able to submit them.
MAX_FAILURES = 3
#: Seconds.
FAILURE_PAUSE = 15 * MINUTE

#: Delivery attempts; 0 for those of other mail.  TLS reports are tried for a day
#: (RFC 8460 5.5).  RFC 9990 doesn't demand it, and many destinations never accept
#: reports.
MAX_ATTEMPTS = {ReportKind.TLS: 0, ReportKind.DMARC: 5}


class Outbox:
    """
    Submits the reports of one kind that no node has taken yet.

    A report is marked with this node's name before it is submitted, and the submitter
    recognizes it by its key; so the death of the process at any point neither loses
    nor duplicates it.
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
        # Concurrent calls would get the same reports.
        self._lock = DeferredLock()
        self._requested = 0
        self._completed = 0
        self._failures = 0
        self._elapsed = MonotonicTime()
        self._pausedUntil = 0.0

    def empty(self) -> Deferred[None]:
        """
        Submit all reports.  Never fails: reports that can't be submitted now are
        submitted by a later call.
        """
        return Deferred.fromCoroutine(self._empty())

    async def _empty(self) -> None:
        self._requested += 1
        number = self._requested
        await self._lock.acquire()
        try:
            # An earlier call may have submitted all reports in the meantime.
            if self._completed < number:
                await self._submitAll()
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "Submitting {kind} reports", kind=self._kind)
        finally:
            self._lock.release()

    async def _submitAll(self) -> None:
        tried: set[ReportKey] = set()
        while self._elapsed.at(self._clock.seconds()) >= self._pausedUntil:
            requested = self._requested
            most = 1 if self._failures else MAX_AT_ONCE
            taken = await self._archive.take(self._kind, self._node, most)
            reports = [each for each in taken if each.key not in tried]
            if not reports:
                self._completed = requested
                return
            tried.update(each.key for each in reports)
            self._countFailures(await self._submit(reports))

    def _countFailures(self, success: bool) -> None:
        self._failures = 0 if success else self._failures + 1
        if self._failures >= MAX_FAILURES:
            self._pausedUntil = self._elapsed.at(self._clock.seconds()) + FAILURE_PAUSE

    async def _submit(self, reports: Sequence[OutgoingReport]) -> bool:
        """
        @return: True if any of them was submitted.
        """
        tasks = TaskGroup(len(reports))
        submitted: list[OutgoingReport] = []
        for report in reports:
            tasks.begin(ignoreCancelled(self._submitOne(report, submitted)))
        try:
            await tasks.finished()
        finally:
            await tasks.cancel()
        return bool(submitted)

    async def _submitOne(
        self, report: OutgoingReport, submitted: list[OutgoingReport]
    ) -> None:
        try:
            await self._submitter.submit(report)
            now = self._clock.seconds()
            await self._archive.mark(report.key, ReportState.QUEUED, now)
            submitted.append(report)
        except CancelledError:
            raise
        except Exception as error:
            logUnlessOutage(self.log, "Submitting {key!r}", key=str(report.key))
            await self._failed(report, str(error) or type(error).__name__)

    async def _failed(self, report: OutgoingReport, detail: str) -> None:
        """
        Requeue a report behind others; give it up if it is stale.
        """
        now = self._clock.seconds()
        isStale = now - report.composed >= MAX_AGE[self._kind]
        state = ReportState.FAILED if isStale else ReportState.HANDING
        try:
            await self._archive.mark(report.key, state, now, detail)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(
                self.log,
                "Marking {key!r} as {state}",
                key=str(report.key),
                state=str(state),
            )


@implementer(IReportSubmitter)
class QueueSubmitter:
    """
    Submits reports to the mail queue.
    """

    def __init__(self, queue: IQueue) -> None:
        self._queue = queue

    def submit(self, report: OutgoingReport) -> Deferred[None]:
        submitted = self._queue.submit(reportEnvelope(report), (report.message,))
        return submitted.addCallback(lambda messageID: None)


def reportEnvelope(report: OutgoingReport) -> Envelope:
    """
    The queue envelope of a report.
    """
    key = report.key
    address = parseDestination(key.destination).address
    # RFC 8460 3, 5.3: TLS reports are delivered despite TLS failures.
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
    Records the delivery of reports, and suppresses destinations that refuse them.
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
        Process a message to one of our addresses, which may be a DSN.

        @param recipient: The address in RCPT.

        @return: Fires with the kind of report if it is a DSN about one of our
            reports; with C{None} otherwise.
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
        # No DSN can follow after an https: server has accepted a report.
        if entry is not None and canReset(entry, now, final=not report.sender):
            await self._suppressions.remove(key.destination, key.kind)

    async def _failed(
        self, report: OutgoingReport, detail: str, permanent: bool
    ) -> None:
        key, now = report.key, self._clock.seconds()
        # Several DSNs may arrive about one report; they count as one failure.
        if permanent and report.state is not ReportState.FAILED:
            await self._suppress(report, detail)
        await self._archive.mark(key, ReportState.FAILED, now, detail)

    async def _suppress(self, report: OutgoingReport, detail: str) -> None:
        key, now = report.key, self._clock.seconds()
        previous = await self._suppressions.get(key.destination, key.kind)
        entry = afterFailure(key.destination, key.kind, now, detail, previous)
        await self._suppressions.put(entry)
        self.log.info(
            "{kind} reports to {destination} suppressed for {days} days: {detail!r}",
            kind=str(key.kind),
            destination=key.destination,
            days=round((entry.until - now) / DAY),
            detail=detail,
        )


def _detail(result: Result) -> str:
    status = "" if result.code else result.status
    words = (result.host, status, result.words)
    return " ".join(word for word in words if word)


# --- uploads to HTTPS destinations ---

#: Maximum number of redirects per attempt.
MAX_REDIRECTS = 3
#: RFC 8460 5.5: redelivery is attempted for up to a day.
MAX_WAIT = DAY

#: RFC 9110 15.4.2, 15.4.3, 15.4.8, 15.4.9.  Not 303: its target is for GET.
_REDIRECTS = frozenset({301, 302, 307, 308})
#: RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4: worth trying again.
_TEMPORARY = frozenset({408, 425, 429})
_SECONDS = re.compile(r"[0-9]{1,10}\Z")
_MAX_TEXT = 300

_STATUS = {
    DeliveryStatus.DELIVERED: "2.0.0",
    DeliveryStatus.TEMPORARY: "4.0.0",
    DeliveryStatus.PERMANENT: "5.0.0",
}


class HTTPSPostClient(Protocol):
    """
    The used part of L{moxtls.https.HTTPSClient}.
    """

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> Deferred[Response | HTTPSFailure]:
        """
        Fires with the response, or with the reason why there is none.
        """


@implementer(ICourier)
class HTTPSCourier:
    """
    Uploads reports to C{https:} URIs.

    Reading of RFC 8460 3, 7: certificate errors may be ignored.  We don't ignore
    them: a report may be confidential, and a domain whose web server has the same
    certificate problem as its mail servers can publish a C{mailto:} URI too.  A
    certificate error is temporary.
    """

    def __init__(self, clock: IReactorTime, client: HTTPSPostClient) -> None:
        self._clock = clock
        self._client = client

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        return Deferred.fromCoroutine(self._deliver(batch, recorder))

    async def _deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> tuple[Result, ...]:
        results: list[Result] = []
        for message in batch.messages:
            await recorder.record(results)
            answer = await self._post(batch.destination, message)
            ending, text = classifyResponse(answer)
            wait = None
            if ending is DeliveryStatus.TEMPORARY and isinstance(answer, Response):
                wait = retryAfter(answer.header("retry-after"), self._clock.seconds())
            results.extend(
                Result(
                    messageID=message.messageID,
                    recipient=recipient,
                    ending=ending,
                    status=_STATUS[ending],
                    text=text,
                    host=urlsplit(batch.destination).hostname or "",
                    retryAfter=wait,
                )
                for recipient in message.recipients
            )
        return tuple(results)

    async def _post(self, uri: str, message: BatchMessage) -> Response | HTTPSFailure:
        headers = {"Content-Type": message.contentType}
        body = message.path.read_bytes()
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._client.post(uri, headers, body)
            target = redirected(uri, answer)
            if target is None:
                break
            uri = target
        return answer


def classifyResponse(answer: Response | HTTPSFailure) -> tuple[DeliveryStatus, str]:
    """
    The delivery status of a report after a response, and text for operators.
    """
    if isinstance(answer, HTTPSFailure):
        text = f"{answer.kind.name.lower().replace('_', ' ')}: {answer.reason}"
        gone = answer.kind is HTTPSErrorKind.NO_NAME
        return DeliveryStatus.PERMANENT if gone else DeliveryStatus.TEMPORARY, text[
            :_MAX_TEXT
        ]
    text = f"HTTP status {answer.status}"
    if 200 <= answer.status < 300:
        return DeliveryStatus.DELIVERED, text
    if answer.status >= 500 or answer.status in _TEMPORARY:
        return DeliveryStatus.TEMPORARY, text
    return DeliveryStatus.PERMANENT, text


def redirected(uri: str, answer: Response | HTTPSFailure) -> str | None:
    """
    The target of a redirect; C{None} if C{answer} is no redirect, or one to another
    server: a report only goes to the server that the domain has published.
    """
    if isinstance(answer, HTTPSFailure) or answer.status not in _REDIRECTS:
        return None
    location = answer.header("location")
    try:
        target = canonicalURI(urljoin(uri, location) if location else "")
    except (InvalidDestination, ValueError):
        return None
    same = urlsplit(target).netloc == urlsplit(uri).netloc
    return target if same and target.startswith("https:") else None


def retryAfter(value: str, now: float) -> int | None:
    """
    The seconds of a C{Retry-After} field (RFC 9110 10.2.3), at most L{MAX_WAIT};
    C{None} if it is invalid.
    """
    if _SECONDS.match(value):
        seconds = int(value)
    else:
        try:
            moment = parsedate_to_datetime(value).replace(tzinfo=UTC)
            seconds = round(moment.timestamp() - now)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return int(min(max(seconds, 0), MAX_WAIT))
