# -*- test-case-name: tests.dns.test_abreast -*-
"""
Several inquiries as one, whose questions are asked side by side.  No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from moxtls.dns.answers import Answer
from moxtls.dns.inquiry import Answers, LookupGenerator, LookupQuestion, LookupQuestions

T = TypeVar("T")


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
