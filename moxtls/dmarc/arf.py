# -*- test-case-name: tests.dmarc.test_arf -*-
"""
Failure reports of others (RFC 9991, RFC 6591, RFC 5965), read with tolerance.
No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from moxtls.reporting.mime import leafParts, splitMessage
from moxtls.tlsrpt.received import plain

_REPORT = "message/feedback-report"
_ORIGINALS = ("message/rfc822", "message/global", "text/rfc822-headers")
#: Of the machine-readable part: fields are few and short.
MAX_FIELDS_SIZE = 64 * 1024
MAX_FIELDS = 200
MAX_VALUE = 1000
# What says which message it was, without showing what was in it.
_TELLING = ("from", "to", "subject", "date", "message-id")

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """
    What somebody says about one message.

    @ivar fields: The machine-readable part (RFC 5965 3), in its order; names
        as they are written.
    @ivar original: The fields of the original message that tell which it was.
    """

    fields: Fields
    original: Fields

    def get(self, name: str) -> str:
        """
        The first field of a name, in any case; empty if there is none.
        """
        wanted = name.lower()
        return next((v for key, v in self.fields if key.lower() == wanted), "")


def readFeedback(message: bytes) -> FeedbackReport | None:
    """
    @return: C{None} if C{message} is no such report.
    """
    fields: Fields = ()
    original: Fields = ()
    for part in leafParts(message):
        if part.type == _REPORT and not fields:
            fields = tuple(_fields(part.content))
        elif part.type in _ORIGINALS and not original:
            header, _ = splitMessage(part.content)
            original = tuple(
                each for each in _fields(header) if each[0].lower() in _TELLING
            )
    return FeedbackReport(fields, original) if fields else None


def describeFeedback(report: FeedbackReport) -> list[str]:
    """
    Lines for people; nothing in them can move a terminal's cursor.
    """
    kind = report.get("Feedback-Type") or "unknown"
    lines = [f"Feedback of type {kind} by {report.get('User-Agent') or '(unnamed)'}"]
    told = ("feedback-type", "user-agent", "version")
    lines += [f"{n}: {v}" for n, v in report.fields if n.lower() not in told]
    if report.original:
        lines.append("The message:")
        lines += [f"  {name}: {value}" for name, value in report.original]
    return [plain(line) for line in lines]


def _fields(block: bytes) -> Iterator[tuple[str, str]]:
    text = block[:MAX_FIELDS_SIZE].decode("utf-8", "replace")
    unfolded = re.sub(r"\r?\n(?=[ \t])", "", text)
    for line in unfolded.splitlines()[:MAX_FIELDS]:
        name, colon, value = line.partition(":")
        if colon and name.strip():
            yield name.strip()[:80], value.strip()[:MAX_VALUE]
