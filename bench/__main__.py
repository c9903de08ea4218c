"""
Runs benchmarks, each in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.machine import describe

BENCHMARKS = {
    "sessions": "SMTP sessions with captured outcomes",
    "reception": "messages accepted from clients",
    "outcomes": "outcomes recorded in a ledger",
    "evaluations": "evaluations of mail recorded in a ledger, and read for a report",
    "reports": "reports composed",
    "storedreports": "questions about received reports",
    "dmarcreports": "a DMARC report on a million messages",
    "spool": "messages accepted for delivery",
    "queue": "messages of a full queue delivered",
    "spf": "SPF checks",
    "dkim": "DKIM signatures verified",
    "mailbox": "messages stored in mailboxes",
    "received": "received reports read and imported",
}


def main() -> int:
    options = _parser().parse_args()
    print(describe(), flush=True)
    flags = [
        flag
        for flag, given in (("--quick", options.quick), ("--full", options.full))
        if given
    ]
    status = 0
    for name in options.names or BENCHMARKS:
        print(f"\n=== {name}: {BENCHMARKS[name]}\n", flush=True)
        command = [sys.executable, "-m", f"bench.{name}", *flags]
        status |= subprocess.run(command, check=False).returncode
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        # argparse compares an empty list to the choices, too.
        choices=[*BENCHMARKS, []],
        help=f"of {', '.join(BENCHMARKS)}; all if none is given",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--quick", action="store_true", help="check that it works: a few seconds"
    )
    how.add_argument(
        "--full", action="store_true", help="measure thoroughly: half an hour"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
