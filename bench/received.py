"""
Reads received reports, and imports them, compared with parsedmarc: reports per second,
CPU time, and the most memory that a process had.  Each measurement is in a process of
its own.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from bench.comparison import aligned
from bench.receivedreading import READERS
from bench.settings import Effort, IReactor, main
from moxtls.ledger.ledger import Ledger
from moxtls.received.types import ReportFilter, StoredReport
from tests.received.reading.samples import aggregateReport

#: Reports with the usual number of rows, and rows of a large one.
REPORTS = 1000
ROWS = 10
LARGE = 100_000
#: Reports that are imported.
IMPORTED = 10_000
#: Number of measurements of large ones and imports: parsedmarc takes most of a minute.
MOST_ROUNDS = 1

BASELINE = "parsedmarc"

_NULL = subprocess.DEVNULL


@dataclass(frozen=True, slots=True)
class Reading:
    """
    A measurement.

    @ivar messages: In all reports; the same for all that read them correctly.
    @ivar cpu: Seconds, without what starting the process takes.
    @ivar peak: Octets.
    """

    messages: int
    cpu: float
    peak: int


def _measure(name: str, folder: Path) -> Reading:
    first = folder.parent / "first.xml.gz"
    module = "bench.receivedreading"
    command = [sys.executable, "-m", module, name, str(first), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return Reading(**json.loads(done.stdout))


def _compare(title: str, folder: Path, reports: int, rounds: int) -> None:
    names = [each for each in READERS if each == "moxtls" or find_spec(each)]
    readings: dict[str, list[Reading]] = {name: [] for name in names}
    for _ in range(max(1, rounds)):
        for name in names:
            readings[name].append(_measure(name, folder))
    counts = {each.messages for found in readings.values() for each in found}
    assert len(counts) == 1, counts
    table = [["", "reports per CPU second", "CPU each", f"x {BASELINE}", "peak"]]
    for name in names:
        cpu = median(each.cpu for each in readings[name]) / reports
        ratios = [
            other.cpu / one.cpu
            for one, other in zip(
                readings[name], readings.get(BASELINE, ()), strict=False
            )
        ]
        table.append(
            [
                name,
                f"{1 / cpu:,.1f}",
                f"{cpu * 1000:,.2f} ms",
                f"{median(ratios):.1f}" if ratios else "-",
                f"{max(each.peak for each in readings[name]) / 1e6:.0f} MB",
            ]
        )
    print(f"{title}\n\n{aligned(table)}\n", flush=True)
    if BASELINE not in names:
        print(f"  {BASELINE} is not installed\n")


@dataclass(frozen=True, slots=True)
class Import:
    """
    A measurement of a command.

    @ivar wall: Seconds from its start to its end.
    @ivar cpu: Seconds, of all its processes.
    """

    wall: float
    cpu: float


def _timed(command: Sequence[object]) -> Import:
    start = time.monotonic()
    process = subprocess.Popen([str(each) for each in command], stdout=_NULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    assert not process.returncode, process.returncode
    # Its peak of memory would be that of this process, if that is larger.
    return Import(wall, usage.ru_utime + usage.ru_stime)


def _import(folder: Path, reports: int) -> Import:
    """
    Import the reports into a new SQLite ledger.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        file = Path(name, "moxtls.toml")
        file.write_text('Hostname = "mail.example.org"\n[Domains."example.org"]\n')
        Path(name, "data").mkdir(0o700)
        command: list[object] = [sys.executable, "-m", "moxtls.cli.main", "-c", file]
        done = _timed([*command, "report", "import", folder])
        ledger = Ledger(None, f"sqlite:///{name}/data/ledger.sqlite", make=False)
        stored: list[Sequence[StoredReport]] = []
        ledger.received.reports(ReportFilter(), reports).addCallback(stored.append)
        ledger.stop()
        assert len(stored[0]) == reports, len(stored[0])
    return done


def _compareImports(folder: Path, reports: int, rounds: int) -> None:
    processes = len(os.sched_getaffinity(0))
    parse = [sys.executable, "-m", "bench.receivedimport"]
    runs: dict[str, Callable[[], Import]] = {
        "moxtls, everything stored": lambda: _import(folder, reports)
    }
    if find_spec(BASELINE):
        for count in sorted({1, processes}):
            command: list[object] = [*parse, count, folder]
            runs[f"{BASELINE}, {count} processes"] = partial(_timed, command)
    else:
        print(f"  {BASELINE} is not installed\n")
    measured = {
        name: [run() for _ in range(max(1, rounds))] for name, run in runs.items()
    }
    table = [["", "reports per second", "seconds", "CPU seconds"]]
    for name, found in measured.items():
        wall = median(each.wall for each in found)
        table.append(
            [
                name,
                f"{reports / wall:,.0f}",
                f"{wall:.1f}",
                f"{median(each.cpu for each in found):.1f}",
            ]
        )
    print(
        f"Import of {reports:,} reports in a folder\n\n{aligned(table)}\n", flush=True
    )


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        small, large = Path(name, "small"), Path(name, "large")
        small.mkdir()
        large.mkdir()
        Path(name, "first.xml.gz").write_bytes(gzip.compress(aggregateReport(1)))
        count, rows = effort.of(REPORTS), effort.of(LARGE)
        for number in range(count):
            report = aggregateReport(ROWS, f"r-{number}", number)
            (small / f"{number}.xml.gz").write_bytes(gzip.compress(report))
        report = aggregateReport(rows)
        packed = gzip.compress(report)
        (large / "0.xml.gz").write_bytes(packed)
        title = f"{count:,} aggregate reports of {ROWS} rows"
        _compare(title, small, count, effort.rounds)
        title = (
            f"A report of {rows:,} rows: {len(report) / 1e6:.1f} MB, "
            f"{len(packed) / 1e6:.1f} in gzip"
        )
        _compare(title, large, 1, min(effort.rounds, MOST_ROUNDS))
        count = effort.of(IMPORTED)
        for number in range(count):
            report = aggregateReport(ROWS, f"r-{number}", number)
            (small / f"{number}.xml.gz").write_bytes(gzip.compress(report))
        _compareImports(small, count, min(effort.rounds, MOST_ROUNDS))


if __name__ == "__main__":
    main(benchmark)
