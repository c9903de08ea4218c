"""
Tests for L{moxtls.dns.query}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.query import LookupGenerator, LookupQuestion, parallel, runWithAnswers
from moxtls.dns.types import Answer, LookupStatus, RRType


def naming(*rounds: tuple[str, ...]) -> LookupGenerator[list[str]]:
    """
    Query names round by round, and return the answered ones.
    """
    found: list[str] = []
    for names in rounds:
        answers = yield tuple(LookupQuestion(name, RRType.TXT) for name in names)
        found.extend(answer.name for answer in answers)
    return found


class ParallelTests(SynchronousTestCase):
    """
    Tests for L{parallel}.
    """

    def setUp(self) -> None:
        self.asked: list[str] = []

    def answer(self, question: LookupQuestion) -> Answer:
        self.asked.append(question.name)
        return Answer(question.name, question.kind, LookupStatus.NO_NAME)

    def test_merged(self) -> None:
        """
        Each generator gets its own answers, in its own order, and no question is
        repeated in a round.
        """
        inquiries = [naming(("a", "b"), ("c",)), naming(("b", "a")), naming()]
        found = runWithAnswers(parallel(inquiries), self.answer)
        self.assertEqual(found, (["a", "b", "c"], ["b", "a"], []))
        self.assertEqual(self.asked, ["a", "b", "c"])

    def test_none(self) -> None:
        """
        No generators make no queries.
        """
        nothing: list[LookupGenerator[str]] = []
        self.assertEqual(runWithAnswers(parallel(nothing), self.answer), ())
