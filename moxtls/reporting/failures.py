# -*- test-case-name: tests.reporting.test_failures -*-
"""
Sends DMARC failure reports, as messages fail (RFC 9991).

They have no place in the ledger: nobody is owed one, and one that is lost is
not missed.  They go out with the null sender, so that no DSN comes back, and
nobody reports on them in turn (RFC 9991 5.1, RFC 5965 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dmarc.external import verify
from moxtls.dmarc.failure import (
    FailureReporting,
    MessageFailure,
    isAllowed,
    messageFailure,
    spfRecord,
)
from moxtls.dmarc.failuremail import FailureDetails, composeFailureReport
from moxtls.dmarc.hygiene import takesMail
from moxtls.dmarc.redaction import Redaction
from moxtls.dmarc.values import VerdictEvent
from moxtls.dns.together import resolve
from moxtls.domain import Address, Domain
from moxtls.interfaces import (
    IQueue,
    IReportObserver,
    IResolver,
    ISuppressions,
    IVerdictObserver,
)
from moxtls.outages import logUnlessOutage
from moxtls.queue.values import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.crew import TaskGroup, ignoreCancelled
from moxtls.reporting.destinations import canonicalURI, parseDestination
from moxtls.reporting.fields import MessageStamp
from moxtls.reporting.handover import MAX_ATTEMPTS
from moxtls.reporting.letters import ReportIdentity
from moxtls.reporting.quota import Deduplicator, Quota
from moxtls.reporting.signing import sign
from moxtls.reporting.suppression import afterFailure, canReset

#: Reports for which something is looked up at a time.
AT_ONCE = 3
#: Reports in the making, each with the header of a message.
MAX_OPEN = 30
#: Of the keys of envelopes.
PREFIX = "failure/"

#: Addresses, and the most octets that they take; 0 for no limit.
_Takers = Sequence[tuple[Address, int]]


@implementer(IVerdictObserver)
class FailureReporter:
    """
    Reports failures to those who want to hear of them, within limits.  Mail
    doesn't wait for it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        suppressions: ISuppressions,
        queue: IQueue,
        letterhead: ReportIdentity,
        settings: FailureReporting,
        newID: Callable[[], str],
    ) -> None:
        """
        @param newID: Letters and digits that nobody can guess.
        """
        self._clock = clock
        self._resolver = resolver
        self._suppressions = suppressions
        self._queue = queue
        self._hostname = letterhead.hostname
        self._settings = settings
        self._newID = newID
        # A key that is for TLS reports only doesn't make them pass DMARC.
        self._signers = [
            each
            for each in letterhead.signers
            if each.domain == settings.submitter and not each.service
        ]
        self._quota = Quota(settings.perHour, settings.perDay)
        self._seen = Deduplicator()
        self._crew = TaskGroup(MAX_OPEN)
        self._turn = DeferredSemaphore(AT_ONCE)
        self._isStopped = False

    def verdictGiven(self, judgement: VerdictEvent) -> Deferred[None]:
        """
        Fires at once.
        """
        submitter = self._settings.submitter
        if self._settings.enabled and self._signers and not self._isStopped:
            failure = messageFailure(judgement)
            if failure and submitter and isAllowed(failure, self._settings):
                self._consider(failure, submitter)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """
        Give up all reports that aren't in the queue, and take no more.

        @return: Fires once nothing is in flight.
        """
        self._isStopped = True
        return self._crew.abandon()

    def _consider(self, failure: MessageFailure, submitter: Domain) -> None:
        now, domain = self._clock.seconds(), failure.policyDomain
        if not self._seen.isNew(failure.id, now):
            return
        if len(self._crew) >= MAX_OPEN:
            self._quota.hold(domain, 1, now)
            return
        incidents = self._quota.take(domain, now)
        if incidents:
            redaction = Redaction(self._settings.secret)
            about = FailureDetails(submitter, redaction, now, incidents=incidents)
            self._crew.begin(ignoreCancelled(self._report(failure, about)))

    async def _report(self, failure: MessageFailure, about: FailureDetails) -> None:
        isSent = False
        await self._turn.acquire()
        try:
            isSent = await self._send(failure, about)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(
                self.log,
                "reporting a failure to {domain}",
                domain=str(failure.policyDomain),
            )
        finally:
            self._turn.release()
        if not isSent:
            now = self._clock.seconds()
            self._quota.giveBack(failure.policyDomain, about.incidents, now)

    async def _send(self, failure: MessageFailure, about: FailureDetails) -> bool:
        """
        @return: Whether anybody gets it.
        """
        trouble = await resolve(self._resolver, takesMail(about.submitter))
        if trouble:
            self.log.info("No failure reports: {trouble}", trouble=trouble)
            return False
        takers = await self._takers(failure)
        if not takers:
            return False
        record = await resolve(self._resolver, spfRecord(failure))
        about = about.withRecord(record)
        message = self._message(failure, about, takers)
        fitting = [each for each in takers if not 0 < each[1] < len(message)]
        if not fitting:
            return False
        if len(fitting) < len(takers):
            message = self._message(failure, about, fitting)
        await self._submit(failure, [str(address) for address, _ in fitting], message)
        return True

    async def _takers(self, failure: MessageFailure) -> _Takers:
        """
        Who wants it, has said so, and may have it.
        """
        wanted = await resolve(
            self._resolver,
            verify(
                failure.policyDomain,
                failure.record.ruf,
                self._settings.suffixes,
                tag="ruf",
            ),
        )
        if wanted.errors:
            self.log.info(
                "Failure reports to {domain}: {errors}",
                domain=str(failure.policyDomain),
                errors="; ".join(wanted.errors),
            )
        now, kind = self._clock.seconds(), ReportKind.DMARC
        takers: list[tuple[Address, int]] = []
        for uri, limit in wanted.accepted:
            address = parseDestination(uri).address
            suppressed = await self._suppressions.active(uri, kind, now)
            if address is not None and suppressed is None:
                takers.append((address, limit))
        return takers

    def _message(
        self, failure: MessageFailure, about: FailureDetails, takers: _Takers
    ) -> bytes:
        stamp = MessageStamp(self._hostname, self._newID(), self._clock.seconds())
        recipients = [address for address, _ in takers]
        return sign(
            composeFailureReport(failure, about, recipients, stamp), self._signers
        )

    async def _submit(
        self, failure: MessageFailure, recipients: Sequence[str], message: bytes
    ) -> None:
        envelope = Envelope(
            sender="",
            recipients=tuple(recipients),
            report=ReportKind.DMARC,
            key=f"{PREFIX}{self._newID()}",
            maxAttempts=MAX_ATTEMPTS[ReportKind.DMARC],
        )
        await self._queue.submit(envelope, (message,))
        self.log.info(
            "Failure report to {domain} for {recipients}",
            domain=str(failure.policyDomain),
            recipients=", ".join(recipients),
        )


