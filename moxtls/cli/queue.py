# -*- test-case-name: tests.cli.test_queue -*-
"""
C{moxtls queue}: lists and changes the messages in the queue.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from moxtls.cli.output import AT_ONCE
from moxtls.cli.shell import CommandError, Shell, addCommand, addGroup, moment
from moxtls.queue.types import RecipientState

if TYPE_CHECKING:
    from moxtls.interfaces import IQueue
    from moxtls.queue.types import QueuedMessage, QueuedRecipient

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
    verbs = addGroup(commands, "queue", "messages in the queue")
    listing = addCommand(verbs, "list", "list the messages")
    listing.set_defaults(run=_list)
    for name, meaning in [
        ("retry", "attempt messages at once"),
        ("drop", "remove messages, without a DSN"),
        ("hold", "don't attempt messages until they are released"),
        ("release", "end the hold of messages"),
    ]:
        verb = addCommand(verbs, name, meaning)
        which = verb.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "ids", nargs="*", default=[], metavar="ID", help='as in "queue list"'
        )
        which.add_argument("--all", action="store_true", help="all messages")
        verb.set_defaults(run=_change)


async def _list(shell: Shell, arguments: argparse.Namespace) -> int:
    listing = shell.output.listing(COLUMNS, empty="The queue is empty.")
    messages = recipients = size = 0
    async for message in _messages(await shell.queue()):
        for row in _rows(message):
            listing.add(row)
        messages += 1
        recipients += len(message.recipients)
        size += message.size
    listing.end()
    if messages:
        shell.output.line()
        shell.output.line(
            f"{_counted(messages, 'message')} to "
            f"{_counted(recipients, 'recipient')}, {_counted(size, 'byte')}"
        )
    return 0


async def _messages(queue: IQueue) -> AsyncIterator[QueuedMessage]:
    number, found = await queue.page(0, AT_ONCE)
    while found:
        for message in found:
            yield message
        number, found = await queue.page(number, AT_ONCE)


def _rows(message: QueuedMessage) -> Sequence[tuple[object, ...]]:
    return [
        (
            message.messageID,
            moment(message.queued),
            message.size,
            message.envelope.sender or "<>",
            each.recipient,
            _state(message, each),
            each.attempts,
            moment(each.nextAttempt),
            each.lastResult.text if each.lastResult else "",
        )
        for each in message.recipients
    ]


def _state(message: QueuedMessage, recipient: QueuedRecipient) -> str:
    isWaiting = recipient.state is RecipientState.WAITING
    return "held" if message.held and isWaiting else str(recipient.state)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


async def _change(shell: Shell, arguments: argparse.Namespace) -> int:
    queue = await shell.queue()
    change = _changes(queue)[arguments.verb]
    ids: list[str] = list(dict.fromkeys(arguments.ids))
    if arguments.all:
        ids = [message.messageID async for message in _messages(queue)]
    done = [each for each in ids if await change(each)]
    known = frozenset(done)
    missing = [each for each in ids if each not in known]
    if arguments.json or not missing:
        shell.output.done(_counted(len(done), "message"), done=done, missing=missing)
    if missing and not arguments.all:
        raise CommandError(f"not in the queue: {', '.join(missing)}")
    return 0


def _changes(queue: IQueue) -> dict[str, Callable[[str], Deferred[bool]]]:
    return {
        "retry": queue.retry,
        "drop": queue.drop,
        "hold": lambda each: queue.hold(each, True),
        "release": lambda each: queue.hold(each, False),
    }
