# -*- test-case-name: tests.reporting.test_message -*-
"""
A report as a mail message (RFC 8460 5.3).  No I/O.

ASCII throughout, so that any host can take it.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from moxtls import __version__
from moxtls.calendar import Span
from moxtls.domain import Address, Domain
from moxtls.reporting.values import Draft

#: RFC 5322 2.1.1
LINE = 78
#: RFC 2045 6.8: 57 bytes make a line of 76.
_BASE64_BYTES = 57

_EXPLANATION = """\
This is a report about how TLS went on the way from us to your domain, or to
hosts that take its mail.  You get it because the TXT record at
_smtp._tls.{domain} asks for reports (rua) to this address.
"""


@dataclass(frozen=True, slots=True)
class Stamp:
    """
    What sets a message apart from every other.

    @ivar hostname: Of the host it is sent from.
    @ivar token: Unique; letters and digits.
    @ivar now: Unix seconds.
    """

    hostname: Domain
    token: str
    now: float


def composeTLS(draft: Draft, recipients: Sequence[Address], stamp: Stamp) -> bytes:
    """
    The message that brings a TLS report to all of C{recipients}, unsigned.
    """
    boundary = f"=_{stamp.token}"
    header = _header(draft, recipients, stamp, boundary)
    parts = (_textPart(draft), _attachment(draft))
    pieces = [header]
    for part in parts:
        pieces.append(f"--{boundary}\r\n".encode("ascii"))
        pieces.append(part)
    pieces.append(f"--{boundary}--\r\n".encode("ascii"))
    return b"".join(pieces)


def _header(
    draft: Draft, recipients: Sequence[Address], stamp: Stamp, boundary: str
) -> bytes:
    domain, submitter = draft.subject.domain, draft.submitter
    fields = [
        ("From", [f"postmaster@{submitter}"]),
        ("To", _list(map(str, recipients))),
        ("Subject", _subject(draft).split(" ")),
        ("Date", [format_datetime(datetime.fromtimestamp(int(stamp.now), UTC))]),
        ("Message-Id", [f"<{stamp.token}@{stamp.hostname}>"]),
        ("TLS-Report-Domain", [str(domain)]),
        ("TLS-Report-Submitter", [str(submitter)]),
        # RFC 8460 3: reports are delivered despite failures of TLS.
        ("TLS-Required", ["No"]),
        # RFC 3834 5: nobody is to answer that he's on holiday.
        ("Auto-Submitted", ["auto-generated"]),
        ("User-Agent", [f"moxtls/{__version__}"]),
        ("MIME-Version", ["1.0"]),
        (
            "Content-Type",
            ["multipart/report;", 'report-type="tlsrpt";', f'boundary="{boundary}"'],
        ),
    ]
    return b"".join(_field(name, words) for name, words in fields) + b"\r\n"


def _subject(draft: Draft) -> str:
    # RFC 8460 5.3
    return (
        f"Report Domain: {draft.subject.domain} Submitter: {draft.submitter} "
        f"Report-ID: <{draft.reportID}>"
    )


def _textPart(draft: Draft) -> bytes:
    domain = draft.subject.domain
    lines = [
        *_EXPLANATION.format(domain=domain).splitlines(),
        "",
        f"Policy Domain: {domain}",
        f"Submitter: {draft.submitter}",
        f"Report-ID: {draft.reportID}",
        f"Period: {_period(draft.span)}",
        "",
    ]
    header = [
        ("Content-Type", ["text/plain;", "charset=us-ascii"]),
        ("Content-Transfer-Encoding", ["7bit"]),
    ]
    return _part(header, "\r\n".join(lines).encode("ascii"))


def _attachment(draft: Draft) -> bytes:
    header = [
        ("Content-Type", ["application/tlsrpt+gzip;", f'name="{draft.filename}"']),
        ("Content-Disposition", ["attachment;", f'filename="{draft.filename}"']),
        ("Content-Transfer-Encoding", ["base64"]),
    ]
    return _part(header, _base64(draft.document))


def _part(header: Sequence[tuple[str, Sequence[str]]], body: bytes) -> bytes:
    fields = [_field(name, words) for name, words in header]
    return b"".join([*fields, b"\r\n", body, b"\r\n"])


def _base64(data: bytes) -> bytes:
    view = memoryview(data)
    lines = (
        binascii.b2a_base64(view[start : start + _BASE64_BYTES], newline=False)
        for start in range(0, len(data), _BASE64_BYTES)
    )
    return b"\r\n".join(lines)


def _list(items: Iterable[str]) -> list[str]:
    items = list(items)
    return [f"{item}," for item in items[:-1]] + items[-1:]


def _field(name: str, words: Sequence[str]) -> bytes:
    """
    A header field, folded between C{words} where it gets too long.
    """
    lines = [f"{name}:"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > LINE and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return ("\r\n".join(lines) + "\r\n").encode("ascii")


def _period(span: Span) -> str:
    start, end = (
        datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
        for second in (span.start, span.end)
    )
    return f"{start} - {end} UTC"