@implementer(IReportObserver)
class FailureReportTracker:
    """
    Leaves destinations alone that refuse failure reports, as they are left
    alone when they refuse others.
    """

    def __init__(self, clock: IReactorTime, suppressions: ISuppressions) -> None:
        self._clock = clock
        self._suppressions = suppressions

    def reportEnded(self, envelope: Envelope, result: Result) -> Deferred[None]:
        if not envelope.key.startswith(PREFIX):
            return succeed(None)
        return Deferred.fromCoroutine(self._ended(result))

    async def _ended(self, result: Result) -> None:
        now, kind = self._clock.seconds(), ReportKind.DMARC
        destination = canonicalURI("mailto:" + quote(result.recipient, safe="@"))
        entry = await self._suppressions.get(destination, kind)
        if result.ending is DeliveryStatus.DELIVERED:
            if entry is not None and canReset(entry, now, final=False):
                await self._suppressions.remove(destination, kind)
        # Of several that were on their way, the first one counts.
        elif result.ending is DeliveryStatus.PERMANENT and not (
            entry and entry.until > now
        ):
            status = "" if result.isReply else result.status
            detail = " ".join(filter(None, (result.host, status, result.text)))
            await self._suppressions.put(
                afterFailure(destination, kind, now, detail, entry)
            )
