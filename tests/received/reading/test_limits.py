"""
Tests for the limits of L{moxtls.received.reading.read}, in processes of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.reading.documents import MAX_INPUT
from moxtls.received.reading.read import readReports
from tests.received.reading.bombs import LARGE, SMALL
from tests.received.reading.measured import REFERENCE, Measured, measure

#: Times that of the reference, some 0.07 s.
MAX_CPU = 40


class LimitTests(SynchronousTestCase):
    """
    The memory and the CPU time that an input takes.
    """

    def setUp(self) -> None:
        if not sys.platform.startswith("linux"):
            raise SkipTest("the peak of memory is in /proc")

    def measured(self, data: bytes) -> Measured:
        path = Path(self.mktemp())
        path.write_bytes(data)
        return measure(path)

    def test_small(self) -> None:
        """
        Each small input is read or refused within 60 MB and the time that a report of
        80,000 records takes.
        """
        for name, (make, reason) in SMALL.items():
            with self.subTest(name):
                found = self.measured(make())
                self.assertLess(found.peak, 60, found)
                self.assertLess(found.cpu, MAX_CPU, found)
                if reason:
                    self.assertIn(reason, found.reasons[-1])
                else:
                    self.assertEqual((found.reports, found.reasons), (1, []))

    def test_large(self) -> None:
        """
        Reports of up to 25 MB in any form are read within 100 MB, and in a time in
        proportion to their records.
        """
        for name, (make, records) in LARGE.items():
            with self.subTest(name):
                found = self.measured(make())
                self.assertEqual((found.reports, found.reasons), (1, []))
                self.assertGreater(found.messages, records)
                self.assertLess(found.peak, 100, found)
                self.assertLess(found.cpu, 2 * records / REFERENCE, found)

    def test_tooLarge(self) -> None:
        """
        Larger inputs aren't read at all.
        """
        data = b"<feedback>" + b" " * MAX_INPUT
        path = Path(self.mktemp())
        path.write_bytes(data + b" ")
        for source in (data, str(path)):
            [refused] = readReports(source).unreadable
            self.assertEqual(refused.reason, f"input: more than {MAX_INPUT} octets")
