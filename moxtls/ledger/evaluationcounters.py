# -*- test-case-name: tests.ledger.test_ledger -*-
"""
Adds DMARC evaluations to the counters in the database.

The evaluations of a transaction are summed up first, so that each row is written once.

The key of a row consists of fixed parts: a digest of policy domain and policy, a digest
of what is reported, the hour, and flags.  So one index has the rows of a report in
order, and next to each other those of different hours that add up to one.

Values are stored as JSON lists in the order of the attributes: equal values have equal
texts, so that a digest of the text identifies the value.
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
from moxtls.ledger.tables import (
    DIGEST_SIZE,
    Upsert,
    chunks,
    digest,
    dmarcRow,
    dmarcTally,
)

#: Cached keys of rows, about 150 octets each.
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
_Hour = tuple[str, int]


@dataclass(slots=True)
class _StoredRows:
    """
    The stored rows of a policy domain and hour.

    @ivar kept: Their number.
    @ivar parts: The policies.
    @ivar seen: The keys of some of them.
    """

    kept: int = 0
    parts: set[str] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)


class _RowLimiter:
    """
    Limits the rows and policies stored per policy domain and hour.

    Counts are cached, so that the limit costs a query for new keys, not one per write.
    Rows that other nodes add meanwhile are not counted.
    """

    def __init__(self) -> None:
        self._stored: OrderedDict[_Hour, _StoredRows] = OrderedDict()
        self._size = 0

    def admit(
        self, connection: Connection, tallies: Sequence[EvaluationDelta]
    ) -> list[EvaluationDelta]:
        """
        Drop rows and policies beyond the limits; returns the others.
        """
        self._load(connection, {(tally.domain, tally.hour) for tally in tallies})
        present = self._present(connection, tallies)
        kept = [tally for tally in tallies if self._admit(tally, present)]
        self._forget()
        return kept

    def _load(self, connection: Connection, pairs: set[_Hour]) -> None:
        new = sorted(pairs - self._stored.keys())
        loaded = {pair: _StoredRows() for pair in new}
        hours = sorted({hour for _, hour in new})
        for domains in chunks(sorted({domain for domain, _ in new})):
            given = {"domains": domains, "hours": hours}
            for domain, hour, part, kept in connection.execute(_KEPT, given):
                if stored := loaded.get((domain, hour)):
                    stored.kept += kept
                    stored.parts.add(part)
        self._stored.update(loaded)
        self._size += len(loaded)
        for pair in pairs:
            self._stored.move_to_end(pair)

    def _present(
        self, connection: Connection, tallies: Sequence[EvaluationDelta]
    ) -> set[bytes]:
        unknown = [
            key
            for tally in tallies
            for key in tally.rows.keys() - self._stored[tally.domain, tally.hour].seen
        ]
        present: set[bytes] = set()
        for keys in chunks(unknown):
            present.update(map(bytes, connection.scalars(_THERE, {"keys": keys})))
        return present

    def _admit(self, tally: EvaluationDelta, present: set[bytes]) -> bool:
        stored = self._stored[tally.domain, tally.hour]
        if tally.part not in stored.parts and not hasRoomForPart(len(stored.parts)):
            return False
        stored.parts.add(tally.part)
        for key in tally.rows.keys() - stored.seen:
            if key not in present and not hasRoomForRow(stored.kept):
                tally.omit(key)
                continue
            new = key not in present
            stored.kept += new
            tally.kept += new
            stored.seen.add(key)
            self._size += 1
        return True

    def _forget(self) -> None:
        """
        Evict the least recently used hours.
        """
        while self._size > MAX_KNOWN:
            _, stored = self._stored.popitem(last=False)
            self._size -= 1 + len(stored.seen)


class EvaluationCounters:
    """
    Adds evaluations to the tallies and their rows.
    """

    def __init__(self) -> None:
        self._limiter = _RowLimiter()

    def record(
        self, connection: Connection, items: Sequence[EvaluationCount]
    ) -> Sequence[None]:
        """
        Count evaluations in two statements.
        """
        tallies = self._limiter.admit(connection, sumEvaluations(items))
        # Tallies first, as removing locks them first, too.
        _ADD_TALLIES(connection, [_tallyRow(each) for each in tallies])
        _ADD_ROWS(connection, _rows(tallies))
        return [None] * len(items)


def _tallyRow(tally: EvaluationDelta) -> tuple[object, ...]:
    """
    The columns in order.
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
    The columns in order, sorted by key.
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


