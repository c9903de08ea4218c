# -*- test-case-name: tests.cli.test_suppress -*-
"""
C{moxtls suppress}: report addresses to which no reports are sent.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from moxtls.cli.output import paged
from moxtls.cli.shell import (
    CommandError,
    Shell,
    addCommand,
    addGroup,
    durationArgument,
    moment,
)
from moxtls.queue.types import ReportKind
from moxtls.reporting.destinations import (
    MANUAL_PERIOD,
    InvalidDestination,
    canonicalURI,
)
from moxtls.reporting.types import Suppression


def add(commands: Any) -> None:
    verbs = addGroup(
        commands, "suppress", "report addresses to which no reports are sent"
    )
    listing = addCommand(verbs, "list", "list the addresses")
    listing.set_defaults(run=_list)
    for name, meaning, run in [
        ("add", "suppress an address", _add),
        ("extend", "extend a suppression, from now on", _extend),
        ("remove", "end a suppression", _remove),
    ]:
        verb = addCommand(verbs, name, meaning)
        verb.add_argument(
            "destination", metavar="URI", help="mailto: or https:, or a mail address"
        )
        verb.add_argument(
            "--kind",
            choices=[str(each) for each in ReportKind],
            help="only for reports of this kind",
        )
        if name != "remove":
            verb.add_argument(
                "--for",
                dest="period",
                type=durationArgument,
                default=MANUAL_PERIOD,
                metavar="TIME",
                help="how long, such as 90m, 12h or 31d (default: 31d)",
            )
        if name == "add":
            verb.add_argument("--comment", default="", help='shown by "suppress list"')
        verb.set_defaults(run=run)


async def _list(shell: Shell, arguments: argparse.Namespace) -> int:
    ledger = await shell.ledger()
    now = shell.now()
    columns = ("Destination", "Kind", "Until", "Active", "Failures", "Comment")
    listing = shell.output.listing(columns, empty="No address is suppressed.")
    async for each in paged(ledger.suppressions.entries):
        listing.add(
            (
                each.destination,
                str(each.kind or "all"),
                moment(each.until),
                each.until > now,
                each.failures,
                each.comment,
            )
        )
    listing.end()
    return 0


async def _add(shell: Shell, arguments: argparse.Namespace) -> int:
    now = shell.now()
    entry = Suppression(
        destination=_destination(arguments),
        kind=_kind(arguments),
        until=now + arguments.period,
        created=now,
        comment=arguments.comment,
    )
    return await _put(shell, entry)


async def _extend(shell: Shell, arguments: argparse.Namespace) -> int:
    ledger = await shell.ledger()
    entry = await ledger.suppressions.get(_destination(arguments), _kind(arguments))
    if entry is None:
        raise CommandError(f"not suppressed: {arguments.destination}")
    return await _put(shell, replace(entry, until=shell.now() + arguments.period))


async def _put(shell: Shell, entry: Suppression) -> int:
    ledger = await shell.ledger(make=True)
    await ledger.suppressions.put(entry)
    until = moment(entry.until)
    shell.output.done(
        f"{entry.destination}: no reports until {until}",
        destination=entry.destination,
        until=until,
    )
    return 0


async def _remove(shell: Shell, arguments: argparse.Namespace) -> int:
    ledger = await shell.ledger()
    destination = _destination(arguments)
    if not await ledger.suppressions.remove(destination, _kind(arguments)):
        raise CommandError(f"not suppressed: {arguments.destination}")
    shell.output.done(f"{destination}: not suppressed", destination=destination)
    return 0


def _kind(arguments: argparse.Namespace) -> ReportKind | None:
    return ReportKind(arguments.kind) if arguments.kind else None


def _destination(arguments: argparse.Namespace) -> str:
    text: str = arguments.destination
    if ":" not in text.partition("@")[0]:
        text = f"mailto:{text}"
    try:
        return canonicalURI(text)
    except InvalidDestination as error:
        raise CommandError(str(error)) from None
