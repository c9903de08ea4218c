# -*- test-case-name: tests.reporting.test_compose -*-
"""
Composes and signs report messages (RFC 8460 5.3, RFC 9990 3.5.2, RFC 7489 7.2.2).

Messages are ASCII only, so that every host can accept them.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from moxtls.authentication.dkim.sign import NoSubmitter, Signer, sign
from moxtls.dates import Span
from moxtls.domain import Address, Domain
from moxtls.interfaces import ISuppressions
from moxtls.message.mime import (
    Field,
    MessageStamp,
    commaWords,
    formatDate,
    formatField,
    generatedFields,
    multipart,
    originFields,
    part,
    textPart,
)
from moxtls.queue.types import ReportKind
from moxtls.reporting.destinations import ReportDestination, parseDestination
from moxtls.reporting.types import OutgoingReport, ReportDraft, ReportKey, ReportState

#: RFC 2045 6.8: 57 bytes make a line of 76.
_BASE64_BYTES = 57

_EXPLANATION = """\
This is a report about the TLS connections from us to your domain, or to hosts
that receive its mail.  You get it because the TXT record at
_smtp._tls.{domain} asks for reports (rua) to this address.
"""
_DMARC_EXPLANATION = """\
This is a report about mail in the name of your domain, or of its subdomains,
that we have received.  You get it because the TXT record at
_dmarc.{domain} asks for reports (rua) to this address.
"""

_DOCUMENT_TYPE = {
    ReportKind.TLS: "application/tlsrpt+gzip",
    ReportKind.DMARC: "application/gzip",
}
_SERVICE = {ReportKind.TLS: "tlsrpt"}
_MESSAGE_TYPE = "message/rfc822"


@dataclass(frozen=True, slots=True)
class _Form:
    """
    The differences between the messages of the two kinds of report.

    @ivar container: The media type of the message, and its parameters.
    @ivar document: The media type of the attached report.
    @ivar explanation: Text for human readers.
    @ivar idFormat: The format of the identifier in Subject.
    """

    container: tuple[str, ...]
    document: str
    explanation: str
    idFormat: str


_TLS = _Form(
    ("multipart/report;", 'report-type="tlsrpt";'),
    "application/tlsrpt+gzip",
    _EXPLANATION,
    # RFC 8460 5.3: in the form of a Message-ID.
    "<{id}@{submitter}>",
)
_DMARC = _Form(
    ("multipart/mixed;",),
    "application/gzip",
    _DMARC_EXPLANATION,
    # RFC 9990 3.1.4: exactly the identifier in the report.
    "<{id}>",
)


def composeTLSReport(
    draft: ReportDraft, recipients: Sequence[Address], stamp: MessageStamp
) -> bytes:
    """
    An unsigned message with a TLS report to all of C{recipients}.
    """
    fields: list[Field] = [
        ("TLS-Report-Domain", [str(draft.period.domain)]),
        ("TLS-Report-Submitter", [str(draft.submitter)]),
        # RFC 8460 3: reports are delivered despite TLS failures.
        ("TLS-Required", ["No"]),
    ]
    return _compose(_TLS, draft, recipients, stamp, fields)


def composeAggregateReport(
    draft: ReportDraft, recipients: Sequence[Address], stamp: MessageStamp
) -> bytes:
    """
    An unsigned message with a DMARC aggregate report to all of C{recipients}.
    """
    return _compose(_DMARC, draft, recipients, stamp, ())


def composeErrorReport(
    draft: ReportDraft, size: int, recipients: Sequence[Address], stamp: MessageStamp
) -> bytes:
    """
    An unsigned error report: it informs C{recipients} of a DMARC report that exceeds
    their size limits (RFC 7489 7.2.2).

    @param size: Octets of the message that would have contained the report.
    """
    domain = draft.period.domain
    subject = f"DMARC aggregate reporting error report for {domain}"
    header = [
        *originFields(draft.submitter, recipients, subject, stamp),
        *generatedFields(("text/plain;", "charset=us-ascii")),
        ("Content-Transfer-Encoding", ["7bit"]),
    ]
    body = [
        ("Report-Date", [formatDate(stamp)]),
        ("Report-Domain", [str(domain)]),
        ("Report-ID", [draft.reportID]),
        ("Report-Size", [str(size)]),
        ("Submitter", [str(draft.submitter)]),
        ("Submitting-URI", commaWords(draft.destinations)),
    ]
    return b"".join([*map(formatField, header), b"\r\n", *map(formatField, body)])


def _compose(
    form: _Form,
    draft: ReportDraft,
    recipients: Sequence[Address],
    stamp: MessageStamp,
    fields: Iterable[Field],
) -> bytes:
    """
    @param fields: Additional header fields.
    """
    header = [
        *originFields(draft.submitter, recipients, _subject(form, draft), stamp),
        *fields,
    ]
    parts = [_textPart(form, draft), _attachment(form, draft)]
    return multipart(header, form.container, parts, stamp.token)


def _subject(form: _Form, draft: ReportDraft) -> str:
    # RFC 8460 5.3, RFC 9990 3.5.2
    reportID = form.idFormat.format(id=draft.reportID, submitter=draft.submitter)
    return (
        f"Report Domain: {draft.period.domain} Submitter: {draft.submitter} "
        f"Report-ID: {reportID}"
    )


def _textPart(form: _Form, draft: ReportDraft) -> bytes:
    domain = draft.period.domain
    lines = [
        *form.explanation.format(domain=domain).splitlines(),
        "",
        f"Policy Domain: {domain}",
        f"Submitter: {draft.submitter}",
        f"Report-ID: {draft.reportID}",
        f"Period: {_period(draft.span)}",
        "",
    ]
    return textPart(lines)


def _attachment(form: _Form, draft: ReportDraft) -> bytes:
    header = [
        ("Content-Type", [f"{form.document};", f'name="{draft.filename}"']),
        ("Content-Disposition", ["attachment;", f'filename="{draft.filename}"']),
        ("Content-Transfer-Encoding", ["base64"]),
    ]
    return part(header, _base64(draft.document))


def _base64(data: bytes) -> bytes:
    view = memoryview(data)
    lines = (
        binascii.b2a_base64(view[start : start + _BASE64_BYTES], newline=False)
        for start in range(0, len(data), _BASE64_BYTES)
    )
    return b"\r\n".join(lines)


def _period(span: Span) -> str:
    start, end = (
        datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
        for second in (span.start, span.end)
    )
    return f"{start} - {end} UTC"


_COMPOSE: dict[
    ReportKind, Callable[[ReportDraft, Sequence[Address], MessageStamp], bytes]
] = {
    ReportKind.TLS: composeTLSReport,
    ReportKind.DMARC: composeAggregateReport,
}


@dataclass(frozen=True, slots=True)
class _ComposedMessage:
    """
    The message to one destination.

    @ivar detail: Text for operators.
    @ivar tooLarge: If there is no message because it is too large, its size; else 0.
    """

    message: bytes
    contentType: str = _MESSAGE_TYPE
    detail: str = ""
    tooLarge: int = 0


@dataclass(frozen=True, slots=True)
class ReportIdentity:
    """
    The sender of reports.

    @ivar hostname: The name of this host.
    @ivar signers: DKIM signers of the reporting domains.
    @ivar localPart: The local part of envelope senders.  Mail to it, with any suffix
        after a C{+}, must be delivered to this host.
    """

    hostname: Domain
    signers: tuple[Signer, ...]
    localPart: str = "postmaster"


class ReportComposer:
    """
    Composes and signs reports, one message for all destinations with the same
    document.
    """

    def __init__(
        self,
        clock: IReactorTime,
        suppressions: ISuppressions,
        identity: ReportIdentity,
        newID: Callable[[], str],
    ) -> None:
        """
        @param newID: Returns letters and digits that can't be guessed and that fit
            into a local part.
        """
        self._clock = clock
        self._suppressions = suppressions
        self._identity = identity
        self._newID = newID

    def compose(self, draft: ReportDraft) -> Deferred[tuple[OutgoingReport, ...]]:
        """
        Fires with one report for each destination, including suppressed ones.  Fails
        if it can't be signed, or if the suppressions can't be read.
        """
        return Deferred.fromCoroutine(self._compose(draft))

    async def _compose(self, draft: ReportDraft) -> tuple[OutgoingReport, ...]:
        destinations = [parseDestination(each) for each in draft.destinations]
        messages = self._messages(draft, destinations)
        return tuple(
            [await self._report(draft, to, messages[to.uri]) for to in destinations]
        )

    def _messages(
        self, draft: ReportDraft, destinations: Iterable[ReportDestination]
    ) -> dict[str, _ComposedMessage]:
        """
        The message to each destination.
        """
        messages: dict[str, _ComposedMessage] = {}
        groups: dict[bytes, dict[str, Address]] = {}
        for to in destinations:
            document = draft.documentFor(to.uri)
            if to.address is None:
                messages[to.uri] = _ComposedMessage(
                    document, _DOCUMENT_TYPE[draft.kind]
                )
            else:
                groups.setdefault(document, {})[to.uri] = to.address
        for document, group in groups.items():
            messages.update(self._mailed(replace(draft, document=document), group))
        if messages and all(each.tooLarge for each in messages.values()):
            for group in groups.values():
                messages.update(self._tooLarge(draft, group, messages))
        return messages

    def _mailed(
        self, draft: ReportDraft, group: Mapping[str, Address]
    ) -> dict[str, _ComposedMessage]:
        """
        The report to the destinations of C{group} whose size limits it fits, and an
        empty message to the others.
        """
        message = self._message(draft, list(group.values()))
        messages: dict[str, _ComposedMessage] = {}
        recipients: dict[str, Address] = {}
        for uri, address in group.items():
            limit = draft.limitOf(uri)
            if 0 < limit < len(message):
                detail = f"{len(message)} octets exceed the limit of {limit}"
                messages[uri] = _ComposedMessage(
                    b"", detail=detail, tooLarge=len(message)
                )
            else:
                recipients[uri] = address
        if messages and recipients:
            message = self._message(draft, list(recipients.values()))
        return messages | dict.fromkeys(recipients, _ComposedMessage(message))

    def _tooLarge(
        self,
        draft: ReportDraft,
        group: Mapping[str, Address],
        refused: Mapping[str, _ComposedMessage],
    ) -> dict[str, _ComposedMessage]:
        """
        An error report in place of a report that exceeds the limits of all its
        destinations (RFC 7489 7.2.2).
        """
        size = max(refused[uri].tooLarge for uri in group)
        about = replace(draft, destinations=tuple(group))
        message = composeErrorReport(about, size, list(group.values()), self._stamp())
        signed = self._signed(draft, message)
        return {
            uri: _ComposedMessage(signed, detail=f"error report: {refused[uri].detail}")
            for uri in group
        }

    def _message(self, draft: ReportDraft, recipients: Sequence[Address]) -> bytes:
        compose = _COMPOSE[draft.kind]
        return self._signed(draft, compose(draft, recipients, self._stamp()))

    def _signed(self, draft: ReportDraft, message: bytes) -> bytes:
        services = ("", _SERVICE.get(draft.kind, ""))
        signers = [
            signer
            for signer in self._identity.signers
            if signer.domain == draft.submitter and signer.service in services
        ]
        if not signers:
            # RFC 8460 3: reports by mail MUST be signed.  RFC 9990 3.5.2: they MUST
            # pass DMARC, which SPF alone can't guarantee.
            raise NoSubmitter(f"{draft.submitter} has no DKIM selector to sign with")
        return sign(message, signers)

    def _stamp(self) -> MessageStamp:
        return MessageStamp(
            self._identity.hostname, self._newID(), self._clock.seconds()
        )

    async def _report(
        self, draft: ReportDraft, to: ReportDestination, composed: _ComposedMessage
    ) -> OutgoingReport:
        now = self._clock.seconds()
        suppressed = await self._suppressions.active(to.uri, draft.kind, now)
        sent = not suppressed and not composed.tooLarge
        return OutgoingReport(
            key=_key(draft, to),
            reportID=draft.reportID,
            sender=self._sender(draft) if to.address else "",
            message=composed.message,
            contentType=composed.contentType,
            composed=now,
            state=ReportState.COMPOSED if sent else ReportState.SUPPRESSED,
            updated=now,
            detail=suppressed.comment if suppressed else composed.detail,
        )

    def _sender(self, draft: ReportDraft) -> str:
        return f"{self._identity.localPart}+{self._newID()}@{draft.submitter}"


def _key(draft: ReportDraft, to: ReportDestination) -> ReportKey:
    period, span = draft.period, draft.span
    return ReportKey(
        draft.kind,
        period.domain,
        span.start,
        span.end,
        to.uri,
        period.phase,
        period.part,
    )
