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
from moxtls.reporting.mime import headerFields, leaves

_TYPES = ("message/delivery-status", "message/global-delivery-status")
_STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})")
#: More recipients than reports have destinations aren't read.
_MOST_GROUPS = 100
_LONGEST_DETAIL = 500
_LARGEST_STATUS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Notification:
    """
    What a DSN says.

    @ivar failed: That a recipient was given up; if not, that there is a
        delay, or success.
    @ivar detail: For people: a stranger's words.
    """

    failed: bool
    detail: str = ""


def readNotification(message: bytes) -> Notification | None:
    """
    @return: C{None} if C{message} is no DSN, such as somebody's answer.
    """
    for part in leaves(message):
        if part.type in _TYPES:
            return _read(part.content[:_LARGEST_STATUS])
    return None


def bounceMailbox(kind: ReportKind, postmaster: str) -> str:
    """
    Where DSNs about reports of ours are kept, looking read: nobody is to be
    bothered with them.

    @param postmaster: The postmaster's mailbox.
    """
    return f"{postmaster}/{'tlsrpt' if kind is ReportKind.TLS else 'dmarc'}"


def _read(content: bytes) -> Notification:
    for fields in _groups(content):
        if fields.get("action", "").lower().startswith("failed"):
            return Notification(True, _detail(fields))
    return Notification(False)


def _groups(content: bytes) -> Iterator[dict[str, str]]:
    # RFC 3464 2.1: fields about the message, then about each recipient.
    groups = re.split(rb"(?:\r?\n){2,}", content, maxsplit=_MOST_GROUPS)
    for group in groups[:_MOST_GROUPS]:
        yield headerFields(group)


def _detail(fields: dict[str, str]) -> str:
    status = _STATUS.match(fields.get("status", ""))
    diagnostic = fields.get("diagnostic-code", "").partition(";")[2].strip()
    words = (status[1] if status else "", diagnostic)
    return " ".join(word for word in words if word)[:_LONGEST_DETAIL]
