# -*- test-case-name: tests.cli.test_times -*-
"""
Dates and times on the command line, always in UTC.  No I/O.
"""

from __future__ import annotations

import argparse
import re
from datetime import UTC, date, datetime

from moxtls.calendar import DAY, HOUR, MINUTE

_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}


def moment(second: float) -> str:
    """
    C{2026-11-24 19:05:29}, or nothing for the time 0.
    """
    if not second:
        return ""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")


def dayArgument(text: str) -> date:
    """
    C{2026-11-24}
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a day such as 2026-11-24"
        ) from None


def durationArgument(text: str) -> int:
    """
    C{90m}, C{12h} or C{31d}, in seconds.
    """
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a time such as 90m, 12h or 31d"
        )
    return int(match[1]) * _UNITS[match[2]]
