"""
Messages stored in mailboxes per second, each durable before the reply.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Coroutine
from itertools import cycle
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from bench.comparison import Variant, compare, sideBySide, table
from bench.settings import Effort, IReactor, main
from moxtls.mailbox.maildir import MailStore, ProcessWriter, ThreadWriter
from moxtls.workers.process import Worker

#: Concurrent clients; a single one waits for the disk each time.
WIDTHS = (1, 20)
MESSAGES = 2000
LINE = b"a line of no importance\r\n"
SIZES = {"2 kB": 2 * 1024, "40 kB": 40 * 1024}
ACCOUNTS = tuple(f"account{number}" for number in range(20))

Run = Callable[[int], Coroutine[Deferred[Any], Any, None]]


def _message(size: int) -> bytes:
    return (b"Subject: benchmark\r\n\r\n" + LINE * (size // len(LINE) + 1))[:size]


def _storing(store: MailStore, accounts: tuple[str, ...], width: int, size: int) -> Run:
    mailboxes = cycle([store.mailboxOf(each) for each in accounts])
    message = [_message(size)]

    def once() -> Deferred[None]:
        return next(mailboxes).deliver("Inbox", message)

    return lambda count: sideBySide(count, width, once)


def _synced(path: Path, flags: int, content: bytes = b"") -> None:
    descriptor = os.open(path, flags, 0o600)
    if content:
        os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)


def _oneByOne(folder: Path, size: int) -> Run:
    for name in ("tmp", "new"):
        (folder / name).mkdir(parents=True)
    message = _message(size)

    async def run(count: int) -> None:
        for _ in range(count):
            name = secrets.token_hex(12)
            _synced(folder / "tmp" / name, os.O_WRONLY | os.O_CREAT, message)
            os.rename(folder / "tmp" / name, folder / "new" / name)
            _synced(folder / "new", os.O_RDONLY | os.O_DIRECTORY)

    return run


async def _compare(reactor: IReactor, effort: Effort, title: str, size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        root = Path(name)
        quotas = dict.fromkeys(ACCOUNTS, 0) | {"limited": 2**50}
        store = MailStore(
            reactor,
            root / "host",
            root / "accounts",
            quotas,
            "mail.example.org",
            lambda: secrets.token_hex(12),
            ProcessWriter(Worker(reactor, "mailboxes"), ThreadWriter(reactor)),
        )
        operations = effort.of(MESSAGES)
        plain = _oneByOne(root / "one", size)
        variants = [Variant("write, fsync, rename, fsync", plain, operations)]
        for width in WIDTHS:
            run = _storing(store, ACCOUNTS[:1], width, size)
            variants.append(Variant(f"one account, {width} at a time", run, operations))
        for what, accounts in (
            ("20 accounts", ACCOUNTS),
            ("one account with a quota", ("limited",)),
        ):
            run = _storing(store, accounts, max(WIDTHS), size)
            title20 = f"{what}, {max(WIDTHS)} at a time"
            variants.append(Variant(title20, run, operations))
        comparison = await compare(
            f"{title} each", "messages", variants, (variants[0].name,), effort.rounds
        )
        print(table(comparison))
        await store.stop()


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    for title, size in SIZES.items():
        await _compare(reactor, effort, title, size)


if __name__ == "__main__":
    main(benchmark)
