# -*- test-case-name: tests.ledger.test_ledger -*-
"""
Adds evaluations to the rows in the database.

Evaluations added up, into the rows that they add to.  No I/O.

The key of a row is put together from fixed parts: where it belongs, what is
reported, the hour, and flags.  So one index has the rows of a report side by
side, in the order in which they are reported, and those of all hours that
add up to one next to each other.

What DMARC made of mail, as text of one spelling, and what tells it apart.
No I/O.

JSON lists in the order of the attributes: equal values have equal texts, so
that a digest of the text stands for the value.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from sqlalchemy import Connection, bindparam, or_, select

from moxtls.authentication.results import AuthResult
from moxtls.dates import HOUR
from moxtls.dmarc.types import (
    Alignment,
    DiscoveryMethod,
    Disposition,
    DMARCPolicy,
    Evaluation,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain
from moxtls.ledger.bounds import boundedEvaluation, hasRoomForPart, hasRoomForRow
from moxtls.ledger.sql import DIGEST_SIZE, Upsert, chunks, digest
from moxtls.ledger.tables import dmarcRow, dmarcTally

#: Keys of rows remembered, about 150 octets each.
MAX_KNOWN = 100_000

_t = dmarcTally.c
_r = dmarcRow.c

_ADD_TALLIES = Upsert(
    dmarcTally,
    lambda old, new: {
        "messages": old.messages + new.messages,
        "wanted": old.wanted + new.wanted,
        "sendable": or_(old.sendable, new.sendable),
        "dispositions": old.dispositions.bitwise_or(new.dispositions),
        "kept": old.kept + new.kept,
        "omitted": old.omitted + new.omitted,
    },
)
_ADD_ROWS = Upsert(
    dmarcRow,
    lambda old, new: {
        "messages": old.messages + new.messages,
        "addresses": new.addresses,
    },
)

_KEPT = select(_t.policy_domain, _t.hour, _t.part, _t.kept).where(
    _t.policy_domain.in_(bindparam("domains", expanding=True)),
    _t.hour.in_(bindparam("hours", expanding=True)),
)
_THERE = select(_r.key).where(_r.key.in_(bindparam("keys", expanding=True)))

#: Policy domain, hour.
_Place = tuple[str, int]


@dataclass(slots=True)
class _Room:
    """
    What there is of a policy domain and hour.

    @ivar kept: How many rows.
    @ivar seen: The keys of some of them.
    """

    kept: int = 0
    parts: set[str] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)


class _Rooms:
    """
    How much room there is left, so far as this process knows: the limit costs
    a query for what wasn't seen before, not one for each write.  What other
    nodes add meanwhile comes on top.
    """

    def __init__(self) -> None:
        self._rooms: OrderedDict[_Place, _Room] = OrderedDict()
        self._size = 0

    def admit(
        self, connection: Connection, tallies: Sequence[EvaluationDelta]
    ) -> list[EvaluationDelta]:
        """
        Take out what there is no room for; returns what is left.
        """
        self._load(connection, {(tally.domain, tally.hour) for tally in tallies})
        there = self._there(connection, tallies)
        admitted = [tally for tally in tallies if self._admit(tally, there)]
        self._forget()
        return admitted

    def _load(self, connection: Connection, places: set[_Place]) -> None:
        new = sorted(places - self._rooms.keys())
        rooms = {place: _Room() for place in new}
        hours = sorted({hour for _, hour in new})
        for domains in chunks(sorted({domain for domain, _ in new})):
            given = {"domains": domains, "hours": hours}
            for domain, hour, part, kept in connection.execute(_KEPT, given):
                if room := rooms.get((domain, hour)):
                    room.kept += kept
                    room.parts.add(part)
        self._rooms.update(rooms)
        self._size += len(rooms)
        for place in places:
            self._rooms.move_to_end(place)

    def _there(
        self, connection: Connection, tallies: Sequence[EvaluationDelta]
    ) -> set[bytes]:
        unknown = [
            key
            for tally in tallies
            for key in tally.rows.keys() - self._rooms[tally.domain, tally.hour].seen
        ]
        there: set[bytes] = set()
        for keys in chunks(unknown):
            there.update(map(bytes, connection.scalars(_THERE, {"keys": keys})))
        return there

    def _admit(self, tally: EvaluationDelta, there: set[bytes]) -> bool:
        room = self._rooms[tally.domain, tally.hour]
        if tally.part not in room.parts and not hasRoomForPart(len(room.parts)):
            return False
        room.parts.add(tally.part)
        for key in tally.rows.keys() - room.seen:
            if key not in there and not hasRoomForRow(room.kept):
                tally.omit(key)
                continue
            new = key not in there
            room.kept += new
            tally.kept += new
            room.seen.add(key)
            self._size += 1
        return True

    def _forget(self) -> None:
        """
        Make room, by what wasn't used for longest.
        """
        while self._size > MAX_KNOWN:
            _, room = self._rooms.popitem(last=False)
            self._size -= 1 + len(room.seen)


class EvaluationCounters:
    """
    Adds to rows.
    """

    def __init__(self) -> None:
        self._rooms = _Rooms()

    def record(
        self, connection: Connection, items: Sequence[EvaluationCount]
    ) -> Sequence[None]:
        """
        Count many evaluations in two statements.
        """
        tallies = self._rooms.admit(connection, sumEvaluations(items))
        # The tallies first: who removes them locks them first, too.
        _ADD_TALLIES(connection, [_tallyRow(each) for each in tallies])
        _ADD_ROWS(connection, _rows(tallies))
        return [None] * len(items)


def _tallyRow(tally: EvaluationDelta) -> tuple[object, ...]:
    """
    In the order of the columns.
    """
    return (
        tally.domain,
        tally.part,
        tally.hour,
        tally.hours,
        tally.published,
        tally.messages,
        tally.wanted,
        tally.sendable,
        tally.dispositions,
        tally.kept,
        tally.omitted,
        0,
    )


def _rows(tallies: Iterable[EvaluationDelta]) -> list[tuple[object, ...]]:
    """
    In the order of the columns, by their keys.
    """
    rows: list[RowDelta] = [row for tally in tallies for row in tally.rows.values()]
    rows.sort(key=lambda row: row.key)
    return [
        (
            row.key,
            row.hour,
            row.optional,
            row.wanted,
            row.addresses,
            row.content,
            row.messages,
        )
        for row in rows
    ]


#: Octets of the digest of a policy domain and part.
PREFIX_SIZE = 16
ROW_END = PREFIX_SIZE + DIGEST_SIZE
#: Octets for the number of an hour, and for flags.
_HOUR_SIZE = 4
#: Behind everything that starts with what it is put behind.
_LAST = b"\xff" * (DIGEST_SIZE + _HOUR_SIZE + 2)
#: Bits of C{dispositions}.
BITS = {each: 1 << place for place, each in enumerate(Disposition)}

#: A second in the hour in which they were made, an evaluation, how many.
EvaluationCount = tuple[int, Evaluation, int]


@dataclass(slots=True)
class RowDelta:
    """
    What is to be added to one row.

    @ivar addresses: A JSON list.
    @ivar content: L{moxtls.ledger.evaluationcounters.encodeRow}.
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


