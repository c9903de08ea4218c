# -*- test-case-name: tests.queue.test_dsn -*-
"""
Writes delivery status notifications (RFC 3464) about messages that could not
be delivered, or not yet.  No I/O.

Everything in them that is ours is ASCII.  What strangers said is put on one
line, of bounded length, without anything unprintable, and only ever behind a
field name of ours: nothing they say becomes a field.
"""

from __future__ import annotations

import quopri
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from textwrap import wrap

from moxtls.domain import Address, InvalidAddress
from moxtls.message.header import headerEnd
from moxtls.queue.types import Envelope, QueuedMessage, QueuedRecipient, Result

#: More of the original's header than this helps nobody.
MAX_HEADER = 64 * 1024
#: A field in a delivery status stays below the 998 of RFC 5322 2.1.1.
MAX_DIAGNOSTIC_LENGTH = 500
MAX_URI = 800
MAX_LINE = 998

# RFC 3463 2.
_STATUS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}\Z")
# RFC 6533 3: what an address in ASCII form may show as it is.
_QCHAR = re.compile(r"[\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]\Z")
_HOST = re.compile(r"[A-Za-z0-9_.:\[\]-]+\Z")

_FAILED = """\
This is the mail system at {hostname}.

Your message could not be delivered to the recipients below, and no
further attempt will be made.
"""
_DELAYED = """\
This is the mail system at {hostname}.

Your message could not be delivered yet to the recipients below.  This is
a warning only: you need not send it again.
"""


_UNRETURNABLE = """\
This is the mail system at {hostname}.

A message without a return address, such as a delivery notification, could
not be delivered to the recipients below, and no further attempt will be
made.  So it goes to the postmaster.
"""


@dataclass(frozen=True, slots=True)
class DSNMessage:
    """
    What there is to say about a message.

    @ivar noticeID: Becomes the left side of the Message-ID, and is part of
        the boundary: nobody can foresee it.
    @ivar hostname: Ours, A-labels.
    @ivar delayed: Whether attempts go on.
    @ivar recipients: Those that it is about, at least one.
    @ivar header: Of the message it is about, as far as known.
    @ivar original: All of it, for the postmaster; empty if only the header is to
        be shown.
    """

    noticeID: str
    hostname: str
    now: float
    delayed: bool
    message: QueuedMessage
    recipients: tuple[QueuedRecipient, ...]
    header: bytes
    original: bytes = b""


def headerOf(start: bytes) -> bytes:
    """
    The header section in the first bytes of a message.
    """
    start = start[:MAX_HEADER]
    end = headerEnd(start)
    if end >= 0:
        return start[:end]
    whole, newline, _ = start.rpartition(b"\r\n")
    return whole + newline


def dsnEnvelope(
    message: QueuedMessage, recipients: Iterable[QueuedRecipient], hostname: str
) -> Envelope | None:
    """
    How a DSN about C{recipients} of C{message} travels.

    RFC 5321 6.1: nothing is sent in answer to the null reverse-path.  So that such
    a message, most often a DSN, doesn't vanish, the postmaster of this host is
    told; if that fails, nobody is.

    @return: C{None} if there is nobody to get it.
    """
    original = message.envelope
    postmaster = Address.parse(f"postmaster@{hostname}")
    try:
        sender = Address.parse(original.sender)
    except InvalidAddress:
        if any(each.recipient.lower() == str(postmaster) for each in recipients):
            return None
        sender = postmaster
    return Envelope(
        sender="",  # RFC 5321 6.1, RFC 3464 2
        recipients=(str(sender),),
        smtputf8=sender.needsSMTPUTF8,
        eightBit=sender.needsSMTPUTF8,
        # RFC 8689 5: protected like the message it is about.
        requireTLS=True if original.requireTLS else None,
    )


def composeDSN(notice: DSNMessage) -> bytes:
    """
    The DSN as a message.  Of the original it has the header only (RFC 8689 5
    forbids more for REQUIRETLS, and the sender has the rest), unless it goes to
    the postmaster in place of the sender.
    """
    parts = [
        _part("text/plain", "utf-8", _humanPart(notice).encode("utf-8")),
        _part("message/delivery-status", "", _statusPart(notice).encode("ascii")),
    ]
    if notice.original and _isTransparent(notice.original):
        parts.append(_originalPart(notice.original))
    elif notice.header:
        parts.append(_headerPart(notice.header))
    boundary = f"=_{notice.noticeID}"
    delimiter = f"--{boundary}\r\n".encode("ascii")
    body = b"".join(delimiter + part + b"\r\n" for part in parts)
    top = _topHeader(notice, boundary).encode("utf-8")
    return top + b"\r\n" + body + f"--{boundary}--\r\n".encode("ascii")


def singleLine(text: str, longest: int) -> str:
    """
    A stranger's words for people: on one line, printable, bounded.
    """
    printable = "".join(char if char.isprintable() else " " for char in text)
    words = " ".join(printable.split())
    return words if len(words) <= longest else words[: longest - 3] + "..."


def _topHeader(notice: DSNMessage, boundary: str) -> str:
    subject = "Mail delivery delayed" if notice.delayed else "Mail delivery failed"
    fields = (
        f"Date: {_date(notice.now)}",
        f"From: Mail delivery <postmaster@{notice.hostname}>",
        f"To: {_to(notice)}",
        f"Subject: {subject}",
        f"Message-ID: <{notice.noticeID}@{notice.hostname}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        "MIME-Version: 1.0",
        # RFC 6522 3
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
    )
    return "".join(f"{field}\r\n" for field in fields)


