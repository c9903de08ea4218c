"""
Reads an input in a process of its own, and measures that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

#: Records of the report that the time is compared with.
REFERENCE = 2_000


@dataclass(frozen=True, slots=True)
class Measured:
    """
    @ivar peak: The most memory that the process had, in MB.
    @ivar cpu: CPU time relative to that for a report of L{REFERENCE} records.
    @ivar messages: In all reports.
    @ivar reasons: Of what is unreadable.
    """

    peak: float
    cpu: float
    messages: int
    reports: int
    reasons: list[str]


def measure(path: Path) -> Measured:
    """
    Read the file at C{path}.
    """
    command = [sys.executable, "-m", "tests.received.reading.measured", str(path)]
    done = subprocess.run(command, check=True, capture_output=True)
    return Measured(**json.loads(done.stdout))


def _main(path: str) -> None:
    from moxtls.received.reading.read import readReports

    start = time.process_time()
    found = readReports(path)
    cpu = time.process_time() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    from tests.received.reading.samples import aggregateReport

    reference = aggregateReport(REFERENCE)
    start = time.process_time()
    readReports(reference)
    measured = Measured(
        peak / 1024,
        cpu / (time.process_time() - start),
        sum(each.total for each in found.reports),
        len(found.reports),
        [each.reason for each in found.unreadable],
    )
    print(json.dumps({name: getattr(measured, name) for name in Measured.__slots__}))


if __name__ == "__main__":
    _main(sys.argv[1])
