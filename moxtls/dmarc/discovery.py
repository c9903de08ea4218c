# -*- test-case-name: tests.dmarc.test_discovery -*-
"""
Discovery of DMARC records and organizational domains, by the DNS tree walk (RFC 9989
4.10) or with a public suffix list (RFC 7489 3.2, 6.6.3).

All names of a tree walk are looked up in parallel, so that a walk takes as long as its
slowest lookup.  There are at most eight names, mostly three, and those at the top are
in every cache.  Most of them are needed anyway, since the alignment of a signature by
a subdomain is only known at the end of the walk.  Answers for names beyond the one
where RFC 9989 4.10 stops the walk are ignored, failures included.

The public suffix list is only needed with the setting C{legacy}.  It comes with the
package publicsuffixlist, and is loaded at its first use.
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
from moxtls.dns.types import (
    Answer,
    Answers,
    LookupGenerator,
    LookupQuestion,
    LookupQuestions,
    LookupStatus,
    RRType,
)
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain

#: RFC 9989 4.10 step 4: the number of labels with which the walk of a long name
#: continues.
LABELS_AFTER_JUMP = 7
#: Characters of displayed text.
MAX_FINDING_LENGTH = 500
#: Returns the registered domain of a name: the public suffix and one label; C{None}
#: for a public suffix.
Registered = Callable[[str], str | None]


# --- both methods -------------------------------------------------------------------


def discover(
    author: Domain, suffixes: PublicSuffixes | None = None
) -> LookupGenerator[Discovery]:
    """
    Find the DMARC record that applies to an author domain.

    @param suffixes: If given, as in RFC 7489.
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
    Find the organizational domain of a domain.

    @param suffixes: If given, as in RFC 7489.

    @return: C{None} if a lookup failed.
    """
    if suffixes is not None:
        return suffixes.organizational(domain)
    names = treeWalkNames(domain)
    answers = yield recordQuestions(names)
    return organizationalFrom(domain, stepsUntilStop(names, answers))


def requestedPolicy(discovery: Discovery) -> DMARCPolicy:
    """
    The policy requested for mail of the author domain that fails (RFC 9989 4.10.1;
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
    candidates = [byName[name] for name in wanted if name in byName]
    return _withFailures(_applied(found, candidates), steps)


def _applied(found: Discovery, candidates: Sequence[WalkStep]) -> Discovery:
    """
    @param candidates: Steps whose record may apply, in order of preference.
    """
    for step in candidates:
        if isinstance(step.record, DMARCRecord):
            return replace(found, policyDomain=step.domain, record=step.record)
        if step.record is DMARCRecordError.UNUSABLE:
            problem = f"{step.policyStep.name}: {step.record}"
            return replace(found, unusable=True, problem=problem)
    several = (s for s in candidates if s.record is DMARCRecordError.SEVERAL)
    problem = "; ".join(f"{s.policyStep.name}: {s.record}" for s in several)
    return replace(found, problem=problem)


def _withFailures(found: Discovery, steps: Sequence[WalkStep]) -> Discovery:
    failed = [step.policyStep for step in steps if step.record is None]
    if not failed:
        return found
    problem = "; ".join(f"{step.name}: {step.found}" for step in failed)
    return replace(found, temporary=True, problem=problem[:MAX_FINDING_LENGTH])


# --- existence of the author domain -----------------------------------------------


def _needsExistence(found: Discovery, own: Answers) -> bool:
    """
    True if the requested policy depends on the existence of the author domain, and
    that isn't known from the answer for its own record: a name with a name below it
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
    Look up whether the author domain exists (RFC 9989 3.2.13).  One answer would
    suffice; but some name servers deny names that have records of other types, so
    three have to agree.
    """
    kinds = (RRType.A, RRType.AAAA, RRType.MX)
    answers = yield tuple(LookupQuestion(found.author.ascii, kind) for kind in kinds)
    # With a CNAME, the author domain exists though the target may not.
    there = [
        answer
        for answer in answers
        if answer.chain
        or answer.status not in (LookupStatus.NO_NAME, LookupStatus.FAILED)
    ]
    failed = next((answer for answer in answers if answer.failed), None)
    if there or failed is None:
        state = "exists" if there else "doesn't exist"
        step = PolicyStep(found.author.ascii, state)
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
    # RFC 7489 6.6.3 step 3: the second only if there is no record at the first.
    if steps and steps[0].record is not DMARCRecordError.NONE:
        steps = steps[:1]
    found = Discovery(
        author,
        organizational,
        DiscoveryMethod.PSL,
        steps=tuple(step.policyStep for step in steps),
    )
    return _withFailures(_applied(found, steps), steps)


@dataclass(frozen=True, slots=True)
class WalkStep:
    """
    The result of a tree walk at one name.

    @ivar record: As if it applied; C{None} if the lookup failed.
    @ivar psd: Also from a record without a valid policy.
    """

    domain: Domain
    record: DMARCRecord | DMARCRecordError | None
    psd: PSD
    policyStep: PolicyStep

    @property
    def counts(self) -> bool:
        """
        True if there is exactly one record, with a valid policy or not (RFC 9989
        4.10 step 2).
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
    The questions for the records of C{names}.  A name that is too long with the
    prefix C{_dmarc} has no record; that can only be the first one.
    """
    every = (dmarcRecordName(name) for name in names)
    return tuple(LookupQuestion(name, RRType.TXT) for name in every if _fits(name))


def stepsUntilStop(names: Sequence[Domain], answers: Answers) -> WalkSteps:
    """
    The steps of a walk until it stops.

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
    The steps of a walk at all names that were looked up.
    """
    lookedUp = names[len(names) - len(answers) :]
    pairs = zip(lookedUp, answers, strict=True)
    return tuple(_walkStep(name, answer, method) for name, answer in pairs)


def organizationalFrom(start: Domain, steps: WalkSteps) -> Domain | None:
    """
    The organizational domain (RFC 9989 4.10.2).

    @return: C{None} if it depends on a lookup that failed.
    """
    if any(step.record is None for step in steps):
        return None
    return organizationalSoFar(start, steps)


def organizationalSoFar(start: Domain, steps: WalkSteps) -> Domain:
    """
    The organizational domain, as if there were no record where a lookup failed.
    """
    counting = [step for step in steps if step.counts]
    for step in counting:
        if step.psd is PSD.NO:
            return step.domain
        if step.psd is PSD.YES and step.domain != start:
            # One label more than the public suffix, taken from the start: the name
            # before this step may be one that the walk jumped to.
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
    Text about a lookup that failed.
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
    Untrusted text made safe to display: one line of printable ASCII, at most
    L{MAX_FINDING_LENGTH} characters.
    """
    shown = "".join(each if " " <= each <= "~" else "?" for each in text)
    return shown[:MAX_FINDING_LENGTH]


def _shortened(domain: Domain, count: int) -> Domain:
    return Domain(".".join(domain.ascii.split(".")[-count:]))


def _fits(name: str) -> bool:
    return len(name) <= MAX_DOMAIN_LENGTH


class PublicSuffixes:
    """
    A public suffix list.
    """

    def __init__(self, load: Callable[[], Registered] | None = None) -> None:
        """
        @param load: Loads the list.
        """
        self._load = _packaged if load is None else load
        self._registered: Registered | None = None

    def organizational(self, domain: Domain) -> Domain:
        """
        The organizational domain: one label more than the longest public suffix of
        C{domain}; a public suffix itself.
        """
        if self._registered is None:
            self._registered = self._load()
        found = self._registered(domain.ascii)
        return domain if found is None else Domain(found)


def _packaged() -> Registered:
    # Imported late, since it reads 300 KB that are seldom needed.
    from publicsuffixlist import PublicSuffixList

    registered: Registered = PublicSuffixList().privatesuffix
    return registered
