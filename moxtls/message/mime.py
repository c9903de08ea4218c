# -*- test-case-name: tests.message.test_mime -*-
"""
Reads the parts of MIME messages, and writes header fields and parts of reports.  No
I/O.

Reading takes time in proportion to the message and never fails: missing or malformed
parts are empty.  Reports are written in ASCII throughout, so that any host accepts
them.
"""

from __future__ import annotations

import binascii
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from moxtls import __version__
from moxtls.domain import Address, Domain
from moxtls.message.header import headerFields

#: Levels of multiparts.  Reports have one or two; forwarding adds a few.
MAX_DEPTH = 6
#: Characters of a boundary.  RFC 2046 5.1.1 allows 70; searching for very long ones
#: takes time.
MAX_BOUNDARY_LENGTH = 200
#: Parts in one multipart.
MAX_PARTS = 100

# RFC 2045 6.8: other octets are ignored.
_NO_DIGITS = bytes(range(256)).translate(
    None, (string.ascii_letters + string.digits + "+/").encode("ascii")
)
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_TYPE = re.compile(r"\s*([!#$&^_.+a-z0-9-]+/[!#$&^_.+a-z0-9-]+)\s*(?:;|\Z)")
_PARAMETER = re.compile(
    r';\s*([!#$&^_.+*A-Za-z0-9-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))'
)

#: RFC 5322 2.1.1
LINE_LENGTH = 78
#: A name, and words between which the field may be folded.
Field = tuple[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Part:
    """
    A part that is no multipart.

    @ivar type: The media type in lower case, such as C{text/plain}.
    @ivar content: Decoded.
    """

    type: str
    content: bytes


def splitEntity(message: bytes) -> tuple[bytes, bytes]:
    """
    The header and the body of a MIME entity (RFC 2045 2.4) with CRLF or LF line ends.
    """
    if message.startswith((b"\n", b"\r\n")):
        return b"", message.partition(b"\n")[2]
    end = _HEADER_END.search(message)
    if end is None:
        return message, b""
    return message[: end.start()], message[end.end() :]


def leafParts(message: bytes, depth: int = MAX_DEPTH) -> Iterator[Part]:
    """
    The parts of a message that aren't multiparts themselves, in order.
    """
    header, body = splitEntity(message)
    fields = headerFields(header)
    type, parameters = contentType(fields.get("content-type", ""))
    if not type.startswith("multipart/"):
        encoding = fields.get("content-transfer-encoding", "").lower()
        yield Part(type, _decoded(body, encoding))
    elif depth and 0 < len(parameters.get("boundary", "")) <= MAX_BOUNDARY_LENGTH:
        for part in _between(body, parameters["boundary"].encode("utf-8")):
            yield from leafParts(part, depth - 1)


def contentType(value: str) -> tuple[str, dict[str, str]]:
    """
    The media type in lower case, and its parameters by their names in lower case.
    """
    matched = _TYPE.match(value.lower())
    if matched is None:
        return "text/plain", {}
    parameters: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(value):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or token)
    return matched[1], parameters


def _between(body: bytes, boundary: bytes) -> Iterator[bytes]:
    # RFC 2046 5.1.1: the line end before a delimiter belongs to it.
    delimiter = re.compile(
        rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r?\n|\Z)"
    )
    start: int | None = None
    for count, found in enumerate(delimiter.finditer(body)):
        if start is not None:
            yield _unled(body[start : found.start()])
        if found[1] or count >= MAX_PARTS:
            return
        start = found.end()
    if start is not None:
        yield _unled(body[start:])


def _unled(part: bytes) -> bytes:
    return part.removeprefix(b"\r").removeprefix(b"\n")


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    if encoding != "base64":
        return body
    digits = body.partition(b"=")[0].translate(None, _NO_DIGITS)
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


@dataclass(frozen=True, slots=True)
class MessageStamp:
    """
    The unique properties of a new message.

    @ivar hostname: The name of the sending host.
    @ivar token: Unique; letters and digits.
    @ivar now: Unix seconds.
    """

    hostname: Domain
    token: str
    now: float


def originFields(
    submitter: Domain, recipients: Sequence[Address], subject: str, stamp: MessageStamp
) -> list[Field]:
    """
    The fields for author, recipients, subject, date and message ID.
    """
    return [
        ("From", [f"postmaster@{submitter}"]),
        ("To", commaWords(map(str, recipients))),
        ("Subject", subject.split(" ")),
        ("Date", [formatDate(stamp)]),
        ("Message-Id", [f"<{stamp.token}@{stamp.hostname}>"]),
    ]


def generatedFields(contentType: Sequence[str]) -> list[Field]:
    """
    The fields that mark the message as automatic, and those of MIME.
    """
    return [
        # RFC 3834 5: suppresses automatic replies.
        ("Auto-Submitted", ["auto-generated"]),
        ("User-Agent", [f"moxtls/{__version__}"]),
        ("MIME-Version", ["1.0"]),
        ("Content-Type", contentType),
    ]


def formatDate(stamp: MessageStamp) -> str:
    """
    RFC 5322 3.3.
    """
    return format_datetime(datetime.fromtimestamp(int(stamp.now), UTC))


def multipart(
    header: Sequence[Field],
    container: Sequence[str],
    parts: Sequence[bytes],
    token: str,
) -> bytes:
    """
    A whole message, unsigned.

    @param container: The media type of the message, and its parameters.
    @param parts: Made by L{part}.
    @param token: Unpredictable to authors of text in the parts.
    """
    boundary = f"=_{token}"
    fields = [*header, *generatedFields((*container, f'boundary="{boundary}"'))]
    pieces = [*map(formatField, fields), b"\r\n"]
    for each in parts:
        pieces.append(f"--{boundary}\r\n".encode("ascii"))
        pieces.append(each)
    pieces.append(f"--{boundary}--\r\n".encode("ascii"))
    return b"".join(pieces)


def part(header: Sequence[Field], body: bytes) -> bytes:
    """
    One part of a multipart.
    """
    return b"".join([*map(formatField, header), b"\r\n", body, b"\r\n"])


def textPart(lines: Sequence[str]) -> bytes:
    """
    The human-readable part.
    """
    header = [
        ("Content-Type", ["text/plain;", "charset=us-ascii"]),
        ("Content-Transfer-Encoding", ["7bit"]),
    ]
    return part(header, "\r\n".join(lines).encode("ascii"))


def commaWords(items: Iterable[str]) -> list[str]:
    """
    The items as words of a field, separated by commas.
    """
    items = list(items)
    return [f"{item}," for item in items[:-1]] + items[-1:]


def formatField(field: Field) -> bytes:
    """
    A header field, folded between words where it gets too long.
    """
    name, words = field
    lines = [f"{name}:"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > LINE_LENGTH and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return ("\r\n".join(lines) + "\r\n").encode("ascii")
