# -*- test-case-name: tests.cli.test_main -*-
"""
C{moxtls}: the command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import NoReturn

from moxtls import __version__

#: Each command with its module and help text. Modules are imported on demand: all
#: together they take a second.
COMMANDS = {
    "config": ("configuration", "check or explain the configuration"),
    "send": ("send", "submit a message, with the arguments of sendmail"),
    "queue": ("queue", "messages in the queue"),
    "results": ("results", "TLS results that have not been reported"),
    "evaluations": (
        "evaluations",
        "DMARC evaluations that have not been reported",
    ),
    "report": ("reports.commands", "list, preview, send and read reports"),
    "summary": ("summary", "what received reports say about domains"),
    "readiness": (
        "readiness",
        "whether a domain is ready for MTA-STS enforce, p=quarantine and p=reject",
    ),
    "suppress": ("suppress", "report addresses to which no reports are sent"),
    "mtasts": ("mtasts", "cached MTA-STS policies"),
    "auth": ("auth", "explain the SPF, DKIM and DMARC results of a message"),
    "probe": (
        "probe",
        "look up a domain's policies and connect to its hosts; no mail is sent",
    ),
    "lab": ("lab", "simulated internet on loopback, with moxtls in it"),
}


class _Parser(argparse.ArgumentParser):
    """
    An argument parser that prints errors in one line.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """
    The argument parser: complete for the commands that are among C{words}, with the
    names of the others.
    """
    top = _Parser(
        prog="moxtls",
        description="Mail transfer with TLS and DMARC reports, MTA-STS and DANE. "
        'The server itself is started by "twistd moxtls --config moxtls.toml".',
    )
    top.add_argument("--version", action="version", version=f"moxtls {__version__}")
    top.add_argument(
        "--verbose", "-v", action="store_true", help="log to standard error"
    )
    top.add_argument(
        "--config",
        "-c",
        default="",
        metavar="FILE",
        help="the configuration (default: $MOXTLS_CONFIG, moxtls.toml in this "
        "folder, or /etc/moxtls/moxtls.toml)",
    )
    commands = top.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name, (module, meaning) in COMMANDS.items():
        if name in words:
            import_module(f"moxtls.cli.{module}").add(commands)
        else:
            commands.add_parser(name, help=meaning)
    return top


def _openStandardStreams() -> None:
    """
    Open the standard streams that the caller has closed: else a database would get
    their numbers.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Run one command and exit with its status: 0 for success, 1 for failure, 2 for
    wrong arguments.
    """
    words = sys.argv[1:] if argv is None else argv
    _openStandardStreams()
    # Names from remote hosts may not be in the terminal's character set.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = parser(words).parse_args(words)
    from moxtls.cli.shell import OUTPUT_CLOSED, execute

    status = execute(arguments, sys.stdin.buffer, sys.stdout, sys.stderr)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = OUTPUT_CLOSED
        # Python would print an error when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


if __name__ == "__main__":
    main()
