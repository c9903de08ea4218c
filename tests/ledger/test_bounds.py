"""
Tests for L{moxtls.ledger.bounds}.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR
from moxtls.ledger.bounds import (
    MAX_FAILURES,
    MAX_FOLDED,
    bounded,
    boundedEvaluation,
    canFollow,
    clean,
    foldedFailure,
    intervalEnd,
)
from moxtls.reporting.types import ReportState
from moxtls.tlsrpt.types import FailureDetail
from tests.ledger.values import EVALUATION, EXPIRED, MIDNIGHT


class CleanTests(SynchronousTestCase):
    """
    Tests for L{clean}.
    """

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(exclude_categories=())), st.integers(0, 30))
    def test_storable(self, text: str, longest: int) -> None:
        """
        Any text becomes UTF-8 without NUL, of bounded length; repeating that changes
        nothing.
        """
        result = clean(text, longest)
        self.assertNotIn(b"\0", result.encode("utf-8"))
        self.assertEqual(len(result), min(len(text), longest))
        self.assertEqual(clean(result, longest), result)

    def test_plain(self) -> None:
        """
        Text that is fine stays as it is.
        """
        self.assertEqual(clean("gr\xfc\xdfe \U0001f4a9\n"), "gr\xfc\xdfe \U0001f4a9\n")
        self.assertEqual(bounded(EXPIRED), EXPIRED)


class FoldedFailureTests(SynchronousTestCase):
    """
    Tests for L{foldedFailure}.
    """

    def admitted(self, kept: int, *known: FailureDetail) -> FailureDetail:
        return foldedFailure(EXPIRED, kept, known.__contains__)

    def test_few(self) -> None:
        """
        Below the limit each is kept with all that is known.
        """
        self.assertEqual(self.admitted(MAX_FAILURES - 1), EXPIRED)

    def test_known(self) -> None:
        """
        At the limit, those that are kept already go on being counted.
        """
        self.assertEqual(self.admitted(MAX_FOLDED, EXPIRED), EXPIRED)

    def test_many(self) -> None:
        """
        Details of the peer are dropped first, and at last everything but the reason
        code.
        """
        folded = replace(EXPIRED, mxHELO="", sendingIP="", receivingIP="")
        bare = FailureDetail(EXPIRED.resultType, EXPIRED.reasonCode)
        self.assertEqual(self.admitted(MAX_FAILURES), folded)
        self.assertEqual(self.admitted(MAX_FOLDED), bare)
        self.assertEqual(self.admitted(MAX_FOLDED, folded), folded)


class StateOrderTests(SynchronousTestCase):
    """
    The order of the states of reports.
    """

    def test_suppressed(self) -> None:
        """
        A queued report can't be suppressed, nor a suppressed one handed over.
        """
        self.assertTrue(canFollow(ReportState.COMPOSED, ReportState.SUPPRESSED))
        self.assertFalse(canFollow(ReportState.QUEUED, ReportState.SUPPRESSED))
        self.assertFalse(canFollow(ReportState.SUPPRESSED, ReportState.HANDING))

    def test_noWayBack(self) -> None:
        """
        No two states can follow each other in both directions.
        """
        for old in ReportState:
            for new in ReportState:
                if old is not new:
                    self.assertFalse(canFollow(old, new) and canFollow(new, old))


class EvaluationTests(SynchronousTestCase):
    """
    Evaluations, made fit to be stored, and when they are due.
    """

    def test_plain(self) -> None:
        """
        An evaluation that is fine stays as it is.
        """
        self.assertEqual(boundedEvaluation(EVALUATION), EVALUATION)

    def test_numbers(self) -> None:
        """
        An interval is of an hour at least and of a day at most, a percentage
        is one, and there are few options.
        """
        odd = replace(EVALUATION.published, percent=-5, fo=("0",) * 99)
        kept = boundedEvaluation(replace(EVALUATION, published=odd, hours=0))
        self.assertEqual((kept.hours, kept.published.percent), (1, 0))
        self.assertEqual(len(kept.published.fo), 10)
        self.assertEqual(boundedEvaluation(replace(EVALUATION, hours=99)).hours, 24)

    def test_dueBefore(self) -> None:
        """
        Intervals are counted from midnight, UTC.
        """
        for hours in (1, 2, 3, 4, 6, 8, 12, 24):
            self.assertEqual(intervalEnd(MIDNIGHT, hours), MIDNIGHT)
            self.assertEqual(
                intervalEnd(MIDNIGHT + DAY - 1, hours), MIDNIGHT + DAY - hours * HOUR
            )
