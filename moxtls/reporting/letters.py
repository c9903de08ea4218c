# -*- test-case-name: tests.reporting.test_letters -*-
"""
Makes of a draft what is sent to each destination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from moxtls.domain import Address, Domain
from moxtls.interfaces import ISuppressions
from moxtls.queue.values import ReportKind
from moxtls.reporting.destinations import ReportDestination, parseDestination
from moxtls.reporting.fields import MessageStamp
from moxtls.reporting.message import composeDMARC, composeTLS, composeTooLarge
from moxtls.reporting.signing import NoSubmitter, Signer, sign
from moxtls.reporting.values import Draft, OutgoingReport, ReportKey, ReportState

_COMPOSE: dict[
    ReportKind, Callable[[Draft, Sequence[Address], MessageStamp], bytes]
] = {
    ReportKind.TLS: composeTLS,
    ReportKind.DMARC: composeDMARC,
}
_DOCUMENT_TYPE = {
    ReportKind.TLS: "application/tlsrpt+gzip",
    ReportKind.DMARC: "application/gzip",
}
_SERVICE = {ReportKind.TLS: "tlsrpt"}
_MESSAGE_TYPE = "message/rfc822"


@dataclass(frozen=True, slots=True)
class _ComposedMessage:
    """
    What one destination is sent.

    @ivar detail: For people.
    @ivar tooLarge: If it gets none for that reason, how large it would be.
    """

    message: bytes
    contentType: str = _MESSAGE_TYPE
    detail: str = ""
    tooLarge: int = 0


@dataclass(frozen=True, slots=True)
class ReportIdentity:
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


class ReportComposer:
    """
    Composes and signs a report once for all destinations that get the same.
    """

    def __init__(
        self,
        clock: IReactorTime,
        suppressions: ISuppressions,
        letterhead: ReportIdentity,
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
        letters = self._letters(draft, destinations)
        return tuple(
            [await self._report(draft, to, letters[to.uri]) for to in destinations]
        )

    def _letters(
        self, draft: Draft, destinations: Iterable[ReportDestination]
    ) -> dict[str, _ComposedMessage]:
        """
        What each destination is sent.
        """
        letters: dict[str, _ComposedMessage] = {}
        groups: dict[bytes, dict[str, Address]] = {}
        for to in destinations:
            document = draft.documentFor(to.uri)
            if to.address is None:
                letters[to.uri] = _ComposedMessage(document, _DOCUMENT_TYPE[draft.kind])
            else:
                groups.setdefault(document, {})[to.uri] = to.address
        for document, group in groups.items():
            letters.update(self._mailed(replace(draft, document=document), group))
        if letters and all(each.tooLarge for each in letters.values()):
            for group in groups.values():
                letters.update(self._tooLarge(draft, group, letters))
        return letters

    def _mailed(
        self, draft: Draft, group: Mapping[str, Address]
    ) -> dict[str, _ComposedMessage]:
        """
        The report to those of C{group} who take as much, and to the others
        nothing.
        """
        message = self._message(draft, list(group.values()))
        letters: dict[str, _ComposedMessage] = {}
        takers: dict[str, Address] = {}
        for uri, address in group.items():
            limit = draft.limitOf(uri)
            if 0 < limit < len(message):
                detail = f"{len(message)} octets, and it takes {limit}"
                letters[uri] = _ComposedMessage(
                    b"", detail=detail, tooLarge=len(message)
                )
            else:
                takers[uri] = address
        if letters and takers:
            message = self._message(draft, list(takers.values()))
        return letters | dict.fromkeys(takers, _ComposedMessage(message))

    def _tooLarge(
        self,
        draft: Draft,
        group: Mapping[str, Address],
        refused: Mapping[str, _ComposedMessage],
    ) -> dict[str, _ComposedMessage]:
        """
        In place of a report that none of its destinations takes, word of it
        (RFC 7489 7.2.2).
        """
        size = max(refused[uri].tooLarge for uri in group)
        about = replace(draft, destinations=tuple(group))
        message = composeTooLarge(about, size, list(group.values()), self._stamp())
        signed = self._signed(draft, message)
        return {
            uri: _ComposedMessage(signed, detail=f"error report: {refused[uri].detail}")
            for uri in group
        }

    def _message(self, draft: Draft, recipients: Sequence[Address]) -> bytes:
        compose = _COMPOSE[draft.kind]
        return self._signed(draft, compose(draft, recipients, self._stamp()))

    def _signed(self, draft: Draft, message: bytes) -> bytes:
        services = ("", _SERVICE.get(draft.kind, ""))
        signers = [
            signer
            for signer in self._letterhead.signers
            if signer.domain == draft.submitter and signer.service in services
        ]
        if not signers:
            # RFC 8460 3: reports by mail MUST be signed; RFC 9990 3.5.2: they
            # MUST pass DMARC, which SPF alone may not see to.
            raise NoSubmitter(f"{draft.submitter} has no DKIM selector to sign with")
        return sign(message, signers)

    def _stamp(self) -> MessageStamp:
        return MessageStamp(
            self._letterhead.hostname, self._newID(), self._clock.seconds()
        )

    async def _report(
        self, draft: Draft, to: ReportDestination, letter: _ComposedMessage
    ) -> OutgoingReport:
        now = self._clock.seconds()
        suppressed = await self._suppressions.active(to.uri, draft.kind, now)
        sent = not suppressed and not letter.tooLarge
        return OutgoingReport(
            key=_key(draft, to),
            reportID=draft.reportID,
            sender=self._sender(draft) if to.address else "",
            message=letter.message,
            contentType=letter.contentType,
            composed=now,
            state=ReportState.COMPOSED if sent else ReportState.SUPPRESSED,
            updated=now,
            detail=suppressed.comment if suppressed else letter.detail,
        )

    def _sender(self, draft: Draft) -> str:
        return f"{self._letterhead.localPart}+{self._newID()}@{draft.submitter}"


def _key(draft: Draft, to: ReportDestination) -> ReportKey:
    subject, span = draft.subject, draft.span
    return ReportKey(
        draft.kind,
        subject.domain,
        span.start,
        span.end,
        to.uri,
        subject.phase,
        subject.part,
    )
