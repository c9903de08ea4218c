# -*- test-case-name: tests.store.test_ledger -*-
"""
Adds evaluations to the rows in the database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, or_, select

from moxtls.store.bulk import Bulk
from moxtls.store.counters import chunks
from moxtls.store.database import Database
from moxtls.store.rules import hasRoomForPart, hasRoomForRow
from moxtls.store.tables import dmarcRow, dmarcTally
from moxtls.store.tallies import Counted, EvaluationDelta, RowDelta, addEvaluations

#: Keys of rows remembered, about 150 octets each.
MAX_KNOWN = 100_000

_t = dmarcTally.c
_r = dmarcRow.c

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

    def __init__(self, database: Database) -> None:
        insert = database.insert(dmarcTally)
        new = insert.excluded
        self._addTallies = Bulk(
            database,
            insert.on_conflict_do_update(
                index_elements=[_t.policy_domain, _t.part, _t.hour],
                set_={
                    "messages": _t.messages + new.messages,
                    "wanted": _t.wanted + new.wanted,
                    "sendable": or_(_t.sendable, new.sendable),
                    "dispositions": _t.dispositions.bitwise_or(new.dispositions),
                    "kept": _t.kept + new.kept,
                    "omitted": _t.omitted + new.omitted,
                },
            ),
        )
        insert = database.insert(dmarcRow)
        self._addRows = Bulk(
            database,
            insert.on_conflict_do_update(
                index_elements=[_r.key],
                set_={
                    "messages": _r.messages + insert.excluded.messages,
                    "addresses": insert.excluded.addresses,
                },
            ),
        )
        self._rooms = _Rooms()

    def record(
        self, connection: Connection, items: Sequence[Counted]
    ) -> Sequence[None]:
        """
        Count many evaluations in two statements.
        """
        tallies = self._rooms.admit(connection, addEvaluations(items))
        # The tallies first: who removes them locks them first, too.
        self._addTallies(connection, [_tallyRow(each) for each in tallies])
        self._addRows(connection, _rows(tallies))
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
