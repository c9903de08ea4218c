# -*- test-case-name: tests.cli.test_show -*-
"""
C{moxtls report show}: reports that others sent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from moxtls.cli.documents import document
from moxtls.cli.shell import CommandError, Shell
from moxtls.incoming.attachment import MAX_SIZE
from moxtls.incoming.dispatch import Report, describeReport, readReport

#: The name for what comes on standard input.
STDIN = "-"


async def show(shell: Shell, arguments: argparse.Namespace) -> int:
    """
    All files are read before any is shown: an error is all there is then.
    """
    files: list[str] = arguments.files
    reports = [_read(shell, each) for each in files]
    if arguments.json:
        named = zip(files, reports, strict=True)
        shell.output.json([{"file": name, **document(each)} for name, each in named])
    for name, report in zip(files, reports, strict=True):
        if name is not files[0]:
            shell.output.line()
        if len(files) > 1:
            shell.output.line(f"{name}:")
        for line in describeReport(report):
            shell.output.line(line)
    return 0


def _read(shell: Shell, file: str) -> Report:
    try:
        if file == STDIN:
            return readReport(shell.stdin.read(MAX_SIZE + 1))
        with Path(file).open("rb") as opened:
            return readReport(opened.read(MAX_SIZE + 1))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        # A MalformedReport, or a name that no file can have.
        raise CommandError(f"{file}: {error}") from None
