# -*- test-case-name: tests.reporting.test_message -*-
"""
What messages of ours with a report in them have in common: header fields, and
parts.  No I/O.

ASCII throughout, so that any host can take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from moxtls import __version__
from moxtls.domain import Address, Domain

#: RFC 5322 2.1.1
LINE = 78

#: A name, and words between which the field may be folded.
Field = tuple[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class MessageStamp:
    """
    What sets a message apart from every other.

    @ivar hostname: Of the host it is sent from.
    @ivar token: Unique; letters and digits.
    @ivar now: Unix seconds.
    """

    hostname: Domain
    token: str
    now: float


def origin(
    submitter: Domain, recipients: Sequence[Address], subject: str, stamp: MessageStamp
) -> list[Field]:
    """
    Who it is from and for, and about what.
    """
    return [
        ("From", [f"postmaster@{submitter}"]),
        ("To", listed(map(str, recipients))),
        ("Subject", subject.split(" ")),
        ("Date", [dated(stamp)]),
        ("Message-Id", [f"<{stamp.token}@{stamp.hostname}>"]),
    ]


def generated(contentType: Sequence[str]) -> list[Field]:
    """
    What says that no person wrote it, and what is in it.
    """
    return [
        # RFC 3834 5: nobody is to answer that he's on holiday.
        ("Auto-Submitted", ["auto-generated"]),
        ("User-Agent", [f"moxtls/{__version__}"]),
        ("MIME-Version", ["1.0"]),
        ("Content-Type", contentType),
    ]


def dated(stamp: MessageStamp) -> str:
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

    @param container: The media type of the whole, and its parameters.
    @param parts: Made by L{part}.
    @param token: Nobody who has a word in the parts can have foreseen it.
    """
    boundary = f"=_{token}"
    fields = [*header, *generated((*container, f'boundary="{boundary}"'))]
    pieces = [*map(written, fields), b"\r\n"]
    for each in parts:
        pieces.append(f"--{boundary}\r\n".encode("ascii"))
        pieces.append(each)
    pieces.append(f"--{boundary}--\r\n".encode("ascii"))
    return b"".join(pieces)


def part(header: Sequence[Field], body: bytes) -> bytes:
    """
    One part of a multipart.
    """
    return b"".join([*map(written, header), b"\r\n", body, b"\r\n"])


def textPart(lines: Sequence[str]) -> bytes:
    """
    The part for people.
    """
    header = [
        ("Content-Type", ["text/plain;", "charset=us-ascii"]),
        ("Content-Transfer-Encoding", ["7bit"]),
    ]
    return part(header, "\r\n".join(lines).encode("ascii"))


def listed(items: Iterable[str]) -> list[str]:
    """
    With commas, as words of a field.
    """
    items = list(items)
    return [f"{item}," for item in items[:-1]] + items[-1:]


def written(field: Field) -> bytes:
    """
    A header field, folded between words where it gets too long.
    """
    name, words = field
    lines = [f"{name}:"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > LINE and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return ("\r\n".join(lines) + "\r\n").encode("ascii")
