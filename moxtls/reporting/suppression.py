# -*- test-case-name: tests.reporting.test_suppression -*-
"""
Suppresses destinations after delivery failures, and reads the delivery status
notifications (RFC 3464) about reports.  No I/O.
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

#: Seconds of suppression by an operator, unless another period is given.
MANUAL_PERIOD = 31 * DAY
#: Seconds of suppression after the first failure.  Only one or two reports are
#: skipped, since the error may have been temporary though reported as permanent.
MIN_PERIOD = 2 * DAY
#: Maximum number of seconds: one attempt a year is no burden.
MAX_PERIOD = 365 * DAY
#: Seconds after acceptance in which a DSN may arrive: as long as hosts retry
#: (RFC 5321 4.5.4.1: 4 to 5 days).
BOUNCE_WINDOW = 5 * DAY

_TYPES = ("message/delivery-status", "message/global-delivery-status")
_STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})")
#: Maximum number of recipients that are read.
_MAX_GROUPS = 100
_MAX_DETAIL_LENGTH = 500
_MAX_STATUS = 64 * 1024


def afterFailure(
    destination: str,
    kind: ReportKind,
    now: float,
    comment: str,
    previous: Suppression | None,
) -> Suppression:
    """
    The suppression entry after another failure.

    @param previous: The entry for the same destination and kind, even if it has
        expired.
    """
    failures = previous.failures + 1 if previous else 1
    until = now + suppressionPeriod(failures)
    if previous is not None:
        until = max(until, previous.until)  # An operator may have set a longer period.
    return Suppression(destination, kind, until, now, comment, failures)


def suppressionPeriod(failures: int) -> int:
    """
    The seconds of suppression after C{failures} consecutive failures.
    """
    # Twenty doublings exceed the maximum by far.
    doubled = MIN_PERIOD * (1 << min(failures - 1, 20))
    return min(doubled, MAX_PERIOD)


def canReset(entry: Suppression, now: float, final: bool) -> bool:
    """
    True if a successful delivery resets the count of failures.

    @param final: True if no DSN can follow.
    """
    over = entry.until if final else entry.until + BOUNCE_WINDOW
    return entry.failures > 0 and now >= over


@dataclass(frozen=True, slots=True)
class DSNNotification:
    """
    The contents of a DSN.

    @ivar failed: True if a recipient was given up; false for a delay or success.
    @ivar detail: Text of the remote host, for operators.
    """

    failed: bool
    detail: str = ""


def readDSN(message: bytes) -> DSNNotification | None:
    """
    Read a DSN.

    @return: C{None} if C{message} is not a DSN.
    """
    for part in leafParts(message):
        if part.type in _TYPES:
            return _read(part.content[:_MAX_STATUS])
    return None


def bounceMailbox(kind: ReportKind, postmaster: str) -> str:
    """
    The mailbox for DSNs about our reports, which are stored as read.

    @param postmaster: The name of the postmaster's mailbox.
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
