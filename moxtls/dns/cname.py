# -*- test-case-name: tests.dns.test_cname -*-
"""
How far each step of a CNAME chain can be trusted.  No I/O.

A recursive server has one AD bit for a whole answer.  Where it isn't set, some
steps may be authentic all the same (RFC 7672 2.2.2 depends on which), and
asking for each of them alone tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moxtls.dns.types import Answer, RRType
from moxtls.dns.wire import Question, failedAnswer


def needsSteps(answer: Answer) -> bool:
    """
    Whether it takes more questions to know what of C{answer} is authentic.
    """
    return bool(answer.chain) and not answer.authentic and not answer.failed


def stepQuestions(answer: Answer) -> tuple[Question, ...]:
    """
    What to ask then: for each step, and last for the end of the chain.
    """
    aliases = (Question(each.name, RRType.CNAME) for each in answer.chain)
    return (*aliases, Question(answer.canonicalName, answer.kind))


def withStepAuthenticity(whole: Answer, parts: Sequence[Answer]) -> Answer:
    """
    @param parts: The answers to C{steps(whole)}.

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
        # The zone has changed under our hands: an alias where the end was.
        return replace(whole, chain=chain, endAuthentic=False, ttl=ttl)
    return replace(
        whole,
        status=end.status,
        # Those that the word "authentic" is about, not those of before.
        records=end.records,
        chain=chain,
        authentic=end.authentic and all(each.authentic for each in chain),
        endAuthentic=end.authentic,
        ttl=ttl,
    )
