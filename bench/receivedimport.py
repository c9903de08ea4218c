"""
Parses all reports in a folder with parsedmarc, in one process or several, for
comparison with an import; prints the number of messages in them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from multiprocessing import Pool
from pathlib import Path

#: Files for a process at a time.
CHUNK = 32


def _messages(file: Path) -> int:
    """
    The messages in a report, as another process gets them.
    """
    from parsedmarc import parse_aggregate_report_file

    report = parse_aggregate_report_file(
        file.read_bytes(), offline=True, always_use_local_files=True
    )
    return sum(int(each["count"]) for each in report["records"])


def _main(processes: int, folder: Path) -> None:
    logging.disable()
    files: Iterable[Path] = sorted(folder.iterdir())
    if processes == 1:
        print(sum(map(_messages, files)))
        return
    with Pool(processes) as pool:
        print(sum(pool.imap_unordered(_messages, files, CHUNK)))


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]))
