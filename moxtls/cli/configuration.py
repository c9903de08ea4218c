# -*- test-case-name: tests.cli.test_configuration -*-
"""
C{moxtls config}: check it, explain it.
"""

from __future__ import annotations

import argparse
import getpass
import secrets
from typing import Any

from moxtls.cli.shell import Refusal, Shell
from moxtls.config import describe
from moxtls.smtp.passwords import SALT_LENGTH, InvalidPassword, hashPassword


def add(commands: Any) -> None:
    config = commands.add_parser("config", help="check or explain the configuration")
    verbs = config.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("check", help="say whether the configuration is good")
    check.add_argument("file", nargs="?", default="", metavar="FILE")
    check.set_defaults(run=_check)
    keys = verbs.add_parser("describe", help="every key: type, default and meaning")
    keys.add_argument("--json", action="store_true")
    keys.set_defaults(run=_describe)
    password = verbs.add_parser(
        "password", help="turn a password into what goes below [Users]"
    )
    password.set_defaults(run=_password)


async def _check(shell: Shell, arguments: argparse.Namespace) -> int:
    site = shell.openSite(arguments.file)
    site.check()
    shell.output.line(f"{site.file}: good")
    return 0


async def _describe(shell: Shell, arguments: argparse.Namespace) -> int:
    shell.output.table(
        ("Table", "Key", "Type", "Default", "Meaning"),
        [
            (each.table, each.key, each.type, each.default, each.meaning)
            for each in describe()
        ],
    )
    return 0


async def _password(shell: Shell, arguments: argparse.Namespace) -> int:
    if shell.stdin.isatty():
        password = getpass.getpass()
        if getpass.getpass("Once more: ") != password:
            raise Refusal("the passwords differ")
    else:
        line = shell.stdin.readline().rstrip(b"\r\n")
        password = line.decode("utf-8", "surrogateescape")
    if not password:
        raise Refusal("expected a password on standard input")
    try:
        shell.output.line(hashPassword(password, secrets.token_bytes(SALT_LENGTH)))
    except InvalidPassword as error:
        raise Refusal(str(error)) from None
    return 0
