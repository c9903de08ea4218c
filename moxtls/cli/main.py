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

#: Each command, the module that has it, and what it is for.  Modules are
#: imported when they are wanted: all together they take a second.
COMMANDS = {
    "config": ("configuration", "check or explain the configuration"),
    "send": ("send", "put a message into the queue, with the arguments of sendmail"),
    "queue": ("queue", "messages that have not left yet"),
    "results": ("results", "how TLS went, of days that have not been reported"),
    "evaluations": (
        "evaluations",
        "what DMARC made of mail that has not been reported",
    ),
    "report": ("reports", "reports: owed, sent and received"),
    "suppress": ("suppress", "addresses that get no reports for the time being"),
    "mtasts": ("mtasts", "MTA-STS policies that are remembered"),
    "auth": ("auth", "explain what SPF, DKIM and DMARC make of a message"),
    "probe": (
        "probe",
        "look up a domain's policies, and connect to its hosts; sends no mail",
    ),
    "lab": ("lab", "a small internet on loopback"),
}


class _Parser(argparse.ArgumentParser):
    """
    Says what is wrong with the arguments in one line.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """
    Everything C{moxtls} understands, of the commands that are among C{words};
    of the others their names.
    """
    top = _Parser(
        prog="moxtls",
        description="Mail transfer with TLS reporting, MTA-STS and DANE. "
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


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Run one command and exit with its status: 0 if all went well, 1 if not,
    2 if the command itself was wrong.
    """
    words = sys.argv[1:] if argv is None else argv
    # What others call themselves may not be in the terminal's character set.
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
        # Python would complain when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


if __name__ == "__main__":
    main()
