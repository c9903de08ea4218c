# -*- test-case-name: tests.cli.test_configuration -*-
"""
C{moxtls config}: checks and explains the configuration.
"""

from __future__ import annotations

import argparse
import getpass
import secrets
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from moxtls.authentication.dkim.sign import NoSubmitter
from moxtls.cli.output import record
from moxtls.cli.shell import CommandError, Shell, addCommand, addGroup
from moxtls.config import KeyDescription, describe
from moxtls.smtp.passwords import SALT_LENGTH, InvalidPassword, hashPassword

COLUMNS = ("Table", "Key", "Type", "Default", "Meaning")
#: The maximum width of text: longer lines are hard to read.
MAX_LINE = 88


def add(commands: Any) -> None:
    verbs = addGroup(commands, "config", "check or explain the configuration")
    check = addCommand(verbs, "check", "check the configuration and the files it names")
    check.add_argument(
        "file", nargs="?", default="", metavar="FILE", help="instead of --config"
    )
    check.set_defaults(run=_check)
    keys = addCommand(verbs, "describe", "print type, default and meaning of every key")
    keys.set_defaults(run=_describe)
    password = addCommand(verbs, "password", "hash a password for the table [Users]")
    password.set_defaults(run=_password)


async def _check(shell: Shell, arguments: argparse.Namespace) -> int:
    from moxtls.app.preflight import examine

    configFiles = examine(shell.configFile(arguments.file))
    notes = list(configFiles.remarks(shell.now()))
    if (
        isinstance(configFiles.submitter, NoSubmitter)
        and not configFiles.config.noOutgoingTLSReports
    ):
        notes.append(f"no TLS reports are sent: {configFiles.submitter}")
    if shell.output.asJSON:
        shell.output.json({"file": str(configFiles.file), "notes": notes})
    for note in notes:
        shell.output.line(f"{configFiles.file}: good; but {note}")
    if not notes:
        shell.output.line(f"{configFiles.file}: good")
    return 0


async def _describe(shell: Shell, arguments: argparse.Namespace) -> int:
    described = describe()
    if arguments.json:
        shell.output.json([_record(each) for each in described])
    for line in _lines(described, min(shell.output.width, MAX_LINE)):
        shell.output.line(line)
    return 0


def _record(each: KeyDescription) -> dict[str, object]:
    row = (each.table, each.key, each.type, each.default, each.meaning)
    return record(COLUMNS, row)


def _lines(described: Iterable[KeyDescription], width: int) -> Iterator[str]:
    """
    The keys in the order and form of the file.
    """
    for each in described:
        if each.key:
            default = each.default
            yield f"{each.key}: {each.type}, " + (
                default if default == "required" else f"default {default}"
            )
        else:
            yield ""
            yield f"[{each.table}]"
        yield from textwrap.wrap(
            each.meaning,
            width,
            initial_indent="    ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )


async def _password(shell: Shell, arguments: argparse.Namespace) -> int:
    try:
        hashed = hashPassword(_readPassword(shell), secrets.token_bytes(SALT_LENGTH))
    except InvalidPassword as error:
        raise CommandError(str(error)) from None
    shell.output.done(hashed, password=hashed)
    return 0


def _readPassword(shell: Shell) -> str:
    if not shell.stdin.isatty():
        line = shell.stdin.readline().rstrip(b"\r\n")
        # Bytes that aren't UTF-8 become a character that is refused.
        return line.decode("utf-8", "replace")
    try:
        password = getpass.getpass()
        again = getpass.getpass("Once more: ")
    except EOFError:
        return ""
    if again != password:
        raise CommandError("the passwords differ")
    return password
