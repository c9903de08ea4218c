# -*- test-case-name: tests.reporting.test_service -*-
"""
Lists periods that may be due, and the reasons why no report is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from moxtls.domain import Domain
from moxtls.interfaces import IReportSource
from moxtls.reporting.types import ReportPeriod
from moxtls.tasks import gather

#: Periods in memory at a time.
PAGE_SIZE = 200
#: Of periods that are shown to people.
MAX_SHOWN = 1000
#: Periods whose destinations are looked up at a time.
MAX_LOOKUPS = 16


async def pendingPeriods(
    source: IReportSource, now: float, domain: Domain | None = None, early: bool = False
) -> tuple[ReportPeriod, ...]:
    """
    The periods that may be due, ordered by phase, day and domain; at most
    L{MAX_SHOWN}.

    @param early: Include current periods.
    """
    found: list[ReportPeriod] = []
    for phase in range(source.phases):
        after: ReportPeriod | None = None
        while len(found) < MAX_SHOWN:
            page = await source.periods(phase, now, after, PAGE_SIZE, early)
            found.extend(each for each in page if domain in (None, each.domain))
            if not page:
                break
            after = page[-1]
    return tuple(found[:MAX_SHOWN])


async def refusals(
    source: IReportSource, periods: Sequence[ReportPeriod]
) -> dict[ReportPeriod, str]:
    """
    For each of C{periods} the reason why there is no report; empty if there is one.
    """
    reasons: list[str] = []
    for start in range(0, len(periods), MAX_LOOKUPS):
        some = periods[start : start + MAX_LOOKUPS]
        reasons += await gather([source.refusal(each) for each in some])
    return dict(zip(periods, reasons, strict=True))