#: Octets of the digest of a policy domain and part, the prefix of keys.
PREFIX_SIZE = 16
ROW_END = PREFIX_SIZE + DIGEST_SIZE
#: Octets for the number of an hour, and for flags.
_HOUR_SIZE = 4
#: Appended to a prefix, sorts after all keys with that prefix.
_LAST = b"\xff" * (DIGEST_SIZE + _HOUR_SIZE + 2)
#: Bits of C{dispositions}.
BITS = {each: 1 << bit for bit, each in enumerate(Disposition)}

#: A second in the hour of the evaluation, the evaluation, the number of messages.
EvaluationCount = tuple[int, Evaluation, int]


@dataclass(slots=True)
class RowDelta:
    """
    The sum to add to one row.

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
    The sum to add for one policy and hour.

    @ivar rows: By their keys.
    @ivar kept: The number of C{rows} that are new.
    @ivar omitted: Messages whose rows are beyond the limit.
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
        Drop a row beyond the limit, and count its messages.
        """
        self.omitted += self.rows.pop(key).messages


def sumEvaluations(items: Iterable[EvaluationCount]) -> list[EvaluationDelta]:
    """
    Sum up evaluations, sorted by policy domain, part and hour: nodes that lock rows in
    the same order can't deadlock.
    """
    deltas: dict[tuple[str, str, int], EvaluationDelta] = {}
    for moment, evaluation, count in items:
        _add(deltas, moment - moment % HOUR, boundedEvaluation(evaluation), count)
    return [deltas[identity] for identity in sorted(deltas)]


def _add(
    deltas: dict[tuple[str, str, int], EvaluationDelta],
    hour: int,
    evaluation: Evaluation,
    count: int,
) -> None:
    published, hours = encodePolicy(evaluation.published), evaluation.hours
    domain, part = evaluation.published.domain.ascii, partOf(published, hours)
    identity = domain, part, hour
    tally = deltas.get(identity)
    if tally is None:
        tally = deltas[identity] = EvaluationDelta(domain, part, hour, hours, published)
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
    The prefix of the keys of all rows about a policy of a domain.
    """
    return digest(domain, part)[:PREFIX_SIZE]


def rowDigestOf(key: bytes) -> bytes:
    """
    The part of a key that identifies what is reported.
    """
    return key[PREFIX_SIZE:ROW_END]


def keyAfter(prefix: bytes, row: bytes = b"") -> bytes:
    """
    The lower limit for keys with C{prefix}: those after C{row}, or all without one.
    """
    return prefix + row + _LAST if row else prefix


def endOfPrefix(prefix: bytes) -> bytes:
    """
    The upper limit for keys with C{prefix}.
    """
    return prefix + _LAST


#: Octets of the digest that distinguishes the policies of one domain.  A collision
#: affects only reports to the domain that published both.
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
    The inverse of L{encodeRow}.
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
    The inverse of L{encodePolicy}.
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
    The inverse of L{encodeTexts}.
    """
    return tuple(json.loads(text))


def rowDigest(row: str) -> bytes:
    """
    A digest that identifies a row, and is its sort key.

    @param row: From L{encodeRow}.
    """
    return blake2b(row.encode("ascii"), digest_size=DIGEST_SIZE).digest()


def partOf(published: str, hours: int) -> str:
    """
    An identifier of a policy and the interval of its reports: hexadecimal digits.

    @param published: From L{encodePolicy}.
    """
    text = f"{hours}\0{published}".encode("ascii")
    return blake2b(text, digest_size=PART_SIZE).hexdigest()


def closedPart(part: str, until: int) -> str:
    """
    The identifier of what was recorded under C{part} before its period was closed at
    the second C{until}.
    """
    text = f"{until}\0{part}".encode("ascii")
    return blake2b(text, digest_size=PART_SIZE).hexdigest()


def partOfEvaluation(evaluation: Evaluation) -> str:
    """
    The C{part} of the L{moxtls.reporting.types.ReportPeriod} of C{evaluation}.

    @param evaluation: Within the limits: L{moxtls.ledger.bounds.boundedEvaluation}.
    """
    return partOf(encodePolicy(evaluation.published), evaluation.hours)
