# -*- test-case-name: tests.reporting.test_bounces -*-
"""
Delivery status notifications (RFC 3464) that come back about reports.
No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from moxtls.queue.values import ReportKind
from moxtls.reporting.mime import headerFields, leafParts

_TYPES = ("message/delivery-status", "message/global-delivery-status")
_STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})")
#: More recipients than reports have destinations aren't read.
_MAX_GROUPS = 100
_MAX_DETAIL_LENGTH = 500
_MAX_STATUS = 64 * 1024


@dataclass(frozen=True, slots=True)
class DSNNotification:
    """
    What a DSN says.

    @ivar failed: That a recipient was given up; if not, that there is a
        delay, or success.
    @ivar detail: For people: a stranger's words.
    """

    failed: bool
    detail: str = ""


def readDSN(message: bytes) -> DSNNotification | None:
    """
    @return: C{None} if C{message} is no DSN, such as somebody's answer.
    """
    for part in leafParts(message):
        if part.type in _TYPES:
            return _read(part.content[:_MAX_STATUS])
    return None


def bounceMailbox(kind: ReportKind, postmaster: str) -> str:
    """
    Where DSNs about reports of ours are kept, looking read: nobody is to be
    bothered with them.

    @param postmaster: The postmaster's mailbox.
    """
    return f"{postmaster}/{'tlsrpt' if kind is ReportKind.TLS else 'dmarc'}"


def _read(content: bytes) -> DSNNotification:
    for fields in _groups(content):
        if fields.get("action", "").lower().startswith("failed"):
            return DSNNotification(True, _detail(fields))
    return DSNNotification(False)


def _groups(content: bytes) -> Iterator[dict[str, str]]:
    # RFC 3464 2.1: fields about the message, then about each recipient.
    groups = re.split(rb"(?:\r?\n){2,}", content, maxsplit=_MAX_GROUPS)
    for group in groups[:_MAX_GROUPS]:
        yield headerFields(group)


def _detail(fields: dict[str, str]) -> str:
    status = _STATUS.match(fields.get("status", ""))
    diagnostic = fields.get("diagnostic-code", "").partition(";")[2].strip()
    words = (status[1] if status else "", diagnostic)
    return " ".join(word for word in words if word)[:_MAX_DETAIL_LENGTH]
