# -*- test-case-name: tests.queue.test_dsn -*-
"""
Composes delivery status notifications (DSNs, RFC 3464) about failed or delayed
messages.  No I/O.

Generated text is ASCII.  Text of remote hosts is put on one line of bounded length,
without unprintable characters, and always after a generated field name, so that it
can't add a field.
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

#: Bytes of the original's header that are read.
MAX_HEADER = 64 * 1024
#: Fields of a delivery status stay below the line length limit of RFC 5322 2.1.1.
MAX_DIAGNOSTIC_LENGTH = 500
MAX_URI = 800
MAX_LINE = 998

# RFC 3463 2.
_STATUS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}\Z")
# RFC 6533 3: characters that need no encoding in the ASCII form of an address.
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
    The content of a DSN.

    @ivar dsnID: The left side of the Message-ID, and a part of the boundary: it must
        be unpredictable.
    @ivar hostname: The reporting host, in A-labels.
    @ivar delayed: True for a delay, false for a failure.
    @ivar message: The message that the DSN is about.
    @ivar recipients: The recipients that the DSN is about, at least one.
    @ivar header: The header of the message, as far as known.
    @ivar original: The whole message, for the postmaster; empty to include the header
        only.
    """

    dsnID: str
    hostname: str
    now: float
    delayed: bool
    message: QueuedMessage
    recipients: tuple[QueuedRecipient, ...]
    header: bytes
    original: bytes = b""


def headerOf(start: bytes) -> bytes:
    """
    Extract the header from the first bytes of a message.
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
    The envelope of a DSN about C{recipients} of C{message}.

    RFC 5321 6.1: no DSN is sent to the null reverse-path.  So that such a message, most
    often a DSN itself, isn't lost, the DSN goes to the postmaster of this host.  If
    that fails as well, there is no further DSN.

    @return: C{None} if no DSN is to be sent.
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
        # RFC 8689 5: with the TLS requirement of the original message.
        requireTLS=True if original.requireTLS else None,
    )


def composeDSN(dsn: DSNMessage) -> bytes:
    """
    Compose the DSN as a message.  It includes only the header of the original (RFC 8689
    5 forbids more for REQUIRETLS, and the sender has the rest), unless it goes to the
    postmaster instead of the sender.
    """
    parts = [
        _part("text/plain", "utf-8", _humanPart(dsn).encode("utf-8")),
        _part("message/delivery-status", "", _statusPart(dsn).encode("ascii")),
    ]
    if dsn.original and _isTransparent(dsn.original):
        parts.append(_originalPart(dsn.original))
    elif dsn.header:
        parts.append(_headerPart(dsn.header))
    boundary = f"=_{dsn.dsnID}"
    delimiter = f"--{boundary}\r\n".encode("ascii")
    body = b"".join(delimiter + part + b"\r\n" for part in parts)
    top = _topHeader(dsn, boundary).encode("utf-8")
    return top + b"\r\n" + body + f"--{boundary}--\r\n".encode("ascii")


def singleLine(text: str, maxLength: int) -> str:
    """
    Text of a remote host for people: on one line, printable, shortened.
    """
    printable = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(printable.split())
    return line if len(line) <= maxLength else line[: maxLength - 3] + "..."


def _topHeader(dsn: DSNMessage, boundary: str) -> str:
    subject = "Mail delivery delayed" if dsn.delayed else "Mail delivery failed"
    fields = (
        f"Date: {_date(dsn.now)}",
        f"From: Mail delivery <postmaster@{dsn.hostname}>",
        f"To: {_to(dsn)}",
        f"Subject: {subject}",
        f"Message-ID: <{dsn.dsnID}@{dsn.hostname}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        "MIME-Version: 1.0",
        # RFC 6522 3
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
    )
    return "".join(f"{field}\r\n" for field in fields)


def _to(dsn: DSNMessage) -> str:
    try:
        return str(Address.parse(dsn.message.envelope.sender))
    except InvalidAddress:
        # A report by HTTPS has no sender; its DSN is stored locally.
        return f"postmaster@{dsn.hostname}"


def _humanPart(dsn: DSNMessage) -> str:
    preface = _DELAYED if dsn.delayed else _FAILED
    if not dsn.message.envelope.sender and not dsn.message.envelope.report:
        preface = _UNRETURNABLE
    blocks = [preface.format(hostname=dsn.hostname)]
    for recipient in dsn.recipients:
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


def _statusPart(dsn: DSNMessage) -> str:
    """
    Groups of fields, separated by empty lines (RFC 3464 2.2, 2.3).
    """
    groups = [
        [
            f"Reporting-MTA: dns; {dsn.hostname}",
            f"Arrival-Date: {_date(dsn.message.queued)}",
        ]
    ]
    groups += [_recipientFields(dsn, each) for each in dsn.recipients]
    return "\r\n".join("".join(f"{line}\r\n" for line in group) for group in groups)


def _recipientFields(dsn: DSNMessage, recipient: QueuedRecipient) -> list[str]:
    fields = [
        f"Final-Recipient: {_typed(recipient.recipient)}",
        f"Action: {'delayed' if dsn.delayed else 'failed'}",
    ]
    result = recipient.lastResult
    fallback = "4.0.0" if dsn.delayed else "5.0.0"
    if result is None:
        return [*fields, f"Status: {fallback}"]
    fields.append(f"Status: {_status(result, fallback)}")
    # RFC 3464 2.3.5: the host that reported the status.
    if result.code and _host(result):
        fields.append(f"Remote-MTA: dns; {_host(result)}")
    # RFC 3464 2.3.6: smtp only for the reply of an SMTP server.
    kind = "smtp" if result.code else "x-moxtls"
    fields.append(f"Diagnostic-Code: {kind}; {_ascii(_words(result))}")
    fields.append(f"Last-Attempt-Date: {_date(dsn.now)}")
    return fields


def _typed(recipient: str) -> str:
    """
    An address with its type (RFC 3464 2.1.2; RFC 6533 3 for non-ASCII addresses).
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
    # RFC 6533 6: a non-ASCII header has a media type of its own.
    text = header.decode("utf-8", "replace")
    return _part("message/global-headers", "", text.encode("utf-8"))


def _originalPart(original: bytes) -> bytes:
    """
    The whole message as a part, which is never encoded (RFC 2046 5.2.1).
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
    A MIME part that can be sent with and without 8BITMIME (RFC 6152).
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
    True if it consists of lines as of RFC 5322 2.1.1.
    """
    lines = content.split(b"\r\n")
    return not any(
        len(line) > MAX_LINE or any(bare in line for bare in (b"\r", b"\n", b"\0"))
        for line in lines
    )


def _quoted(content: bytes) -> bytes:
    """
    Quoted-printable encoding (RFC 2045 6.7).
    """
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return quopri.encodestring(lines).replace(b"\n", b"\r\n")


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


def _date(now: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(now), UTC))
