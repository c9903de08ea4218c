# -*- test-case-name: tests.dmarc.test_failurereporter -*-
"""
Sends DMARC failure reports when messages fail (RFC 9991), within rate limits (RFC 9991
8.1).

Failure reports aren't stored in the ledger: they are optional, and a lost one does no
harm.  They have the null sender, so that neither DSNs nor other reports are sent in
return (RFC 9991 5.1, RFC 5965 5).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.authentication.dkim.sign import sign
from moxtls.dates import DAY, HOUR, MINUTE, MonotonicTime
from moxtls.dmarc.eligibility import unreachableReason, verifyDestinations
from moxtls.dmarc.failure import (
    FailureDetails,
    FailureReporting,
    MessageFailure,
    composeFailureReport,
    isAllowed,
    messageFailure,
    spfRecord,
)
from moxtls.dmarc.redaction import Redaction
from moxtls.dmarc.types import VerdictEvent
from moxtls.domain import Address, Domain
from moxtls.interfaces import (
    IQueue,
    IReportObserver,
    IResolver,
    ISuppressions,
    IVerdictObserver,
)
from moxtls.message.mime import MessageStamp
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.compose import ReportIdentity
from moxtls.reporting.destinations import (
    afterFailure,
    canonicalURI,
    canReset,
    parseDestination,
)
from moxtls.reporting.handover import MAX_ATTEMPTS
from moxtls.tasks import TaskGroup, ignoreCancelled, resolve

#: Reports with lookups at a time.
MAX_CONCURRENT = 3
#: Unfinished reports, each with the header of a message.
MAX_PENDING = 30
#: Prefix of the keys of envelopes.
KEY_PREFIX = "failure/"

#: Addresses with their maximum number of octets; 0 for no limit.
_Recipients = Sequence[tuple[Address, int]]

#: Domains with counters.  A sender with more domains is still subject to the daily
#: limit for all.
MAX_DOMAINS = 1000
#: Messages that are remembered as processed.
MAX_REMEMBERED = 1000
#: Seconds in which all recipients of a message are processed.
DEDUPLICATION_PERIOD = 10 * MINUTE


@implementer(IVerdictObserver)
class FailureReporter:
    """
    Reports failures to the C{ruf} addresses of author domains, within limits.  Mail
    isn't delayed by it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        suppressions: ISuppressions,
        queue: IQueue,
        identity: ReportIdentity,
        settings: FailureReporting,
        newID: Callable[[], str],
    ) -> None:
        """
        @param newID: Returns letters and digits that can't be guessed.
        """
        self._clock = clock
        self._resolver = resolver
        self._suppressions = suppressions
        self._queue = queue
        self._hostname = identity.hostname
        self._settings = settings
        self._newID = newID
        # Keys for the service tlsrpt don't make other mail pass DMARC.
        self._signers = [
            each
            for each in identity.signers
            if each.domain == settings.submitter and not each.service
        ]
        self._quota = FailureReportLimiter(settings.perHour, settings.perDay)
        self._seen = Deduplicator()
        self._tasks = TaskGroup(MAX_PENDING)
        self._turn = DeferredSemaphore(MAX_CONCURRENT)
        self._isStopped = False

    def verdictGiven(self, event: VerdictEvent) -> Deferred[None]:
        """
        Start a report if one is requested and allowed; fires at once.
        """
        submitter = self._settings.submitter
        if self._settings.enabled and self._signers and not self._isStopped:
            failure = messageFailure(event)
            if failure and submitter and isAllowed(failure, self._settings):
                self._consider(failure, submitter)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """
        Cancel all reports that aren't in the queue, and start no more.

        @return: Fires once no task is running.
        """
        self._isStopped = True
        return self._tasks.cancel()

    def _consider(self, failure: MessageFailure, submitter: Domain) -> None:
        now, domain = self._clock.seconds(), failure.policyDomain
        if not self._seen.isNew(failure.id, now):
            return
        if len(self._tasks) >= MAX_PENDING:
            self._quota.hold(domain, 1, now)
            return
        incidents = self._quota.take(domain, now)
        if incidents:
            redaction = Redaction(self._settings.secret)
            details = FailureDetails(submitter, redaction, now, incidents=incidents)
            self._tasks.begin(ignoreCancelled(self._report(failure, details)))

    async def _report(self, failure: MessageFailure, details: FailureDetails) -> None:
        isSent = False
        await self._turn.acquire()
        try:
            isSent = await self._send(failure, details)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(
                self.log,
                "Failure report to {domain}",
                domain=str(failure.policyDomain),
            )
        finally:
            self._turn.release()
        if not isSent:
            now = self._clock.seconds()
            self._quota.giveBack(failure.policyDomain, details.incidents, now)

    async def _send(self, failure: MessageFailure, details: FailureDetails) -> bool:
        """
        @return: True if a report was submitted.
        """
        reason = await resolve(self._resolver, unreachableReason(details.submitter))
        if reason:
            self.log.info("Failure reports are not sent: {reason}", reason=reason)
            return False
        recipients = await self._recipients(failure)
        if not recipients:
            return False
        record = await resolve(self._resolver, spfRecord(failure))
        details = details.withRecord(record)
        message = self._message(failure, details, recipients)
        fitting = [each for each in recipients if not 0 < each[1] < len(message)]
        if not fitting:
            return False
        if len(fitting) < len(recipients):
            message = self._message(failure, details, fitting)
        await self._submit(failure, [str(address) for address, _ in fitting], message)
        return True

    async def _recipients(self, failure: MessageFailure) -> _Recipients:
        """
        The verified C{ruf} addresses that aren't suppressed.
        """
        wanted = await resolve(
            self._resolver,
            verifyDestinations(
                failure.policyDomain,
                failure.record.ruf,
                self._settings.suffixes,
                tag="ruf",
            ),
        )
        if wanted.errors:
            self.log.info(
                "Failure report to {domain}: destinations not accepted: {errors}",
                domain=str(failure.policyDomain),
                errors="; ".join(wanted.errors),
            )
        now, kind = self._clock.seconds(), ReportKind.DMARC
        recipients: list[tuple[Address, int]] = []
        for uri, limit in wanted.accepted:
            address = parseDestination(uri).address
            suppressed = await self._suppressions.active(uri, kind, now)
            if address is not None and suppressed is None:
                recipients.append((address, limit))
        return recipients

    def _message(
        self, failure: MessageFailure, details: FailureDetails, recipients: _Recipients
    ) -> bytes:
        stamp = MessageStamp(self._hostname, self._newID(), self._clock.seconds())
        addresses = [address for address, _ in recipients]
        return sign(
            composeFailureReport(failure, details, addresses, stamp), self._signers
        )

    async def _submit(
        self, failure: MessageFailure, recipients: Sequence[str], message: bytes
    ) -> None:
        envelope = Envelope(
            sender="",
            recipients=tuple(recipients),
            report=ReportKind.DMARC,
            key=f"{KEY_PREFIX}{self._newID()}",
            maxAttempts=MAX_ATTEMPTS[ReportKind.DMARC],
        )
        await self._queue.submit(envelope, (message,))
        self.log.info(
            "Failure report about {domain} submitted for {recipients}",
            domain=str(failure.policyDomain),
            recipients=", ".join(recipients),
        )


