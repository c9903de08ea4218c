# -*- test-case-name: tests.cli.test_queue -*-
"""
C{moxtls queue}: what has not left yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from moxtls.cli.shell import Refusal, Shell
from moxtls.cli.times import moment
from moxtls.interfaces import IQueue

COLUMNS = (
    "ID",
    "Queued",
    "Size",
    "Sender",
    "Recipient",
    "State",
    "Attempts",
    "Next attempt",
    "Last result",
)


def add(commands: Any) -> None:
    queue = commands.add_parser("queue", help="messages that have not left yet")
    verbs = queue.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="show them")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_list)
    for name, meaning in [
        ("retry", "attempt them at once"),
        ("drop", "forget them, without a DSN"),
        ("hold", "don't attempt them until released"),
        ("release", "undo a hold"),
    ]:
        verb = verbs.add_parser(name, help=meaning)
        verb.add_argument("ids", nargs="+", metavar="ID")
        verb.set_defaults(run=_change)


async def _list(shell: Shell, arguments: argparse.Namespace) -> int:
    queue = await shell.queue()
    rows = [
        (
            message.messageID,
            moment(message.queued),
            message.size,
            message.envelope.sender or "<>",
            each.recipient,
            "held" if message.held else str(each.state),
            each.attempts,
            moment(each.nextAttempt),
            each.lastResult.text if each.lastResult else "",
        )
        for message in await queue.messages()
        for each in message.recipients
    ]
    shell.output.table(COLUMNS, rows, empty="The queue is empty.")
    return 0


async def _change(shell: Shell, arguments: argparse.Namespace) -> int:
    queue = await shell.queue()
    verbs: dict[str, Callable[[str], Deferred[bool]]] = {
        "retry": queue.retry,
        "drop": queue.drop,
        "hold": lambda each: _hold(queue, each, True),
        "release": lambda each: _hold(queue, each, False),
    }
    missing = [each for each in arguments.ids if not await verbs[arguments.verb](each)]
    if missing:
        raise Refusal(f"not in the queue: {', '.join(missing)}")
    return 0


def _hold(queue: IQueue, messageID: str, held: bool) -> Deferred[bool]:
    return queue.hold(messageID, held)
