"""
Tests for L{moxtls.received.types}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.types import DMARCRow, RowBlock, RowOutcome, rowOutcome


class RowTests(SynchronousTestCase):
    """
    Tests for L{rowOutcome} and L{RowBlock}.
    """

    def test_outcome(self) -> None:
        """
        A row passes if DKIM or SPF is aligned (RFC 9989 5.3.5); dispositions that no
        RFC defines are "other".
        """
        passed = rowOutcome("reject", "pass", "fail")
        self.assertEqual((passed.passed, passed.disposition), (True, "reject"))
        failed = rowOutcome("quarantine", "fail", "temperror")
        self.assertEqual((failed.passed, failed.disposition), (False, "quarantine"))
        for text, disposition in (
            ("none", "none"),
            ("pass", "pass"),
            ("", "other"),
            ("x", "other"),
        ):
            self.assertEqual(rowOutcome(text, "", "pass").disposition, disposition)
        self.assertEqual(
            rowOutcome("none", "pass", "pass"), RowOutcome.DKIM | RowOutcome.SPF
        )

    def test_block(self) -> None:
        """
        A block is the same after encoding and decoding.
        """
        row = DMARCRow("192.0.2.1", "192.0.2.0/24", "a.example", 8, b"0" * 16, 3)
        block = RowBlock([row], {b"0" * 16: '{"header_from":"a.example"}'})
        self.assertEqual(RowBlock.decode(block.encode()), block)
