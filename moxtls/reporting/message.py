# -*- test-case-name: tests.reporting.test_message -*-
"""
A report as a mail message (RFC 8460 5.3, RFC 9990 3.5.2, RFC 7489 7.2.2).
No I/O.

ASCII throughout, so that any host can take it.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from moxtls.calendar import Span
from moxtls.domain import Address
from moxtls.reporting.fields import (
    Field,
    MessageStamp,
    dated,
    generated,
    listed,
    multipart,
    origin,
    part,
    textPart,
    written,
)
from moxtls.reporting.values import Draft

#: RFC 2045 6.8: 57 bytes make a line of 76.
_BASE64_BYTES = 57

_EXPLANATION = """\
This is a report about how TLS went on the way from us to your domain, or to
hosts that take its mail.  You get it because the TXT record at
_smtp._tls.{domain} asks for reports (rua) to this address.
"""
_DMARC_EXPLANATION = """\
This is a report about mail in the name of your domain, or of domains below
it, that came to us.  You get it because the TXT record at
_dmarc.{domain} asks for reports (rua) to this address.
"""


@dataclass(frozen=True, slots=True)
class _Form:
    """
    What sets the messages of one kind of report apart.

    @ivar container: The media type of the whole, and its parameters.
    @ivar document: The media type of the report.
    @ivar idFormat: Of the identifier in Subject.
    @ivar explanation: For people.
    """

    container: tuple[str, ...]
    document: str
    explanation: str
    idFormat: str


_TLS = _Form(
    ("multipart/report;", 'report-type="tlsrpt";'),
    "application/tlsrpt+gzip",
    _EXPLANATION,
    # RFC 8460 5.3: a Message-ID has two sides.
    "<{id}@{submitter}>",
)
_DMARC = _Form(
    ("multipart/mixed;",),
    "application/gzip",
    _DMARC_EXPLANATION,
    # RFC 9990 3.1.4: exactly the identifier in the report.
    "<{id}>",
)


def composeTLS(
    draft: Draft, recipients: Sequence[Address], stamp: MessageStamp
) -> bytes:
    """
    The message that brings a TLS report to all of C{recipients}, unsigned.
    """
    fields: list[Field] = [
        ("TLS-Report-Domain", [str(draft.subject.domain)]),
        ("TLS-Report-Submitter", [str(draft.submitter)]),
        # RFC 8460 3: reports are delivered despite failures of TLS.
        ("TLS-Required", ["No"]),
    ]
    return _compose(_TLS, draft, recipients, stamp, fields)


def composeDMARC(
    draft: Draft, recipients: Sequence[Address], stamp: MessageStamp
) -> bytes:
    """
    The same for a DMARC aggregate report.
    """
    return _compose(_DMARC, draft, recipients, stamp, ())


def composeTooLarge(
    draft: Draft, size: int, recipients: Sequence[Address], stamp: MessageStamp
) -> bytes:
    """
    The message that tells C{recipients} of a DMARC report that is larger than
    what they take (RFC 7489 7.2.2), unsigned.

    @param size: Octets of the message that would have brought it.
    """
    domain = draft.subject.domain
    subject = f"DMARC aggregate reporting error report for {domain}"
    header = [
        *origin(draft.submitter, recipients, subject, stamp),
        *generated(("text/plain;", "charset=us-ascii")),
        ("Content-Transfer-Encoding", ["7bit"]),
    ]
    body = [
        ("Report-Date", [dated(stamp)]),
        ("Report-Domain", [str(domain)]),
        ("Report-ID", [draft.reportID]),
        ("Report-Size", [str(size)]),
        ("Submitter", [str(draft.submitter)]),
        ("Submitting-URI", listed(draft.destinations)),
    ]
    return b"".join([*map(written, header), b"\r\n", *map(written, body)])


def _compose(
    form: _Form,
    draft: Draft,
    recipients: Sequence[Address],
    stamp: MessageStamp,
    fields: Iterable[Field],
) -> bytes:
    """
    @param fields: What else is in the header.
    """
    header = [
        *origin(draft.submitter, recipients, _subject(form, draft), stamp),
        *fields,
    ]
    parts = [_textPart(form, draft), _attachment(form, draft)]
    return multipart(header, form.container, parts, stamp.token)


def _subject(form: _Form, draft: Draft) -> str:
    # RFC 8460 5.3, RFC 9990 3.5.2
    reportID = form.idFormat.format(id=draft.reportID, submitter=draft.submitter)
    return (
        f"Report Domain: {draft.subject.domain} Submitter: {draft.submitter} "
        f"Report-ID: {reportID}"
    )


def _textPart(form: _Form, draft: Draft) -> bytes:
    domain = draft.subject.domain
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


def _attachment(form: _Form, draft: Draft) -> bytes:
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
