# -*- test-case-name: tests.cli.test_send -*-
"""
C{moxtls send}: put a message into the queue, as C{sendmail} does.
"""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any

from moxtls.cli.shell import Refusal, Shell
from moxtls.queue.sendmail import Origin, SendmailError, compose, parseArguments
from moxtls.wiring import newID

USAGE = "moxtls send [--file FILE] [-t] [-i] [-f SENDER] [-F NAME] [RECIPIENT ...]"


def add(commands: Any) -> None:
    send = commands.add_parser(
        "send",
        help="put a message into the queue, with the arguments of sendmail",
        usage=USAGE,
        # Options are sendmail's, which are none that argparse could take.
        prefix_chars="\0",
        add_help=False,
    )
    send.add_argument("arguments", nargs="*")
    send.set_defaults(run=_send)


async def _send(shell: Shell, arguments: argparse.Namespace) -> int:
    rest: list[str] = arguments.arguments
    if rest[:1] in (["-h"], ["--help"]):
        shell.output.line(f"usage: {USAGE}")
        return 0
    file: str | None = None
    if rest[:1] == ["--file"]:
        if not rest[1:]:
            raise Refusal("--file needs a value")
        _, file, *rest = rest
    hostname = shell.site.config.hostname.ascii
    messageID = f"{newID()}@{hostname}"
    origin = Origin(getpass.getuser(), hostname, shell.now(), messageID)
    try:
        request = parseArguments(rest)
        envelope, body = compose(request, _message(shell, file), origin)
    except SendmailError as error:
        raise Refusal(str(error)) from None
    queue = await shell.queue()
    shell.output.line(await queue.submit(envelope, body))
    return 0


def _message(shell: Shell, file: str | None) -> bytes:
    if file is None:
        return shell.stdin.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Refusal(f"{file}: {error.strerror}") from None
