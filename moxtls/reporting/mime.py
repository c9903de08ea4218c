# -*- test-case-name: tests.reporting.test_mime -*-
"""
The parts of a stranger's message.  No I/O.

Takes time in proportion to the message, whatever is in it, and never fails:
what isn't there or can't be read is empty.
"""

from __future__ import annotations

import binascii
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

#: Reports have one or two levels; forwarding adds a few.
MAX_DEPTH = 6
#: A header block longer than this isn't read to its end.
MAX_HEADER = 256 * 1024
#: RFC 2046 5.1.1 allows for 70; what is far beyond is no boundary, but work.
MAX_BOUNDARY_LENGTH = 200
#: In one multipart.
MAX_PARTS = 100

# RFC 2045 6.8: to be overlooked.
_NO_DIGITS = bytes(range(256)).translate(
    None, (string.ascii_letters + string.digits + "+/").encode("ascii")
)
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_TYPE = re.compile(r"\s*([!#$&^_.+a-z0-9-]+/[!#$&^_.+a-z0-9-]+)\s*(?:;|\Z)")
_PARAMETER = re.compile(
    r';\s*([!#$&^_.+*A-Za-z0-9-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))'
)


@dataclass(frozen=True, slots=True)
class Part:
    """
    A leaf of a message.

    @ivar type: Lower case, such as C{text/plain}.
    @ivar content: Decoded.
    """

    type: str
    content: bytes


def headerFields(block: bytes) -> dict[str, str]:
    """
    The first field of each name; names in lower case, values unfolded.
    """
    fields: dict[str, str] = {}
    text = block[:MAX_HEADER].decode("utf-8", "replace")
    unfolded = re.sub(r"\r?\n(?=[ \t])", "", text)
    for line in unfolded.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def splitMessage(message: bytes) -> tuple[bytes, bytes]:
    """
    Header block and body.
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
    header, body = splitMessage(message)
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
    The media type, and its parameters with names in lower case.
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
