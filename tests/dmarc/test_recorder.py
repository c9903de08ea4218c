"""
Tests for L{moxtls.dmarc.recorder}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dmarc.evaluations import evaluationOf
from moxtls.dmarc.recorder import EvaluationRecorder
from moxtls.dmarc.values import Evaluation, Fate
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, IVerdictObserver
from tests.dmarc.test_evaluations import GOOD

HOUR = 1_795_000_000 // 3600 * 3600


class Recording:
    """
    What of L{IEvaluationStore} is used here.
    """

    def __init__(self) -> None:
        self.recorded: list[tuple[int, Evaluation]] = []

    def record(self, hour: int, evaluation: Evaluation) -> Deferred[None]:
        self.recorded.append((hour, evaluation))
        return succeed(None)


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
            self.store.recorded, [(HOUR, evaluation), (HOUR + 3600, evaluation)]
        )

    def test_nothing(self) -> None:
        """
        Nothing is recorded where that is switched off, for all or for mail to
        a domain, or where there is nothing to report.
        """
        silent = frozenset({Domain.parse("bücher.example")})
        for recorder, judgement in [
            (self.recorder(enabled=False), GOOD),
            (self.recorder(silent=silent), GOOD),
            (self.recorder(), replace(GOOD, fate=Fate.REJECTED)),
        ]:
            self.successResultOf(recorder.verdictGiven(judgement))
        self.assertEqual(self.store.recorded, [])
