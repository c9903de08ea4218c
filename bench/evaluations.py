"""
Evaluations of incoming mail recorded per second, each durable before it counts; and
the evaluations of a day for one domain read page by page.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import partial

from bench.comparison import Variant, compare, sideBySide, table
from bench.evaluated import (
    ROWS,
    START,
    Evaluations,
    fill,
    fillApart,
    flood,
    lifelike,
)
from bench.machine import memory
from bench.onebyone import OneByOne, onEach
from bench.settings import Effort, IReactor, main
from moxtls.ledger.ledger import Ledger

__all__ = ["benchmark", "fill"]

#: Concurrent recordings: a server under load.
WIDTH = 1000
RECORDED = 10_000
ONE_BY_ONE = 500
#: Rows of a report, unless C{Effort.full}.
USUAL_ROWS = 10_000
#: Rows read at a time.
PAGE = 1000
TRAFFIC: dict[str, Evaluations] = {
    "100 000 rows of 1000 domains by Zipf's law": lifelike,
    "all the same": flood,
}
_INSERT = "INSERT INTO entry (day, outcome) VALUES (?, ?)"


def _recording(ledger: Ledger, evaluations: Evaluations, operations: int) -> Variant:
    async def run(count: int) -> None:
        coming = evaluations(count)
        await sideBySide(
            count, WIDTH, lambda: ledger.evaluations.record(START, next(coming))
        )

    return Variant("moxtls ledger", run, operations)


def _baseline(database: OneByOne, evaluations: Evaluations, operations: int) -> Variant:
    async def insert(count: int) -> None:
        for each in evaluations(count):
            database.commit([(_INSERT, (str(START), json.dumps(asdict(each))))])

    return Variant("one insert per commit", insert, operations)


async def _record(
    ledger: Ledger, effort: Effort, name: str, database: OneByOne
) -> None:
    for traffic, evaluations in TRAFFIC.items():
        # Their generation is not measured.
        list(evaluations(effort.of(RECORDED)))
        baseline = _baseline(database, evaluations, effort.of(ONE_BY_ONE))
        comparison = await compare(
            f"{name}; {traffic}; {WIDTH} at a time",
            "evaluations",
            [baseline, _recording(ledger, evaluations, effort.of(RECORDED))],
            [baseline.name],
            effort.rounds,
        )
        print(table(comparison), flush=True)


async def _readPages(ledger: Ledger, effort: Effort, name: str, url: str) -> None:
    """
    Read from a ledger as composing a report does.
    """
    rows = ROWS if effort.full else effort.of(USUAL_ROWS)
    began = time.perf_counter()
    period = fillApart(url, rows)
    filled = time.perf_counter()
    before = most = memory()
    summary = await ledger.evaluations.summary(period)
    assert summary is not None
    looked = time.perf_counter()
    after, messages, found = b"", 0, 0
    while page := await ledger.evaluations.rows(period, after, PAGE):
        after = page[-1][0]
        found += len(page)
        messages += sum(count for _, _, count in page)
        most = max(most, memory())
    read = time.perf_counter()
    await ledger.evaluations.settle(period, (), ())
    settled = time.perf_counter()
    assert (found, messages) == (summary.rows, summary.messages) == (rows, 10 * rows)
    print(f"{name}; one report of {messages:,} messages in {rows:,} rows\n")
    print(f"  recorded in {filled - began:.1f} s: {messages / (filled - began):,.0f}/s")
    print(f"  summary in {looked - filled:.2f} s")
    print(f"  rows in {read - looked:.2f} s: {rows / (read - looked):,.0f} per second")
    print(f"  settled in {settled - read:.2f} s")
    print(f"  memory: {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB at most\n")


async def _measure(
    reactor: IReactor, effort: Effort, name: str, url: str, database: OneByOne
) -> None:
    ledger = Ledger(reactor, url)
    await _record(ledger, effort, name, database)
    await _readPages(ledger, effort, name, url)
    await ledger.stop()


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    await onEach(partial(_measure, reactor, effort))


if __name__ == "__main__":
    main(benchmark)
