# -*- test-case-name: tests.dmarc.test_discovery -*-
"""
Which DMARC record applies to an author domain, and which domain is the
organization's (RFC 9989 4.10; RFC 7489 3.2, 6.6.3 with a public suffix list).
No I/O.

All names of a tree walk are asked at once, in place of one after the other:
there are eight at most, mostly three, of which those at the top are in every
cache; so a walk takes as long as its slowest answer.  Most of them would be
asked anyway, as who signs with a subdomain is aligned only if the walk goes to
its end.  What is behind the name where RFC 9989 4.10 has the walk stop is
thrown away unread, so that it decides nothing, also if it failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moxtls.dmarc.record import DMARCRecordError
from moxtls.dmarc.suffixes import Suffixes
from moxtls.dmarc.values import (
    PSD,
    Discovery,
    DMARCPolicy,
    DMARCRecord,
    Method,
    PolicyStep,
)
from moxtls.dmarc.walk import (
    MAX_FINDING_LENGTH,
    WalkStep,
    WalkSteps,
    organization,
    organizationalIn,
    questionsAt,
    walk,
    walkFailure,
    walkStepsAt,
    walkStepsOf,
)
from moxtls.dns.answers import LookupStatus, RRType
from moxtls.dns.inquiry import Answers, LookupGenerator, LookupQuestion
from moxtls.domain import Domain

# --- both ways -------------------------------------------------------------------


def discover(
    author: Domain, suffixes: Suffixes | None = None
) -> LookupGenerator[Discovery]:
    """
    @param suffixes: Makes it what RFC 7489 has.
    """
    if suffixes is not None:
        return (yield from _discoverByList(author, suffixes))
    names = walk(author)
    answers = yield questionsAt(names)
    sights = walkStepsOf(names, answers)
    found = _discovered(author, sights)
    own = answers[:1] if len(answers) == len(names) else ()
    if _needsExistence(found, own):
        return (yield from _withExistence(found))
    return found


def organizationalDomain(
    domain: Domain, suffixes: Suffixes | None = None
) -> LookupGenerator[Domain | None]:
    """
    @return: C{None} if it couldn't be looked up.
    """
    if suffixes is not None:
        return suffixes.organizational(domain)
    names = walk(domain)
    answers = yield questionsAt(names)
    return organizationalIn(domain, walkStepsOf(names, answers))


def requested(discovery: Discovery) -> DMARCPolicy:
    """
    What is asked for, for mail of the author that fails (RFC 9989 4.10.1;
    RFC 7489 6.3, which has no C{np}).
    """
    record = discovery.record
    if record is None:
        return DMARCPolicy.NONE
    if discovery.policyDomain == discovery.author:
        return record.p
    subdomains = record.sp or record.p
    if discovery.exists or discovery.method is Method.PSL:
        return subdomains
    return record.np or subdomains


# --- by the tree walk ------------------------------------------------------------


def _discovered(author: Domain, sights: WalkSteps) -> Discovery:
    organizational = organization(author, sights)
    found = Discovery(
        author,
        organizational,
        Method.TREE_WALK,
        steps=tuple(sight.step for sight in sights),
    )
    # RFC 9989 4.10.1: author, organization, public suffix.
    last = [sight.domain for sight in sights if sight.psd is PSD.YES]
    wanted = dict.fromkeys((author, organizational, *last))
    byName = {sight.domain: sight for sight in sights}
    places = [byName[name] for name in wanted if name in byName]
    return _troubled(_applied(found, places), sights)


def _applied(found: Discovery, places: Sequence[WalkStep]) -> Discovery:
    """
    @param places: Where the record may be, the best first.
    """
    for sight in places:
        if isinstance(sight.record, DMARCRecord):
            return replace(found, policyDomain=sight.domain, record=sight.record)
        if sight.record is DMARCRecordError.UNUSABLE:
            problem = f"{sight.step.name}: {sight.record}"
            return replace(found, unusable=True, problem=problem)
    several = (s for s in places if s.record is DMARCRecordError.SEVERAL)
    problem = "; ".join(f"{s.step.name}: {s.record}" for s in several)
    return replace(found, problem=problem)


def _troubled(found: Discovery, sights: Sequence[WalkStep]) -> Discovery:
    failed = [sight.step for sight in sights if sight.record is None]
    if not failed:
        return found
    problem = "; ".join(f"{step.name}: {step.found}" for step in failed)
    return replace(found, temporary=True, problem=problem[:MAX_FINDING_LENGTH])


# --- whether the author domain exists -----------------------------------------------


def _needsExistence(found: Discovery, own: Answers) -> bool:
    """
    Whether what is asked for depends on it, and isn't known from the answer
    for the author domain's own record: a name that has another below it
    exists (RFC 8020 2).
    """
    if found.record is None or found.temporary:
        return False
    missing = all(a.found is LookupStatus.NO_NAME and not a.chain for a in own)
    return missing and requested(found) != requested(replace(found, exists=False))


def _withExistence(found: Discovery) -> LookupGenerator[Discovery]:
    """
    RFC 9989 3.2.13.  Any one answer would do; since there are servers that
    deny names which have other types of record, three have to agree.
    """
    kinds = (RRType.A, RRType.AAAA, RRType.MX)
    answers = yield tuple(LookupQuestion(found.author.ascii, kind) for kind in kinds)
    # With a chain, it is the target that isn't there.
    there = [
        answer
        for answer in answers
        if answer.chain
        or answer.found not in (LookupStatus.NO_NAME, LookupStatus.FAILED)
    ]
    failed = next((answer for answer in answers if answer.failed), None)
    if there or failed is None:
        said = "exists" if there else "doesn't exist"
        step = PolicyStep(found.author.ascii, said)
        found = replace(found, exists=bool(there))
    else:
        step = PolicyStep(found.author.ascii, walkFailure(failed))
        problem = f"{step.name}: {step.found}"
        found = replace(found, temporary=True, problem=problem)
    return replace(found, steps=(*found.steps, step))


# --- by the public suffix list ---------------------------------------------------


def _discoverByList(author: Domain, suffixes: Suffixes) -> LookupGenerator[Discovery]:
    organizational = suffixes.organizational(author)
    names = tuple(dict.fromkeys((author, organizational)))
    answers = yield questionsAt(names)
    sights = walkStepsAt(names, answers, Method.PSL)
    # RFC 7489 6.6.3 step 3: the second only if there is nothing at the first.
    if sights and sights[0].record is not DMARCRecordError.NONE:
        sights = sights[:1]
    steps = tuple(sight.step for sight in sights)
    found = Discovery(author, organizational, Method.PSL, steps=steps)
    return _troubled(_applied(found, sights), sights)
