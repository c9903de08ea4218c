"""
Tests for L{moxtls.cli.shell}.
"""

from __future__ import annotations

import argparse
from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from moxtls.cli.shell import dayArgument, durationArgument, moment


class TimesTests(SynchronousTestCase):
    """
    Tests for times as people write them.
    """

    def test_moment(self) -> None:
        """
        Times are in UTC, and what has no time is empty.
        """
        self.assertEqual(moment(1_795_521_600.9), "2026-11-24 12:00:00")
        self.assertEqual(moment(0), "")

    def test_day(self) -> None:
        """
        A day is written as in ISO 8601.
        """
        self.assertEqual(dayArgument("2026-11-24"), date(2026, 11, 24))
        for text in ("yesterday", "2026-13-01", ""):
            self.assertRaises(argparse.ArgumentTypeError, dayArgument, text)

    def test_duration(self) -> None:
        """
        A number and a unit, nothing else.
        """
        for text, seconds in (("90m", 5400), ("12h", 43200), ("31d", 2678400)):
            self.assertEqual(durationArgument(text), seconds)
        for text in ("3", "d", "-1d", "1.5h", "1000000d", "1w", "1d "):
            self.assertRaises(argparse.ArgumentTypeError, durationArgument, text)
