# -*- test-case-name: tests.dmarc.test_walk -*-
"""
The tree walk: which names are asked, and whose organization is found by it
(RFC 9989 4.10).  No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moxtls.dmarc.record import (
    DMARCRecordError,
    dmarcRecordName,
    findTags,
    interpret,
    psdOf,
)
from moxtls.dmarc.values import PSD, DMARCRecord, Method, PolicyStep
from moxtls.dns.answers import Answer, RRType
from moxtls.dns.inquiry import Answers, LookupQuestion, LookupQuestions
from moxtls.domain import MAX_NAME, Domain

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
    step: PolicyStep

    @property
    def counts(self) -> bool:
        """
        Whether there is just one record, of use or not (RFC 9989 4.10 step 2).
        """
        return self.record is DMARCRecordError.UNUSABLE or isinstance(
            self.record, DMARCRecord
        )


WalkSteps = tuple[WalkStep, ...]


def walk(start: Domain) -> tuple[Domain, ...]:
    """
    The names of a tree walk, from the longest to the shortest: at most eight
    (RFC 9989 4.10).
    """
    labels = start.ascii.split(".")
    first = min(len(labels) - 1, LABELS_AFTER_JUMP)
    rest = (_shortened(start, count) for count in range(first, 0, -1))
    return (start, *rest)


def questionsAt(names: Sequence[Domain]) -> LookupQuestions:
    """
    What is asked at the names of a walk.  At a name that becomes too long by
    what is put in front of it there can be nothing; only the first can.
    """
    every = (dmarcRecordName(name) for name in names)
    return tuple(LookupQuestion(name, RRType.TXT) for name in every if _fits(name))


def walkStepsOf(names: Sequence[Domain], answers: Answers) -> WalkSteps:
    """
    What was found up to where the walk stops.

    @param answers: To L{questionsAt} of C{names}.
    """
    sights = walkStepsAt(names, answers)
    stops = (n for n, sight in enumerate(sights) if sight.psd is not PSD.UNKNOWN)
    return sights[: next(stops, len(sights)) + 1]


def walkStepsAt(
    names: Sequence[Domain], answers: Answers, method: Method = Method.TREE_WALK
) -> WalkSteps:
    """
    What was found at each of the names that were asked.
    """
    asked = names[len(names) - len(answers) :]
    pairs = zip(asked, answers, strict=True)
    return tuple(_sight(name, answer, method) for name, answer in pairs)


def organizationalIn(start: Domain, sights: WalkSteps) -> Domain | None:
    """
    RFC 9989 4.10.2.

    @return: C{None} if a look-up failed on which it depends.
    """
    if any(sight.record is None for sight in sights):
        return None
    return organization(start, sights)


def organization(start: Domain, sights: WalkSteps) -> Domain:
    """
    The same, as if nothing were where a look-up failed.
    """
    counting = [sight for sight in sights if sight.counts]
    for sight in counting:
        if sight.psd is PSD.NO:
            return sight.domain
        if sight.psd is PSD.YES and sight.domain != start:
            # Of the name that the walk began with, not of the one before,
            # which it may have jumped to.
            return _shortened(start, sight.domain.ascii.count(".") + 2)
    return counting[-1].domain if counting else start


def _sight(domain: Domain, answer: Answer, method: Method) -> WalkStep:
    name = dmarcRecordName(domain)
    if answer.failed:
        return WalkStep(
            domain, None, PSD.UNKNOWN, PolicyStep(name, walkFailure(answer))
        )
    tags = findTags(answer.texts)
    step = PolicyStep(name, _shown(answer.texts))
    if isinstance(tags, DMARCRecordError):
        return WalkStep(domain, tags, PSD.UNKNOWN, step)
    return WalkStep(domain, interpret(tags, method), psdOf(tags), step)


def walkFailure(answer: Answer) -> str:
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
    return len(name) <= MAX_NAME