def _to(notice: DSNMessage) -> str:
    try:
        return str(Address.parse(notice.message.envelope.sender))
    except InvalidAddress:
        # A report by HTTPS has no sender; its DSN stays in the house.
        return f"postmaster@{notice.hostname}"


def _humanPart(notice: DSNMessage) -> str:
    preface = _DELAYED if notice.delayed else _FAILED
    if not notice.message.envelope.sender and not notice.message.envelope.report:
        preface = _UNRETURNABLE
    blocks = [preface.format(hostname=notice.hostname)]
    for recipient in notice.recipients:
        blocks += ["", singleLine(recipient.recipient, MAX_URI)]
        blocks += wrap(
            _reason(recipient.lastResult),
            72,
            initial_indent="    ",
            subsequent_indent="    ",
        )
    return "\r\n".join("\n".join(blocks).split("\n")) + "\r\n"


def _reason(result: Result | None) -> str:
    if result is None:
        return "no attempt was made"
    words, host = _words(result), _host(result)
    if result.code:
        return f"{host} said: {words}" if host else words
    about = f"{host}: " if host else ""
    return f"{about}{_status(result, '')} {words}"


def _statusPart(notice: DSNMessage) -> str:
    """
    RFC 3464 2.2 and 2.3: groups of fields, set apart by empty lines.
    """
    groups = [
        [
            f"Reporting-MTA: dns; {notice.hostname}",
            f"Arrival-Date: {_date(notice.message.queued)}",
        ]
    ]
    groups += [_recipientFields(notice, each) for each in notice.recipients]
    return "\r\n".join("".join(f"{line}\r\n" for line in group) for group in groups)


def _recipientFields(notice: DSNMessage, recipient: QueuedRecipient) -> list[str]:
    fields = [
        f"Final-Recipient: {_typed(recipient.recipient)}",
        f"Action: {'delayed' if notice.delayed else 'failed'}",
    ]
    result = recipient.lastResult
    fallback = "4.0.0" if notice.delayed else "5.0.0"
    if result is None:
        return [*fields, f"Status: {fallback}"]
    fields.append(f"Status: {_status(result, fallback)}")
    # RFC 3464 2.3.5: the one that reported it to us.
    if result.code and _host(result):
        fields.append(f"Remote-MTA: dns; {_host(result)}")
    # RFC 3464 2.3.6: smtp only if it is what an SMTP server said.
    kind = "smtp" if result.code else "x-moxtls"
    fields.append(f"Diagnostic-Code: {kind}; {_ascii(_words(result))}")
    fields.append(f"Last-Attempt-Date: {_date(notice.now)}")
    return fields


def _typed(recipient: str) -> str:
    """
    RFC 3464 2.1.2; RFC 6533 3 for addresses beyond ASCII.
    """
    try:
        address = str(Address.parse(recipient))
    except InvalidAddress:
        return f"x-uri; {_ascii(singleLine(recipient, MAX_URI))}"
    if address.isascii():
        return f"rfc822; {address}"
    return "utf-8; " + "".join(
        char if _QCHAR.match(char) else f"\\x{{{ord(char):02X}}}" for char in address
    )


def _status(result: Result, fallback: str) -> str:
    return result.status if _STATUS.match(result.status) else fallback


def _words(result: Result) -> str:
    return singleLine(result.words, MAX_DIAGNOSTIC_LENGTH) or "no reason was given"


def _host(result: Result) -> str:
    return result.host if _HOST.match(result.host) else ""


def _headerPart(header: bytes) -> bytes:
    if header.isascii():
        return _part("text/rfc822-headers", "", header)
    # RFC 6533 6: a header beyond ASCII has a type of its own.
    text = header.decode("utf-8", "replace")
    return _part("message/global-headers", "", text.encode("utf-8"))


def _originalPart(original: bytes) -> bytes:
    """
    RFC 2046 5.2.1: such a part is never encoded.
    """
    encoding = "7bit" if original.isascii() else "8bit"
    isInternational = not headerOf(original).isascii()
    # RFC 6532 3.7
    contentType = "message/global" if isInternational else "message/rfc822"
    fields = (
        f"Content-Type: {contentType}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return fields.encode("ascii") + original


def _part(contentType: str, charset: str, content: bytes) -> bytes:
    """
    A MIME part that passes any host, 8BITMIME (RFC 6152) or not.
    """
    plain = _isPlain(content)
    encoding = "7bit" if plain else "quoted-printable"
    if charset:
        contentType += f"; charset={'us-ascii' if plain else charset}"
    fields = (
        f"Content-Type: {contentType}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return fields.encode("ascii") + (content if plain else _quoted(content))


def _isPlain(content: bytes) -> bool:
    return content.isascii() and _isTransparent(content)


def _isTransparent(content: bytes) -> bool:
    """
    Whether it is made of lines as RFC 5322 2.1.1 has them.
    """
    lines = content.split(b"\r\n")
    return not any(
        len(line) > MAX_LINE or any(bare in line for bare in (b"\r", b"\n", b"\0"))
        for line in lines
    )


def _quoted(content: bytes) -> bytes:
    """
    RFC 2045 6.7.
    """
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return quopri.encodestring(lines).replace(b"\n", b"\r\n")


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


def _date(now: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(now), UTC))
