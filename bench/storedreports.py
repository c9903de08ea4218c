"""
Questions about stored reports: ten million rows of 300 days with C{--full}, for the
largest domain and a typical one, over 30 and over 300 days.  Each answer is asked for
several times; the first time is given apart, as it may read from the disk.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred

from bench.comparison import aligned
from bench.postgres import postgres, version
from bench.receivedfilling import DAYS, LARGEST, LAST_DAY, RARE, TYPICAL, copy, fill
from bench.settings import Effort, IReactor, main
from moxtls.ledger.ledger import Ledger
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.types import ReceivedKind, ReportFilter

#: With and without C{--full}.
ALL_ROWS = 10_000_000
ROWS = 1_000_000
TIMES = 5
#: Days, as the shorter span.
SPAN = 30
#: Entries of a page, or of a list of the most.
PAGE = 100

Question = Callable[[IReceivedReportStore, str, int, int], Deferred[Any]]

#: For a domain and two days.
QUESTIONS: dict[str, Question] = {
    "domains": lambda store, d, first, last: store.domains(first, last),
    "tlsDays": lambda store, d, first, last: store.tlsDays(d, first, last),
    "tlsFailures": lambda store, d, first, last: store.tlsFailures(
        d, first, last, PAGE
    ),
    "dmarcDays": lambda store, d, first, last: store.dmarcDays(d, first, last),
    "dmarcSources": lambda store, d, first, last: store.dmarcSources(
        d, first, last, PAGE
    ),
    "reporters, DMARC": lambda store, d, first, last: store.reporters(
        ReceivedKind.DMARC, d, first, last, PAGE
    ),
    "reporters, TLS": lambda store, d, first, last: store.reporters(
        ReceivedKind.TLS, d, first, last, PAGE
    ),
    "reports": lambda store, d, first, last: store.reports(
        ReportFilter(domain=d, first=first, last=last), PAGE
    ),
    "reports with TLS failures": lambda store, d, first, last: store.reports(
        ReportFilter(ReceivedKind.TLS, d, "", first, last, onlyFailures=True), PAGE
    ),
    "reports of one reporter": lambda store, d, first, last: store.reports(
        ReportFilter(domain=d, organization=RARE, first=first, last=last), PAGE
    ),
    "reports of all domains": lambda store, d, first, last: store.reports(
        ReportFilter(first=first, last=last), PAGE
    ),
    "the same, of one reporter": lambda store, d, first, last: store.reports(
        ReportFilter(organization=RARE, first=first, last=last), PAGE
    ),
    "the same, before these days": lambda store, d, first, last: store.reports(
        ReportFilter(organization=RARE, last=first), PAGE
    ),
    "reports of nobody": lambda store, d, first, last: store.reports(
        ReportFilter(organization="nobody", first=first, last=last), PAGE
    ),
    "refused reports": lambda store, d, first, last: store.reports(
        ReportFilter(first=first, last=last, refused=True), PAGE
    ),
    "get": lambda store, d, first, last: store.get(first),
    "raw": lambda store, d, first, last: store.raw(first),
    "tlsRows": lambda store, d, first, last: store.tlsRows(
        ReportFilter(domain=d, first=first, last=last), PAGE
    ),
    "tlsRows, failures": lambda store, d, first, last: store.tlsRows(
        ReportFilter(domain=d, first=first, last=last, onlyFailures=True), PAGE
    ),
    "dmarcRows": lambda store, d, first, last: store.dmarcRows(
        ReportFilter(domain=d, first=first, last=last), PAGE
    ),
    "dmarcRows, failures": lambda store, d, first, last: store.dmarcRows(
        ReportFilter(domain=d, first=first, last=last, onlyFailures=True), PAGE
    ),
    "dmarcRows of one reporter": lambda store, d, first, last: store.dmarcRows(
        ReportFilter(domain=d, organization=RARE, first=first, last=last), PAGE
    ),
    "dmarcRows of all domains": lambda store, d, first, last: store.dmarcRows(
        ReportFilter(first=first, last=last), PAGE
    ),
}


async def _ask(store: IReceivedReportStore) -> str:
    head = ["ms, later (first)"]
    columns = []
    for domain, name in ((LARGEST, "largest"), (TYPICAL, "typical")):
        for days in (SPAN, DAYS):
            head.append(f"{name}, {days} days")
            columns.append((domain, LAST_DAY - days + 1))
    rows = [head]
    for name, question in QUESTIONS.items():
        row = [name]
        for domain, first in columns:
            seconds = []
            for _ in range(TIMES):
                before = time.perf_counter()
                await question(store, domain, first, LAST_DAY)
                seconds.append(time.perf_counter() - before)
            row.append(f"{median(seconds[1:]) * 1e3:.0f} ({seconds[0] * 1e3:.0f})")
        rows.append(row)
    return aligned(rows)


async def _measure(reactor: IReactor, name: str, url: str) -> None:
    ledger = Ledger(reactor, url)
    print(f"{name}\n\n{await _ask(ledger.received)}\n", flush=True)
    await ledger.stop()


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    rows = ALL_ROWS if effort.full else effort.of(ROWS)
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as folder:
        path = Path(folder) / "ledger.sqlite"
        url = f"sqlite:///{path}"
        before = time.perf_counter()
        fill(url, rows)
        seconds, size = time.perf_counter() - before, path.stat().st_size
        print(
            f"{rows:,} rows stored in {seconds:.0f} s; {size / 1e6:,.0f} MB\n",
            flush=True,
        )
        await _measure(reactor, "SQLite", url)
        with postgres() as server:
            if server is not None:
                copy(str(path), server)
                await _measure(reactor, version(server), server)


if __name__ == "__main__":
    main(benchmark)
