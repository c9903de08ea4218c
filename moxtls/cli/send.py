# -*- test-case-name: tests.cli.test_send -*-
"""
C{moxtls send}: submits a message, like C{sendmail}.
"""

from __future__ import annotations

import argparse
import getpass
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from moxtls.cli.shell import CommandError, Shell
from moxtls.cli.submission import submit
from moxtls.config import Config, InvalidConfig
from moxtls.domain import Address
from moxtls.queue.sendmail import (
    SendmailError,
    SubmitterInfo,
    composeSubmission,
    parseArguments,
)
from moxtls.queue.types import Envelope
from moxtls.smtp.server.data import InvalidMessage

log = Logger()

#: The exit status of sendmail for recipients that don't exist, <sysexits.h>.
EX_NOUSER = 67

USAGE = (
    "moxtls send [--json] [--file FILE] [-t] [-i] [-f SENDER] [-F NAME] [RECIPIENT ...]"
)
HELP = f"""\
usage: {USAGE}

Submit a message, with the arguments of sendmail. Prints its identifier.

  --json       print JSON
  --file FILE  read the message from FILE instead of standard input
  -t           send to the addresses in To, Cc and Bcc, too
  -i           a line with a single dot doesn't end the message
  -f SENDER    the envelope sender (default: the user at Hostname)
  -F NAME      the sender's name, for a missing From field
"""


def add(commands: Any) -> None:
    send = commands.add_parser(
        "send",
        help="submit a message, with the arguments of sendmail",
        usage=USAGE,
        # argparse can't parse the options of sendmail.
        prefix_chars="\0",
        add_help=False,
    )
    send.add_argument("arguments", nargs="*")
    send.set_defaults(run=_send)


async def _send(shell: Shell, arguments: argparse.Namespace) -> int:
    rest: list[str] = list(arguments.arguments)
    if rest[:1] in (["-h"], ["--help"]):
        shell.output.stdout.write(HELP)
        return 0
    output, file = shell.output, ""
    while rest[:1] in (["--json"], ["--file"]):
        if rest.pop(0) == "--json":
            output = replace(output, asJSON=True)
        elif rest:
            file = rest.pop(0)
        else:
            raise CommandError("--file needs a value")
    messageID = await _submit(shell, rest, file)
    output.done(messageID, id=messageID)
    return 0


async def _submit(shell: Shell, arguments: list[str], file: str) -> str:
    from moxtls.app.process import newID

    # Both belong to the calling user, and the process may switch its user.
    user = _user()
    try:
        request = parseArguments(arguments)
        if not request.recipients and not request.fromHeader:
            raise CommandError("no recipients")
        message = _message(shell, file)
        hostname = shell.configFiles.config.hostname.ascii
        origin = SubmitterInfo(user, hostname, shell.now(), f"{newID()}@{hostname}")
        envelope, body = composeSubmission(request, message, origin)
    except SendmailError as error:
        raise CommandError(str(error)) from None
    _checkRecipients(shell.configFiles.config, envelope)
    if not shell.configFiles.isOurs():
        return await submit(shell, envelope, body)
    queue = await shell.queue(make=True)
    try:
        messageID = await queue.submit(envelope, body)
    except InvalidMessage as error:
        raise CommandError(str(error)) from None
    await _note(shell, envelope)
    return messageID


def _checkRecipients(config: Config, envelope: Envelope) -> None:
    """
    Refuse a message none of whose recipients exists.
    """
    from moxtls.reception.recipients import Directory, NoSuchUser

    directory = Directory(config)
    unknown = [
        each
        for each in envelope.recipients
        if isinstance(directory.find(Address.parse(each)), NoSuchUser)
    ]
    if len(unknown) == len(envelope.recipients):
        raise CommandError(f"no such user: {', '.join(unknown)}", EX_NOUSER)


async def _note(shell: Shell, envelope: Envelope) -> None:
    """
    Record the recipients in the sender history. The message is queued already, so
    errors are only logged.
    """
    from moxtls.ledger.database import LedgerUnavailable
    from moxtls.reception.delivery import HistoryRecorder, VerdictDispatcher
    from moxtls.reception.recipients import Directory

    config = shell.configFiles.config
    try:
        history = (await shell.ledger(make=True)).history
    except (InvalidConfig, LedgerUnavailable):
        log.failure(
            "moxtls send: recording the recipients in the sender history failed"
        )
        return
    dispatcher = VerdictDispatcher(shell.reactor, (), history)
    historyRecorder = HistoryRecorder(Directory(config), config.accounts, dispatcher)
    await historyRecorder.submitted("", envelope)
    await dispatcher.finished()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A user without a name, as in some containers.
        return "nobody"


def _message(shell: Shell, file: str) -> bytes:
    if not file:
        return shell.stdin.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
