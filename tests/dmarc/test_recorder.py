"""
Tests for L{moxtls.dmarc.evaluation}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dmarc.evaluation import PAUSE, EvaluationRecorder, evaluationOf
from moxtls.dmarc.types import Evaluation, FinalDisposition
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, IVerdictObserver
from tests.dmarc.test_evaluations import GOOD

HOUR = 1_795_000_000 // 3600 * 3600


class Recording:
    """
    What of L{IEvaluationStore} is used here.
    """

    def __init__(self) -> None:
        self.recorded: list[tuple[int, Evaluation, int]] = []
        self.answers: list[Deferred[None]] = []

    def record(
        self, hour: int, evaluation: Evaluation, count: int = 1
    ) -> Deferred[None]:
        self.recorded.append((hour, evaluation, count))
        return self.answers.pop(0) if self.answers else succeed(None)


class EvaluationRecorderTests(SynchronousTestCase):
    """
    Tests for L{EvaluationRecorder}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(HOUR + 3599.9)
        self.store = Recording()

    def recorder(
        self, enabled: bool = True, silent: frozenset[Domain] = frozenset()
    ) -> EvaluationRecorder:
        store = cast(IEvaluationStore, self.store)
        return EvaluationRecorder(self.clock, store, enabled, silent)

    def test_hour(self) -> None:
        """
        It counts for the UTC hour in which it is made.
        """
        recorder = self.recorder()
        verifyObject(IVerdictObserver, recorder)
        for _ in range(2):
            self.successResultOf(recorder.verdictGiven(GOOD))
            self.clock.advance(0.1)
        evaluation = evaluationOf(GOOD)
        self.assertEqual(
            self.store.recorded, [(HOUR, evaluation, 1), (HOUR + 3600, evaluation, 1)]
        )

    def test_gathered(self) -> None:
        """
        What comes soon after another is written together, equal ones as one;
        each is told when that is done, or that it can't be.
        """
        recorder = self.recorder()
        other = replace(GOOD, sender="other@elsewhere.example")
        self.successResultOf(recorder.verdictGiven(GOOD))
        waiting = [recorder.verdictGiven(each) for each in (GOOD, other, GOOD)]
        self.assertEqual(len(self.store.recorded), 1)
        written: Deferred[None] = Deferred()
        self.store.answers = [written, fail(OSError())]
        self.clock.advance(PAUSE)
        counts = [(evaluationOf(GOOD), 2), (evaluationOf(other), 1)]
        self.assertEqual([each[1:] for each in self.store.recorded[1:]], counts)
        self.assertNoResult(waiting[0])
        written.callback(None)
        for each in (waiting[0], waiting[2]):
            self.successResultOf(each)
        self.failureResultOf(waiting[1], OSError)

    def test_flush(self) -> None:
        """
        At the end nothing waits for its time, and nothing is left.
        """
        recorder = self.recorder()
        recorder.flush()
        told = [recorder.verdictGiven(GOOD) for _ in range(3)]
        recorder.flush()
        self.assertEqual([each[2] for each in self.store.recorded], [1, 2])
        for each in told:
            self.successResultOf(each)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing(self) -> None:
        """
        Nothing is recorded where that is switched off, for all or for mail to
        a domain, or where there is nothing to report.
        """
        silent = frozenset({Domain.parse("bücher.example")})
        for recorder, judgement in [
            (self.recorder(enabled=False), GOOD),
            (self.recorder(silent=silent), GOOD),
            (self.recorder(), replace(GOOD, fate=FinalDisposition.REJECTED)),
        ]:
            self.successResultOf(recorder.verdictGiven(judgement))
        self.assertEqual(self.store.recorded, [])