def sumEvaluations(items: Iterable[EvaluationCount]) -> list[EvaluationDelta]:
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
            keyPrefix(domain, part),
            rowDigest(content),
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


def keyPrefix(domain: str, part: str) -> bytes:
    """
    What the keys of all rows about a policy of a domain begin with.
    """
    return digest(domain, part)[:PREFIX_SIZE]


def rowDigestOf(key: bytes) -> bytes:
    """
    The part of a key that stands for what is reported.
    """
    return key[PREFIX_SIZE:ROW_END]


def keyAfter(place: bytes, row: bytes = b"") -> bytes:
    """
    A key behind which all those are that come after C{row}, or, without one,
    all that begin with C{place}.
    """
    return place + row + _LAST if row else place


def endOfPrefix(place: bytes) -> bytes:
    """
    A key behind all those that begin with C{place}.
    """
    return place + _LAST


#: Octets of the digest that tells the policies of one domain apart.  Who
#: publishes two with the same one harms nobody else's reports.
PART_SIZE = 8

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def encodeRow(row: ReportRow) -> str:
    """
    C{row} in JSON, in ASCII.
    """
    spf = row.spf
    return _encode(
        (
            row.sourceIP,
            row.disposition,
            row.dkimAligned,
            row.spfAligned,
            [(each.kind, each.comment) for each in row.reasons],
            row.headerFrom,
            row.envelopeFrom,
            row.envelopeTo,
            [(s.domain, s.selector, s.result, s.problem) for s in row.dkim],
            None if spf is None else (spf.domain, spf.scope, spf.result),
        )
    )


