"""
Runs fuzzers, each in a process of its own, for a bounded time. Findings are left in
files, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.targets import TARGETS

#: Memory limit in MB; beyond it is a finding.
LARGEST = 1024
#: Limit on the size of inputs, in octets.
LONGEST = 4096
#: Seconds for one input.
SLOWEST = 10


def main() -> int:
    options = _parser().parse_args()
    if options.one:
        return _one(options)
    failed = []
    for name in options.names or TARGETS:
        print(f"=== {name}, {options.seconds} s", flush=True)
        if not _isClean(name, options.seconds, options.seed):
            failed.append(name)
    print(
        f"{len(options.names or TARGETS)} fuzzed, {len(failed)} failed {failed or ''}"
    )
    return 1 if failed else 0


def _isClean(name: str, seconds: int, seed: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="moxtls-fuzz.") as folder:
        for number, start in enumerate(TARGETS[name].seeds):
            (Path(folder) / f"seed{number}").write_bytes(start)
        command = [sys.executable, "-m", "fuzz", "--one", name]
        command += ["--corpus", folder, "--seconds", str(seconds)]
        command += ["--seed", str(seed)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (ran.stdout + ran.stderr).splitlines()
    # libFuzzer tells of its progress in lines that begin with a number.
    told = [each for each in lines if not each.startswith(("#", "INFO:", "WARNING:"))]
    shown = told if ran.returncode else [x for x in told if x.startswith("Done")]
    print("\n".join(shown), flush=True)
    return ran.returncode == 0


def _one(options: argparse.Namespace) -> int:
    try:
        import atheris
    except ImportError:
        print("atheris isn't installed: pip install '.[fuzz]'", file=sys.stderr)
        return 2
    target = TARGETS[options.one]
    with atheris.instrument_imports(include=["moxtls"]):
        target.prepare()
    # Options of libFuzzer, which ends the process.
    flags = [
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        f"-rss_limit_mb={LARGEST}",
        "-artifact_prefix=fuzz-found-",
        f"-max_len={LONGEST}",
        f"-timeout={SLOWEST}",
        "-print_final_stats=0",
    ]
    atheris.Setup([sys.argv[0], *flags, options.corpus], target.fuzz)
    atheris.Fuzz()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", choices=[*TARGETS, []], help="all if none"
    )
    parser.add_argument("--seconds", type=int, default=20, help="for each")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random numbers (default: any)"
    )
    parser.add_argument("--one", choices=list(TARGETS), help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