@implementer(IReportObserver)
class FailureReportTracker:
    """
    Suppresses destinations that refuse failure reports, as for other reports.
    """

    def __init__(self, clock: IReactorTime, suppressions: ISuppressions) -> None:
        self._clock = clock
        self._suppressions = suppressions

    def reportEnded(self, envelope: Envelope, result: Result) -> Deferred[None]:
        if not envelope.key.startswith(KEY_PREFIX):
            return succeed(None)
        return Deferred.fromCoroutine(self._ended(result))

    async def _ended(self, result: Result) -> None:
        now, kind = self._clock.seconds(), ReportKind.DMARC
        destination = canonicalURI("mailto:" + quote(result.recipient, safe="@"))
        entry = await self._suppressions.get(destination, kind)
        if result.ending is DeliveryStatus.DELIVERED:
            if entry is not None and canReset(entry, now, final=False):
                await self._suppressions.remove(destination, kind)
        # Only the first of several failures in the same time counts.
        elif result.ending is DeliveryStatus.PERMANENT and not (
            entry and entry.until > now
        ):
            status = "" if result.isReply else result.status
            detail = " ".join(filter(None, (result.host, status, result.text)))
            await self._suppressions.put(
                afterFailure(destination, kind, now, detail, entry)
            )


@dataclass(slots=True)
class _DomainCounter:
    """
    Counters of one policy domain.

    @ivar sent: The times of reports in the last hour.
    @ivar held: The number of messages without a report since the last one.
    @ivar latest: The time of the last of those.
    """

    sent: deque[float] = field(default_factory=deque)
    held: int = 0
    latest: float = 0


