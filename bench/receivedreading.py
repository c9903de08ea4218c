"""
Reads the reports in a folder with one implementation, and prints how much CPU time and
memory that took.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: Reads a report, and returns the number of messages that it is about.
Reader = Callable[[bytes], int]


def _moxtls() -> Reader:
    from moxtls.received.reading.read import readReports

    def read(data: bytes) -> int:
        [report] = readReports(data).reports
        return report.total

    return read


def _parsedmarc() -> Reader:
    from parsedmarc import parse_aggregate_report_file

    logging.disable()

    def read(data: bytes) -> int:
        report = parse_aggregate_report_file(
            data, offline=True, always_use_local_files=True
        )
        return sum(int(each["count"]) for each in report["records"])

    return read


READERS = {"moxtls": _moxtls, "parsedmarc": _parsedmarc}


def _main(name: str, first: str, folder: str) -> None:
    """
    @param first: A report that is read before measuring.
    """
    read = READERS[name]()
    read(Path(first).read_bytes())
    files = sorted(Path(folder).iterdir())
    start = time.process_time()
    messages = sum(read(each.read_bytes()) for each in files)
    cpu = time.process_time() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"messages": messages, "cpu": cpu, "peak": peak * 1024}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
