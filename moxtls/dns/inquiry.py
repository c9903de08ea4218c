# -*- test-case-name: tests.dns.test_inquiry -*-
"""
Decisions that need the DNS on their way, apart from the asking.  No I/O.

An L{Inquiry} is a generator that yields questions, all that can be asked at
the same time at once, is sent the answers in the same order, and returns what
it found.  L{moxtls.dns.together.conduct} asks for real.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from moxtls.dns.answers import Answer, Kind

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """
    @ivar name: As in L{moxtls.interfaces.IResolver.lookup}.
    """

    name: str
    kind: Kind


Questions = tuple[Question, ...]
Answers = tuple[Answer, ...]
Inquiry = Generator[Questions, Answers, T]


def answered(inquiry: Inquiry[T], answer: Callable[[Question], Answer]) -> T:
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
