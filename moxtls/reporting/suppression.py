# -*- test-case-name: tests.reporting.test_suppression -*-
"""
How long a destination that fails gets no reports.  No I/O.

Delivery status notifications (RFC 3464) that come back about reports.
No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from moxtls.dates import DAY
from moxtls.message.header import headerFields
from moxtls.message.mime import leafParts
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import Suppression

#: Entered by hand, unless another period is given.
MANUAL_PERIOD = 31 * DAY
#: After the first failure: a report or two are left out, in case it was a
#: passing trouble that called itself permanent.
MIN_PERIOD = 2 * DAY
#: Once a year is little enough to ask of anybody.
MAX_PERIOD = 365 * DAY
#: Acceptance isn't arrival: a DSN may follow, for as long as hosts try
#: (RFC 5321 4.5.4.1: 4 to 5 days).
BOUNCE_WINDOW = 5 * DAY


def afterFailure(
    destination: str,
    kind: ReportKind,
    now: float,
    comment: str,
    previous: Suppression | None,
) -> Suppression:
    """
    The entry after one more failure.

    @param previous: The entry for the same destination and kind, active or
        not.
    """
    failures = previous.failures + 1 if previous else 1
    until = now + suppressionPeriod(failures)
    if previous is not None:
        until = max(until, previous.until)  # A person may have said longer.
    return Suppression(destination, kind, until, now, comment, failures)


def suppressionPeriod(failures: int) -> int:
    """
    For how long a destination that failed so often in a row is left alone.
    """
    # Past some twenty doublings any period is the longest one.
    doubled = MIN_PERIOD * (1 << min(failures - 1, 20))
    return min(doubled, MAX_PERIOD)


def canReset(entry: Suppression, now: float, final: bool) -> bool:
    """
    Whether a delivery that succeeded makes the count start anew.

    @param final: Whether no DSN can follow.
    """
    over = entry.until if final else entry.until + BOUNCE_WINDOW
    return entry.failures > 0 and now >= over


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
