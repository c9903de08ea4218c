# -*- test-case-name: tests.cli.test_main -*-
"""
C{moxtls}: the command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from moxtls import __version__
from moxtls.cli import (
    configuration,
    lab,
    mtasts,
    probe,
    queue,
    report,
    results,
    send,
    suppress,
)
from moxtls.cli.shell import execute

#: Each adds its verbs to the parser.
GROUPS = (
    configuration,
    send,
    queue,
    results,
    report,
    suppress,
    mtasts,
    probe,
    lab,
)


class _Parser(argparse.ArgumentParser):
    """
    Says what is wrong with the arguments in one line.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """
    Everything C{moxtls} understands.
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
    commands = top.add_subparsers(title="commands", dest="command", required=True)
    for group in GROUPS:
        group.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Run one command and exit with its status: 0 if all went well, 1 if not,
    2 if the command itself was wrong.
    """
    arguments = parser().parse_args(argv)
    sys.exit(execute(arguments, sys.stdin.buffer, sys.stdout, sys.stderr))


if __name__ == "__main__":
    main()
