# -*- test-case-name: tests.store.test_tallies -*-
"""
Evaluations added up, into the rows that they add to.  No I/O.

The key of a row is put together from fixed parts: where it belongs, what is
reported, the hour, and flags.  So one index has the rows of a report side by
side, in the order in which they are reported, and those of all hours that
add up to one next to each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from moxtls.calendar import HOUR
from moxtls.dmarc.values import Disposition, Evaluation
from moxtls.store.encoding import (
    encodePolicy,
    encodeRow,
    encodeTexts,
    partOf,
    rowKey,
)
from moxtls.store.rules import boundedEvaluation
from moxtls.store.sums import DIGEST_SIZE, digest

#: Octets of the digest of a policy domain and part.
PLACE_SIZE = 16
ROW_END = PLACE_SIZE + DIGEST_SIZE
#: Octets for the number of an hour, and for flags.
_HOUR_SIZE = 4
#: Behind everything that starts with what it is put behind.
_LAST = b"\xff" * (DIGEST_SIZE + _HOUR_SIZE + 2)
#: Bits of C{dispositions}.
BITS = {each: 1 << place for place, each in enumerate(Disposition)}

#: A second in the hour in which they were made, an evaluation, how many.
Counted = tuple[int, Evaluation, int]


@dataclass(slots=True)
class RowDelta:
    """
    What is to be added to one row.

    @ivar addresses: A JSON list.
    @ivar content: L{moxtls.store.encoding.encodeRow}.
    """

    key: bytes
    hour: int
    optional: bool
    wanted: bool
    disposition: Disposition
    addresses: str
    content: str
    messages: int = 0


@dataclass(slots=True)
class EvaluationDelta:
    """
    What is to be added for one policy and hour.

    @ivar rows: By their keys.
    @ivar kept: How many of C{rows} there weren't before.
    @ivar omitted: Messages for which there was no room.
    """

    domain: str
    part: str
    hour: int
    hours: int
    published: str
    rows: dict[bytes, RowDelta] = field(default_factory=dict)
    kept: int = 0
    omitted: int = 0

    @property
    def messages(self) -> int:
        return sum(row.messages for row in self.rows.values())

    @property
    def wanted(self) -> int:
        return sum(row.messages for row in self.rows.values() if row.wanted)

    @property
    def sendable(self) -> bool:
        return not all(row.optional for row in self.rows.values())

    @property
    def dispositions(self) -> int:
        bits = 0
        for row in self.rows.values():
            bits |= BITS[row.disposition]
        return bits

    def omit(self, key: bytes) -> None:
        """
        Count a row's messages, and nothing else of them.
        """
        self.omitted += self.rows.pop(key).messages


def addEvaluations(items: Iterable[Counted]) -> list[EvaluationDelta]:
    """
    The sums of evaluations, by policy domain, part and hour: nodes that lock
    rows in the same order can't wait for each other in a circle.
    """
    sums: dict[tuple[str, str, int], EvaluationDelta] = {}
    for moment, evaluation, count in items:
        _add(sums, moment - moment % HOUR, boundedEvaluation(evaluation), count)
    return [sums[place] for place in sorted(sums)]


def _add(
    sums: dict[tuple[str, str, int], EvaluationDelta],
    hour: int,
    evaluation: Evaluation,
    count: int,
) -> None:
    published, hours = encodePolicy(evaluation.published), evaluation.hours
    domain, part = evaluation.published.domain.ascii, partOf(published, hours)
    place = domain, part, hour
    tally = sums.get(place)
    if tally is None:
        tally = sums[place] = EvaluationDelta(domain, part, hour, hours, published)
    content = encodeRow(evaluation.row)
    flags = evaluation.optional | evaluation.wanted << 1
    key = b"".join(
        (
            placeOf(domain, part),
            rowKey(content),
            (hour // HOUR).to_bytes(_HOUR_SIZE),
            flags.to_bytes(),
        )
    )
    row = tally.rows.get(key)
    if row is None:
        row = tally.rows[key] = RowDelta(
            key,
            hour,
            evaluation.optional,
            evaluation.wanted,
            evaluation.row.disposition,
            "",
            content,
        )
    row.addresses = encodeTexts(evaluation.addresses)
    row.messages += count


def placeOf(domain: str, part: str) -> bytes:
    """
    What the keys of all rows about a policy of a domain begin with.
    """
    return digest(domain, part)[:PLACE_SIZE]


def rowOf(key: bytes) -> bytes:
    """
    The part of a key that stands for what is reported.
    """
    return key[PLACE_SIZE:ROW_END]


def keysBehind(place: bytes, row: bytes = b"") -> bytes:
    """
    A key behind which all those are that come after C{row}, or, without one,
    all that begin with C{place}.
    """
    return place + row + _LAST if row else place


def endOf(place: bytes) -> bytes:
    """
    A key behind all those that begin with C{place}.
    """
    return place + _LAST
