# -*- test-case-name: tests.ledger.received.test_store -*-
"""
The store of received reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.ledger.groupcommit import GroupCommitWriter, GroupReader
from moxtls.ledger.received import questions
from moxtls.ledger.received.expiry import expire, limitRefused
from moxtls.ledger.received.writing import (
    BLOCKS_AT_ONCE,
    addAll,
    addBlocks,
    beginReport,
    completeReport,
    refuseAll,
)
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    DMARCDay,
    DMARCSource,
    ReceivedKind,
    RefusedReport,
    Reporter,
    ReportFilter,
    StoredDMARCRow,
    StoredReport,
    TLSDay,
    TLSFailureGroup,
    TLSRow,
)


@implementer(IReceivedReportStore)
class ReceivedReportStore:
    """
    Stores received reports in tables of reports, rows and sums:
    L{moxtls.ledger.received.tables}.
    """

    def __init__(self, writer: GroupCommitWriter, reader: GroupReader) -> None:
        self._writer = writer
        self._reader = reader

    def add(self, report: AcceptedReport) -> Deferred[AddResult]:
        parsed = report.report
        isLarge = bool(parsed.domain) and len(parsed.blocks) > BLOCKS_AT_ONCE
        return Deferred.fromCoroutine(
            self._addLarge(report) if isLarge else self._add(report)
        )

    async def _add(self, accepted: AcceptedReport) -> AddResult:
        # Those that the transaction has no room for wait for another one.
        while (result := await self._writer.add(addAll, accepted)) is None:
            pass
        return result

    async def _addLarge(self, accepted: AcceptedReport) -> AddResult:
        report = accepted.report
        number = await self._writer.run(partial(beginReport, accepted=accepted))
        if number is None:
            return AddResult.DUPLICATE
        outcomes: Counter[int] = Counter()
        position = 0
        for start in range(0, len(report.blocks), BLOCKS_AT_ONCE):
            blocks = report.blocks[start : start + BLOCKS_AT_ONCE]
            step = partial(
                addBlocks,
                number=number,
                report=report,
                blocks=blocks,
                position=position,
            )
            position, added = await self._writer.run(step)
            outcomes += added
        return await self._writer.run(
            partial(completeReport, number=number, accepted=accepted, outcomes=outcomes)
        )

    def refuse(self, report: RefusedReport) -> Deferred[None]:
        return self._writer.add(_refuseAll, report)

    def reports(
        self, filter: ReportFilter, limit: int, before: int | None = None
    ) -> Deferred[tuple[StoredReport, ...]]:
        return self._reader.run(
            lambda connection: questions.reports(connection, filter, limit, before)
        )

    def get(self, number: int) -> Deferred[StoredReport | None]:
        def get(connection: Connection) -> StoredReport | None:
            return next(iter(questions.storedReports(connection, [number])), None)

        return self._reader.run(get)

    def raw(self, number: int) -> Deferred[bytes | None]:
        return self._reader.run(lambda connection: questions.raw(connection, number))

    def domains(self, first: int, last: int) -> Deferred[tuple[str, ...]]:
        return self._reader.run(
            lambda connection: questions.domains(connection, first, last)
        )

    def tlsDays(
        self, domain: str, first: int, last: int
    ) -> Deferred[tuple[TLSDay, ...]]:
        return self._reader.run(
            lambda connection: questions.tlsDays(connection, domain, first, last)
        )

    def tlsFailures(
        self, domain: str, first: int, last: int, limit: int
    ) -> Deferred[tuple[TLSFailureGroup, ...]]:
        return self._reader.run(
            lambda connection: questions.tlsFailures(
                connection, domain, first, last, limit
            )
        )

    def dmarcDays(
        self, domain: str, first: int, last: int
    ) -> Deferred[tuple[DMARCDay, ...]]:
        return self._reader.run(
            lambda connection: questions.dmarcDays(connection, domain, first, last)
        )

    def dmarcSources(
        self, domain: str, first: int, last: int, limit: int
    ) -> Deferred[tuple[DMARCSource, ...]]:
        return self._reader.run(
            lambda connection: questions.dmarcSources(
                connection, domain, first, last, limit
            )
        )

    def reporters(
        self, kind: ReceivedKind, domain: str, first: int, last: int, limit: int
    ) -> Deferred[tuple[Reporter, ...]]:
        return self._reader.run(
            lambda connection: questions.reporters(
                connection, kind, domain, first, last, limit
            )
        )

    def tlsRows(
        self, filter: ReportFilter, limit: int, after: TLSRow | None = None
    ) -> Deferred[tuple[TLSRow, ...]]:
        return self._reader.run(
            lambda connection: questions.tlsRows(connection, filter, limit, after)
        )

    def dmarcRows(
        self, filter: ReportFilter, limit: int, after: StoredDMARCRow | None = None
    ) -> Deferred[tuple[StoredDMARCRow, ...]]:
        return self._reader.run(
            lambda connection: questions.dmarcRows(connection, filter, limit, after)
        )

    def expire(
        self, kind: ReceivedKind | None, before: int, limit: int
    ) -> Deferred[int]:
        return self._writer.run(
            lambda connection: expire(connection, kind, before, limit)
        )


def _refuseAll(
    connection: Connection, items: Sequence[RefusedReport]
) -> Sequence[None]:
    results = refuseAll(connection, items)
    limitRefused(connection)
    return results
