# -*- test-case-name: tests.dns.test_query -*-
"""
Generators for decisions that depend on DNS answers, without I/O.

A L{LookupGenerator} yields the questions that can be asked at the same time, is
sent the answers in the same order, and returns its result.
L{moxtls.tasks.resolve} runs one with a resolver, L{parallel} combines several.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from moxtls.dns.types import Answer, RRType

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LookupQuestion:
    """
    A question for a resolver.

    @ivar name: As in L{moxtls.interfaces.IResolver.lookup}.
    """

    name: str
    kind: RRType


LookupQuestions = tuple[LookupQuestion, ...]
Answers = tuple[Answer, ...]
LookupGenerator = Generator[LookupQuestions, Answers, T]


def runWithAnswers(
    generator: LookupGenerator[T], answer: Callable[[LookupQuestion], Answer]
) -> T:
    """
    The result of a generator with known answers: for tests, and for answers that
    were looked up before.
    """
    try:
        questions = next(generator)
        while True:
            questions = generator.send(tuple(map(answer, questions)))
    except StopIteration as end:
        found: T = end.value
        return found


def parallel(
    generators: Sequence[LookupGenerator[T]],
) -> LookupGenerator[tuple[T, ...]]:
    """
    Run generators side by side.

    There are as many rounds of questions as the longest generator has.  A question
    of several generators in the same round is asked once.

    @return: The results, in order.
    """
    results: dict[int, T] = {}
    waiting: dict[int, LookupQuestions] = {}

    def advance(index: int, answers: Answers | None) -> None:
        try:
            if answers is None:
                waiting[index] = next(generators[index])
            else:
                waiting[index] = generators[index].send(answers)
        except StopIteration as end:
            waiting.pop(index, None)
            results[index] = end.value

    for index in range(len(generators)):
        advance(index, None)
    while waiting:
        known = yield from _ask(tuple(waiting.values()))
        for index, questions in tuple(waiting.items()):
            advance(index, tuple(known[each] for each in questions))
    return tuple(results[index] for index in range(len(generators)))


def _ask(
    wanted: Sequence[LookupQuestions],
) -> LookupGenerator[dict[LookupQuestion, Answer]]:
    distinct = tuple(dict.fromkeys(each for questions in wanted for each in questions))
    answers = yield distinct
    return dict(zip(distinct, answers, strict=True))
