# -*- test-case-name: tests.queue.test_sendmail -*-
"""
Parses the arguments and the input of a C{sendmail} command into a submission.  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime, formataddr, getaddresses

from moxtls.domain import Address, InvalidAddress
from moxtls.queue.types import Envelope, isResponse
from moxtls.smtp.server.data import HeaderLimits
from moxtls.smtp.server.state import ServerSettings

#: Options with and without a value that are ignored.
_WITH_VALUE = "BNRVpLXCDdhO"
_WITHOUT_VALUE = "vnUGmAx"
#: Unsupported modes: SMTP on standard input, the queue, the aliases, a daemon.
_REFUSED = {"-bs", "-bp", "-bi", "-bd", "-bt", "-bv", "-q"}

# RFC 5322 2.2.
_FIELD = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")
_RECIPIENT_FIELDS = (b"to", b"cc", b"bcc")
_BLIND = (b"bcc", b"resent-bcc")
# RFC 8689 3.
_TLS_NOT_REQUIRED = re.compile(rb"tls-required[ \t]*:\s*no\s*\Z", re.IGNORECASE)


class SendmailError(ValueError):
    """
    A request is invalid or not supported.  The text is one line.
    """


@dataclass(frozen=True, slots=True)
class SendmailRequest:
    """
    The parsed arguments.

    @ivar sender: C{None} if not given; empty for the null reverse-path.
    @ivar name: The sender's name, for a missing From field.
    @ivar fromHeader: C{-t}: take recipients from the header as well.
    @ivar dotEnds: True if a line with a single dot ends the message.
    """

    recipients: tuple[str, ...] = ()
    sender: str | None = None
    name: str = ""
    fromHeader: bool = False
    dotEnds: bool = True


@dataclass(frozen=True, slots=True)
class SubmitterInfo:
    """
    The origin of a submission.

    @ivar user: The local part of the default sender.
    @ivar hostname: The domain of addresses without one.
    @ivar messageID: For a missing Message-ID field; without brackets.
    """

    user: str
    hostname: str
    now: float
    messageID: str


def parseArguments(arguments: Sequence[str]) -> SendmailRequest:
    """
    Parse the command line arguments.

    @raise SendmailError: An option is unknown, not supported, or lacks its
        value.
    """
    request = SendmailRequest()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return _to(request, rest)
        if argument.startswith("-") and argument != "-":
            request = _option(request, argument, rest)
        else:
            request = _to(request, [argument])
    return request


def composeSubmission(
    request: SendmailRequest, data: bytes, origin: SubmitterInfo
) -> tuple[Envelope, tuple[bytes, ...]]:
    """
    Compose the message to be submitted, with CRLF line ends and all required fields.

    @raise SendmailError: There are no recipients, an address is invalid, or the header
        is too large for an SMTP listener.
    """
    lines = _lines(data, request.dotEnds)
    fields, body = _split(lines)
    fromFields = _recipientsIn(fields) if request.fromHeader else []
    recipients = [_address(each, origin) for each in (*request.recipients, *fromFields)]
    if not recipients:
        raise SendmailError("no recipients")
    sender = _sender(request, origin)
    if request.fromHeader:
        fields = [field for field in fields if _name(field) not in _BLIND]
    fields = _completed(fields, request, sender, origin)
    header = b"".join(line + b"\r\n" for field in fields for line in field)
    _checkHeader(header, origin)
    text = b"".join(line + b"\r\n" for line in body)
    envelope = Envelope(
        sender,
        tuple(dict.fromkeys(recipients)),
        eightBit=not (header.isascii() and text.isascii()),
        smtputf8=not (header.isascii() and "".join((sender, *recipients)).isascii()),
        requireTLS=False if any(_isTLSNotRequired(each) for each in fields) else None,
        response=isResponse(header),
    )
    return envelope, (header, b"\r\n", text)


def _option(
    request: SendmailRequest, argument: str, rest: list[str]
) -> SendmailRequest:
    """
    Parse one option.

    @param rest: The following arguments, from which its value is taken.
    """
    option, value = argument[1], argument[2:]
    if argument in _REFUSED or option == "q":
        raise SendmailError(f"{argument!r} is not supported")
    if argument in ("-i", "-oi"):
        return replace(request, dotEnds=False)
    if argument == "-t":
        return replace(request, fromHeader=True)
    if option in "fr":
        sender = _value(argument, rest).removeprefix("<").removesuffix(">")
        return replace(request, sender=sender)
    if option == "F":
        return replace(request, name=_value(argument, rest))
    if option in _WITH_VALUE:
        _value(argument, rest)
    elif not (argument == "-bm" or option in "o" or (option in _WITHOUT_VALUE)):
        raise SendmailError(f"unknown option {argument!r}")
    elif option == "o" and not value:
        _value(argument, rest)
    return request


def _value(argument: str, rest: list[str]) -> str:
    if argument[2:]:
        return argument[2:]
    if not rest:
        raise SendmailError(f"{argument!r} needs a value")
    return rest.pop(0)


def _to(request: SendmailRequest, recipients: Iterable[str]) -> SendmailRequest:
    found = tuple(address for _, address in getaddresses(list(recipients)) if address)
    return replace(request, recipients=request.recipients + found)


def _lines(data: bytes, dotEnds: bool) -> list[bytes]:
    """
    Lines without line ends of any kind: a submitted message has no bare CR or LF
    (RFC 5321 2.3.8).
    """
    lines = re.split(rb"\r\n|\r|\n", data)
    if lines[-1] == b"":
        lines.pop()
    if dotEnds and b"." in lines:
        del lines[lines.index(b".") :]
    # The separator line of an mbox.
    return lines[1:] if lines and lines[0].startswith(b"From ") else lines


def _split(lines: list[bytes]) -> tuple[list[list[bytes]], list[bytes]]:
    """
    Split into header fields, each as a list of lines, and the lines of the body.  The
    first line that isn't part of a field begins the body.
    """
    fields: list[list[bytes]] = []
    for number, line in enumerate(lines):
        if not line:
            return fields, lines[number + 1 :]
        if _FIELD.match(line):
            fields.append([line])
        elif fields and line[:1] in (b" ", b"\t"):
            fields[-1].append(line)
        else:
            return fields, lines[number:]
    return fields, []


def _name(field: list[bytes]) -> bytes:
    matched = _FIELD.match(field[0])
    return matched[1].lower() if matched else b""


def _recipientsIn(fields: list[list[bytes]]) -> list[str]:
    """
    The recipients in the header; of a resent message, those of the Resent fields
    (RFC 5322 3.6.6).
    """
    resent = [f"resent-{name.decode()}".encode() for name in _RECIPIENT_FIELDS]
    wanted: Sequence[bytes] = (
        resent if any(_name(each) in resent for each in fields) else _RECIPIENT_FIELDS
    )
    values = [
        b" ".join(field).partition(b":")[2].decode("utf-8", "replace")
        for field in fields
        if _name(field) in wanted
    ]
    return [address for _, address in getaddresses(values) if address]


def _address(text: str, origin: SubmitterInfo) -> str:
    whole = text if "@" in text else f"{text}@{origin.hostname}"
    try:
        return str(Address.parse(whole))
    except InvalidAddress as error:
        raise SendmailError(str(error)) from None


def _sender(request: SendmailRequest, origin: SubmitterInfo) -> str:
    if request.sender == "":
        return ""
    return _address(request.sender or origin.user, origin)


def _completed(
    fields: list[list[bytes]],
    request: SendmailRequest,
    sender: str,
    origin: SubmitterInfo,
) -> list[list[bytes]]:
    """
    Add missing fields.  RFC 5322 3.6: From and Date are required, Message-ID is
    recommended.
    """
    present = {_name(field) for field in fields}
    name = "".join(char for char in request.name if char.isprintable())
    author = sender or f"{origin.user}@{origin.hostname}"
    date = format_datetime(datetime.fromtimestamp(int(origin.now), UTC))
    missing = (
        ("From", formataddr((name, author)) if author.isascii() else author),
        ("Date", date),
        ("Message-ID", f"<{origin.messageID}>"),
    )
    added = [
        [f"{field}: {value}".encode()]
        for field, value in missing
        if field.lower().encode() not in present
    ]
    return added + fields


def _checkHeader(header: bytes, origin: SubmitterInfo) -> None:
    settings = ServerSettings(origin.hostname)
    shape = HeaderLimits(settings.maxLineLength)
    shape.feed(header + b"\r\n")
    fault = shape.fault(settings)
    if fault is not None:
        raise SendmailError(fault.text)


def _isTLSNotRequired(field: list[bytes]) -> bool:
    return bool(_TLS_NOT_REQUIRED.match(b" ".join(field)))
