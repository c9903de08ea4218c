"""
Composes a DMARC report on a million messages from a ledger: rows per second, and
memory. DNS answers at once. The report is composed, but not settled, so that it can
be repeated.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.comparison import aligned
from bench.dmarcfilling import DOMAIN, fill
from bench.machine import forgetPeak, memory, peakSince
from bench.postgres import postgres, version
from bench.settings import Effort, IReactor, main
from moxtls.dates import DAY, Span
from moxtls.dmarc.aggregate import AggregateMetadata, AggregateWriter, ReportFormat
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.source import PAGE, DMARCReportSource
from moxtls.dmarc.types import DMARCPolicy, PublishedPolicy, ReportRow
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger
from moxtls.reporting.types import ReportDraft, ReportPeriod

SUBMITTER = Domain("sender.example")
ROWS = 100_000
#: Messages for each row.
TIMES = 10
#: Number of measurements: one such report takes seconds.
MOST_ROUNDS = 3

_BARE = (
    "<record>\n<row><source_ip>{}</source_ip><count>{}</count><policy_evaluated>"
    "<disposition>{}</disposition><dkim>{}</dkim><spf>{}</spf></policy_evaluated>"
    "</row>\n<identifiers><envelope_to>{}</envelope_to><envelope_from>{}"
    "</envelope_from><header_from>{}</header_from></identifiers>\n<auth_results>"
    "{}<spf><domain>{}</domain><scope>mfrom</scope><result>{}</result></spf>"
    "</auth_results>\n</record>\n"
)
_BARE_SIGNATURE = (
    "<dkim><domain>{}</domain><selector>{}</selector><result>{}</result></dkim>"
)

_Rows = Sequence[tuple[ReportRow, int]]


@dataclass(slots=True)
class Times:
    """
    Seconds for each step, by round.
    """

    whole: list[float]
    reading: list[float]
    writing: list[float]
    bare: list[float]


def _source(ledger: Ledger) -> DMARCReportSource:
    resolver = MemoryResolver({(str(SUBMITTER), RRType.A): ["192.0.2.25"]})
    record = f"v=DMARC1; p=reject; rua=mailto:dmarc@{DOMAIN}"
    resolver.put(f"_dmarc.{DOMAIN}", RRType.TXT, record)
    return DMARCReportSource(
        resolver,
        ledger.evaluations,
        ledger.history,
        DMARCReporting(SUBMITTER),
        ledger.identifier,
    )


async def _read(ledger: Ledger, period: ReportPeriod) -> list[tuple[ReportRow, int]]:
    found: list[tuple[ReportRow, int]] = []
    after = b""
    while page := await ledger.evaluations.rows(period, after, PAGE):
        found.extend((row, count) for _, row, count in page)
        after = page[-1][0]
    return found


def _write(rows: _Rows, end: int) -> bytes:
    heading = AggregateMetadata(SUBMITTER, "bench@sender.example", Span(end - DAY, end))
    published = PublishedPolicy(DOMAIN, DMARCPolicy.REJECT)
    writer = AggregateWriter(ReportFormat.RFC9990, heading, published)
    for start in range(0, len(rows), PAGE):
        writer.add(rows[start : start + PAGE])
    return writer.finish()


def _bare(rows: _Rows) -> bytes:
    """
    A minimal implementation for comparison: one format and gzip.
    """
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS + 16)
    pieces = []
    for start in range(0, len(rows), PAGE):
        texts = [_record(row, count) for row, count in rows[start : start + PAGE]]
        pieces.append(packer.compress("".join(texts).encode("utf-8")))
    return b"".join([*pieces, packer.flush()])


def _record(row: ReportRow, count: int) -> str:
    assert row.spf is not None
    signatures = "".join(
        _BARE_SIGNATURE.format(each.domain, each.selector, each.result)
        for each in row.dkim
    )
    return _BARE.format(
        row.sourceIP,
        count,
        row.disposition,
        "pass" if row.dkimAligned else "fail",
        "pass" if row.spfAligned else "fail",
        row.envelopeTo,
        row.envelopeFrom,
        row.headerFrom,
        signatures,
        row.spf.domain,
        row.spf.result,
    )


async def _compose(ledger: Ledger, period: ReportPeriod) -> ReportDraft:
    drafted = await _source(ledger).draft(period)
    assert isinstance(drafted, ReportDraft), drafted
    return drafted


async def _time(ledger: Ledger, period: ReportPeriod, times: Times) -> None:
    marks = [time.perf_counter()]

    def elapsed() -> float:
        marks.append(time.perf_counter())
        return marks[-1] - marks[-2]

    await _compose(ledger, period)
    times.whole.append(elapsed())
    rows = await _read(ledger, period)
    times.reading.append(elapsed())
    _write(rows, period.end)
    times.writing.append(elapsed())
    _bare(rows)
    times.bare.append(elapsed())


async def _measure(reactor: IReactor, effort: Effort, name: str, url: str) -> None:
    end = int(reactor.seconds() // DAY) * DAY
    count = effort.of(ROWS)
    fill(url, end, count, TIMES)
    ledger = Ledger(reactor, url)
    (period,) = await ledger.evaluations.periods(end, None, 2)
    summary = await ledger.evaluations.summary(period)
    assert summary is not None and summary.rows == count, summary
    forgetPeak()
    before = memory()
    draft = await _compose(ledger, period)
    peak = peakSince()
    times = Times([], [], [], [])
    for _ in range(max(1, min(effort.rounds, MOST_ROUNDS))):
        await _time(ledger, period, times)
    await ledger.stop()
    title = f"{name}; {summary.messages:,} messages in {count:,} rows"
    print(f"{title}\n\n{_table(times, count)}\n")
    print(f"  the report: {len(draft.document) / 1e6:.1f} MB as it is sent")
    print(
        f"  memory: {before / 1e6:.0f} MB before, {peak / 1e6:.0f} peak "
        f"while it was composed: {(peak - before) / 1e6:.1f} more\n",
        flush=True,
    )


def _table(times: Times, count: int) -> str:
    rows = [["", "rows per second", "x bare"]]
    for name, seconds in (
        ("composed from the ledger", times.whole),
        ("only read from the ledger", times.reading),
        ("only written, from memory", times.writing),
        ("bare format + gzip, from memory", times.bare),
    ):
        ratios = [bare / each for bare, each in zip(times.bare, seconds, strict=True)]
        rate = count / median(seconds)
        rows.append([name, f"{rate:,.0f}", f"{median(ratios):.2f}"])
    return aligned(rows)


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.sqlite'}"
        await _measure(reactor, effort, "SQLite", url)
    if effort.full:
        with postgres() as server:
            if server is not None:
                await _measure(reactor, effort, version(server), server)


if __name__ == "__main__":
    main(benchmark)
