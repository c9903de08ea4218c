# -*- test-case-name: tests.dns.test_cname -*-
"""
Determines which steps of a CNAME chain are authentic.  No I/O.

A recursive server sets one AD bit for a whole answer.  Where it isn't set, some
steps may be authentic all the same (RFC 7672 2.2.2 depends on which); a query for
each step tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moxtls.dns.types import Answer, RRType
from moxtls.dns.wire import Question, failedAnswer


def needsSteps(answer: Answer) -> bool:
    """
    True if it takes more queries to know which parts of C{answer} are authentic.
    """
    return bool(answer.chain) and not answer.authentic and not answer.failed


def stepQuestions(answer: Answer) -> tuple[Question, ...]:
    """
    The questions for that: one for each step, and the last for the end of the
    chain.
    """
    aliases = (Question(each.name, RRType.CNAME) for each in answer.chain)
    return (*aliases, Question(answer.canonicalName, answer.kind))


def withStepAuthenticity(whole: Answer, parts: Sequence[Answer]) -> Answer:
    """
    Set C{authentic} for each step.

    @param parts: The answers to C{stepQuestions(whole)}.

    @return: C{whole}, with what is authentic in its place.  It has failed if
        one of C{parts} has: an attacker who suppresses the answer to one
        question must not make that part look unsigned (RFC 7672 2.1.1).
    """
    *aliases, end = parts
    for each in parts:
        if each.failed:
            reason = f"{each.kind} of {each.name}: {each.reason}"
            return failedAnswer(Question(whole.name, whole.kind), reason, each.errors)
    chain = tuple(
        replace(step, authentic=alias.authentic and alias.names == (step.target,))
        for step, alias in zip(whole.chain, aliases, strict=True)
    )
    ttl = min(whole.ttl, *(each.ttl for each in parts))
    if end.chain:
        # The zone has changed meanwhile: an alias where the end was.
        return replace(whole, chain=chain, endAuthentic=False, ttl=ttl)
    return replace(
        whole,
        status=end.status,
        # The records that were validated, not the earlier ones.
        records=end.records,
        chain=chain,
        authentic=end.authentic and all(each.authentic for each in chain),
        endAuthentic=end.authentic,
        ttl=ttl,
    )
