# -*- test-case-name: tests.cli.test_auth -*-
"""
C{moxtls auth}: explains the SPF, DKIM and DMARC results of a message.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from moxtls.authentication.check import authenticate
from moxtls.authentication.outcome import AuthenticationOutcome, authenticationResults
from moxtls.authentication.results import AuthResult
from moxtls.cli.shell import STDIN, CommandError, Shell, addCommand
from moxtls.domain import Address, InvalidAddress
from moxtls.ipaddresses import parseIP
from moxtls.ledger.ledger import MemoryLedger
from moxtls.message.header import ClientInfo

#: The maximum size of a message: as much as most hosts accept.
MAX_SIZE = 100 * 1024 * 1024
# Files have the line ends of the system; messages have CRLF.
_LINE_END = re.compile(rb"\r?\n")


def add(commands: Any) -> None:
    auth = addCommand(
        commands, "auth", "explain the SPF, DKIM and DMARC results of a message"
    )
    auth.add_argument("file", metavar="FILE", help="the message; - for standard input")
    auth.add_argument(
        "--ip", required=True, type=_ip, help="the IP address of the client"
    )
    auth.add_argument(
        "--mail-from",
        dest="sender",
        default="",
        type=_sender,
        metavar="ADDRESS",
        help="the envelope sender (default: the null sender)",
    )
    auth.add_argument(
        "--helo", default="", metavar="NAME", help="the HELO or EHLO name of the client"
    )
    auth.set_defaults(run=_auth)


async def _auth(shell: Shell, arguments: argparse.Namespace) -> int:
    """
    The exit status is 0 whatever the verdict.
    """
    message = _LINE_END.sub(b"\r\n", _read(shell, arguments.file))
    # An empty ledger in memory: any user may run this command.
    base = await shell.base(MemoryLedger())
    client = ClientInfo(arguments.ip, arguments.helo)
    shell.output.progress("looking up DNS records")
    found = await authenticate(base.checks(), client, arguments.sender, [message])
    shell.output.progressEnded()
    hostname = base.configFiles.config.hostname.ascii
    results = authenticationResults(
        hostname, found.authentication, found.verdict, arguments.sender
    ).decode()
    if arguments.json:
        shell.output.json(_asJSON(found, results))
    for line in (*found.notes, "", *results.splitlines()):
        shell.output.line(line.replace("\t", "    "))
    return 0


def _asJSON(found: AuthenticationOutcome, results: str) -> dict[str, object]:
    verdict, authentication = found.verdict, found.authentication
    discovery = verdict.discovery
    return {
        "from": [str(each) for each in found.froms],
        "iprev": str(authentication.iprev.status),
        "spf": str(authentication.spf.status),
        "helo": str(authentication.helo.status),
        "dkim": [
            {"domain": str(each.domain), "result": str(each.status)}
            for each in authentication.dkim
        ]
        + [
            {"domain": None, "result": str(AuthResult.PERMERROR)}
            for _ in authentication.unreadableDKIM
        ],
        "dmarc": str(verdict.status),
        "policy_domain": str(discovery.policyDomain) if discovery else None,
        "policy": str(verdict.policy),
        "disposition": str(verdict.disposition),
        "overrides": [str(each.kind) for each in verdict.reasons],
        "notes": found.notes,
        "authentication_results": results,
    }


def _read(shell: Shell, file: str) -> bytes:
    try:
        if file == STDIN:
            message = shell.stdin.read(MAX_SIZE + 1)
        else:
            with Path(file).open("rb") as opened:
                message = opened.read(MAX_SIZE + 1)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(f"{file}: {error}") from None
    if len(message) > MAX_SIZE:
        raise CommandError(f"{file}: larger than {MAX_SIZE} bytes")
    return message


def _ip(text: str) -> str:
    ip = parseIP(text)
    if ip is None:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not an IP address")
    return str(ip)


def _sender(text: str) -> str:
    plain = text.removeprefix("<").removesuffix(">")
    try:
        return str(Address.parse(plain)) if plain else ""
    except InvalidAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from None
