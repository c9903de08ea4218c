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

The tree walk: which names are asked, and whose organization is found by it
(RFC 9989 4.10).  No I/O.

Organizational domains by the public suffix list (RFC 7489 3.2).

Only who asks for C{legacy} needs any of this: the list, which comes with the
package publicsuffixlist, is read when it is first looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from moxtls.dmarc.record import (
    DMARCRecordError,
    dmarcRecordName,
    findTags,
    interpret,
    psdTag,
)
from moxtls.dmarc.types import (
    PSD,
    Discovery,
    DiscoveryMethod,
    DMARCPolicy,
    DMARCRecord,
    PolicyStep,
)
from moxtls.dns.query import Answers, LookupGenerator, LookupQuestion, LookupQuestions
from moxtls.dns.types import Answer, LookupStatus, RRType
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain

# --- both ways -------------------------------------------------------------------


def discover(
    author: Domain, suffixes: PublicSuffixes | None = None
) -> LookupGenerator[Discovery]:
    """
    @param suffixes: Makes it what RFC 7489 has.
    """
    if suffixes is not None:
        return (yield from _discoverByList(author, suffixes))
    names = treeWalkNames(author)
    answers = yield recordQuestions(names)
    steps = stepsUntilStop(names, answers)
    found = _discoveryFrom(author, steps)
    own = answers[:1] if len(answers) == len(names) else ()
    if _needsExistence(found, own):
        return (yield from _withExistence(found))
    return found


def organizationalDomain(
    domain: Domain, suffixes: PublicSuffixes | None = None
) -> LookupGenerator[Domain | None]:
    """
    @return: C{None} if it couldn't be looked up.
    """
    if suffixes is not None:
        return suffixes.organizational(domain)
    names = treeWalkNames(domain)
    answers = yield recordQuestions(names)
    return organizationalFrom(domain, stepsUntilStop(names, answers))


def requestedPolicy(discovery: Discovery) -> DMARCPolicy:
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
    if discovery.exists or discovery.method is DiscoveryMethod.PSL:
        return subdomains
    return record.np or subdomains


# --- by the tree walk ------------------------------------------------------------


def _discoveryFrom(author: Domain, steps: WalkSteps) -> Discovery:
    organizational = organizationalSoFar(author, steps)
    found = Discovery(
        author,
        organizational,
        DiscoveryMethod.TREE_WALK,
        steps=tuple(step.policyStep for step in steps),
    )
    # RFC 9989 4.10.1: author, organization, public suffix.
    last = [step.domain for step in steps if step.psd is PSD.YES]
    wanted = dict.fromkeys((author, organizational, *last))
    byName = {step.domain: step for step in steps}
    places = [byName[name] for name in wanted if name in byName]
    return _withFailures(_applied(found, places), steps)


def _applied(found: Discovery, places: Sequence[WalkStep]) -> Discovery:
    """
    @param places: Where the record may be, the best first.
    """
    for step in places:
        if isinstance(step.record, DMARCRecord):
            return replace(found, policyDomain=step.domain, record=step.record)
        if step.record is DMARCRecordError.UNUSABLE:
            problem = f"{step.policyStep.name}: {step.record}"
            return replace(found, unusable=True, problem=problem)
    several = (s for s in places if s.record is DMARCRecordError.SEVERAL)
    problem = "; ".join(f"{s.policyStep.name}: {s.record}" for s in several)
    return replace(found, problem=problem)


def _withFailures(found: Discovery, steps: Sequence[WalkStep]) -> Discovery:
    failed = [step.policyStep for step in steps if step.record is None]
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
    missing = all(a.status is LookupStatus.NO_NAME and not a.chain for a in own)
    return missing and requestedPolicy(found) != requestedPolicy(
        replace(found, exists=False)
    )


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
        or answer.status not in (LookupStatus.NO_NAME, LookupStatus.FAILED)
    ]
    failed = next((answer for answer in answers if answer.failed), None)
    if there or failed is None:
        said = "exists" if there else "doesn't exist"
        step = PolicyStep(found.author.ascii, said)
        found = replace(found, exists=bool(there))
    else:
        step = PolicyStep(found.author.ascii, lookupFailure(failed))
        problem = f"{step.name}: {step.found}"
        found = replace(found, temporary=True, problem=problem)
    return replace(found, steps=(*found.steps, step))


# --- by the public suffix list ---------------------------------------------------


def _discoverByList(
    author: Domain, suffixes: PublicSuffixes
) -> LookupGenerator[Discovery]:
    organizational = suffixes.organizational(author)
    names = tuple(dict.fromkeys((author, organizational)))
    answers = yield recordQuestions(names)
    steps = walkSteps(names, answers, DiscoveryMethod.PSL)
    # RFC 7489 6.6.3 step 3: the second only if there is nothing at the first.
    if steps and steps[0].record is not DMARCRecordError.NONE:
        steps = steps[:1]
    found = Discovery(
        author,
        organizational,
        DiscoveryMethod.PSL,
        steps=tuple(step.policyStep for step in steps),
    )
    return _withFailures(_applied(found, steps), steps)


#: RFC 9989 4.10 step 4: where the walk goes on from a long name.
LABELS_AFTER_JUMP = 7
#: For people; records have room for more than they read.
MAX_FINDING_LENGTH = 500


