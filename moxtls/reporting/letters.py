# -*- test-case-name: tests.reporting.test_letters -*-
"""
Makes of a draft what is sent to each destination.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from moxtls.domain import Address, Domain
from moxtls.interfaces import ISuppressions
from moxtls.queue.values import ReportKind
from moxtls.reporting.destinations import Destination, parseDestination
from moxtls.reporting.message import Stamp, composeTLS
from moxtls.reporting.signing import NoSubmitter, Signer, sign
from moxtls.reporting.values import Draft, OutgoingReport, ReportKey, ReportState

_COMPOSE: dict[ReportKind, Callable[[Draft, Sequence[Address], Stamp], bytes]] = {
    ReportKind.TLS: composeTLS,
}
_DOCUMENT_TYPE = {ReportKind.TLS: "application/tlsrpt+gzip"}
_SERVICE = {ReportKind.TLS: "tlsrpt"}
_MESSAGE_TYPE = "message/rfc822"


@dataclass(frozen=True, slots=True)
class Letterhead:
    """
    Who sends reports.

    @ivar hostname: Of this host.
    @ivar signers: Of the domains that reports are sent in the name of.
    @ivar localPart: Mail to it, whatever follows a C{+}, must come back to
        us: of envelope senders.
    """

    hostname: Domain
    signers: tuple[Signer, ...]
    localPart: str = "postmaster"


class LetterWriter:
    """
    Composes and signs a report once, whatever the number of destinations.
    """

    def __init__(
        self,
        clock: IReactorTime,
        suppressions: ISuppressions,
        letterhead: Letterhead,
        newID: Callable[[], str],
    ) -> None:
        """
        @param newID: Letters and digits that nobody can guess and that fit in
            a local part.
        """
        self._clock = clock
        self._suppressions = suppressions
        self._letterhead = letterhead
        self._newID = newID

    def write(self, draft: Draft) -> Deferred[tuple[OutgoingReport, ...]]:
        """
        Fires with one report for each destination, those that are suppressed
        included.  Fails if it can't be signed, or suppression isn't known.
        """
        return Deferred.fromCoroutine(self._write(draft))

    async def _write(self, draft: Draft) -> tuple[OutgoingReport, ...]:
        destinations = [parseDestination(each) for each in draft.destinations]
        recipients = [each.address for each in destinations if each.address]
        message = self._message(draft, recipients) if recipients else b""
        return tuple([await self._report(draft, to, message) for to in destinations])

    def _message(self, draft: Draft, recipients: Sequence[Address]) -> bytes:
        services = ("", _SERVICE.get(draft.kind, ""))
        signers = [
            signer
            for signer in self._letterhead.signers
            if signer.domain == draft.submitter and signer.service in services
        ]
        if not signers:
            # RFC 8460 3: reports by mail MUST be signed.
            raise NoSubmitter(f"{draft.submitter} has no DKIM selector to sign with")
        stamp = Stamp(self._letterhead.hostname, self._newID(), self._clock.seconds())
        return sign(_COMPOSE[draft.kind](draft, recipients, stamp), signers)

    async def _report(
        self, draft: Draft, to: Destination, message: bytes
    ) -> OutgoingReport:
        now = self._clock.seconds()
        suppressed = await self._suppressions.active(to.uri, draft.kind, now)
        subject, span = draft.subject, draft.span
        return OutgoingReport(
            key=ReportKey(
                draft.kind, subject.domain, span.start, span.end, to.uri, subject.phase
            ),
            reportID=draft.reportID,
            sender=self._sender(draft) if to.address else "",
            message=message if to.address else draft.document,
            contentType=_MESSAGE_TYPE if to.address else _DOCUMENT_TYPE[draft.kind],
            composed=now,
            state=ReportState.SUPPRESSED if suppressed else ReportState.COMPOSED,
            updated=now,
            detail=suppressed.comment if suppressed else "",
        )

    def _sender(self, draft: Draft) -> str:
        return f"{self._letterhead.localPart}+{self._newID()}@{draft.submitter}"
