# -*- test-case-name: tests.dmarc.test_walk -*-
"""
The tree walk: which names are asked, and whose organization is found by it
(RFC 9989 4.10).  No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moxtls.dmarc.record import (
    RecordTrouble,
    findTags,
    interpret,
    psdOf,
    recordName,
)
from moxtls.dmarc.values import PSD, DMARCRecord, Method, Step
from moxtls.dns.answers import Answer, Kind
from moxtls.dns.inquiry import Answers, Question, Questions
from moxtls.domain import LONGEST_NAME, Domain

#: RFC 9989 4.10 step 4: where the walk goes on from a long name.
LABELS_AFTER_JUMP = 7
#: For people; records have room for more than they read.
LONGEST_FINDING = 500


@dataclass(frozen=True, slots=True)
class Sight:
    """
    What was seen at one name.

    @ivar record: As if it applied: C{None} if the look-up failed.
    @ivar psd: Also of a record that can't be used.
    """

    domain: Domain
    record: DMARCRecord | RecordTrouble | None
    psd: PSD
    step: Step

    @property
    def counts(self) -> bool:
        """
        Whether there is just one record, of use or not (RFC 9989 4.10 step 2).
        """
        return self.record is RecordTrouble.UNUSABLE or isinstance(
            self.record, DMARCRecord
        )


Sights = tuple[Sight, ...]


def walk(start: Domain) -> tuple[Domain, ...]:
    """
    The names of a tree walk, from the longest to the shortest: at most eight
    (RFC 9989 4.10).
    """
    labels = start.ascii.split(".")
    first = min(len(labels) - 1, LABELS_AFTER_JUMP)
    rest = (_shortened(start, count) for count in range(first, 0, -1))
    return (start, *rest)


def questionsAt(names: Sequence[Domain]) -> Questions:
    """
    What is asked at the names of a walk.  At a name that becomes too long by
    what is put in front of it there can be nothing; only the first can.
    """
    every = (recordName(name) for name in names)
    return tuple(Question(name, Kind.TXT) for name in every if _fits(name))


def sightsOf(names: Sequence[Domain], answers: Answers) -> Sights:
    """
    What was found up to where the walk stops.

    @param answers: To L{questionsAt} of C{names}.
    """
    sights = sightsAt(names, answers)
    stops = (n for n, sight in enumerate(sights) if sight.psd is not PSD.UNKNOWN)
    return sights[: next(stops, len(sights)) + 1]


def sightsAt(
    names: Sequence[Domain], answers: Answers, method: Method = Method.TREE_WALK
) -> Sights:
    """
    What was found at each of the names that were asked.
    """
    asked = names[len(names) - len(answers) :]
    pairs = zip(asked, answers, strict=True)
    return tuple(_sight(name, answer, method) for name, answer in pairs)


def organizationalIn(start: Domain, sights: Sights) -> Domain | None:
    """
    RFC 9989 4.10.2.

    @return: C{None} if a look-up failed on which it depends.
    """
    if any(sight.record is None for sight in sights):
        return None
    return organization(start, sights)


def organization(start: Domain, sights: Sights) -> Domain:
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


def _sight(domain: Domain, answer: Answer, method: Method) -> Sight:
    name = recordName(domain)
    if answer.failed:
        return Sight(domain, None, PSD.UNKNOWN, Step(name, failure(answer)))
    tags = findTags(answer.texts)
    step = Step(name, _shown(answer.texts))
    if isinstance(tags, RecordTrouble):
        return Sight(domain, tags, PSD.UNKNOWN, step)
    return Sight(domain, interpret(tags, method), psdOf(tags), step)


def failure(answer: Answer) -> str:
    """
    What is said of a look-up that failed.
    """
    return printable(f"could not be looked up: {answer.reason}")


def _shown(texts: Sequence[bytes]) -> str:
    shown = " | ".join(
        text[:LONGEST_FINDING].decode("ascii", "backslashreplace") for text in texts[:9]
    )
    return printable(shown) or "nothing"


def printable(text: str) -> str:
    """
    A stranger's words, as they may be shown: one line, and not long.
    """
    shown = "".join(each if " " <= each <= "~" else "?" for each in text)
    return shown[:LONGEST_FINDING]


def _shortened(domain: Domain, count: int) -> Domain:
    return Domain(".".join(domain.ascii.split(".")[-count:]))


def _fits(name: str) -> bool:
    return len(name) <= LONGEST_NAME