@dataclass(frozen=True, slots=True)
class WalkStep:
    """
    What was seen at one name.

    @ivar record: As if it applied: C{None} if the look-up failed.
    @ivar psd: Also of a record that can't be used.
    """

    domain: Domain
    record: DMARCRecord | DMARCRecordError | None
    psd: PSD
    policyStep: PolicyStep

    @property
    def counts(self) -> bool:
        """
        Whether there is just one record, of use or not (RFC 9989 4.10 step 2).
        """
        return self.record is DMARCRecordError.UNUSABLE or isinstance(
            self.record, DMARCRecord
        )


WalkSteps = tuple[WalkStep, ...]


def treeWalkNames(start: Domain) -> tuple[Domain, ...]:
    """
    The names of a tree walk, from the longest to the shortest: at most eight
    (RFC 9989 4.10).
    """
    labels = start.ascii.split(".")
    first = min(len(labels) - 1, LABELS_AFTER_JUMP)
    rest = (_shortened(start, count) for count in range(first, 0, -1))
    return (start, *rest)


def recordQuestions(names: Sequence[Domain]) -> LookupQuestions:
    """
    What is asked at the names of a walk.  At a name that becomes too long by
    what is put in front of it there can be nothing; only the first can.
    """
    every = (dmarcRecordName(name) for name in names)
    return tuple(LookupQuestion(name, RRType.TXT) for name in every if _fits(name))


def stepsUntilStop(names: Sequence[Domain], answers: Answers) -> WalkSteps:
    """
    What was found up to where the walk stops.

    @param answers: To L{recordQuestions} of C{names}.
    """
    steps = walkSteps(names, answers)
    stops = (n for n, step in enumerate(steps) if step.psd is not PSD.UNKNOWN)
    return steps[: next(stops, len(steps)) + 1]


def walkSteps(
    names: Sequence[Domain],
    answers: Answers,
    method: DiscoveryMethod = DiscoveryMethod.TREE_WALK,
) -> WalkSteps:
    """
    What was found at each of the names that were asked.
    """
    asked = names[len(names) - len(answers) :]
    pairs = zip(asked, answers, strict=True)
    return tuple(_walkStep(name, answer, method) for name, answer in pairs)


def organizationalFrom(start: Domain, steps: WalkSteps) -> Domain | None:
    """
    RFC 9989 4.10.2.

    @return: C{None} if a look-up failed on which it depends.
    """
    if any(step.record is None for step in steps):
        return None
    return organizationalSoFar(start, steps)


def organizationalSoFar(start: Domain, steps: WalkSteps) -> Domain:
    """
    The same, as if nothing were where a look-up failed.
    """
    counting = [step for step in steps if step.counts]
    for step in counting:
        if step.psd is PSD.NO:
            return step.domain
        if step.psd is PSD.YES and step.domain != start:
            # Of the name that the walk began with, not of the one before,
            # which it may have jumped to.
            return _shortened(start, step.domain.ascii.count(".") + 2)
    return counting[-1].domain if counting else start


def _walkStep(domain: Domain, answer: Answer, method: DiscoveryMethod) -> WalkStep:
    name = dmarcRecordName(domain)
    if answer.failed:
        return WalkStep(
            domain, None, PSD.UNKNOWN, PolicyStep(name, lookupFailure(answer))
        )
    tags = findTags(answer.texts)
    step = PolicyStep(name, _shown(answer.texts))
    if isinstance(tags, DMARCRecordError):
        return WalkStep(domain, tags, PSD.UNKNOWN, step)
    return WalkStep(domain, interpret(tags, method), psdTag(tags), step)


def lookupFailure(answer: Answer) -> str:
    """
    What is said of a look-up that failed.
    """
    return printable(f"could not be looked up: {answer.reason}")


def _shown(texts: Sequence[bytes]) -> str:
    shown = " | ".join(
        text[:MAX_FINDING_LENGTH].decode("ascii", "backslashreplace")
        for text in texts[:9]
    )
    return printable(shown) or "nothing"


def printable(text: str) -> str:
    """
    A stranger's words, as they may be shown: one line, and not long.
    """
    shown = "".join(each if " " <= each <= "~" else "?" for each in text)
    return shown[:MAX_FINDING_LENGTH]


def _shortened(domain: Domain, count: int) -> Domain:
    return Domain(".".join(domain.ascii.split(".")[-count:]))


def _fits(name: str) -> bool:
    return len(name) <= MAX_DOMAIN_LENGTH


#: From a name to the part of it that somebody registered: C{None} for a public
#: suffix.
Registered = Callable[[str], str | None]


class PublicSuffixes:
    """
    Knows where the domains of organizations begin.
    """

    def __init__(self, load: Callable[[], Registered] | None = None) -> None:
        """
        @param load: Reads the list.
        """
        self._load = _packaged if load is None else load
        self._registered: Registered | None = None

    def organizational(self, domain: Domain) -> Domain:
        """
        One label more than the longest public suffix that C{domain} is under;
        for a public suffix, itself.
        """
        if self._registered is None:
            self._registered = self._load()
        found = self._registered(domain.ascii)
        return domain if found is None else Domain(found)


def _packaged() -> Registered:
    # Here, since it reads 300 KB, which hardly anybody needs.
    from publicsuffixlist import PublicSuffixList

    registered: Registered = PublicSuffixList().privatesuffix
    return registered