class FailureReportLimiter:
    """
    Limits the reports per hour for each domain, and per day for all.  Messages beyond
    the limits are counted, and the next report states their number.  The number of
    domains is limited.
    """

    def __init__(self, perHour: int, perDay: int) -> None:
        self._perHour = perHour
        self._perDay = perDay
        self._sent: deque[float] = deque()
        self._accounts: OrderedDict[Domain, _DomainCounter] = OrderedDict()
        self._elapsed = MonotonicTime()

    def take(self, domain: Domain, now: float) -> int:
        """
        Ask for permission to send a report about C{domain}.

        @return: The number of messages that the report represents; 0 if none may be
            sent now.
        """
        now = self._elapsed.at(now)
        account = self._account(domain)
        _forget(account.sent, now - HOUR)
        _forget(self._sent, now - DAY)
        if len(account.sent) >= self._perHour or len(self._sent) >= self._perDay:
            self._hold(domain, 1, now)
            return 0
        account.sent.append(now)
        self._sent.append(now)
        incidents = _recent(account, now) + 1
        account.held = 0
        return incidents

    def hold(self, domain: Domain, incidents: int, now: float) -> None:
        """
        Count messages for which no report is sent.
        """
        self._hold(domain, incidents, self._elapsed.at(now))

    def _hold(self, domain: Domain, incidents: int, now: float) -> None:
        account = self._account(domain)
        account.held = _recent(account, now) + incidents
        account.latest = now

    def giveBack(self, domain: Domain, incidents: int, now: float) -> None:
        """
        Undo C{take} for a report that wasn't sent: it doesn't count for the day, but
        still counts for the hour of C{domain}.
        """
        if self._sent:
            self._sent.pop()
        self.hold(domain, incidents, now)

    def _account(self, domain: Domain) -> _DomainCounter:
        account = self._accounts.setdefault(domain, _DomainCounter())
        self._accounts.move_to_end(domain)
        if len(self._accounts) > MAX_DOMAINS:
            self._accounts.popitem(last=False)
        return account


class Deduplicator:
    """
    Recognizes messages that were processed recently.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def isNew(self, id: bytes, now: float) -> bool:
        """
        True if C{id} wasn't given within L{DEDUPLICATION_PERIOD}.

        @param id: Remembered for L{DEDUPLICATION_PERIOD}.
        """
        known = self._seen.get(id)
        if known is not None and 0 <= now - known < DEDUPLICATION_PERIOD:
            return False
        self._seen[id] = now
        self._seen.move_to_end(id)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return True


def _recent(account: _DomainCounter, now: float) -> int:
    """
    The number of messages without a report; 0 if the last was more than a day ago.
    """
    return account.held if now - account.latest < DAY else 0


def _forget(times: deque[float], before: float) -> None:
    while times and times[0] <= before:
        times.popleft()
