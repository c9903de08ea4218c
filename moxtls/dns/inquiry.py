# -*- test-case-name: tests.dns.test_inquiry -*-
"""
Decisions that need the DNS on their way, apart from the asking.  No I/O.

An L{LookupGenerator} is a generator that yields questions, all that can be asked at
the same time at once, is sent the answers in the same order, and returns what
it found.  L{moxtls.dns.together.conduct} asks for real.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from moxtls.dns.answers import Answer, RRType

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
