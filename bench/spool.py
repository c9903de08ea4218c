"""
Messages queued per second, each durable as a file and in the index before the reply.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from bench.comparison import Variant, compare, sideBySide, table
from bench.settings import Effort, IReactor, main
from moxtls.queue.executor import QueueClient, ThreadedSpoolExecutor
from moxtls.queue.types import Envelope

#: Concurrent clients; a single one waits for the disk each time.
WIDTHS = (1, 20)
MESSAGES = 500
BODY = b"Subject: benchmark\r\n\r\n" + b"a line of no importance\r\n" * 80

Run = Callable[[int], Coroutine[Deferred[Any], Any, None]]


def _submitting(queue: QueueClient, width: int) -> Run:
    def once() -> Deferred[str]:
        envelope = Envelope("sender@client.example", ("to@a.example",))
        return queue.submit(envelope, [BODY])

    return lambda count: sideBySide(count, width, once)


def _writing(folder: Path) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            with (folder / secrets.token_hex(12)).open("xb") as file:
                file.write(BODY)
                file.flush()
                os.fsync(file.fileno())

    return run


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        files = Path(name) / "files"
        files.mkdir()
        spool = ThreadedSpoolExecutor(reactor, Path(name) / "spool")
        spool.open()
        queue = QueueClient(reactor, spool, lambda: secrets.token_hex(12))
        operations = effort.of(MESSAGES)
        variants = [Variant("a file and its fsync", _writing(files), operations)]
        for width in WIDTHS:
            title = f"moxtls spool, {width} at a time"
            variants.append(Variant(title, _submitting(queue, width), operations))
        comparison = await compare(
            "2 kB each", "messages", variants, (variants[0].name,), effort.rounds
        )
        print(table(comparison))
        await spool.close()


if __name__ == "__main__":
    main(benchmark)
