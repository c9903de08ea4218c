# -*- test-case-name: tests.ledger.received.test_store -*-
"""
Stores received reports.

A report with many rows is stored in steps, so that others don't wait for it: its rows
and sums are there before it is, and count once it is complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, select, update

from moxtls.ledger.bounds import clean
from moxtls.ledger.database import LedgerUnavailable
from moxtls.ledger.received.batch import Batch, Head, countsByDomain, totals
from moxtls.ledger.received.tables import receivedReport, receivedSequence
from moxtls.ledger.received.values import State, claimedDomains, identityOf
from moxtls.ledger.tables import chunks, insertInto
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    Origin,
    ParsedReport,
    RefusedReport,
)

#: Rows after which a transaction stores no more reports: some tenths of a second.
MAX_ROWS_AT_ONCE = 10_000
#: Blocks of rows in a step of a report with more than these.
BLOCKS_AT_ONCE = 4

_r = receivedReport.c

_SAME = select(_r.identity, _r.content, _r.number).where(
    _r.identity.in_(bindparam("identities", expanding=True))
)
_UPGRADE = (
    update(receivedReport)
    .where(_r.number == bindparam("of"), _r.authentication == "")
    .values(
        {name: bindparam(name) for name in ("channel", "sender", "authentication")}
        | {"received": bindparam("at")}
    )
)
_SET_STATE = (
    update(receivedReport)
    .where(_r.number == bindparam("of"), _r.state == State.INCOMPLETE)
    .values(state=bindparam("to"))
)
_COMPLETE = _SET_STATE.values(identity=bindparam("as"), is_variant=bindparam("variant"))
_SET_ROW_COUNT = (
    update(receivedReport)
    .where(_r.number == bindparam("of"), _r.state == State.INCOMPLETE)
    .values(row_count=bindparam("count"))
)


def reserveNumbers(connection: Connection, count: int) -> int:
    """
    Reserve C{count} successive numbers, and exclude other nodes until the end of the
    transaction: what it reads of received reports doesn't change, and nobody sees a
    number before all smaller ones.

    @return: The first one.
    """
    statement = insertInto(receivedSequence, connection.dialect.name).values(
        name="report", number=count
    )
    numbers = receivedSequence.c.number + statement.excluded.number
    statement = statement.on_conflict_do_update(
        index_elements=[receivedSequence.c.name], set_={"number": numbers}
    )
    last = connection.execute(statement.returning(receivedSequence.c.number))
    return int(last.scalar_one()) - count + 1


class Known:
    """
    The accepted reports that have the identity of some that are added.
    """

    def __init__(self, connection: Connection, identities: Iterable[bytes]) -> None:
        self._numbers: dict[tuple[bytes, bytes], int] = {}
        self._identities: set[bytes] = set()
        for some in chunks(sorted(set(identities))):
            for found in connection.execute(_SAME, {"identities": some}):
                self.note(bytes(found[0]), bytes(found[1]), found[2])

    def note(self, identity: bytes, content: bytes, number: int) -> None:
        self._numbers[identity, content] = number
        self._identities.add(identity)

    def find(self, identity: bytes, content: bytes) -> int | None:
        """
        The number of the same report.
        """
        return self._numbers.get((identity, content))

    def hasVariant(self, identity: bytes) -> bool:
        """
        True if there is a report with the same submitter, id and period.
        """
        return identity in self._identities


def addAll(
    connection: Connection, items: Sequence[AcceptedReport]
) -> Sequence[AddResult | None]:
    """
    Store reports, each at once.

    @return: C{None} for those that are left to another transaction.
    """
    first = reserveNumbers(connection, len(items))
    identities = [identityOf(each.report) for each in items]
    known = Known(connection, identities)
    batch = Batch()
    upgrades: list[dict[str, object]] = []
    results: list[AddResult | None] = []
    for index, (accepted, identity) in enumerate(zip(items, identities, strict=True)):
        content = accepted.report.content
        number = known.find(identity, content)
        if number is not None:
            upgrades += _upgrades(number, accepted.origin)
            results.append(AddResult.DUPLICATE)
        elif batch.size >= MAX_ROWS_AT_ONCE:
            results.append(None)
        else:
            isVariant = known.hasVariant(identity)
            batch.addReport(first + index, accepted, identity, isVariant)
            known.note(identity, content, first + index)
            results.append(AddResult.VARIANT if isVariant else AddResult.STORED)
    batch.write(connection)
    if upgrades:
        connection.execute(_UPGRADE, upgrades)
    return results


def _upgrades(number: int, origin: Origin) -> list[dict[str, object]]:
    if not origin.authentication:
        return []
    return [
        {
            "of": number,
            "channel": origin.channel,
            "sender": clean(origin.sender),
            "authentication": clean(origin.authentication),
            "at": origin.received,
        }
    ]


def beginReport(connection: Connection, accepted: AcceptedReport) -> int | None:
    """
    Begin to store a report in steps.

    @return: Its number; C{None} if it is there already.
    """
    number = reserveNumbers(connection, 1)
    if _isThere(connection, accepted):
        return None
    batch, report = Batch(), accepted.report
    counts = countsByDomain(report)
    batch.addHead(Head(number, State.INCOMPLETE, accepted.origin, report, counts))
    batch.write(connection)
    return number


def _isThere(connection: Connection, accepted: AcceptedReport) -> bool:
    """
    True if a report is a duplicate; upgrades the origin of the stored one.
    """
    identity = identityOf(accepted.report)
    number = Known(connection, [identity]).find(identity, accepted.report.content)
    if number is None:
        return False
    for each in _upgrades(number, accepted.origin):
        connection.execute(_UPGRADE, each)
    return True


def addBlocks(
    connection: Connection,
    number: int,
    report: ParsedReport,
    blocks: Sequence[bytes],
    position: int,
) -> tuple[int, Counter[int]]:
    """
    Store some rows of a report that was begun.

    @param position: Of the first row.

    @return: The position after the last row, and the messages by outcome.

    @raise LedgerUnavailable: The report was removed meanwhile.
    """
    reserveNumbers(connection, 0)
    batch = Batch()
    for block in blocks:
        position = batch.addBlock(number, number, report, block, position)
    outcomes = Counter({key[2]: count for key, count in batch.dmarcDays.items()})
    # Its sums by day count at once, so they come last.
    batch.dmarcDays.clear()
    batch.write(connection)
    changed = connection.execute(_SET_ROW_COUNT, {"of": number, "count": position})
    _checkThere(number, changed.rowcount)
    return position, outcomes


def completeReport(
    connection: Connection,
    number: int,
    accepted: AcceptedReport,
    outcomes: Counter[int],
) -> AddResult:
    """
    List and count a report whose rows are stored.

    @param outcomes: Messages by outcome.

    @raise LedgerUnavailable: The report was removed meanwhile.
    """
    reserveNumbers(connection, 0)
    if _isThere(connection, accepted):
        # Another node was faster.
        connection.execute(_SET_STATE, {"of": number, "to": State.ABANDONED})
        return AddResult.DUPLICATE
    report = accepted.report
    identity = identityOf(report)
    isVariant = Known(connection, [identity]).hasVariant(identity)
    given = {
        "of": number,
        "to": State.ACCEPTED,
        "as": identity,
        "variant": isVariant,
    }
    _checkThere(number, connection.execute(_COMPLETE, given).rowcount)
    batch, counts = Batch(), countsByDomain(report)
    batch.addDomains(Head(number, State.ACCEPTED, accepted.origin, report, counts))
    for domain in counts:
        for outcome, messages in outcomes.items():
            batch.dmarcDays[domain, report.day, outcome] = messages
    batch.write(connection)
    return AddResult.VARIANT if isVariant else AddResult.STORED


def _checkThere(number: int, count: int) -> None:
    if not count:
        raise LedgerUnavailable(
            f"ledger: report {number} was removed while it was stored"
        )


def refuseAll(connection: Connection, items: Sequence[RefusedReport]) -> Sequence[None]:
    """
    Store that reports weren't accepted.
    """
    first = reserveNumbers(connection, len(items))
    batch = Batch()
    for number, each in enumerate(items, first):
        domains = claimedDomains(each.report) if each.report else ()
        head = Head(
            number,
            State.REFUSED,
            each.origin,
            each.report,
            dict.fromkeys(domains, totals(each.report)),
            refused=each.reason or "refused",
            readKind=each.kind or "",
        )
        batch.addHead(head)
        batch.addDomains(head)
    batch.write(connection)
    return [None] * len(items)