def decodeRow(text: str) -> ReportRow:
    """
    What L{encodeRow} was given.
    """
    ip, disposition, dkimAligned, spfAligned, reasons, *rest = json.loads(text)
    headerFrom, envelopeFrom, envelopeTo, dkim, spf = rest
    return ReportRow(
        ip,
        Disposition(disposition),
        dkimAligned,
        spfAligned,
        tuple(Override(OverrideKind(kind), comment) for kind, comment in reasons),
        headerFrom,
        envelopeFrom,
        envelopeTo,
        tuple(
            ReportedSignature(domain, selector, AuthResult(result), problem)
            for domain, selector, result, problem in dkim
        ),
        None if spf is None else ReportedSPF(spf[0], spf[1], AuthResult(spf[2])),
    )


def encodePolicy(published: PublishedPolicy) -> str:
    """
    C{published} in JSON, in ASCII.
    """
    return _encode(
        (
            published.domain.ascii,
            published.p,
            published.sp,
            published.np,
            published.adkim,
            published.aspf,
            published.testing,
            published.fo,
            published.percent,
            published.method,
        )
    )


def decodePolicy(text: str) -> PublishedPolicy:
    """
    What L{encodePolicy} was given.
    """
    domain, p, sp, np, adkim, aspf, testing, fo, percent, method = json.loads(text)
    return PublishedPolicy(
        Domain(domain),
        DMARCPolicy(p),
        None if sp is None else DMARCPolicy(sp),
        None if np is None else DMARCPolicy(np),
        Alignment(adkim),
        Alignment(aspf),
        testing,
        tuple(fo),
        percent,
        DiscoveryMethod(method),
    )


def encodeTexts(texts: tuple[str, ...]) -> str:
    """
    Any strings in JSON, in ASCII.
    """
    return _encode(texts)


def decodeTexts(text: str) -> tuple[str, ...]:
    """
    What L{encodeTexts} was given.
    """
    return tuple(json.loads(text))


def rowDigest(row: str) -> bytes:
    """
    Stands for a row, and says where it is in the order of rows.

    @param row: From L{encodeRow}.
    """
    return blake2b(row.encode("ascii"), digest_size=DIGEST_SIZE).digest()


def partOf(published: str, hours: int) -> str:
    """
    Stands for a policy and the interval of its reports: hexadecimal digits.

    @param published: From L{encodePolicy}.
    """
    text = f"{hours}\0{published}".encode("ascii")
    return blake2b(text, digest_size=PART_SIZE).hexdigest()


def closedPart(part: str, until: int) -> str:
    """
    Stands for what was recorded under C{part} before its period was closed in
    the second C{until}.
    """
    text = f"{until}\0{part}".encode("ascii")
    return blake2b(text, digest_size=PART_SIZE).hexdigest()


def partOfEvaluation(evaluation: Evaluation) -> str:
    """
    The C{part} of the L{moxtls.reporting.types.Subject} that C{evaluation}
    belongs to.

    @param evaluation: Is L{moxtls.ledger.bounds.boundedEvaluation}.
    """
    return partOf(encodePolicy(evaluation.published), evaluation.hours)
