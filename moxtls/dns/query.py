# -*- test-case-name: tests.dns.test_inquiry -*-
"""
Decisions that need the DNS on their way, apart from the asking.  No I/O.

An L{LookupGenerator} is a generator that yields questions, all that can be asked at
the same time at once, is sent the answers in the same order, and returns what
it found.  L{moxtls.tasks.resolve} asks for real.

Several inquiries as one, whose questions are asked side by side.  No I/O.
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
    @ivar name: As in L{moxtls.interfaces.IResolver.lookup}.
    """

    name: str
    kind: RRType


LookupQuestions = tuple[LookupQuestion, ...]
Answers = tuple[Answer, ...]
LookupGenerator = Generator[LookupQuestions, Answers, T]


def runWithAnswers(
    inquiry: LookupGenerator[T], answer: Callable[[LookupQuestion], Answer]
) -> T:
    """
    What an inquiry comes to where every answer is known: for tests, and what
    is looked up beforehand.
    """
    try:
        questions = next(inquiry)
        while True:
            questions = inquiry.send(tuple(map(answer, questions)))
    except StopIteration as end:
        found: T = end.value
        return found


def parallel(inquiries: Sequence[LookupGenerator[T]]) -> LookupGenerator[tuple[T, ...]]:
    """
    What all of C{inquiries} find, in order.

    There are as many rounds as the longest of them has.  What more than one
    wants to know in a round is asked once.
    """
    found: dict[int, T] = {}
    waiting: dict[int, LookupQuestions] = {}

    def advance(place: int, answers: Answers | None) -> None:
        try:
            if answers is None:
                waiting[place] = next(inquiries[place])
            else:
                waiting[place] = inquiries[place].send(answers)
        except StopIteration as end:
            waiting.pop(place, None)
            found[place] = end.value

    for place in range(len(inquiries)):
        advance(place, None)
    while waiting:
        known = yield from _ask(tuple(waiting.values()))
        for place, questions in tuple(waiting.items()):
            advance(place, tuple(known[each] for each in questions))
    return tuple(found[place] for place in range(len(inquiries)))


def _ask(
    wanted: Sequence[LookupQuestions],
) -> LookupGenerator[dict[LookupQuestion, Answer]]:
    distinct = tuple(dict.fromkeys(each for questions in wanted for each in questions))
    answers = yield distinct
    return dict(zip(distinct, answers, strict=True))
